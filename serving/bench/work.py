"""What is asked: words of a length, conversations, documents, answers of a form, a user's own requests. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from serving.bench.lengths import Table, Tokens
from serving.errors import BadFile

_FIELDS: Final = {
    "at_s": "at_s",
    "prompt_tokens": "prompt_tokens",
    "input_length": "prompt_tokens",
    "output_tokens": "output_tokens",
    "output_length": "output_tokens",
}
"""What a line may say of itself, by either of two names, and as which; what `timestamp` says is in milliseconds."""
_ASKS: Final = ("messages", "prompt")
_OWN: Final = ("model", "stream", "stream_options")
"""Fields of a request that are the harness's to set."""
_PASSED_OVER: Final = ("hash_ids", "timestamp", "session_id", "id")
MOST_LINES: Final = 1_000_000


class Words(Table):
    """Prompts of words that mean nothing, each its own."""

    kind: Literal["words"] = "words"


class Conversation(Table):
    """People who go on: each question carries all that was said before, the real answers included."""

    kind: Literal["conversation"]
    turns: int = Field(ge=2, le=1000)
    think_s: float = Field(default=0.0, ge=0, le=3600, description="between an answer's end and the next question")


class Rag(Table):
    """Instructions that all share, passages out of a corpus, a question: what retrieval sends."""

    kind: Literal["rag"]
    instructions: Tokens = 64
    passages: int = Field(default=64, ge=1, le=100_000, description="in the corpus that they are drawn from")
    passage: Tokens = Field(default=200, description="tokens of each")
    question: Tokens = 32


class Schema(Table):
    """Answers that must keep to a JSON schema."""

    kind: Literal["schema"]
    form: dict[str, Any] = Field(
        default={
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 40},
                "age": {"type": "integer", "minimum": 0, "maximum": 120},
                "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 3},
            },
            "required": ["name", "age", "tags"],
            "additionalProperties": False,
        },
        description="the schema",
    )


class Tools(Table):
    """Answers that must be a tool call."""

    kind: Literal["tools"]
    tools: int = Field(default=8, ge=1, le=64, description="that the model is offered")


class Lines(Table):
    """A user's own requests, a JSON object on each line of a file."""

    kind: Literal["file"]
    path: str
    shuffled: bool = False


AnyWork = Annotated[Words | Conversation | Rag | Schema | Tools | Lines, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a trace, or of a user's file. None for what it does not say."""

    at_s: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the request itself: `messages` or `prompt`, and whatever goes with them."""


def read_lines(text: str, name: str) -> tuple[Line, ...]:
    """The lines of a file. Raises BadFile with the number of the first that is wrong."""
    found = []
    for number, raw in enumerate(text.splitlines(), 1):
        if not raw.strip():
            continue
        try:
            found.append(_line(json.loads(raw)))
        except (ValueError, RecursionError, TypeError) as error:
            why = "it is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            raise BadFile(f"`{name}`, line {number}: {why}", hint="see docs/bench.md for what a line has") from None
        if len(found) > MOST_LINES:
            raise BadFile(f"`{name}` has more than {MOST_LINES} lines", hint="cut it")
    if not found:
        raise BadFile(f"`{name}` has no line", hint="give it a JSON object on each line")
    return tuple(found)


def _line(value: object) -> Line:
    if not isinstance(value, dict):
        raise TypeError("it is not an object")
    told: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    for name, entry in value.items():
        if name in _FIELDS:
            told[_FIELDS[name]] = _number(name, entry, whole=name != "at_s")
        elif name == "timestamp":
            told["at_s"] = _number(name, entry, whole=False) / 1000
        elif name not in _OWN and name not in _PASSED_OVER:
            asked[name] = entry
    if sum(name in asked for name in _ASKS) > 1:
        raise ValueError("it has both `messages` and `prompt`")
    if asked and not any(name in asked for name in _ASKS):
        raise ValueError(f"it has `{next(iter(asked))}`, and neither `messages` nor `prompt`")
    return Line(**told, asked=asked)


def _number(name: str, value: object, *, whole: bool) -> Any:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < (1 if whole else 0):
        raise ValueError(f"`{name}` is {json.dumps(value)[:40]}, and must be {'1 or more' if whole else '0 or more'}")
    return value


def form_of(work: Schema | Tools) -> dict[str, Any]:
    """The fields of a request that ask for an answer of a form."""
    if isinstance(work, Schema):
        told = {"name": "answer", "schema": work.form, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": told}}
    return {"tools": [_tool(number) for number in range(work.tools)], "tool_choice": "required"}


def _tool(number: int) -> dict[str, Any]:
    properties = {
        "city": {"type": "string", "maxLength": 30, "description": "name of a city"},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    }
    told = {
        "name": f"look_up_{number}",
        "description": f"Looks up record {number} for a city over some days.",
        "parameters": {"type": "object", "properties": properties, "required": ["city", "days"],
                       "additionalProperties": False},
    }  # fmt: skip
    return {"type": "function", "function": told}


def is_of_form(text: str, required: Sequence[str] = ()) -> bool:
    """Whether a text is a JSON object that has these keys."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and all(name in value for name in required)
