"""Records on their way to the disk: who waits for them, and whether one is there that was not acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

from serving.audit import wire
from serving.audit.records import Intent, Outcome, body_or_gap
from serving.audit.tail import Written
from serving.errors import Unwritable

Waiter = asyncio.Future[int] | Future[int]
Late = Callable[[int | None], None]
"""Told the number of a record whose waiter was not told it; None once it is certain that it was not written."""


class Sent:
    """A record on its way: its frame, should it have to be sent again, and who waits for it."""

    __slots__ = ("frame", "late", "waiter")

    def __init__(self, frame: bytes, waiter: Waiter | None, late: Late | None) -> None:
        self.frame = frame
        self.waiter = waiter
        self.late = late

    @property
    def is_kept(self) -> bool:
        """Whether it is to be written although nobody waits any more: all but an act that was not done without it."""
        return self.waiter is None or self.late is not None

    @property
    def is_posted(self) -> bool:
        """Whether who writes it keeps it while it cannot."""
        return wire.value(self.frame)[0] in (wire.POSTED, wire.OUTCOME)


def settle(sent: Sent, told: int | str) -> None:
    """Tell its number, or why it was not written and will not be."""
    waiter = sent.waiter
    if waiter is None or _is_passed_on(waiter, settle, sent, told):
        return
    number = told if isinstance(told, int) else None
    if not waiter.done():
        try:
            if number is not None:
                waiter.set_result(number)
                return
            waiter.set_exception(unwritable(str(told)))
        except (InvalidStateError, RuntimeError):  # told by another thread just now; its loop has ended
            pass
    if sent.late is not None:
        sent.late(number)


def give_up(sent: Sent, reason: str) -> None:
    """Let nobody wait for it any longer; what becomes of it is told by `settle`."""
    waiter = sent.waiter
    if waiter is None or _is_passed_on(waiter, give_up, sent, reason) or waiter.done():
        return
    with contextlib.suppress(InvalidStateError, RuntimeError):
        waiter.set_exception(unwritable(reason))


def unwritable(reason: str) -> Unwritable:
    """The error of a request whose record cannot be written."""
    return Unwritable(
        f"the audit record of this request cannot be written: {reason}", hint="the operator has to make room for it"
    )


def sort_out(
    sent: Sequence[Sent], found: Iterable[Written], text_of: Callable[[int], str]
) -> tuple[list[tuple[Sent, int]], list[Sent]]:
    """Those of the records that were written already, with their numbers, and those that were not.

    `found` is what stands behind the last entry that was acknowledged, the last first; `text_of` writes a time as
    entries have it. The same record at the same microsecond may have been sent more than once: as many are there.
    """
    numbers: defaultdict[tuple[str, bytes], list[int]] = defaultdict(list)
    for at, body, seq in found:
        numbers[at, body].append(seq)
    written, rest = [], []
    for each in sent:
        there = numbers.get(_written(each.frame, text_of)) if numbers else None
        if there:
            written.append((each, there.pop()))
        else:
            rest.append(each)
    return written, rest


def _written(frame: bytes, text_of: Callable[[int], str]) -> tuple[str, bytes]:
    """The time and the record of a frame as an entry has them."""
    kind, at_ns, told = wire.value(frame)
    at = text_of(at_ns)
    if kind in (wire.INTENT, wire.OUTCOME):
        return at, body_or_gap(Intent if kind == wire.INTENT else Outcome, told, at)[0]
    return at, told


def _is_passed_on(waiter: Waiter, act: Callable[[Sent, Any], None], sent: Sent, told: int | str) -> bool:
    """Have it done in the event loop of who waits; False where this is the place, or the loop has ended."""
    if not isinstance(waiter, asyncio.Future):
        return False
    loop = waiter.get_loop()
    if asyncio._get_running_loop() is loop or loop.is_closed():  # noqa: SLF001 - the public one raises without
        return False
    try:
        loop.call_soon_threadsafe(act, sent, told)
    except RuntimeError:  # it ended just now
        return False
    return True
