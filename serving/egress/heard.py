"""What was sent of one answer, for who has to remember it."""

from __future__ import annotations

from typing import Final

_KEPT_BYTES: Final = 64 << 20
"""Of one answer; of a longer one it is said that it could not be read."""


class Heard:
    """Keeps what a client is sent, up to a bound."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> None:
        """Some of the answer."""
        self._size += len(data)
        if self._size <= _KEPT_BYTES:
            self._parts.append(bytes(data))

    @property
    def whole(self) -> bytes | None:
        """All of it; None where it was too long."""
        return b"".join(self._parts) or b"{}" if self._size <= _KEPT_BYTES else None
