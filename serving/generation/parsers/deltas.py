"""What an answer is made of: text, reasoning and tool calls, as they grow, and whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeAlias

from serving.generation.parsers.jsontext import is_object
from serving.openai.messages import ToolCall


@dataclass(frozen=True, slots=True)
class Content:
    """More text for the reader."""

    text: str

    def __repr__(self) -> str:
        return f"Content(chars={len(self.text)})"


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of the model's thinking before its answer."""

    text: str

    def __repr__(self) -> str:
        return f"Reasoning(chars={len(self.text)})"


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call of an offered tool has begun; `index` counts the calls of one answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More JSON text of a call's arguments.

    The brace that closes them comes only with a call that is whole, so the arguments of a call that was cut or went
    wrong are never an object that could be acted on.
    """

    index: int
    text: str

    def __repr__(self) -> str:
        return f"CallArguments(index={self.index}, chars={len(self.text)})"


Delta: TypeAlias = Content | Reasoning | CallStart | CallArguments


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: what a response that is not streamed carries."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    """The calls that are whole; the text of the others is in `content`."""

    def __repr__(self) -> str:
        sizes = f"content={len(self.content)}, reasoning={len(self.reasoning)}"
        return f"Answer({sizes}, tool_calls={len(self.tool_calls)})"


def fold(deltas: Iterable[Delta]) -> Answer:
    """The answer that a stream of deltas adds up to."""
    content: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, tuple[CallStart, list[str]]] = {}
    for delta in deltas:
        match delta:
            case Content(text):
                content.append(text)
            case Reasoning(text):
                reasoning.append(text)
            case CallStart(index):
                calls[index] = (delta, [])
            case CallArguments(index, text):
                calls[index][1].append(text)
    written = ((start, "".join(pieces)) for start, pieces in calls.values())
    whole = tuple(ToolCall(start.id, start.name, arguments) for start, arguments in written if is_object(arguments))
    return Answer("".join(content), "".join(reasoning), whole)


class Sink:
    """Where a parser writes; neighbours of one kind become one delta."""

    __slots__ = ("_new_id", "_started", "_written", "whole_calls")

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._written: list[Delta] = []
        self._new_id = new_id
        self._started = 0
        self.whole_calls = 0

    def content(self, text: str) -> None:
        """Add text for the reader."""
        self._written.append(Content(text))

    def reasoning(self, text: str) -> None:
        """Add thinking."""
        self._written.append(Reasoning(text))

    def start(self, name: str) -> int:
        """Begin a call; returns its index."""
        index = self._started
        self._started += 1
        self._written.append(CallStart(index, self._new_id(), name))
        return index

    def arguments(self, index: int, text: str) -> None:
        """Add JSON text of a call's arguments."""
        self._written.append(CallArguments(index, text))

    def finish(self, index: int, closing: str) -> None:
        """End a call that is whole, with the brace that was held back for it."""
        self.arguments(index, closing)
        self.whole_calls += 1

    def drain(self) -> list[Delta]:
        """What was written since the last time; nothing in it is empty."""
        written, self._written = self._written, []
        drained: list[Delta] = []
        for _, run in groupby(written, _kind):
            first, *more = run
            if isinstance(first, CallStart):
                drained.append(first)
                continue
            text = first.text + "".join(delta.text for delta in more if not isinstance(delta, CallStart))
            if text:
                drained.append(replace(first, text=text))
        return drained


def _kind(delta: Delta) -> tuple[type[Delta], int]:
    return type(delta), delta.index if isinstance(delta, CallStart | CallArguments) else 0
