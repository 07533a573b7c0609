"""What the policy looks at in a request's body: which fields there are, which texts, and how hard it looks.

Bodies are those of any vendor: whatever is JSON is walked, and a name that is not known is never passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from serving.policy.model import Complexity

DEPTH: Final = 4
"""Names in a path of a field; what is deeper belongs to the fourth."""
MOST_FIELDS: Final = 4096
STRANGE: Final = "?"
"""Stands for a name that no schema has, and for all fields where there are too many: no allow-list has it."""
KNOWN_NAMES: Final = frozenset({
    "additionalProperties", "arguments", "body", "call_id", "content", "contents", "description", "dimensions",
    "documents", "encoding_format", "enum", "frequency_penalty", "function", "functionCall", "functionResponse",
    "id", "include_usage", "input", "inputSchema", "input_schema", "instructions", "items", "json_schema",
    "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "messages", "metadata", "model", "n", "name",
    "output", "parallel_tool_calls", "parameters", "parts", "presence_penalty", "prompt", "properties", "query",
    "reasoning_effort", "refusal", "required", "response_format", "role", "schema", "seed", "service_tier", "stop",
    "store", "stream", "stream_options", "strict", "suffix", "summary", "system", "temperature", "text",
    "tool_call_id", "tool_calls", "tool_choice", "tool_result", "tool_use", "tools", "top_k", "top_logprobs",
    "top_n", "top_p", "type", "user",
})  # fmt: skip
"""Names of schemas. Any other one may be a caller's, and stands in no explanation and no record."""
_MAX_DEPTH: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STRUCTURE: Final = frozenset({"role", "type", "model", "id", "tool_call_id", "tool_use_id"})
"""Names whose values are words of the protocol; between two parts of a text they would break it in two."""
_MOST_COUNT: Final = (1 << 53) - 1
"""A number beyond it, which JSON does not promise to keep, counts as this."""
_WORD_CHARS: Final = 64
"""A value of those that is longer is no word."""
_CODE: Final = re.compile(
    r"```|^[ \t]*(?:def |class |import |#include|public |func |fn |SELECT )|[;{}][ \t]*$", re.MULTILINE
)


def fields_of(body: object) -> frozenset[str]:
    """The paths of all values, such as `messages.content`, at most four names deep; positions in lists are left out."""
    found: set[str] = set()
    waiting: list[tuple[object, tuple[str, ...]]] = [(body, ())]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, dict) and value and len(path) < DEPTH:
            waiting += [(below, (*path, _name(key))) for key, below in value.items()]
        elif isinstance(value, list) and value and len(path) < DEPTH:
            waiting += [(below, path) for below in value]
        else:
            found.add(".".join(path) or STRANGE)
            if len(found) > MOST_FIELDS:
                return frozenset({STRANGE})
    return frozenset(found)


def without_names(paths: frozenset[str], known: frozenset[str]) -> frozenset[str]:
    """Paths of fields, blanking every name that neither schemas nor `known` have: a caller may have made it."""
    names = KNOWN_NAMES | known
    return frozenset(".".join(each if each in names else STRANGE for each in path.split(".")) for path in paths)


def texts_of(body: object) -> tuple[str, ...] | None:
    """All texts in order, names of a table that are long enough to be one too; None where it is nested too deeply.

    A text that is JSON itself, as the arguments of tools are, is followed by the texts that it holds.
    """
    try:
        return tuple(_texts(body, 0))
    except RecursionError:
        return None


def complexity_of(body: object) -> Complexity:
    """How hard a request looks. Whatever cannot be read adds nothing."""
    if not isinstance(body, dict):
        return Complexity()
    texts = [text for key in ("messages", "prompt", "input", "documents", "query") for text in _strings(body.get(key))]
    form = body.get("response_format")
    return Complexity(
        chars=sum(map(len, texts)),
        turns=_length(body.get("messages")),
        tools=_length(body.get("tools")),
        asked_tokens=max(_count(body.get("max_completion_tokens")), _count(body.get("max_tokens"))),
        code=any(_CODE.search(text) for text in texts),
        schema=isinstance(form, dict) and form.get("type") == "json_schema",
    )


def _texts(value: object, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise RecursionError
    if isinstance(value, str):
        yield value
        inner = _json(value)
        if inner is not None:
            yield from _texts(inner, depth + 1)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, depth + 1)
    elif isinstance(value, dict):
        for key, below in value.items():
            if len(key) > _WORD_CHARS:
                yield key
            if not (key in _STRUCTURE and isinstance(below, str) and len(below) <= _WORD_CHARS):
                yield from _texts(below, depth + 1)


def _json(text: str) -> Any:
    """The list or table that a text is; None for all others."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _strings(value: object) -> tuple[str, ...]:
    return texts_of(value) or ()


def _name(key: object) -> str:
    return key if isinstance(key, str) and _NAME.fullmatch(key) else STRANGE


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def _count(value: object) -> int:
    return min(value, _MOST_COUNT) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
