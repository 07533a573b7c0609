"""The server's end of the process that writes its log: records go in from any thread, and come back as numbers.

Records are sent in the order in which they came, those of one turn of the event loop by one call; answers come in the
same order, several with each write to the disk. Where no event loop is there, whoever waits does the reading.

A thread of its own keeps watch. Should that process not answer for some seconds, or die, nobody waits for it: those who
do are refused, and what is to be written nevertheless is kept, bounded. One that does not answer for long is killed. A
new process is begun, at most once a second, and says what it found behind the last entry that was acknowledged: what
is there already is not sent again. The log then says since when, why, how many records were lost and how many are late.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from serving.audit import wire
from serving.audit.book import Clock, Durable
from serving.audit.child import Child, begin
from serving.audit.process import Setup
from serving.audit.records import Gap, body_of
from serving.audit.sent import Late, Sent, give_up, settle, sort_out
from serving.audit.writer import KEPT, RETRY_S, Failure
from serving.errors import ServingError, StartError, Unwritable
from serving.telemetry.logs import facts

log = logging.getLogger(__name__)
_END_S: Final = 30.0
"""For the process to write what it has, when the server stops."""
_LOOK_S: Final = 0.5
"""Between two looks at whether the process answers, at most."""
_CHUNK: Final = 1 << 18
_GONE: Final = "the process that writes it ended"
_SILENT: Final = "the process that writes it does not answer"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the process that writes may not answer."""

    wait_s: float = 5.0
    """Until nobody waits for it any longer."""
    kill_s: float = 60.0
    """From then on, until it is killed and another one is begun."""


