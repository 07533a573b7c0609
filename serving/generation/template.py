"""Chat templates: Jinja that came with somebody's weights, so run as hostile code.

The immutable sandbox refuses attribute tricks and mutation; output is counted as it is produced, and the thread that
renders can be interrupted (`thread.TextThread`). A client's content cannot speak as the template: text in it that
spells a control token is marked, and tokenised as the plain characters that it is.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from serving.errors import InvalidRequest

_OUTPUT_FACTOR = 16
_OUTPUT_BASE = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a prompt; `is_plain` means that control tokens spelled in it are only text."""

    text: str
    is_plain: bool


class ChatTemplate:
    """One compiled template. Used by one thread at a time."""

    def __init__(self, source: str, *, bos: str, eos: str, control_texts: Sequence[str]) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[jinja2.ext.loopcontrols, _Generation],
            autoescape=False,
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = time.strftime
        self._template = environment.from_string(source)
        self._globals = {"bos_token": bos, "eos_token": eos}
        spelled = sorted(control_texts, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, spelled))) if spelled else None

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] = (),
        *,
        add_generation_prompt: bool = True,
    ) -> list[Piece]:
        """The prompt in pieces. Raises InvalidRequest where the template refuses the conversation."""
        mark = f"\x00{secrets.token_hex(8)}\x00"
        limit = _OUTPUT_BASE + _OUTPUT_FACTOR * sum(len(str(message.get("content"))) for message in messages)
        parts: list[str] = []
        size = 0
        try:
            arguments = {
                **self._globals,
                "messages": self._guard(messages, mark),
                "tools": self._guard(tools, mark) if tools else None,
                "add_generation_prompt": add_generation_prompt,
            }
            for part in self._template.generate(arguments):
                size += len(part)
                if size > limit:
                    raise InvalidRequest("the chat template produced more text than it may", param="messages")
                parts.append(part)
        except jinja2.exceptions.TemplateError as error:
            raise InvalidRequest(
                f"the model's chat template does not accept this conversation: {error.message or type(error).__name__}",
                param="messages",
                hint="many templates want user and assistant turns to alternate",
            ) from error
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise InvalidRequest(
                f"the model's chat template failed on this conversation ({type(error).__name__})", param="messages"
            ) from error
        # the mark is random, so every second stretch between marks is what `_guard` put there
        stretches = "".join(parts).split(mark)
        return [Piece(stretch, is_plain=bool(index % 2)) for index, stretch in enumerate(stretches) if stretch]

    def _guard(self, value: object, mark: str) -> object:
        """The value with every control token that is spelled in its strings set between marks."""
        if isinstance(value, str):
            return value if self._control is None else self._control.sub(lambda found: mark + found[0] + mark, value)
        if isinstance(value, Mapping):
            return {key: self._guard(item, mark) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._guard(item, mark) for item in value]
        return value


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`: where Transformers' trainers find what the model itself wrote; for serving, its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The statements inside, as if the tags were not there."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - templates may give them in Transformers' order
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """As Transformers defines it: not escaped for HTML, non-ASCII kept."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
