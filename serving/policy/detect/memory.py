"""What was found before in a stretch of text, by a keyed hash of the stretch: nothing of a text is kept.

A finder may ask it only about what is decided by the stretch alone. Then what is remembered is what asking again gives,
and a conversation costs what is new in it with each turn. What one owner's texts left here is not looked up for
another's: how long a scan takes would tell whether somebody else had sent the same.
"""

from __future__ import annotations

import secrets
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

_MOST_BYTES: Final = 16 << 20
_EACH_BYTES: Final = 256
"""What an entry takes beside its places: the hash, and the table's own."""
_KEY_BYTES: Final = 32
_HASH_BYTES: Final = 32

Places = tuple[tuple[int, int, int], ...]
"""The text's number in the stretch, and where something begins and ends in it."""


class Memory:
    """Bounded in bytes; what was asked for longest ago goes first. Gone with the process, as its key is."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most_bytes
        self._known: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._owner = b""
        self._key = secrets.token_bytes(_KEY_BYTES)
        self.recalled = 0
        """How often something was known."""

    @property
    def size(self) -> int:
        """Bytes, about."""
        return self._size

    def enter(self, owner: str) -> None:
        """Whose texts are asked about from now on."""
        self._owner = owner.encode("utf-8", "surrogatepass")

    def forget(self) -> None:
        """Everything, and the key that it was found by."""
        self._known.clear()
        self._size = 0
        self._key = secrets.token_bytes(_KEY_BYTES)

    def mark(self, texts: Sequence[str]) -> bytes:
        """The stretch's hash, for this owner. Where one text ends and the next one begins is part of it."""
        digest = blake2b(key=self._key, digest_size=_HASH_BYTES)
        for raw in (self._owner, *(text.encode("utf-8", "surrogatepass") for text in texts)):
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
        return digest.digest()

    def recall(self, mark: bytes) -> Places | None:
        """What was found there; None where nobody has looked, or it was forgotten."""
        raw = self._known.get(mark)
        if raw is None:
            return None
        self._known.move_to_end(mark)
        self.recalled += 1
        numbers = array("I", raw)
        return tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))

    def keep(self, mark: bytes, places: Places) -> None:
        """Remember it."""
        if mark in self._known:
            return
        raw = array("I", [number for place in places for number in place]).tobytes()
        self._known[mark] = raw
        self._size += len(raw) + _EACH_BYTES
        while self._size > self._most:
            self._size -= len(self._known.popitem(last=False)[1]) + _EACH_BYTES
