"""Fingerprints in memory: which there are, and until when. For one thread at a time."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.policy.taint import NO_FINGERPRINTS, Fingerprints

Minutes = NDArray[np.uint32]
"""Since 1970."""
_BITS_EACH: Final = 32
"""Of the sieve, for each fingerprint: one in so many that are not there passes it."""
_RECENT: Final = 1 << 15
NEVER_THERE: Final = 0


class _Level(NamedTuple):
    """Fingerprints in order, each once, and when they expire."""

    numbers: Fingerprints
    expires: Minutes

    def find(self, asked: Fingerprints, found: Minutes) -> None:
        """Put into `found` when those expire that stand here."""
        if len(self.numbers):
            at = np.minimum(np.searchsorted(self.numbers, asked), len(self.numbers) - 1)
            is_there = self.numbers[at] == asked
            found[is_there] = self.expires[at[is_there]]

    def with_others(self, others: _Level) -> _Level:
        """Both; of one that stands in both, the other's expiry."""
        at = np.searchsorted(self.numbers, others.numbers)
        is_old = np.zeros(len(others.numbers), np.bool_)
        within = at < len(self.numbers)
        is_old[within] = self.numbers[at[within]] == others.numbers[within]
        expires = self.expires.copy()
        expires[at[is_old]] = others.expires[is_old]
        new, places = ~is_old, at[~is_old]
        return _Level(
            np.insert(self.numbers, places, others.numbers[new]), np.insert(expires, places, others.expires[new])
        )


_EMPTY: Final = _Level(NO_FINGERPRINTS, np.zeros(0, np.uint32))


class Index:
    """A set with expiry that answers for a hundred thousand fingerprints at once.

    Most of what is asked is not there, and a sieve of bits says so without a search. What is new stands in a level of
    its own, a small one, and goes over into the large one when there is enough of it.
    """

    __slots__ = ("_all", "_recent", "_shift", "_sieve")

    def __init__(self, most: int) -> None:
        """`most`: about so many fingerprints there will be."""
        bits = max(16, (most * _BITS_EACH - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._sieve = np.zeros(1 << (bits - 3), np.uint8)
        self._all, self._recent = _EMPTY, _EMPTY

    def __len__(self) -> int:
        return len(self._all.numbers) + len(self._recent.numbers)

    def expires(self, numbers: Fingerprints) -> Minutes:
        """When each of them expires; 0 for those that are not there."""
        found = np.full(len(numbers), NEVER_THERE, np.uint32)
        places = numbers >> self._shift
        passed = np.flatnonzero(self._sieve[places >> np.uint64(3)] >> (places & np.uint64(7)).astype(np.uint8) & 1)
        if len(passed):
            asked, until = numbers[passed], found[passed]
            self._all.find(asked, until)
            self._recent.find(asked, until)
            found[passed] = until
        return found

    def put(self, numbers: Fingerprints, expires: Minutes) -> None:
        """Add these, or change when they expire; of one that stands twice the last is taken."""
        places = numbers >> self._shift
        bits = np.left_shift(1, places & np.uint64(7), dtype=np.uint64).astype(np.uint8)
        np.bitwise_or.at(self._sieve, places >> np.uint64(3), bits)
        once, last = np.unique(numbers[::-1], return_index=True)
        self._recent = self._recent.with_others(_Level(once, expires[::-1][last].astype(np.uint32)))
        if len(self._recent.numbers) > _RECENT:
            self._merge()

    def live(self, now: int) -> tuple[Fingerprints, Minutes]:
        """Those that have not expired by that minute, in order."""
        self._merge()
        kept = self._all.expires > now
        return self._all.numbers[kept], self._all.expires[kept]

    def _merge(self) -> None:
        if len(self._recent.numbers):
            self._all, self._recent = self._all.with_others(self._recent), _EMPTY
