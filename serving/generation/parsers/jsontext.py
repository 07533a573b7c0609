"""JSON as it is written: checked character by character, handed on as it grows, never parsed twice.

Strict, as RFC 8259 has it: no NaN, no single quotes, no trailing commas. One liberty: a control character inside a
string, which models write in code and prose, is handed on as its escape, the one thing it can mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from serving.generation.parsers.reader import SPACE, Broken, Reader, Steps

DEPTH: Final = 64
"""Deepest nesting of arguments: what a request may hold too, and what every reader of JSON can follow."""
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPE: Final = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_WORD: Final = re.compile(r"[-+.0-9A-Za-z]*")
_SCALAR: Final = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|true|false|null")

Piece = Callable[[str], object]


def value(reader: Reader, sink: Piece) -> Steps[str]:
    """Read one value; `sink` receives its text as it grows, but for the bracket that closes it, which is returned.

    Raises Broken at the first character that no JSON can have there.
    """
    closers: list[str] = []
    closing = ""
    while not closing:
        char = yield from reader.peek()
        if char in {"{", "["}:
            if not (yield from _open(reader, sink, closers)):
                continue
        elif char == '"':
            yield from string(reader, sink)
        else:
            yield from scalar(reader, sink)
        if not closers:
            break
        closing = yield from _go_on(reader, sink, closers)
    return closing


def _open(reader: Reader, sink: Piece, closers: list[str]) -> Steps[bool]:
    """Read an opening bracket, and the key after a brace. True if there is nothing in it."""
    if len(closers) == DEPTH:
        raise Broken
    bracket = reader.take(1)
    closers.append("}" if bracket == "{" else "]")
    sink(bracket)
    yield from reader.run(SPACE, sink)
    if (yield from reader.peek()) == closers[-1]:
        return True
    if bracket == "{":
        yield from _key(reader, sink)
    return False


def _go_on(reader: Reader, sink: Piece, closers: list[str]) -> Steps[str]:
    """After a value: read up to the next one, or the last closing bracket, which is returned and not handed on."""
    while True:
        yield from reader.run(SPACE, sink)
        char = yield from reader.peek()
        if char == closers[-1]:
            closers.pop()
            if not closers:
                return reader.take(1)
            sink(reader.take(1))
        elif char == ",":
            sink(reader.take(1))
            yield from reader.run(SPACE, sink)
            if closers[-1] == "}":
                yield from _key(reader, sink)
            return ""
        else:
            raise Broken


def string(reader: Reader, sink: Piece) -> Steps[None]:
    """Read one string, quotes included."""
    if (yield from reader.peek()) != '"':
        raise Broken
    sink(reader.take(1))
    while True:
        yield from reader.run(_PLAIN, sink)
        char = yield from reader.peek()
        if char == '"':
            sink(reader.take(1))
            return
        if char == "\\":
            start = yield from reader.peek(2)
            escape = (yield from reader.peek(6)) if start[1:] == "u" else start
            if _ESCAPE.fullmatch(escape) is None:
                raise Broken
            sink(reader.take(len(escape)))
        elif char:
            sink(json.dumps(reader.take(1))[1:-1])
        else:
            raise Broken


def scalar(reader: Reader, sink: Piece) -> Steps[None]:
    """Read a number, true, false or null."""
    pieces: list[str] = []
    yield from reader.run(_WORD, pieces.append)
    word = "".join(pieces)
    if _SCALAR.fullmatch(word) is None:
        raise Broken
    sink(word)


def short_string(reader: Reader, longest: int) -> Steps[str]:
    """Read one string and return what it means. Broken where its text is longer than `longest`."""
    pieces: list[str] = []
    room = longest + 2

    def sink(piece: str) -> None:
        nonlocal room
        room -= len(piece)
        if room < 0:
            raise Broken
        pieces.append(piece)

    yield from string(reader, sink)
    return unquoted("".join(pieces))


def punctuation(reader: Reader, char: str) -> Steps[None]:
    """Read `char` and the white space around it."""
    yield from reader.run(SPACE, ignore)
    if (yield from reader.peek()) != char:
        raise Broken
    reader.take(1)
    yield from reader.run(SPACE, ignore)


def ignore(_piece: str) -> None:
    """A sink for what only has to be right."""


def unquoted(text: str) -> str:
    """What a string means that `string` has read. Broken where it means no text: half of a surrogate pair."""
    meaning = str(json.loads(text))
    try:
        meaning.encode()
    except UnicodeEncodeError:
        raise Broken from None
    return meaning


def quoted(text: str) -> str:
    """`text` as JSON writes it inside a string, without the quotes; a text may be quoted piece by piece."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def checked(text: str) -> str:
    """`text`, which must be one JSON value with nothing around it. Raises Broken."""
    reader = Reader(text, ended=True)
    pieces: list[str] = []
    reading = value(reader, pieces.append)
    try:
        next(reading)
    except StopIteration as end:
        pieces.append(end.value)
    if not reader.ends_within(()):
        raise Broken
    return "".join(pieces)


def is_object(text: str) -> bool:
    """`text` is one JSON object, from its first brace to its last."""
    try:
        return text.startswith("{") and checked(text) == text
    except Broken:
        return False


def _key(reader: Reader, sink: Piece) -> Steps[None]:
    yield from string(reader, sink)
    yield from reader.run(SPACE, sink)
    if (yield from reader.peek()) != ":":
        raise Broken
    sink(reader.take(1))
    yield from reader.run(SPACE, sink)
