"""What `strace -f -ttt` wrote, as calls and ends of threads. Pure.

A line is `TID SECONDS REST`. A call that another thread's line interrupts is written in two: `… <unfinished ...>`, and
later `<... NAME resumed>…`. Strings are in quotes with C's escapes; what is cut short is followed by three dots.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_LINE: Final = re.compile(r"(\d+) +(\d+\.\d+) (.*)", re.DOTALL)
_CALL: Final = re.compile(r"([a-z_][a-z0-9_]*)\((.*)", re.DOTALL)
_RESUMED: Final = re.compile(r"<\.\.\. ([a-z_][a-z0-9_]*) resumed>(.*)", re.DOTALL)
_UNFINISHED: Final = re.compile(r"(.*?)\s*<(?:unfinished|pid changed to \d+|detached) \.\.\.>", re.DOTALL)
_CLOSED: Final = re.compile(r"\)\s+= ")
_ENDED: Final = re.compile(r"\+\+\+ (exited with \d+|killed by [A-Z0-9_]+(?: \(core dumped\))?) \+\+\+")
_SUPERSEDED: Final = re.compile(r"\+\+\+ superseded by execve in pid (\d+) \+\+\+")
_RESULT: Final = re.compile(r"(-?\d+|0x[0-9a-f]+|\?)(?: ([A-Z][A-Z0-9_]*))?")
_OTHER_NAMESPACE: Final = re.compile(r"/\* (\d+) in strace's PID NS \*/")
_REMARKS: Final = ("--- ", "[ Process PID=")
"""A signal that arrived; that a process is of another architecture, whose calls strace reads as well."""
_OPENING: Final = "([{"
_CLOSING: Final = ")]}"


@dataclass(frozen=True, slots=True)
class Call:
    """One system call."""

    tid: int
    """Thread that called, as the watcher numbers it."""
    at_s: float
    """When it was entered, seconds since the epoch."""
    name: str
    arguments: tuple[str, ...]
    """As strace writes them, payload included: nothing of them is shown unless it is an address or a command."""
    result: str
    """`0`, `-1`, a number; `?` where the call never returned."""
    error: str | None = None
    """Such as `ENETUNREACH`."""
    result_here: int | None = None
    """A process number that the call returned, in the watcher's numbering."""

    @property
    def succeeded(self) -> bool:
        """Whether the kernel did what was asked."""
        return self.error is None and self.result not in {"?", "-1"}


@dataclass(frozen=True, slots=True)
class End:
    """A thread's last line."""

    tid: int
    at_s: float
    how: str
    """`exited with 0`, `killed by SIGKILL`, `superseded by N`."""
    successor: int | None = None
    """The thread that goes on under this one's number, where it called execve."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A line that is none of these: what it says is not known, so nothing may be built on its absence."""

    text: str


Event = Call | End | Unread


@dataclass(frozen=True, slots=True)
class _Begun:
    at_s: float
    name: str
    text: str


def read_lines(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a trace, in the order in which they ended; calls that never ended come last, with result `?`."""
    begun: dict[int, _Begun] = {}
    for line in lines:
        text = line.rstrip("\n")
        if not text:
            continue
        parts = _LINE.fullmatch(text)
        if parts is None:
            yield Unread(text[:80])
            continue
        tid, at_s, rest = int(parts[1]), float(parts[2]), parts[3]
        if rest.startswith(_REMARKS):
            continue
        yield from _event(begun, tid, at_s, rest)
    for tid, one in begun.items():
        yield Call(tid, one.at_s, one.name, split(one.text), "?")


def _event(begun: dict[int, _Begun], tid: int, at_s: float, rest: str) -> Iterator[Event]:
    if rest.startswith("+++ "):
        yield from _end(begun, tid, at_s, rest)
        return
    resumed = _RESUMED.fullmatch(rest)
    if resumed is not None:
        one = begun.pop(tid, None)
        if one is None or one.name != resumed[1]:
            yield Unread(f"{tid} {resumed[1]} resumed")
            return
        unfinished = _UNFINISHED.fullmatch(resumed[2])
        if unfinished is not None:
            begun[tid] = _Begun(one.at_s, one.name, one.text + unfinished[1])
            return
        yield _finished(tid, one.at_s, one.name, one.text + resumed[2])
        return
    call = _CALL.fullmatch(rest)
    if call is None:
        yield Unread(rest[:80])
        return
    unfinished = _UNFINISHED.fullmatch(call[2])
    if unfinished is not None:
        begun[tid] = _Begun(at_s, call[1], unfinished[1])
        return
    yield _finished(tid, at_s, call[1], call[2])


def _end(begun: dict[int, _Begun], tid: int, at_s: float, rest: str) -> Iterator[Event]:
    one = begun.pop(tid, None)
    if one is not None:
        yield Call(tid, one.at_s, one.name, split(one.text), "?")
    ended, superseded = _ENDED.fullmatch(rest), _SUPERSEDED.fullmatch(rest)
    if superseded is not None:
        successor = int(superseded[1])
        if successor in begun:  # its execve returns under the number of the thread that it replaces
            begun[tid] = begun.pop(successor)
        yield End(tid, at_s, f"superseded by {successor}", successor)
    elif ended is not None:
        yield End(tid, at_s, ended[1])
    else:
        yield Unread(rest[:80])


def _finished(tid: int, at_s: float, name: str, text: str) -> Event:
    places = list(_CLOSED.finditer(text))
    result = _RESULT.match(text, places[-1].end()) if places else None
    if result is None:
        return Unread(f"{tid} {name}")
    inside = text[: places[-1].start()]
    elsewhere = _OTHER_NAMESPACE.search(text, places[-1].end())
    here = int(elsewhere[1]) if elsewhere else int(result[1]) if result[1].isdecimal() else None
    return Call(tid, at_s, name, split(inside), result[1], result[2], here)


def split(text: str) -> tuple[str, ...]:
    """The parts of an argument list, or of what stands between two braces, at its own commas."""
    parts: list[str] = []
    depth, start, place = 0, 0, 0
    while place < len(text):
        letter = text[place]
        if letter == '"':
            place = _after_string(text, place)
            continue
        if letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
        place += 1
    last = text[start:].strip()
    return (*parts, last) if last or parts else ()


def _after_string(text: str, place: int) -> int:
    """The place behind the string that begins at `place`."""
    place += 1
    while place < len(text) and text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    return place + 1


def fields_of(struct: str) -> dict[str, str]:
    """`{name=value, …}` as names and values; parts without a name are left out."""
    if not (struct.startswith("{") and struct.endswith("}")):
        return {}
    parts = (part.partition("=") for part in split(struct[1:-1]))
    return {name.strip(): value.strip() for name, sign, value in parts if sign and name.isidentifier()}


def text_of(quoted: str) -> str | None:
    """A string as it was before it was quoted; None where it is no whole string. What is no UTF-8 is replaced."""
    if len(quoted) < 2 or quoted[0] != '"' or quoted[-1] != '"':
        return None
    try:
        raw = quoted[1:-1].encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")
    except (UnicodeDecodeError, UnicodeEncodeError):
        return None
    return raw.decode("utf-8", "replace")
