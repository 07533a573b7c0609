"""Texts of sensitive requests, remembered without keeping them: what follows them is the content, not an id.

A text is *normalised* first: compatibility decomposition (NFKD), marks dropped, case folded, and of what is left only
letters and digits. So white space, punctuation, case, accents and the form of a letter make no difference; and the
normalised form of a part of a text is a part of its normalised form. Then, with keys that are derived for each cache
domain:

- of a text of 32 normalised characters or more, every 29th run of 32 is kept, from the first on;
- of one of 16 to 31, the whole;
- of a shorter one, nothing: too many innocent texts share it.

Of what is asked about, *every* run of 32 is looked at, across the borders of messages and parts, and every short text
as a whole. A run of 60 normalised characters holds one that was kept, wherever it begins: any 60 that a request shares
with a text that was kept are found, and so is such a text of 32 or more as a whole. Between 32 and 59 of a longer text
are found or not, as they fall.

A fingerprint is 64 bits: a polynomial in a secret base over secret values of the characters, modulo 2**64, then mixed.
It is no cryptographic hash, and so it is kept encrypted (`policy.taint_store`); in memory it is as safe as the key is.
"""

from __future__ import annotations

import hmac
import struct
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

RUN: Final = 32
"""Normalised characters in one fingerprint; a power of two, since runs are doubled up to it."""
STRIDE: Final = 29
SURE: Final = RUN + STRIDE - 1
"""Any run of so many normalised characters of a text that was kept is found."""
SHORTEST: Final = 16
"""Normalised characters of the shortest text that is kept."""
KEY_BYTES: Final = 32
_ALL: Final = 0x110000
_BORDER: Final = "\0"
"""Between texts that are normalised at one go."""
_MODULUS: Final = 1 << 64

Fingerprints = NDArray[np.uint64]
Codes = NDArray[np.uint32]
NO_FINGERPRINTS: Final[Fingerprints] = np.zeros(0, np.uint64)


def normalised(text: str) -> Codes:
    """The code points that count, in order."""
    return _folded(text.replace(_BORDER, ""))


def _folded(text: str) -> Codes:
    """The same, with borders left in."""
    if text.isascii():
        raw = np.frombuffer(text.lower().encode(), np.uint8)
        return raw[_counts()[raw]].astype(np.uint32)
    codes = _codes(text)
    marks = _marks()[codes]
    if marks.any():
        # decomposition sorts a row of marks by exchanging neighbours: a long one would take for ever
        text = codes[~marks].tobytes().decode("utf-32-le", "surrogatepass")
    codes = _codes(unicodedata.normalize("NFKD", text).casefold())
    return codes[_counts()[codes]]


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32, copy=False)


@lru_cache(maxsize=1)
def _counts() -> NDArray[np.bool_]:
    """Which code points are letters or digits, or the border; a tenth of a second to make, once."""
    table = np.fromiter(map(str.isalnum, map(chr, range(_ALL))), np.bool_, _ALL)
    table[ord(_BORDER)] = True
    return table


@lru_cache(maxsize=1)
def _marks() -> NDArray[np.bool_]:
    """Which are marks that decomposition sorts."""
    return np.fromiter(map(bool, map(unicodedata.combining, map(chr, range(_ALL)))), np.bool_, _ALL)


class Fingerprinter:
    """Makes the fingerprints of one cache domain. Immutable; those of another domain have nothing to do with them."""

    __slots__ = ("_after", "_base", "_before", "_never", "_short")

    def __init__(self, key: bytes, domain: str, never: Sequence[str] = ()) -> None:
        """`key` has 32 bytes; no run of a text of `never` is kept. Raises ValueError for another length of key."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes")
        own = hmac.digest(key, b"domain " + domain.encode("utf-8", "surrogatepass"), "sha256")
        self._short = hmac.digest(own, b"short", "sha256")
        before, after, base, _ = struct.unpack("<4Q", hmac.digest(own, b"runs", "sha256"))
        self._before, self._after, self._base = np.uint64(before), np.uint64(after), base | 1
        self._never = NO_FINGERPRINTS
        self._never = np.unique(self.seek(never))

    def keep(self, texts: Iterable[str]) -> Fingerprints:
        """What is to be remembered of these texts, each by itself: in no order, and each once."""
        found = []
        for text in texts:
            codes = normalised(text)
            found.append(self._runs(codes)[::STRIDE] if len(codes) >= RUN else self._whole(codes))
        kept = np.unique(np.concatenate(found)) if found else NO_FINGERPRINTS
        return kept[~np.isin(kept, self._never)]

    def seek(self, texts: Iterable[str]) -> Fingerprints:
        """What is to be looked for on behalf of these texts, which follow each other."""
        codes = _folded(_BORDER.join([text.replace(_BORDER, "") for text in texts]))
        borders = np.flatnonzero(codes == ord(_BORDER))
        starts, ends = np.append(0, borders + 1), np.append(borders, len(codes))
        short = np.flatnonzero((ends - starts >= SHORTEST) & (ends - starts < RUN))
        wholes = [self._whole(codes[starts[at] : ends[at]]) for at in short]
        return np.concatenate([self._runs(np.delete(codes, borders)), *wholes])

    def _runs(self, codes: Codes) -> Fingerprints:
        """Of every run, in order. Twice as long a run is the first half times a power of the base, and the second."""
        if len(codes) < RUN:
            return NO_FINGERPRINTS
        values = _mixed(codes.astype(np.uint64) ^ self._before)
        length, power = 1, self._base
        while length < RUN:
            values = values[:-length] * np.uint64(power) + values[length:]
            length, power = 2 * length, power * power % _MODULUS
        return _mixed(values ^ self._after)

    def _whole(self, codes: Codes) -> Fingerprints:
        if not SHORTEST <= len(codes) < RUN:
            return NO_FINGERPRINTS
        raw = blake2b(codes.astype("<u4").tobytes(), key=self._short, digest_size=8).digest()
        return np.frombuffer(raw, "<u8").astype(np.uint64)


def _mixed(values: Fingerprints) -> Fingerprints:
    """A permutation of 64 bits in which every bit hangs on all (the end of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