class RemoteWriter:
    """Writes records from any thread, by way of a process of its own."""

    def __init__(
        self,
        setup: Setup,
        clock: Clock,
        on_tick: Callable[[], None] = lambda: None,
        patience: Patience | None = None,
    ) -> None:
        """`on_tick` is called about once a second. Raises what opening the log does."""
        self._setup = setup
        self._clock = clock
        self._on_tick = on_tick
        self._patience = patience or Patience()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        """Of those who wait without an event loop, one reads."""
        self._taking = threading.Lock()
        """Answers are paired with what was sent by their order: one at a time, whoever reads."""
        self._sent: deque[Sent] = deque()
        """What is to be answered."""
        self._answered = 0
        """Records that were, in all."""
        self._outgoing: list[bytes] = []
        self._is_flush_due = False
        self._theirs: deque[Sent] = deque()
        """What the other process keeps until it can write, should it not come to that."""
        self._their_failure: Failure | None = None
        self._their_lost = 0
        self._halt: Failure | None = None
        """Nothing is sent: the process does not answer, or is not there."""
        self._kept: deque[Sent] = deque()
        """What came since then."""
        self._lost = 0
        self._overdue = 0
        """Records that were on their way when the process fell silent; it is silent until they are answered."""
        self._overdue_through = 0
        self._kill_at = 0.0
        self._unsettled: list[Sent] = []
        """What a process that died did not answer."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_ended = False
        """No process is there."""
        self._is_closed = False
        self._delivered: int | None = None
        child = begin(setup)
        self._process, self._socket = child.process, child.socket
        self.durable: Durable = child.durable
        """How far the log is on the disk."""
        self._frames = wire.Frames()
        self._is_open = threading.Event()
        self._is_open.set()
        self._wake = threading.Event()
        try:
            threading.Thread(target=self._watch, name="audit", daemon=True).start()
        except RuntimeError:
            self._socket.close()
            raise StartError("no thread can be started for the audit log", hint="raise the limit of threads") from None

    @property
    def failure(self) -> Failure | None:
        """Why nothing can be written at present; None where all is well."""
        if not self._is_elsewhere:
            self._pump(lambda: True)
        return self._halt or self._their_failure

    @property
    def process_id(self) -> int:
        """Of the process that writes."""
        return self._process.pid

    def durably(self, frame: bytes, late: Late, *, keep: bool) -> asyncio.Future[int]:
        """Write a record; the number of its entry once that is durable, for the running loop. Raises Unwritable.

        Where nobody is told the number, since it took too long or who waited has left, `late` is, once. `keep` is
        whether to write it later if it comes at a time in which nothing can be written.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._attach(loop)
        waiter: asyncio.Future[int] = loop.create_future()
        self._send(Sent(frame, waiter, late), keep)
        return waiter

    def append(self, frame: bytes, late: Late | None = None) -> int:
        """The same for threads: wait until it is durable. With `late` it is kept. Raises Unwritable."""
        waiter: Future[int] = Future()
        self._send(Sent(frame, waiter, late), late is not None)
        while True:
            if not self._is_elsewhere:
                self._pump(waiter.done)
            # a loop that read may end, and none may be there yet: then this thread reads
            with contextlib.suppress(TimeoutError):
                return waiter.result(0.1)

    def post(self, frame: bytes) -> None:
        """Write a record that nobody waits for; while nothing can be written it is kept, within bounds."""
        self._send(Sent(frame, None, None), True)  # noqa: FBT003 - keep it

    def delivered(self, segment: int | None) -> None:
        """The last segment that has left the host as a whole: retention waits for those after it."""
        if segment is not None and segment != self._delivered and self._halt is None:
            self._delivered = segment
            with self._lock:
                self._outgoing.append(wire.frame((wire.DELIVERED, segment)))

    def drain(self) -> None:
        """Wait, not for long, until all is answered that was sent, by a new process if need be."""
        self._is_open.wait(self._patience.wait_s)
        self._detach()
        until = time.monotonic() + self._patience.wait_s
        self._pump(lambda: not self._sent or time.monotonic() > until)

    def close(self) -> None:
        """Write what has come, a checkpoint, and end. Raises nothing: `failure` says whether it could be done."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if not self._is_ended:
                if self._halt is not None:  # should it come round after all
                    self._send_kept(self._halt, self._overdue)
                    self._halt = None
                self._outgoing.append(wire.frame((wire.END,)))
        self._wake.set()
        self._detach()
        until = time.monotonic() + _END_S
        self._pump(lambda: self._is_ended or time.monotonic() > until)
        with self._lock:
            left = [*self._unsettled, *self._sent, *self._kept]
            if left:
                self._halt = self._halt or Failure(self._clock(), _SILENT)
            self._is_ended = True
        for each in left:
            settle(each, _SILENT)
        with contextlib.suppress(OSError):
            self._socket.close()
        _end(self._process)

    # Sending

    def _send(self, sent: Sent, keep: bool) -> None:  # noqa: FBT001 - on the path of every request
        with self._lock:
            if self._is_closed:
                raise Unwritable("the audit log is closed")
            if self._halt is None:
                self._sent.append(sent)
                self._outgoing.append(sent.frame)
                if self._is_flush_due:
                    return
                self._is_flush_due = self._loop is not None
                halt = None
            else:
                halt = self._halt
                keep = keep and len(self._kept) < KEPT
                if keep:
                    self._kept.append(sent)
                else:
                    self._lost += 1
        if halt is not None:
            (give_up if keep else settle)(sent, halt.reason)
            return
        loop = self._loop
        if loop is None:
            self._flush()
        elif asyncio._get_running_loop() is loop:  # noqa: SLF001 - the public one raises where there is none, at a cost
            loop.call_soon(self._flush)
        else:
            self._wake_loop(loop)

    def _wake_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.call_soon_threadsafe(self._flush)
        except RuntimeError:  # it has ended
            self._loop = None
            self._flush()

    def _flush(self) -> None:
        """Send what has come together, as much of it as there is room for."""
        with self._lock:
            self._is_flush_due = False
            data = b"".join(self._outgoing)
            self._outgoing.clear()
            if not data or self._is_ended:
                return
            try:
                count = self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                count = 0
            except OSError:
                return  # it is gone, which the reader is told too
            if count == len(data):
                return
            self._outgoing.append(data[count:])
            loop = self._loop
            if loop is None or asyncio._get_running_loop() is not loop:  # noqa: SLF001
                return  # who pumps sends the rest
            self._is_flush_due = True
        loop.add_writer(self._socket.fileno(), self._flush_rest)

    def _flush_rest(self) -> None:
        loop = self._loop
        if loop is not None:
            loop.remove_writer(self._socket.fileno())
        self._flush()

    # Reading

    @property
    def _is_elsewhere(self) -> bool:
        """An event loop, which is not in this thread, does the reading."""
        loop = self._loop
        return loop is not None and not loop.is_closed() and asyncio._get_running_loop() is not loop  # noqa: SLF001

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read in this loop from now on."""
        self._loop = loop
        if not self._is_ended and not self._is_closed:
            loop.add_reader(self._socket.fileno(), self._on_readable)

    def _detach(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())

    def _pump(self, is_done: Callable[[], bool]) -> None:
        """Send and read in this thread until that is so; what is there already is read in any case."""
        with self._reading:
            while True:
                self._flush()
                if self._is_ended or self._is_elsewhere:
                    return
                done = is_done()
                wants = [self._socket] if self._outgoing else []
                readable, writable, _ = select.select([self._socket], wants, [], 0 if done else 0.2)
                if readable:
                    self._on_readable()
                elif done and not writable:
                    return

    def _on_readable(self) -> None:
        with self._taking:
            is_tick = self._take()
        if is_tick and not self._is_closed:
            self._on_tick()

    def _take(self) -> bool:
        """Read what is there, and settle what it says; whether it was a sign of life too."""
        try:
            data = self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            if not self._is_elsewhere:  # else it is for the loop to see
                self._on_end()
            return False
        is_tick = False
        running = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises where there is none, at a cost
        for count, told, durable, failure, lost in self._frames.take(data):
            self.durable = Durable(*durable)
            is_written = isinstance(told, int)
            for place in range(count):
                sent = self._sent.popleft()
                waiter = sent.waiter
                if waiter is not None:
                    # on the path of every request: the usual case without a call
                    is_here = isinstance(waiter, asyncio.Future) and waiter.get_loop() is running
                    if is_here and is_written and not waiter.done():
                        waiter.set_result(told + place)
                    else:
                        settle(sent, told + place if is_written else told)
                if not is_written and sent.is_posted and len(self._theirs) < KEPT:
                    self._theirs.append(sent)
            self._answered += count
            self._their_lost = lost
            self._note(None if failure is None else Failure(*failure), lost)
            is_tick |= not count
        return is_tick

    def _note(self, failure: Failure | None, lost: int) -> None:
        if failure is None:
            self._theirs.clear()
        if (failure is None) != (self._their_failure is None):
            if failure is not None:
                log.error("the audit log cannot be written", extra=facts(reason=failure.reason))
            else:
                log.warning("the audit log can be written again", extra=facts(lost=lost))
        self._their_failure = failure

    # A process that does not answer, or died

    def _watch(self) -> None:
        """Until the log is closed: see that the process answers, and begin another one where it died."""
        look_s = min(_LOOK_S, self._patience.wait_s / 4)
        marks: deque[tuple[float, int]] = deque()
        """When it was looked, and how many records had been sent by then that were not answered."""
        while not self._is_closed:
            self._wake.wait(look_s)
            self._wake.clear()
            try:
                self._attend(marks, time.monotonic())
            except Exception:  # there is nobody else to watch
                log.exception("the watch over the audit log failed")

    def _attend(self, marks: deque[tuple[float, int]], now: float) -> None:
        """One look."""
        if self._is_ended:
            marks.clear()
            self._begin_again()
        elif self._halt is None:
            if self._is_silent(marks, now):
                self._kill_at = now + self._patience.kill_s
                self._fall_silent()
        else:
            self._look()
            if self._answered >= self._overdue_through:
                marks.clear()
                self._go_on()
            elif now >= self._kill_at and self._process.poll() is None:
                self._kill_at = now + self._patience.kill_s  # one whose disk keeps it stays
                log.error("the process that writes the audit log is killed", extra=facts(pid=self._process.pid))
                self._process.kill()

    def _look(self) -> None:
        """Read what it has answered: whoever else does it may be busy."""
        if self._is_elsewhere:
            self._on_readable()
        elif self._reading.acquire(blocking=False):
            try:
                self._flush()
                if not self._is_ended:
                    self._on_readable()
            finally:
                self._reading.release()

    def _is_silent(self, marks: deque[tuple[float, int]], now: float) -> bool:
        if self._sent:
            marks.append((now, self._answered + len(self._sent)))
        if (marks and now - marks[0][0] >= self._patience.wait_s) or not self._is_elsewhere:
            self._look()
        while marks and marks[0][1] <= self._answered:
            marks.popleft()
        return bool(marks) and now - marks[0][0] >= self._patience.wait_s and not self._is_ended

    def _fall_silent(self) -> None:
        """Let nobody wait for it any longer."""
        with self._lock:
            if self._is_ended or self._is_closed:
                return
            self._halt = Failure(self._clock(), _SILENT)
            waiting = list(self._sent)
            self._overdue, self._overdue_through = len(waiting), self._answered + len(waiting)
        log.error("the audit log cannot be written", extra=facts(reason=_SILENT))
        for each in waiting:
            give_up(each, _SILENT)

    def _go_on(self) -> None:
        """It answers again."""
        with self._lock:
            if self._is_ended or self._is_closed or self._halt is None:
                return
            lost = self._lost
            self._send_kept(self._halt, self._overdue)
            self._halt = None
        log.warning("the audit log can be written again", extra=facts(lost=lost))
        self._flush_soon()

    def _send_kept(self, halt: Failure, late: int) -> None:
        """Send what was kept, after a record of why. Under the lock."""
        late += len(self._kept)
        gap = Gap(since=halt.since, reason=halt.reason, lost=self._lost, late=late or None)
        self._kept.appendleft(Sent(wire.frame((wire.POSTED, time.time_ns(), body_of(gap))), None, None))
        self._sent.extend(self._kept)
        self._outgoing.extend(each.frame for each in self._kept)
        self._kept.clear()
        self._lost = self._overdue = 0

    def _flush_soon(self) -> None:
        loop = self._loop
        if loop is None:
            self._flush()
        else:
            self._wake_loop(loop)

    def _on_end(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
        with self._lock:
            self._is_ended = True
            self._is_open.clear()
            self._outgoing.clear()
            self._is_flush_due = False
            sent = list(self._sent)
            self._answered += len(sent)
            self._sent.clear()
            self._unsettled += [*self._theirs, *sent]
            self._theirs.clear()
            is_closed = self._is_closed
            if self._halt is None and (not is_closed or sent):
                self._halt = self._their_failure or Failure(self._clock(), _GONE)
        if not is_closed:
            log.error("the audit log cannot be written", extra=facts(reason=_GONE))
        for each in sent:
            give_up(each, _GONE)
        self._wake.set()

    def _install(self, child: Child, left_out: Sequence[Sent], again: Sequence[Sent]) -> int | None:
        """Go on with that process: how many records are lost by now. None: nothing is written any more."""
        with self._lock:
            if self._is_closed:
                return None
            halt = self._halt or Failure(self._clock(), _GONE)
            lost = self._lost = self._lost + self._their_lost + len(left_out)
            self._unsettled = []
            self._kept.extendleft(reversed(again))
            self._socket.close()
            self._process, self._socket, self._frames = child.process, child.socket, wire.Frames()
            self.durable = child.durable
            self._their_failure, self._their_lost, self._delivered = None, 0, None
            self._send_kept(halt, 0)
            self._halt = None
            self._is_ended = False
        return lost

    def _begin_again(self) -> None:
        """Begin another process, and give it what was kept and is not in the log yet."""
        try:
            self._process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:  # it has the log until it is gone
            return
        try:
            child = begin(self._setup, self.durable.seq)
        except (ServingError, OSError) as error:
            log.error("the audit log cannot be opened", extra=facts(reason=str(error)))  # noqa: TRY400
            self._wake.wait(RETRY_S)
            return
        written, rest = sort_out(self._unsettled, child.found, self._clock.text)
        left_out = [each for each in rest if not each.is_kept]
        again = [each for each in rest if each.is_kept]
        lost = self._install(child, left_out, again)
        if lost is None:  # closed meanwhile: the process ends as its socket does
            child.socket.close()
            _end(child.process)
            return
        log.warning("the audit log can be written again", extra=facts(lost=lost))
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._attach, loop)
        self._flush_soon()
        self._is_open.set()
        for each, number in written:
            settle(each, number)
        for each in left_out:
            settle(each, _GONE)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process whose socket is closed has gone."""
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # its disk keeps it
            process.wait(RETRY_S)
