"""How a format writes its calls into text, and the reading that all formats share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from serving.generation.parsers import jsontext
from serving.generation.parsers.deltas import Sink
from serving.generation.parsers.reader import SPACE, Broken, Reader, Steps

Tools: TypeAlias = Mapping[str, Mapping[str, object]]
"""The schema of each offered tool's parameters, by its name."""

NAME_CHARS: Final = 64
"""Longest name of a tool, as in OpenAI's schema."""
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Form:
    """One format of tool calls.

    A call is what `call` reads after an opener. Between and after calls white space and `closers` mean nothing.
    """

    openers: tuple[str, ...]
    """Texts that begin a call, or a block of calls."""
    call: Callable[[Reader, Sink, Tools], Steps[None]]
    """Reads one call. Raises Broken for what is none; says `Sink.finish` once when it is whole."""
    closers: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    """Texts between an opener and its call that mean nothing, such as the bracket of an array."""
    head: str = ""
    """How a call goes on after an opener and `inner`: the next call of a block needs no opener before it."""
    bare: bool = False
    """An answer may be a call from its first character on, without an opener."""
    special_texts: tuple[str, ...] = ()
    """Control tokens of this format, which must reach the parser as text."""


def read_calls(form: Form, reader: Reader, sink: Sink, tools: Tools) -> Steps[None]:
    """Read an answer, or what comes after its reasoning, to its end.

    White space before a first call, and what stands between calls, is no content; all other text is.
    """
    place: Literal["start", "text", "call"] = "start"
    while True:
        reader.keep()
        what = yield from _what_comes(form, reader, place)
        if what == "call":
            try:
                yield from form.call(reader, sink, tools)
            except Broken:
                sink.content(reader.kept())
            else:
                place = "call"
                continue
        elif what == "end":
            return
        else:
            sink.content(reader.kept())
        place = "text"
        if (yield from reader.pass_until(form.openers, sink.content)) is None:
            return


def _what_comes(form: Form, reader: Reader, place: str) -> Steps[Literal["call", "end", "text"]]:
    """Read up to where a call must begin, or to where it is sure that none does."""
    between = form.closers if place == "call" else form.inner if form.bare and place == "start" else ()
    in_block = place == "call" or (place == "start" and form.bare)
    while place != "text":
        yield from reader.run(SPACE, jsontext.ignore)
        text = yield from reader.next_of((*between, *form.openers))
        if text is None or text in form.openers:
            break
        reader.take(len(text))
        # These keep a block of calls open, and may yet belong to a sentence; a tag or bracket that closes does neither.
        if text not in {",", ";", "["}:
            in_block = False
            reader.keep()
    opener = yield from reader.next_of(form.openers)
    if opener is None:
        if place == "call" and reader.ends_within(form.closers):
            return "end"
        return "call" if in_block and form.head and (yield from reader.next_of((form.head,))) else "text"
    while opener is not None and opener != form.head:
        reader.take(len(opener))
        yield from reader.run(SPACE, jsontext.ignore)
        opener = yield from reader.next_of((*form.inner, *form.openers))
    return "call"


def read_name(reader: Reader) -> Steps[str]:
    """Read the characters that a tool's name may have."""
    pieces: list[str] = []
    room = NAME_CHARS

    def sink(piece: str) -> None:
        nonlocal room
        room -= len(piece)
        if room < 0:
            raise Broken
        pieces.append(piece)

    yield from reader.run(_NAME, sink)
    return "".join(pieces)


def expect(reader: Reader, *texts: str) -> Steps[str]:
    """Read the one of `texts` that comes next. Broken where none does."""
    text = yield from reader.next_of(texts)
    if text is None:
        raise Broken
    return reader.take(len(text))


def read_arguments(reader: Reader, piece: jsontext.Piece) -> Steps[str]:
    """Read the arguments of a call: an object, the text of one in a string, or null for none.

    Returns the brace that closes them, which `piece` did not receive.
    """
    char = yield from reader.peek()
    if char == "{":
        return (yield from jsontext.value(reader, piece))
    if char == '"':
        quoted: list[str] = []
        yield from jsontext.string(reader, quoted.append)
        text = jsontext.unquoted("".join(quoted)).strip()
        if not text.startswith("{"):
            raise Broken
        piece(jsontext.checked(text)[:-1])
        return "}"
    word: list[str] = []
    yield from jsontext.scalar(reader, word.append)
    if word != ["null"]:
        raise Broken
    piece("{")
    return "}"


class Call:
    """A call that is being read: it starts with the first text of its arguments."""

    __slots__ = ("_index", "_name", "_sink")

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink = sink
        self._name = name
        self._index: int | None = None

    def arguments(self, text: str) -> None:
        """More of the arguments."""
        if self._index is None:
            self._index = self._sink.start(self._name)
        self._sink.arguments(self._index, text)

    def finish(self, closing: str) -> None:
        """The call is whole."""
        if self._index is None:
            self._index = self._sink.start(self._name)
        self._sink.finish(self._index, closing)


def read_named(reader: Reader, sink: Sink, tools: Tools, name: str) -> Steps[None]:
    """Read the arguments of a call whose name came before them; it is whole with their last brace."""
    if name not in tools:
        raise Broken
    call = Call(sink, name)
    yield from reader.run(SPACE, jsontext.ignore)
    call.finish((yield from read_arguments(reader, call.arguments)))
