"""A chat's messages as turns, for the APIs that know two speakers and a preamble.

Texts keep their order and their borders. What follows one another from the same speaker is one turn, since these APIs
join such messages or refuse them; results of tools open the turn of the user who brings
them, in the order of their calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Final, Literal, NoReturn, cast

from serving.egress.vendors.events import parts, text
from serving.egress.vendors.fields import Fields, unsupported
from serving.errors import InvalidRequest
from serving.openai.rules import wrong_type
from serving.openai.strict import parse_text

_PREAMBLE: Final = frozenset({"system", "developer"})


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the assistant made."""

    id: str
    name: str
    arguments: dict[str, object]
    path: str
    """Where it stands in the request, for errors."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a call gave."""

    call: Call
    texts: tuple[str, ...]


@dataclass(slots=True)
class Turn:
    """What one speaker said before the other one did."""

    role: Literal["user", "assistant", "system"]
    path: str
    """The first of its messages, for errors."""
    texts: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is said before all turns, and the turns."""

    system: tuple[str, ...]
    turns: tuple[Turn, ...]


def conversation(destination: str, messages: list[object]) -> Conversation:
    """The turns of a chat.

    Raises UnsupportedByDestination for names of participants, images and the like, arguments that are no object, and
    a conversation that the assistant begins or ends; InvalidRequest where calls and results do not belong together.
    """
    check_pairs(messages)
    reading = _Reading(destination)
    for index, message in enumerate(messages):
        reading.add(message, f"messages.{index}")
    return reading.end()


def _place(places: dict[str, int], result: Result) -> int:
    return places[result.call.id]


def check_pairs(messages: list[object]) -> None:
    """Raise InvalidRequest unless every call has its result before anybody says more, and every result its call.

    All of these APIs refuse it otherwise, when the conversation has left already.
    """
    waiting: dict[str, str] = {}
    for index, message in enumerate(messages):
        path = f"messages.{index}"
        if not isinstance(message, dict):
            wrong_type(path, message, "an object")
        if message.get("role") == "tool":
            where = f"{path}.tool_call_id"
            if waiting.pop(text(message, "tool_call_id"), None) is None:
                raise InvalidRequest(f"`{where}` answers no open call of the turn before it", param=where)
            continue
        _none_waiting(waiting, path)
        for number, call in enumerate(parts(message, "tool_calls")):
            where = f"{path}.tool_calls.{number}"
            call_id = text(call, "id")
            if call_id in waiting:
                raise InvalidRequest(f"`{where}.id` is the id of another call as well", param=f"{where}.id")
            waiting[call_id] = where
    _none_waiting(waiting, "the end")


def _none_waiting(waiting: dict[str, str], before: str) -> None:
    for where in waiting.values():
        raise InvalidRequest(f"`{where}` has no result before `{before}`", param=where)


class _Reading:
    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._system: list[str] = []
        self._turns: list[Turn] = []
        self._calls: dict[str, Call] = {}
        """The calls so far, by their ids."""

    def add(self, message: object, path: str) -> None:
        if not isinstance(message, dict):
            wrong_type(path, message, "an object")
        fields = Fields(self._destination, message, path)
        role = fields.text("role")
        if "name" in message:
            fields.neutral("name", why="it knows no names of participants")
        if role == "tool":
            self._result(fields, path)
        elif role in _PREAMBLE:
            self._preamble(self._texts(fields.take("content"), fields.at("content")), path)
        elif role == "user":
            self._said("user", path).texts += self._some(fields.take("content"), fields.at("content"))
        elif role == "assistant":
            self._assistant(fields, path)
        else:
            fields.refuse("role", "it has no such role")
        fields.end()

    def end(self) -> Conversation:
        turns = self._turns
        if not turns or turns[0].role != "user":
            where = f"{turns[0].path}.role" if turns else "messages"
            unsupported(self._destination, where, "a conversation begins with the user's turn")
        if turns[-1].role == "assistant":
            unsupported(self._destination, f"{turns[-1].path}.role", "the last turn must not be the assistant's")
        for before, turn in pairwise(turns):
            places = {call.id: place for place, call in enumerate(before.calls)}
            turn.results = sorted(turn.results, key=partial(_place, places))
        return Conversation(tuple(self._system), tuple(turns))

    def _said(self, role: Literal["user", "assistant", "system"], path: str) -> Turn:
        """The turn that a message of this speaker belongs to."""
        if not self._turns or self._turns[-1].role != role:
            self._turns.append(Turn(role, path))
        return self._turns[-1]

    def _preamble(self, texts: list[str], path: str) -> None:
        if not texts:
            self._empty(f"{path}.content")
        if not self._turns:
            self._system += texts
            return
        self._said("system", path).texts += texts

    def _assistant(self, fields: Fields, path: str) -> None:
        texts = self._texts(fields.take("content"), fields.at("content"))
        refusal = fields.text("refusal")
        if refusal:
            texts.append(refusal)
        given, where = fields.array("tool_calls"), fields.at("tool_calls")
        calls = [self._call(call, f"{where}.{index}") for index, call in enumerate(given)]
        if calls:  # models put a line end before a call, which says nothing, and which these APIs refuse
            texts = [one for one in texts if one.strip()]
        elif not texts:
            self._empty(f"{path}.content")
        turn = self._said("assistant", path)
        turn.texts += texts
        turn.calls += calls
        self._calls |= {call.id: call for call in calls}

    def _call(self, call: object, path: str) -> Call:
        if not isinstance(call, dict):
            wrong_type(path, call, "an object")
        fields = Fields(self._destination, call, path)
        if fields.text("type") != "function":
            fields.refuse("type", "it knows calls of functions only")
        call_id = fields.text("id") or ""
        function = Fields(self._destination, fields.mapping("function") or {}, fields.at("function"))
        name, arguments = function.text("name") or "", function.text("arguments") or ""
        function.end()
        fields.end()
        return Call(call_id, name, self._arguments(arguments, function.at("arguments")), path)

    def _arguments(self, written: str, path: str) -> dict[str, object]:
        try:
            value = parse_text(written) if written.strip() else {}
        except InvalidRequest:
            value = None
        if not isinstance(value, dict):
            unsupported(self._destination, path, "arguments must be a JSON object")
        return cast("dict[str, object]", value)

    def _result(self, fields: Fields, path: str) -> None:
        call = self._calls[fields.text("tool_call_id") or ""]
        texts = self._texts(fields.take("content"), fields.at("content"))
        self._said("user", path).results.append(Result(call, tuple(texts)))

    def _some(self, content: object, path: str) -> list[str]:
        texts = self._texts(content, path)
        if not texts:
            self._empty(path)
        return texts

    def _empty(self, path: str) -> NoReturn:
        unsupported(self._destination, path, "it takes no empty message")

    def _texts(self, content: object, path: str) -> list[str]:
        """The texts of a message, without empty ones."""
        return [one for one in text_parts(self._destination, content, path) if one]


def text_parts(destination: str, content: object, path: str) -> list[str]:
    """The texts of a message's content; images, sound and files are refused: nobody here could read what they show."""
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        wrong_type(path, content, "a string or an array")
    texts = []
    for index, part in enumerate(content):
        where = f"{path}.{index}"
        if not isinstance(part, dict):
            wrong_type(where, part, "an object")
        fields = Fields(destination, part, where)
        kind = fields.text("type")
        if kind not in {"text", "refusal"}:
            fields.refuse("type", "only text goes there")
        texts.append(fields.text(kind) or "")
        fields.end()
    return texts
