"""What the server and the process that writes its audit log say to each other, over a pair of sockets.

Both ends are of one program and one release: frames are Python values as `marshal` writes them, behind their length,
which takes a fraction of what a record's canonical form does. That form is made where it is written.
"""

from __future__ import annotations

import marshal
import socket
from typing import Any, Final

SETUP: Final = 0
"""`(SETUP, {…}, after)`: what to open, and how (`process.Setup`); and the last entry that was acknowledged to whoever
opens it again, else None. The answer has what was written after that one."""
WAITED: Final = 1
"""`(WAITED, at_ns, body)`: a record in canonical form that somebody waits for."""
POSTED: Final = 2
"""`(POSTED, at_ns, body)`: one that nobody waits for."""
INTENT: Final = 3
"""`(INTENT, at_ns, values)`: an intent's fields as `records.values_of` has them; it is waited for."""
OUTCOME: Final = 4
"""`(OUTCOME, at_ns, values)`: the same of an outcome; it is posted."""
DELIVERED: Final = 5
"""`(DELIVERED, segment)`: the last segment that has left the host as a whole."""
END: Final = 6
"""`(END,)`: nothing comes after this."""

_LENGTH: Final = 4


def frame(value: tuple[Any, ...]) -> bytes:
    """One value, to be sent."""
    raw = marshal.dumps(value)
    return len(raw).to_bytes(_LENGTH, "little") + raw


def value(framed: bytes) -> tuple[Any, ...]:
    """The other way round."""
    whole: tuple[Any, ...] = marshal.loads(framed[_LENGTH:])  # noqa: S302 - of this very process
    return whole


class Frames:
    """Takes what arrives, in whatever pieces, and gives the values in it."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> list[Any]:
        """The values that are whole now."""
        if self._rest:
            data = self._rest + data
        values, at = [], 0
        while len(data) - at >= _LENGTH:
            end = at + _LENGTH + int.from_bytes(data[at : at + _LENGTH], "little")
            if end > len(data):
                break
            values.append(marshal.loads(data[at + _LENGTH : end]))  # noqa: S302 - of this program's own other process
            at = end
        self._rest = data[at:]
        return values


def read(connected: socket.socket) -> tuple[Any, ...] | None:
    """Wait for one value and take nothing of what follows it; None where the other end is gone. Raises OSError."""
    head = _exactly(connected, _LENGTH)
    raw = None if head is None else _exactly(connected, int.from_bytes(head, "little"))
    if raw is None:
        return None
    value: tuple[Any, ...] = marshal.loads(raw)  # noqa: S302 - of this program's own other process
    return value


def _exactly(connected: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        part = connected.recv(count - len(data))
        if not part:
            return None
        data += part
    return data
