"""A request's body as the texts in it: everything that would be serialised, with where it stands.

Chat, completions, responses, embeddings and rerank are walked the same way, so that a field nobody thought of is read
as well: texts, numbers, keys of objects that OpenAI's schema does not name, and JSON inside strings (tool arguments and
results), once as text and once parsed. What is no text makes a part that is `unread`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from serving.policy.detect.finding import Part

_WRITTEN: Final = frozenset({
    "text", "input_text", "output_text", "refusal", "reasoning_text", "summary_text", "message", "function",
    "function_call", "function_call_output", "reasoning", "custom", "custom_tool_call", "custom_tool_call_output",
})  # fmt: skip
"""Values of `type` in content and input whose members are all text."""
_ELSEWHERE: Final = frozenset({
    "previous_response_id", "conversation", "prompt_id", "file_id", "file_ids", "vector_store_ids", "image_url",
    "input_audio", "file_data", "file_url", "image", "audio", "item_reference", "container",
})  # fmt: skip
"""Members that name or hold something that is not read here."""
_PROTOCOL: Final = frozenset({
    "messages", "role", "content", "type", "text", "model", "name", "tools", "tool_calls", "tool_call_id", "function",
    "arguments", "parameters", "description", "properties", "required", "items", "stream", "stream_options",
    "include_usage", "temperature", "top_p", "top_k", "n", "stop", "max_tokens", "max_completion_tokens", "input",
    "prompt", "metadata", "user", "id", "call_id", "output", "instructions", "response_format", "json_schema", "schema",
    "strict", "seed", "tool_choice", "parallel_tool_calls", "query", "documents", "top_n", "suffix", "logit_bias",
    "additionalProperties", "enum", "logprobs", "top_logprobs", "encoding_format", "dimensions", "status", "summary",
})  # fmt: skip
"""Keys that say nothing of anybody. All others are read."""
_CONTENTS: Final = frozenset({"content", "input", "output", "messages"})
_TOKENS: Final = frozenset({"prompt", "input"})
_MOST_DEPTH: Final = 256
_MOST_JSON_DEPTH: Final = 2
"""JSON in a string in JSON in a string; what is deeper is read as text."""
_TYPE_CHARS: Final = 32


_Entry = tuple[object, str, str, int, int]
"""A value, its place, the key it stands under, how deep it is, and in how many strings of JSON."""


def parts_of(body: Mapping[str, object]) -> tuple[Part, ...]:
    """The texts of a parsed body, in its order.

    Never raises, whatever is in the body. A place that ends in `#` is the name of a member; one with `#/` in it is
    inside a string that is JSON. What is deeper than 256 levels is `unread`, as is what is no JSON at all.
    """
    return tuple(_walk(body))


def _walk(body: object) -> Iterator[Part]:
    """Depth first, with a stack in place of recursion."""
    stack: list[_Entry] = [(body, "", "", 0, 0)]
    while stack:
        value, where, key, depth, inside = stack.pop()
        if isinstance(value, Part):
            yield value
        elif isinstance(value, str):
            yield Part(where, value)
            parsed = _parsed(value) if inside < _MOST_JSON_DEPTH else None
            if parsed is not None:
                stack.append((parsed, where + "#", "", depth + 1, inside + 1))
        elif isinstance(value, bool) or value is None:
            continue
        elif isinstance(value, int | float):
            yield Part(where, _written(value))
        elif depth >= _MOST_DEPTH:
            yield Part(where, "", "too_deep")
        elif isinstance(value, Mapping):
            stack.extend(reversed(list(_members(value, (value, where, key, depth, inside)))))
        elif isinstance(value, list | tuple):
            stack.extend(reversed(list(_items(value, (value, where, key, depth, inside)))))
        else:
            yield Part(where, "", "not_json")


def _items(value: Sequence[object], entry: _Entry) -> Iterator[_Entry]:
    _, where, key, depth, inside = entry
    if key in _TOKENS and value and all(isinstance(item, int) and not isinstance(item, bool) for item in value):
        yield Part(where, "", "token_ids"), where, "", depth, inside
    else:
        yield from ((item, f"{where}/{index}", key, depth + 1, inside) for index, item in enumerate(value))


def _members(value: Mapping[object, object], entry: _Entry) -> Iterator[_Entry]:
    _, where, held_by, depth, inside = entry
    is_outside = (
        inside == 0 and held_by != "properties"
    )  # a schema's names, and JSON that is read as text, hold no files
    kind = value.get("type")
    if is_outside and held_by in _CONTENTS and kind is not None and not (isinstance(kind, str) and kind in _WRITTEN):
        yield Part(where, "", _code(kind)), where, "", depth, inside
    for name, member in value.items():
        key = str(name)
        pointer = f"{where}/{key.replace('~', '~0').replace('/', '~1')}"
        if is_outside and key in _ELSEWHERE and member and not _is_word(member):
            yield Part(pointer, "", _code(key)), pointer, "", depth, inside
            if isinstance(member, str):
                continue
        elif key not in _PROTOCOL:
            yield Part(pointer + "#", key), pointer, "", depth, inside
        yield member, pointer, "" if held_by == "properties" else key, depth + 1, inside


def _is_word(member: object) -> bool:
    """Such as a tool result's own member `"image": "none"`, which is read like any text."""
    return isinstance(member, str) and len(member) < 12 and member.isalpha()


def _parsed(text: str) -> object:
    """An object or an array that the text is; None if it is none, or says in its text all that it says.

    Without a backslash nothing in it is written otherwise than it reads.
    """
    if "\\" not in text or text.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _written(value: float) -> str:
    """As it is serialised; integers too long for Python to write are hexadecimal, and unread nowhere."""
    try:
        return repr(value)
    except ValueError:
        return hex(int(value))


def _code(kind: object) -> str:
    """A word of a request, short and plain enough for a reason."""
    word = kind if isinstance(kind, str) else type(kind).__name__
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_.") else "_" for letter in word[:_TYPE_CHARS]
    )
