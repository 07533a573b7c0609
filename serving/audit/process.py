"""The process that writes a host's audit log, for the server at the socket's end.

It is a process and no thread because a thread shares the interpreter: whatever formed, hashed and signed records would
stop the event loop for as long. It has the signing key, which the process that reads clients' bytes then need not have.

It lives as long as the socket: when the server is gone, however it went, what was sent is written, signed, and it ends.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from serving.audit import wire
from serving.audit.book import Book, Clock, Limits
from serving.audit.keys import load_signer
from serving.audit.records import Intent, Outcome, body_or_gap
from serving.audit.segments import Retention
from serving.audit.writer import Item, State, Writer
from serving.errors import ServingError

_CHUNK: Final = 1 << 20
_COMPANY_S: Final = 0.005
"""How long records that nobody waits for stand until they are written without others."""
_GROUP: Final = 4096
"""Records in one write at most: to collect so many takes less than that."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What is to be opened."""

    directory: Path
    signing_key: Path
    limits: Limits
    retention: Retention

    def told(self) -> dict[str, Any]:
        """As a frame holds it."""
        return {
            "directory": str(self.directory),
            "signing_key": str(self.signing_key),
            "limits": asdict(self.limits),
            "retention": asdict(self.retention),
        }

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Setup:
        """The other way round."""
        return cls(
            Path(told["directory"]),
            Path(told["signing_key"]),
            Limits(**told["limits"]),
            Retention(**told["retention"]),
        )


class Connection:
    """The server's end of it, as the writer sees it."""

    def __init__(self, connected: socket.socket, clock: Clock) -> None:
        self._socket = connected
        self._clock = clock
        self._frames = wire.Frames()
        self._items: list[Item] = []
        self._is_open = True
        self.delivered: int | None = None

    def collect(self, wait_s: float) -> tuple[list[Item], bool]:
        """What has come, after waiting for the first of it, and whether more may come."""
        self._read(0 if self._items else wait_s)
        if self._items and not any(item.is_awaited for item in self._items):
            self._read(_COMPANY_S)
        group, self._items = self._items[:_GROUP], self._items[_GROUP:]
        return group, self._is_open or bool(self._items)

    def tell(self, count: int, told: int | str, state: State) -> None:
        """Answer the next `count` records: the number of the first, or why they are not written."""
        failure = None if state.failure is None else (state.failure.since, state.failure.reason)
        durable = (state.durable.segment, state.durable.size, state.durable.seq)
        flags = socket.MSG_NOSIGNAL | (0 if count else socket.MSG_DONTWAIT)  # a mere sign of life is not worth a wait
        with contextlib.suppress(OSError):  # nobody is there any more
            raw = wire.frame((count, told, durable, failure, state.lost))
            sent = self._socket.send(raw, flags)
            if sent < len(raw):
                self._socket.sendall(raw[sent:])

    def _read(self, wait_s: float) -> None:
        """Take what comes within that time."""
        if not self._is_open or not select.select([self._socket], [], [], wait_s)[0]:
            return
        try:
            data = self._socket.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            self._is_open = False
        for value in self._frames.take(data):
            self._take(value)

    def _take(self, value: tuple[Any, ...]) -> None:
        kind = value[0]
        if kind == wire.DELIVERED:
            self.delivered = value[1]
        elif kind == wire.END:
            self._is_open = False
        else:
            is_awaited = kind in (wire.WAITED, wire.INTENT)
            at, body, has_form = self._clock.text(value[1]), value[2], True
            if kind in (wire.INTENT, wire.OUTCOME):
                body, has_form = body_or_gap(Intent if kind == wire.INTENT else Outcome, value[2], at)
            self._items.append(Item(at, body, is_awaited=is_awaited and has_form, has_form=has_form))


def main(descriptor: int) -> int:
    """Open the log, write until there is nobody to write for."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the server drains first; it ends this one by ending
    clock = Clock()
    with socket.socket(fileno=descriptor) as connected:
        told = wire.read(connected)
        if told is None:
            return 0
        setup = Setup.of(told[1])
        try:
            book = Book(setup.directory, load_signer(setup.signing_key), setup.limits, clock, told[2])
        except ServingError as error:
            connected.sendall(wire.frame(("error", type(error).__name__, error.message, error.hint)))
            return 1
        durable = book.durable
        connected.sendall(wire.frame(("open", (durable.segment, durable.size, durable.seq), book.found)))
        Writer(book, clock, Connection(connected, clock), setup.retention).run()
    return 0
