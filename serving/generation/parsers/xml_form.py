"""The format of Qwen3-Coder: parameters as elements, typed by the tool's schema.

    <tool_call>
    <function=write_file>
    <parameter=path>
    notes.txt
    </parameter>
    </function>
    </tool_call>

The format has no escapes. A value ends at its closing tag; or, since models forget that tag, where another declared
parameter of the tool begins that has no value yet, or where the function and the call end together.
"""

from __future__ import annotations

import re
from typing import Final

from serving.generation.parsers import jsontext
from serving.generation.parsers.deltas import Sink
from serving.generation.parsers.form import Call, Form, Tools, expect, read_name
from serving.generation.parsers.reader import SPACE, Broken, Reader, Steps
from serving.generation.parsers.tools import properties, types_of

_FUNCTION: Final = "<function="
_FUNCTION_END: Final = "</function>"
_PARAMETER: Final = "<parameter="
_PARAMETER_END: Final = "</parameter>"
_ALL_END: Final = "</function>\n</tool_call>"
_KEY: Final = re.compile(r"[^<>\n]*")
_KEY_CHARS: Final = 256
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*+)")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?")
_BOOLEANS: Final = {"true": "true", "false": "false", "1": "true", "0": "false"}


def read_function(reader: Reader, sink: Sink, tools: Tools) -> Steps[None]:
    """Read one function element; the call is whole with its closing tag."""
    yield from expect(reader, _FUNCTION)
    name = yield from read_name(reader)
    yield from expect(reader, ">")
    if name not in tools:
        raise Broken
    declared = properties(tools[name])
    call = Call(sink, name)
    given: set[str] = set()
    call.arguments("{")
    while True:
        yield from reader.run(SPACE, jsontext.ignore)
        if (yield from expect(reader, _PARAMETER, _FUNCTION_END)) == _FUNCTION_END:
            break
        key = yield from _read_key(reader)
        if key in given:
            raise Broken
        given.add(key)
        call.arguments(f'{", " if len(given) > 1 else ""}"{jsontext.quoted(key)}": ')
        types = types_of(declared.get(key, {})) or frozenset({"string"})
        ends = (_PARAMETER_END, _ALL_END, *(f"{_PARAMETER}{other}>" for other in declared if other not in given))
        if types == {"string"}:
            call.arguments('"')
            yield from _read_value(reader, ends, lambda text: call.arguments(jsontext.quoted(text)))
            call.arguments('"')
        else:
            pieces: list[str] = []
            yield from _read_value(reader, ends, pieces.append)
            call.arguments(typed("".join(pieces), types))
        if (yield from reader.next_of((_PARAMETER_END,))):
            yield from expect(reader, _PARAMETER_END)
    call.finish("}")


def typed(text: str, types: frozenset[str]) -> str:
    """`text` as the JSON value that it is by the schema; a string where it is none of `types`."""
    word = text.strip()
    if "null" in types and word.lower() == "null":
        return "null"
    if ("integer" in types and _INTEGER.fullmatch(word)) or ("number" in types and _NUMBER.fullmatch(word)):
        return word
    if "boolean" in types and word.lower() in _BOOLEANS:
        return _BOOLEANS[word.lower()]
    if ("object" in types and word.startswith("{")) or ("array" in types and word.startswith("[")):
        try:
            return jsontext.checked(word)
        except Broken:
            pass
    return f'"{jsontext.quoted(text)}"'


def _read_key(reader: Reader) -> Steps[str]:
    pieces: list[str] = []
    room = _KEY_CHARS

    def sink(piece: str) -> None:
        nonlocal room
        room -= len(piece)
        if room < 0:
            raise Broken
        pieces.append(piece)

    yield from reader.run(_KEY, sink)
    yield from expect(reader, ">")
    return "".join(pieces).strip()


def _read_value(reader: Reader, ends: tuple[str, ...], sink: jsontext.Piece) -> Steps[None]:
    """Read a value without the line breaks that set it off from its tags. Broken where it never ends."""
    if (yield from reader.peek()) == "\n":
        reader.take(1)
    held = ""

    def hold(text: str) -> None:
        nonlocal held
        whole = held + text
        held = "\n" if whole.endswith("\n") else ""
        sink(whole.removesuffix("\n"))

    if (yield from reader.pass_until(ends, hold)) is None:
        raise Broken


QWEN3_CODER: Final = Form(
    openers=("<tool_call>", _FUNCTION),
    closers=("</tool_call>",),
    head=_FUNCTION,
    call=read_function,
    special_texts=("<tool_call>", "</tool_call>"),
)
