"""How models set their thinking off from the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from serving.generation.parsers import jsontext
from serving.generation.parsers.deltas import Sink
from serving.generation.parsers.reader import SPACE, Reader, Steps


@dataclass(frozen=True, slots=True)
class Thinking:
    """One way to write reasoning."""

    starts: tuple[str, ...] = ("<think>",)
    ends: tuple[str, ...] = ("</think>",)
    always: bool = False
    """Answers begin with reasoning whether or not a text of `starts` says so."""


def read_reasoning(thinking: Thinking, reader: Reader, sink: Sink, *, inside: bool) -> Steps[None]:
    """Read the reasoning that an answer begins with, if it does; `inside` if the prompt has opened it already.

    Only the first end mark ends it, so what a model merely considers is never taken for a call. Reasoning that is cut
    stays reasoning.
    """
    reader.keep()
    yield from reader.run(SPACE, jsontext.ignore)
    start = yield from reader.next_of(thinking.starts)
    if start is not None:
        reader.take(len(start))
        reader.kept()
    elif inside or thinking.always:
        sink.reasoning(reader.kept())
    else:
        reader.unread(reader.kept())
        return
    end = yield from reader.pass_until(thinking.ends, sink.reasoning)
    if end is not None:
        reader.take(len(end))


_MARKED: Final = Thinking()
_ALWAYS: Final = Thinking(always=True)

REASONING: Final[Mapping[str, Thinking]] = {
    "deepseek_r1": _ALWAYS,
    "deepseek_v3": _MARKED,
    "glm45": _MARKED,
    "granite": Thinking(
        ("Here is my thought process:", "Here's my thought process:"),
        ("Here is my response:", "Here's my response:"),
    ),
    "kimi_k2": _MARKED,
    "minimax_m2": _ALWAYS,
    "mistral": Thinking(("[THINK]", "<think>"), ("[/THINK]", "</think>")),
    "qwen3": _MARKED,
    "seed_oss": Thinking(("<seed:think>",), ("</seed:think>",)),
}
"""By vLLM's names."""
