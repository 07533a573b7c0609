"""The server's end of the process that writes its log: records go in from any thread, and come back as numbers.

Records are sent in the order in which they came, those of one turn of the event loop by one call; answers come in the
same order, several with each write to the disk. Where no event loop is there, whoever waits does the reading.

Should that process die, those who wait are refused, what nobody waits for is kept, bounded, and a new process is begun,
at most once a second; the log then says since when, why, and what was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from serving import errors
from serving.audit import wire
from serving.audit.book import Clock, Durable
from serving.audit.process import Setup
from serving.audit.records import Gap, body_of
from serving.audit.writer import KEPT, RETRY_S, Failure
from serving.errors import ServingError, StartError, Unwritable
from serving.telemetry.logs import facts

log = logging.getLogger(__name__)
_OPEN_S: Final = 60.0
"""For the process to come up: it reads the last segment in whole."""
_END_S: Final = 30.0
"""For it to write what it has, when the server stops."""
_CHUNK: Final = 1 << 18
_BUFFER: Final = 4 << 20
"""Of the socket, each way."""
_GONE: Final = "the process that writes it ended"
Waiter = asyncio.Future[int] | Future[int]


class _Sent:
    """A record on its way: who waits for it, or the frame of what nobody waits for, should it have to be sent again."""

    __slots__ = ("frame", "waiter")

    def __init__(self, frame: bytes, waiter: Waiter | None) -> None:
        self.frame = frame
        self.waiter = waiter


class RemoteWriter:
    """Writes records from any thread, by way of a process of its own."""

    def __init__(self, setup: Setup, clock: Clock, on_tick: Callable[[], None] = lambda: None) -> None:
        """`on_tick` is called about once a second. Raises what opening the log does."""
        self._setup = setup
        self._clock = clock
        self._on_tick = on_tick
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        """Of those who wait without an event loop, one reads."""
        self._taking = threading.Lock()
        """Answers are paired with what was sent by their order: one at a time, whoever reads."""
        self._theirs = 0
        """Records that the other process has, or had, and did not write."""
        self._sent: deque[_Sent] = deque()
        self._outgoing: list[bytes] = []
        self._is_flush_due = False
        self._kept: deque[bytes] = deque()
        self._lost = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: Failure | None = None
        self._is_ended = False
        """No process is there."""
        self._is_closed = False
        self._delivered: int | None = None
        self.durable = Durable(0, 0, 0)
        """How far the log is on the disk."""
        self._process, self._socket = _begin(setup)
        self._frames = wire.Frames()

    @property
    def failure(self) -> Failure | None:
        """Why nothing can be written at present; None where all is well."""
        if not self._is_elsewhere:
            self._pump(lambda: True)
        return self._failure

    @property
    def process_id(self) -> int:
        """Of the process that writes."""
        return self._process.pid

    def durably(self, frame: bytes) -> asyncio.Future[int]:
        """Write a record; the number of its entry once that is durable, for the running loop. Raises Unwritable."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._attach(loop)
        waiter: asyncio.Future[int] = loop.create_future()
        self._send(_Sent(frame, waiter))
        return waiter

    def append(self, frame: bytes) -> int:
        """The same for threads: wait until it is durable. Raises Unwritable."""
        waiter: Future[int] = Future()
        self._send(_Sent(frame, waiter))
        while True:
            if not self._is_elsewhere:
                self._pump(waiter.done)
            # a loop that read may end, and none may be there yet: then this thread reads
            with contextlib.suppress(TimeoutError):
                return waiter.result(0.1)

    def post(self, frame: bytes) -> None:
        """Write a record that nobody waits for; while nothing can be written it is kept, within bounds."""
        self._send(_Sent(frame, None))

    def delivered(self, segment: int | None) -> None:
        """The last segment that has left the host as a whole: retention waits for those after it."""
        if segment is not None and segment != self._delivered and not self._is_ended:
            self._delivered = segment
            with self._lock:
                self._outgoing.append(wire.frame((wire.DELIVERED, segment)))

    def close(self) -> None:
        """Write what has come, a checkpoint, and end. Raises nothing: `failure` says whether it could be done."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._outgoing.append(wire.frame((wire.END,)))
        self._detach()
        until = time.monotonic() + _END_S
        self._pump(lambda: self._is_ended or time.monotonic() > until)
        with self._lock:
            if self._sent:
                self._failure = self._failure or Failure(self._clock(), "the process that writes it does not answer")
                for each in self._sent:
                    self._refuse(each)
            self._is_ended = True
        with contextlib.suppress(OSError):
            self._socket.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # Sending

    def _send(self, sent: _Sent) -> None:
        with self._lock:
            if self._is_closed:
                raise Unwritable("the audit log is closed")
            if self._is_ended:
                self._refuse(sent)
                return
            self._sent.append(sent)
            self._outgoing.append(sent.frame)
            if self._is_flush_due:
                return
            self._is_flush_due = self._loop is not None
        loop = self._loop
        if loop is None:
            self._flush()
        elif asyncio._get_running_loop() is loop:  # noqa: SLF001 - the public one raises where there is none, at a cost
            loop.call_soon(self._flush)
        else:
            self._wake(loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
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
        if not self._is_ended:
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
            self._on_end()
            return False
        is_tick = False
        for count, told, durable, failure, lost in self._frames.take(data):
            self.durable = Durable(*durable)
            for place in range(count):
                waiter = self._sent.popleft().waiter
                if waiter is not None:
                    _settle(waiter, told + place if isinstance(told, int) else _unwritable(told))
            self._theirs = lost
            self._note(None if failure is None else Failure(*failure), lost)
            is_tick |= not count
        return is_tick

    def _note(self, failure: Failure | None, lost: int) -> None:
        if (failure is None) != (self._failure is None):
            if failure is not None:
                log.error("the audit log cannot be written", extra=facts(reason=failure.reason))
            else:
                log.warning("the audit log can be written again", extra=facts(lost=lost))
        self._failure = failure

    # A process that died

    def _on_end(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
        with self._lock:
            self._is_ended = True
            self._outgoing.clear()
            self._is_flush_due = False
            sent, self._sent = self._sent, deque()
            is_closed = self._is_closed
            if not is_closed or sent:
                self._failure = self._failure or Failure(self._clock(), _GONE)
            for each in sent:
                self._refuse(each)
        if not is_closed:
            log.error("the audit log cannot be written", extra=facts(reason=_GONE))
            threading.Thread(target=self._restart, name="audit", daemon=True).start()

    def _refuse(self, sent: _Sent) -> None:
        """What becomes of a record while no process is there. Under the lock."""
        if sent.waiter is not None:
            self._lost += 1
            _settle(sent.waiter, _unwritable(_GONE))
        elif len(self._kept) < KEPT:
            self._kept.append(sent.frame)
        else:
            self._lost += 1

    def _restart(self) -> None:
        """Begin another process, and give it what was kept."""
        self._process.wait()
        while not self._is_closed:
            try:
                process, connected = _begin(self._setup)
            except (ServingError, OSError) as error:
                log.error("the audit log cannot be opened", extra=facts(reason=str(error)))  # noqa: TRY400
                time.sleep(RETRY_S)
                continue
            with self._lock:
                failure, self._failure = self._failure or Failure(self._clock(), _GONE), None
                gap = Gap(since=failure.since, reason=failure.reason, lost=self._lost + self._theirs)
                frames = [wire.frame((wire.POSTED, time.time_ns(), body_of(gap))), *self._kept]
                self._lost, self._theirs, self._delivered = 0, 0, None
                self._kept.clear()
                self._socket.close()
                self._process, self._socket, self._frames = process, connected, wire.Frames()
                self._sent.extend(_Sent(each, None) for each in frames)
                self._outgoing.extend(frames)
                self._is_ended = False
            log.warning("the audit log can be written again", extra=facts(lost=gap.lost))
            loop = self._loop
            if loop is not None:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._attach, loop)
                self._wake(loop)
            else:
                self._flush()
            return


def _begin(setup: Setup) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process that has the log open, and the socket to it. Raises what opening the log does."""
    ours, theirs = socket.socketpair()
    with theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        environment = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and nothing from outside
            [sys.executable, "-P", "-m", "serving.audit", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )
    ours.settimeout(_OPEN_S)
    try:
        ours.sendall(wire.frame((wire.SETUP, setup.told())))
        told = wire.read(ours)
    except OSError:
        told = None
    if told is not None and told[0] == "open":
        ours.settimeout(None)
        return process, ours
    ours.close()
    process.kill()
    process.wait()
    if told is None:
        raise StartError("the process that writes the audit log did not come up", hint="its words are in this log")
    _, name, message, hint = told
    raise getattr(errors, name)(message, hint=hint)


def _settle(waiter: Waiter, told: int | Unwritable) -> None:
    """Tell who waits, in their own event loop."""
    if isinstance(waiter, asyncio.Future) and asyncio._get_running_loop() is not waiter.get_loop():  # noqa: SLF001
        with contextlib.suppress(RuntimeError):  # it has ended, and with it who waited
            waiter.get_loop().call_soon_threadsafe(_settle, waiter, told)
    elif waiter.done():
        pass
    elif isinstance(told, int):
        waiter.set_result(told)
    else:
        waiter.set_exception(told)


def _unwritable(reason: str) -> Unwritable:
    return Unwritable(
        f"the audit record of this request cannot be written: {reason}", hint="the operator has to make room for it"
    )
