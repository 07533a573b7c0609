"""What a model's raw text means: content, reasoning and tool calls, streamed or whole.

`AnswerParser` takes the text of one answer in pieces and returns deltas; `fold` of all of them is the answer that is
not streamed, so the two cannot differ. Nothing in a delta can be contradicted by later text, and no text is lost: what
only looked like a call is content.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Final

from serving.errors import UnsupportedFeature
from serving.generation.parsers import json_forms
from serving.generation.parsers.deltas import (
    Answer,
    CallArguments,
    CallStart,
    Content,
    Delta,
    Reasoning,
    Sink,
    fold,
)
from serving.generation.parsers.form import Form, read_calls
from serving.generation.parsers.reader import Reader, Steps
from serving.generation.parsers.reasoning import REASONING, Thinking, read_reasoning
from serving.generation.parsers.tools import offered
from serving.generation.parsers.xml_form import QWEN3_CODER
from serving.openai.responses import new_id

__all__ = [
    "KNOWN_REASONING_PARSERS",
    "KNOWN_TOOL_PARSERS",
    "Answer",
    "AnswerParser",
    "CallArguments",
    "CallStart",
    "Content",
    "Delta",
    "Reasoning",
    "fold",
    "special_texts",
]

TOOL_FORMS: Final[Mapping[str, Form]] = {
    "deepseek_v3": json_forms.DEEPSEEK_V3,
    "deepseek_v31": json_forms.DEEPSEEK_V31,
    "granite": json_forms.GRANITE,
    "granite4": json_forms.HERMES,
    "hermes": json_forms.HERMES,
    "kimi_k2": json_forms.KIMI_K2,
    "llama3_json": json_forms.LLAMA3_JSON,
    "llama4_json": json_forms.LLAMA3_JSON,
    "mistral": json_forms.MISTRAL,
    "qwen3_coder": QWEN3_CODER,
    "qwen3_json": json_forms.HERMES,
    "qwen3_xml": QWEN3_CODER,
}
"""By vLLM's names."""
KNOWN_TOOL_PARSERS: Final = frozenset(TOOL_FORMS)
KNOWN_REASONING_PARSERS: Final = frozenset(REASONING)
_ALPHANUMERIC: Final = string.ascii_letters + string.digits


class AnswerParser:
    """Reads one answer.

    `tools` are OpenAI's, as they were offered; where there are none no text is a call. `starts_in_reasoning` says that
    the prompt ended with an opened reasoning. Raises UnsupportedFeature for a parser that is not known.
    """

    __slots__ = ("_reader", "_reading", "_sink", "special_texts")

    def __init__(
        self,
        tool_parser: str | None,
        reasoning_parser: str | None,
        *,
        tools: Sequence[Mapping[str, object]],
        starts_in_reasoning: bool = False,
        new_call_id: Callable[[], str] | None = None,
    ) -> None:
        self.special_texts = special_texts(tool_parser, reasoning_parser)
        """Control tokens that must be rendered as text for this parser, where the vocabulary has them."""
        form = form_of(tool_parser) if tools else None
        make_id = mistral_call_id if tool_parser == "mistral" else lambda: new_id("call")
        self._reader = Reader()
        self._sink = Sink(new_call_id or make_id)
        self._reading: Generator[None, None, None] | None = _read(
            form,
            thinking_of(reasoning_parser),
            self._reader,
            self._sink,
            offered(tools),
            inside=starts_in_reasoning,
        )
        self._step()

    @property
    def whole_calls(self) -> int:
        """Calls that were read to their end: with any of them, an answer that was not cut ends in `tool_calls`."""
        return self._sink.whole_calls

    def push(self, text: str) -> list[Delta]:
        """What more text makes certain; often nothing, while it may be the beginning of a tag."""
        if text:
            self._reader.feed(text)
            self._step()
        return self._sink.drain()

    def finish(self) -> list[Delta]:
        """What was still held back, at the end of the answer or where it was cut."""
        self._reader.ended = True
        self._step()
        return self._sink.drain()

    def _step(self) -> None:
        if self._reading is not None:
            try:
                next(self._reading)
            except StopIteration:
                self._reading = None


def special_texts(tool_parser: str | None, reasoning_parser: str | None) -> tuple[str, ...]:
    """The texts of control tokens that mean something to these parsers, whether or not a vocabulary has them."""
    form, thinking = form_of(tool_parser), thinking_of(reasoning_parser)
    of_thinking = (*thinking.starts, *thinking.ends) if thinking else ()
    return (*(form.special_texts if form else ()), *of_thinking)


def form_of(tool_parser: str | None) -> Form | None:
    """The format of that name. Raises UnsupportedFeature."""
    if tool_parser is None:
        return None
    if tool_parser not in TOOL_FORMS:
        raise UnsupportedFeature(
            f"the tool parser `{tool_parser}` is not known to this engine",
            hint=f"known are {', '.join(sorted(KNOWN_TOOL_PARSERS))}",
        )
    return TOOL_FORMS[tool_parser]


def thinking_of(reasoning_parser: str | None) -> Thinking | None:
    """The reasoning of that name. Raises UnsupportedFeature."""
    if reasoning_parser is None:
        return None
    if reasoning_parser not in REASONING:
        raise UnsupportedFeature(
            f"the reasoning parser `{reasoning_parser}` is not known to this engine",
            hint=f"known are {', '.join(sorted(KNOWN_REASONING_PARSERS))}",
        )
    return REASONING[reasoning_parser]


def mistral_call_id() -> str:
    """An id as Mistral's chat templates demand it back: nine letters and digits."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


def _read(
    form: Form | None,
    thinking: Thinking | None,
    reader: Reader,
    sink: Sink,
    tools: Mapping[str, Mapping[str, object]],
    *,
    inside: bool,
) -> Steps[None]:
    if thinking is not None:
        yield from read_reasoning(thinking, reader, sink, inside=inside)
    if form is not None:
        yield from read_calls(form, reader, sink, tools)
        return
    while (yield from reader.peek()):
        sink.content(reader.take_all())
