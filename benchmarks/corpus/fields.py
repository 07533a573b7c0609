"""A record of fields, and the messages of a request that carry one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record."""

    title: str
    """As people read it, in the row's language."""
    key: str
    """As programs name it."""
    value: str


Fields = Sequence[Field]
Carrier = Callable[[Random, Fields], "str | dict[str, Any]"]


def as_object(fields: Fields) -> dict[str, str]:
    """By the names that programs give them."""
    return {field.key: field.value for field in fields}


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON as most programs write it for people: what is not ASCII stays."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def chat(*messages: dict[str, Any], **others: Any) -> dict[str, Any]:
    """A body for chat completions."""
    return {"model": "default", "messages": list(messages), **others}


def called(name: str, arguments: str, call: str = "call_1") -> dict[str, Any]:
    """An assistant's message that calls a tool."""
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": call, "type": "function", "function": function}]}
