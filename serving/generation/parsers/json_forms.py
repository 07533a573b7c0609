"""Formats in which a call is a JSON object with a name and arguments, or a name and then a JSON object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from serving.generation.parsers import jsontext
from serving.generation.parsers.deltas import Sink
from serving.generation.parsers.form import (
    NAME_CHARS,
    Call,
    Form,
    Tools,
    expect,
    read_arguments,
    read_name,
    read_named,
)
from serving.generation.parsers.reader import SPACE, Broken, Reader, Steps

_KEY_CHARS: Final = 256
_ARGUMENTS: Final = frozenset({"arguments", "parameters"})
_BARE_KEYS: Final = frozenset({"name", "type", "id", *_ARGUMENTS})
"""What an object without an opener before it may hold and still be a call; any other key makes it an answer."""


def read_object(reader: Reader, sink: Sink, tools: Tools, *, bare: bool = False) -> Steps[None]:
    """Read `{"name": …, "arguments": {…}}`, its keys in any order, and whatever else is in it.

    A tool that is called without arguments is given none, `{}`; but of a `bare` object all is asked that tells a call
    from an answer in JSON.
    """
    yield from expect(reader, "{")
    yield from reader.run(SPACE, jsontext.ignore)
    seen: set[str] = set()
    call: Call | None = None
    early: list[str] = []
    closing = ""
    while True:
        key = yield from jsontext.short_string(reader, _KEY_CHARS)
        key = "arguments" if key in _ARGUMENTS else key
        if key in seen or (bare and key not in _BARE_KEYS):
            raise Broken
        seen.add(key)
        yield from jsontext.punctuation(reader, ":")
        if key == "name":
            name = yield from jsontext.short_string(reader, NAME_CHARS)
            if name not in tools:
                raise Broken
            call = Call(sink, name)
            if early:
                call.arguments("".join(early))
        elif key == "arguments":
            closing = yield from read_arguments(reader, early.append if call is None else call.arguments)
        else:
            yield from jsontext.value(reader, jsontext.ignore)
        yield from reader.run(SPACE, jsontext.ignore)
        if (yield from expect(reader, ",", "}")) == "}":
            break
        yield from reader.run(SPACE, jsontext.ignore)
    if call is None or (bare and not closing):
        raise Broken
    call.finish(closing or "{}")


def _bare_object(reader: Reader, sink: Sink, tools: Tools) -> Steps[None]:
    return (yield from read_object(reader, sink, tools, bare=True))


def _mistral(reader: Reader, sink: Sink, tools: Tools) -> Steps[None]:
    """`name[ARGS]{…}`, `name[CALL_ID]…[ARGS]{…}`, `name{…}`, or an object as before tokenizer v11."""
    if (yield from reader.peek()) == "{":
        return (yield from read_object(reader, sink, tools))
    name = yield from read_name(reader)
    yield from reader.run(SPACE, jsontext.ignore)
    if (yield from reader.next_of(("[CALL_ID]",))):
        yield from expect(reader, "[CALL_ID]")
        yield from read_name(reader)
    if (yield from reader.next_of(("[ARGS]",))):
        yield from expect(reader, "[ARGS]")
    return (yield from read_named(reader, sink, tools, name))


def _deepseek_v3(reader: Reader, sink: Sink, tools: Tools) -> Steps[None]:
    """The kind of call, the name on the rest of the line, and the arguments in a fence."""
    yield from read_name(reader)
    yield from expect(reader, DEEPSEEK_SEPARATOR)
    name = yield from read_name(reader)
    yield from expect(reader, "\n```json\n")
    return (yield from read_named(reader, sink, tools, name))


def _deepseek_v31(reader: Reader, sink: Sink, tools: Tools) -> Steps[None]:
    name = yield from read_name(reader)
    yield from expect(reader, DEEPSEEK_SEPARATOR)
    return (yield from read_named(reader, sink, tools, name))


def _kimi_k2(reader: Reader, sink: Sink, tools: Tools) -> Steps[None]:
    """`functions.name:0`, then the arguments."""
    yield from expect(reader, "functions.")
    name = yield from read_name(reader)
    yield from expect(reader, ":")
    yield from read_name(reader)
    yield from expect(reader, KIMI_ARGUMENTS)
    return (yield from read_named(reader, sink, tools, name))


DEEPSEEK_CALLS: Final = "<｜tool▁calls▁begin｜>"
DEEPSEEK_CALLS_END: Final = "<｜tool▁calls▁end｜>"
DEEPSEEK_CALL: Final = "<｜tool▁call▁begin｜>"
DEEPSEEK_CALL_END: Final = "<｜tool▁call▁end｜>"
DEEPSEEK_SEPARATOR: Final = "<｜tool▁sep｜>"
KIMI_CALLS: Final = "<|tool_calls_section_begin|>"
KIMI_CALLS_END: Final = "<|tool_calls_section_end|>"
KIMI_CALL: Final = "<|tool_call_begin|>"
KIMI_CALL_END: Final = "<|tool_call_end|>"
KIMI_ARGUMENTS: Final = "<|tool_call_argument_begin|>"

_BRACKETS: Final = ("]", ",", ";", "[")
"""Between objects: of an array, or of the lists that models write without one."""


def _deepseek(call: Callable[[Reader, Sink, Tools], Steps[None]]) -> Form:
    tags = (DEEPSEEK_CALLS, DEEPSEEK_CALLS_END, DEEPSEEK_CALL, DEEPSEEK_CALL_END, DEEPSEEK_SEPARATOR)
    return Form(
        openers=(DEEPSEEK_CALLS, DEEPSEEK_CALL),
        closers=("```", DEEPSEEK_CALL_END, DEEPSEEK_CALLS_END),
        call=call,
        special_texts=tags,
    )


HERMES: Final = Form(
    openers=("<tool_call>",),
    closers=("</tool_call>", "}", *_BRACKETS),  # a brace too many is the commonest slip of small models
    inner=("[",),
    head="{",
    call=read_object,
    special_texts=("<tool_call>", "</tool_call>"),
)
GRANITE: Final = Form(
    openers=("<|tool_call|>", "<tool_call>"),
    closers=("</tool_call>", *_BRACKETS),
    inner=("[",),
    head="{",
    call=read_object,
    special_texts=("<|tool_call|>", "<tool_call>", "</tool_call>"),
)
LLAMA3_JSON: Final = Form(
    openers=("<|python_tag|>",),
    closers=_BRACKETS,
    inner=("[",),
    head="{",
    bare=True,
    call=_bare_object,
    special_texts=("<|python_tag|>",),
)
MISTRAL: Final = Form(
    openers=("[TOOL_CALLS]",),
    closers=_BRACKETS,
    inner=("[",),
    head="{",
    call=_mistral,
    special_texts=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
)
DEEPSEEK_V3: Final = _deepseek(_deepseek_v3)
DEEPSEEK_V31: Final = _deepseek(_deepseek_v31)
KIMI_K2: Final = Form(
    openers=(KIMI_CALLS, KIMI_CALL),
    closers=(KIMI_CALL_END, KIMI_CALLS_END),
    call=_kimi_k2,
    special_texts=(KIMI_CALLS, KIMI_CALLS_END, KIMI_CALL, KIMI_CALL_END, KIMI_ARGUMENTS),
)
