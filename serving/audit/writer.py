"""The one writer of a log: a thread that writes what has come together, once, and then tells everybody who waits.

A group is whatever is there when the write before it is done: nobody waits for a group to fill. Records that nobody
waits for (outcomes) go with the next group, or after 5 ms by themselves: an intent is not kept up by a write for them.

Where a write fails, the file is cut back to what is durable, those who wait get Unwritable, and the writer tries again
at most once a second, with a record of what was lost. What must not be lost (`keep`) waits for that, bounded. The bytes
of a failed write are written again and never only synced again: the kernel may have dropped them and called them clean.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from serving.audit.book import Book, Durable
from serving.audit.records import Gap, Record, body_of
from serving.audit.segments import Retention
from serving.errors import Unwritable
from serving.telemetry.logs import facts

log = logging.getLogger(__name__)
RETRY_S: Final = 1.0
"""Between two tries to write after one has failed."""
KEPT: Final = 10_000
"""Records that wait for the disk at most, of those that must not be lost."""
_GROUP: Final = 4096
"""Records in one write at most: to collect so many takes less than 5 ms."""
_IDLE_S: Final = 1.0
"""Between two looks at what is due, where nothing comes."""
_COMPANY_S: Final = 0.005
"""How long records that nobody waits for stand until they are written without others."""
Waiter = asyncio.Future[int] | Future[int] | None


@dataclass(frozen=True, slots=True)
class Failure:
    """Since when and why nothing can be written."""

    since: str
    reason: str


class _Item:
    """Something to be written, and who waits for it."""

    __slots__ = ("at", "body", "keep", "waiter")

    def __init__(self, at: str, body: bytes, waiter: Waiter, *, keep: bool) -> None:
        self.at = at
        self.body = body
        self.waiter = waiter
        self.keep = keep


_POKE: Final = _Item("", b"", None, keep=False)


class Writer:
    """Writes records from any thread. Closed with `close`, which leaves everything durable and signed."""

    def __init__(
        self,
        book: Book,
        clock: Callable[[], str],
        *,
        retention: Retention | None = None,
        on_tick: Callable[[], Iterable[Record]] = tuple,
        delivered_through: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`on_tick` is asked about once a second for records that have come of age."""
        self._book = book
        self._clock = clock
        self._retention = retention or Retention()
        self._on_tick = on_tick
        self._delivered_through = delivered_through
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        """What somebody waits for; `_POKE` where something was posted, None to end."""
        self._posted: deque[_Item] = deque()
        self._is_poked = False
        self._kept: deque[_Item] = deque()
        self._lost = 0
        self._failure: Failure | None = None
        self._retry_at = 0.0
        self._tick_at = 0.0
        self._segment = -1
        self._is_closed = False
        self.durable: Durable = book.durable
        """How far the log is on the disk."""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> Failure | None:
        """Why nothing can be written at present; None where all is well."""
        return self._failure

    def durably(self, body: bytes) -> asyncio.Future[int]:
        """Write a record; the number of its entry once that is durable, for the running loop. Raises Unwritable."""
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._check_open()
        self._queue.put(_Item(self._clock(), body, waiter, keep=False))
        return waiter

    def append(self, body: bytes) -> Future[int]:
        """The same for threads."""
        waiter: Future[int] = Future()
        self._check_open()
        self._queue.put(_Item(self._clock(), body, waiter, keep=False))
        return waiter

    def post(self, body: bytes) -> None:
        """Write a record that nobody waits for; while nothing can be written it is kept, within bounds."""
        self._check_open()
        self._posted.append(_Item(self._clock(), body, None, keep=True))
        if not self._is_poked:
            self._is_poked = True
            self._queue.put(_POKE)

    def close(self) -> None:
        """Write what has come, a checkpoint, and end. Raises nothing: `failure` says whether it could be done."""
        if not self._is_closed:
            self._is_closed = True
            self._queue.put(None)
        self._thread.join()

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unwritable("the audit log is closed")

    # The thread.

    def _run(self) -> None:
        is_open = True
        while is_open:
            group, is_open = self._collect()
            if group:
                self._commit(group)
            self._keep_house()
        while not self._queue.empty():  # came while it was being closed
            late = self._queue.get_nowait()
            if late is not None:
                self._refuse([late], "it is closed")
        if self._failure is not None:
            self._mend()
        if self._failure is None:
            self._attempt(self._book.sign)
        self.durable = self._book.durable
        self._book.release()

    def _collect(self) -> tuple[list[_Item], bool]:
        """What is there, after waiting for the first of it, and whether more may come."""
        due = self._book.due_s
        wait = _IDLE_S if due is None or self._failure is not None else min(_IDLE_S, due)
        group: list[_Item] = []
        is_open = True
        with contextlib.suppress(queue.Empty):
            item = self._queue.get(timeout=wait)
            if item is _POKE:
                item = self._queue.get(timeout=_COMPANY_S)
            while True:
                if item is None:
                    is_open = False
                    break
                if item is not _POKE:
                    group.append(item)
                if len(group) == _GROUP or self._queue.empty():
                    break
                item = self._queue.get_nowait()
        # Who posts after this pokes again.
        self._is_poked = False
        posted = [self._posted.popleft() for _ in range(len(self._posted))]
        return posted + group, is_open

    def _commit(self, group: list[_Item]) -> None:
        if self._failure is not None and not self._mend():
            self._refuse(group, self._failure.reason)
            return
        first = 0

        def write() -> None:
            nonlocal first
            first = self._book.write([(item.at, item.body) for item in group])

        if self._attempt(write):
            self.durable = self._book.durable
            _tell(group, first)
        else:
            self._refuse(group, self._failure.reason if self._failure else "")

    def _keep_house(self) -> None:
        """Sign what is due, take up what has come of age, remove what is too old."""
        now = time.monotonic()
        if self._failure is not None:
            self._mend()
        elif self._book.due_s == 0 and self._attempt(self._book.sign):
            self.durable = self._book.durable
        if now >= self._tick_at:
            self._tick_at = now + _IDLE_S
            items = [_Item(self._clock(), body_of(record), None, keep=True) for record in self._on_tick()]
            if items:
                self._commit(items)
            self._remove_old()

    def _remove_old(self) -> None:
        """Once for each segment that is begun, and again while a receiver was waited for."""
        delivered = self._delivered_through()
        if self._failure is not None or (self._segment == self._book.durable.segment and delivered is None):
            return

        def remove() -> None:
            self._book.remove_old(self._retention, delivered)

        if self._attempt(remove):
            self._segment = self._book.durable.segment
            self.durable = self._book.durable

    def _mend(self) -> bool:
        """Try to write again, not too often; True where it can be written."""
        failure, now = self._failure, time.monotonic()
        if failure is None:
            return True
        if now < self._retry_at:
            return False
        gap = Gap(since=failure.since, reason=failure.reason, lost=self._lost)
        records = [(item.at, item.body) for item in self._kept]

        def write() -> None:
            self._book.write([(self._clock(), body_of(gap)), *records])

        if not self._attempt(write):
            return False
        log.warning("the audit log can be written again", extra=facts(lost=self._lost))
        self._failure, self._lost = None, 0
        self._kept.clear()
        self.durable = self._book.durable
        return True

    def _attempt(self, act: Callable[[], object]) -> bool:
        """Do something with the log; False where that failed, which is kept in mind from then on."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody must wait for ever, and nothing count as written
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            if self._failure is None:
                log.error("the audit log cannot be written", extra=facts(reason=reason))  # noqa: TRY400
                self._failure = Failure(self._clock(), reason)
            self._retry_at = time.monotonic() + RETRY_S
            return False
        return True

    def _refuse(self, group: Sequence[_Item], reason: str) -> None:
        error = Unwritable(
            f"the audit record of this request cannot be written: {reason}", hint="the operator has to make room for it"
        )
        waiting = []
        for item in group:
            if item.keep and len(self._kept) < KEPT:
                self._kept.append(item)
                continue
            self._lost += 1
            if item.waiter is not None:
                waiting.append(item)
        _tell(waiting, error)


def _tell(group: Sequence[_Item], result: int | Exception) -> None:
    """Tell who waits: numbers from `result` on, or the error. Each event loop is woken once."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[int], int | Exception]]] = {}
    for place, item in enumerate(group):
        waiter = item.waiter
        if waiter is None:
            continue
        told = result + place if isinstance(result, int) else result
        if not isinstance(waiter, Future):
            loops.setdefault(waiter.get_loop(), []).append((waiter, told))
        elif waiter.set_running_or_notify_cancel():
            _settle(waiter, told)
    for loop, pairs in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all who waited
            loop.call_soon_threadsafe(_wake, pairs)


def _wake(pairs: list[tuple[asyncio.Future[int], int | Exception]]) -> None:
    for waiter, told in pairs:
        if not waiter.done():
            _settle(waiter, told)


def _settle(waiter: asyncio.Future[int] | Future[int], told: int | Exception) -> None:
    if isinstance(told, int):
        waiter.set_result(told)
    else:
        waiter.set_exception(told)
