"""Fingerprints in memory: which there are, and until when. For one thread at a time."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.policy.taint import NO_FINGERPRINTS, Fingerprints

Minutes = NDArray[np.uint32]
"""Since 1970."""
_BITS_EACH: Final = 32
"""Of the sieve, for each fingerprint: one in so many that are not there passes it."""
_RECENT: Final = 1 << 15
NEVER_THERE: Final = 0


class Index:
    """A set with expiry that answers for a hundred thousand fingerprints at once.

    Most of what is asked is not there, and a sieve of bits says so without a search. What is new stands in a table, and
    goes over into the sorted arrays when there is enough of it.
    """

    __slots__ = ("_expires", "_numbers", "_recent", "_shift", "_sieve")

    def __init__(self, most: int) -> None:
        """`most`: about so many fingerprints there will be."""
        bits = max(16, (most * _BITS_EACH - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._sieve = np.zeros(1 << (bits - 3), np.uint8)
        self._numbers: Fingerprints = NO_FINGERPRINTS
        self._expires: Minutes = np.zeros(0, np.uint32)
        self._recent: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._numbers) + len(self._recent)

    def expires(self, numbers: Fingerprints) -> Minutes:
        """When each of them expires; 0 for those that are not there."""
        found = np.full(len(numbers), NEVER_THERE, np.uint32)
        places = numbers >> self._shift
        passed = np.flatnonzero(self._sieve[places >> np.uint64(3)] >> (places & np.uint64(7)).astype(np.uint8) & 1)
        if not len(passed):
            return found
        asked = numbers[passed]
        if len(self._numbers):
            at = np.minimum(np.searchsorted(self._numbers, asked), len(self._numbers) - 1)
            found[passed] = np.where(self._numbers[at] == asked, self._expires[at], NEVER_THERE)
        recent = self._recent
        if recent:
            for place, number in zip(passed.tolist(), asked.tolist(), strict=True):
                later = recent.get(number)
                if later is not None:
                    found[place] = later
        return found

    def put(self, numbers: Fingerprints, expires: Minutes) -> None:
        """Add these, or change when they expire; of one that stands twice the last is taken."""
        places = numbers >> self._shift
        bits = np.left_shift(1, places & np.uint64(7), dtype=np.uint64).astype(np.uint8)
        np.bitwise_or.at(self._sieve, places >> np.uint64(3), bits)
        self._recent.update(zip(numbers.tolist(), expires.tolist(), strict=True))
        if len(self._recent) > _RECENT:
            self._merge()

    def live(self, now: int) -> tuple[Fingerprints, Minutes]:
        """Those that have not expired by that minute, in order."""
        self._merge()
        kept = self._expires > now
        return self._numbers[kept], self._expires[kept]

    def _merge(self) -> None:
        if not self._recent:
            return
        numbers = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        expires = np.fromiter(self._recent.values(), np.uint32, len(self._recent))
        order = np.argsort(numbers)
        numbers, expires = numbers[order], expires[order]
        at = np.searchsorted(self._numbers, numbers)
        is_old = np.zeros(len(numbers), np.bool_)
        within = at < len(self._numbers)
        is_old[within] = self._numbers[at[within]] == numbers[within]
        self._expires[at[is_old]] = expires[is_old]
        self._numbers = np.insert(self._numbers, at[~is_old], numbers[~is_old])
        self._expires = np.insert(self._expires, at[~is_old], expires[~is_old])
        self._recent = {}
