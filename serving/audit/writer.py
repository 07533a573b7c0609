"""The one writer of a log: it writes what has come together, once, and then tells everybody who waits.

A group is whatever is there when the write before it is done: nobody waits for a group to fill. Records that nobody
waits for (outcomes) go with the next group, or after 5 ms by themselves: an intent is not kept up by a write for them.

Where a write fails, the file is cut back to what is durable, those who wait are told why, and the writer tries again
at most once a second, with a record of what was lost. What nobody waits for waits for that itself, bounded. The bytes
of a failed write are written again and never only synced again: the kernel may have dropped them and called them clean.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from serving.audit.book import Book, Durable
from serving.audit.records import FORMLESS, Gap, body_of
from serving.audit.segments import Retention

RETRY_S: Final = 1.0
"""Between two tries to write after one has failed."""
KEPT: Final = 10_000
"""Records that wait for the disk at most, of those that nobody waits for."""
_IDLE_S: Final = 1.0
"""Between two looks at what is due, where nothing comes; and between two signs of life."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Since when and why nothing can be written."""

    since: str
    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """How the log is."""

    durable: Durable
    failure: Failure | None
    lost: int
    """Records that were not written since the failure; those that wait for its end are not among them."""


class Item:
    """Something to be written, or a gap in the place of what has no form."""

    __slots__ = ("at", "body", "has_form", "is_awaited")

    def __init__(self, at: str, body: bytes, *, is_awaited: bool, has_form: bool = True) -> None:
        self.at = at
        self.body = body
        self.is_awaited = is_awaited
        self.has_form = has_form


class Askers(Protocol):
    """Where records come from, in order, and those who want to know what became of them."""

    delivered: int | None
    """The last segment that has left the host as a whole; None where none has to."""

    def collect(self, wait_s: float) -> tuple[list[Item], bool]:
        """What is there, after waiting for the first of it, and whether more may come."""

    def tell(self, count: int, told: int | str, state: State) -> None:
        """Answer the next `count` of them: the number of the first, those that follow being numbered on; or why not."""


class Writer:
    """Writes until nothing more can come, and leaves everything durable and signed."""

    def __init__(
        self, book: Book, clock: Callable[[], str], askers: Askers, retention: Retention | None = None
    ) -> None:
        self._book = book
        self._clock = clock
        self._askers = askers
        self._retention = retention or Retention()
        self._kept: deque[Item] = deque()
        self._lost = 0
        self._failure: Failure | None = None
        self._retry_at = 0.0
        self._tick_at = 0.0
        self._segment = -1

    def run(self) -> None:
        """Write what comes, until nothing can come any more."""
        is_open = True
        while is_open:
            due = self._book.due_s
            wait = _IDLE_S if due is None or self._failure is not None else min(_IDLE_S, due)
            group, is_open = self._askers.collect(wait)
            if group:
                self._take(group)
            self._keep_house()
        if self._failure is not None:
            self._retry_at = 0.0
            self._mend()
        if self._failure is None:
            self._attempt(self._book.sign)
        self._askers.tell(0, 0, self._state)
        self._book.release()

    @property
    def _state(self) -> State:
        return State(self._book.durable, self._failure, self._lost)

    def _take(self, group: Sequence[Item]) -> None:
        """Write them, in runs of those that have a form."""
        run: list[Item] = []
        for item in group:
            if item.has_form:
                run.append(item)
            else:
                self._commit(run)
                run = []
                self._commit([item], FORMLESS)
        self._commit(run)

    def _commit(self, group: Sequence[Item], told: str | None = None) -> None:
        """Write them, and tell whoever asks their numbers, or else what is `told`."""
        if not group:
            return
        first = 0

        def write() -> None:
            nonlocal first
            first = self._book.write([(item.at, item.body) for item in group])

        if (self._failure is None or self._mend()) and self._attempt(write):
            self._askers.tell(len(group), first if told is None else told, self._state)
            return
        for item in group:
            if item.is_awaited or len(self._kept) >= KEPT:
                self._lost += 1
            else:
                self._kept.append(item)
        self._askers.tell(len(group), self._failure.reason if self._failure else "", self._state)

    def _keep_house(self) -> None:
        """Sign what is due, remove what is too old, say how it is."""
        now = time.monotonic()
        if self._failure is not None:
            self._mend()
        elif self._book.due_s == 0:
            self._attempt(self._book.sign)
        if now >= self._tick_at:
            self._tick_at = now + _IDLE_S
            self._remove_old()
            self._askers.tell(0, 0, self._state)

    def _remove_old(self) -> None:
        """Once for each segment that is begun, and again while a receiver was waited for."""
        delivered = self._askers.delivered
        if self._failure is not None or (self._segment == self._book.durable.segment and delivered is None):
            return

        def remove() -> None:
            self._book.remove_old(self._retention, delivered)

        if self._attempt(remove):
            self._segment = self._book.durable.segment

    def _mend(self) -> bool:
        """Try to write again, not too often; True where it can be written."""
        failure, now = self._failure, time.monotonic()
        if failure is None:
            return True
        if now < self._retry_at:
            return False
        gap = Gap(since=failure.since, reason=failure.reason, lost=self._lost, late=len(self._kept) or None)
        records = [(item.at, item.body) for item in self._kept]

        def write() -> None:
            self._book.write([(self._clock(), body_of(gap)), *records])

        if not self._attempt(write):
            return False
        self._failure, self._lost = None, 0
        self._kept.clear()
        self._askers.tell(0, 0, self._state)
        return True

    def _attempt(self, act: Callable[[], object]) -> bool:
        """Do something with the log; False where that failed, which is kept in mind from then on."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody must wait for ever, and nothing count as written
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            if self._failure is None:
                self._failure = Failure(self._clock(), reason)
            self._retry_at = time.monotonic() + RETRY_S
            return False
        return True
