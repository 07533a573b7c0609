"""Where a call comes from, and how often one place may be wrong."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from serving.access.keys import Address, Network, is_within

_MAX_CHARS: Final = 4096
_MAX_HOPS: Final = 64


def source_of(peer: str | None, forwarded_for: Sequence[str], trusted_proxies: Sequence[Network]) -> Address | None:
    """The address that a call comes from; None where the connection has none (a Unix socket).

    `forwarded_for` is every `x-forwarded-for` header in order. It is read only where the peer is a trusted proxy, from
    the right, since each proxy adds to that end and whatever is further to the left the client may have written: the
    right-most address that is no trusted proxy. Where there is none, or anything in it is no address, it is the peer.
    """
    nearest = _address(peer or "")
    if not is_within(nearest, trusted_proxies) or sum(map(len, forwarded_for)) > _MAX_CHARS:
        return nearest
    hops = [_address(hop.strip(" \t")) for hop in ",".join(forwarded_for).split(",")]
    if len(hops) > _MAX_HOPS or None in hops:
        return nearest
    return next((hop for hop in reversed(hops) if not is_within(hop, trusted_proxies)), nearest)


@functools.lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    """An address as it stands, IPv4 within IPv6 as what it is; None for anything else, ports and zones included."""
    if "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """How often a source may fail."""

    burst: int = 20
    """Failures in a row."""
    per_minute: int = 10
    """Regained each minute."""
    sources: int = 4096
    """Remembered at one time."""


@dataclass(frozen=True, slots=True)
class Failures:
    """A bucket of failures: how many are left, and when that was so."""

    left: float
    at: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one more failure leads to."""

    failures: Failures
    retry_after_s: int | None
    """None: it is answered as a failure; else as one of too many, and this is when the next one counts again."""


def decide_failure(before: Failures | None, limits: AttemptLimits, now: float) -> Verdict:
    """One more failed attempt of a source, at `now` seconds of a clock that never goes back."""
    left = _regained(before, limits, now)
    if left >= 1:
        return Verdict(Failures(left - 1, now), None)
    return Verdict(Failures(left, now), max(1, round((1 - left) * 60 / limits.per_minute + 0.5)))


def is_forgotten(failures: Failures, limits: AttemptLimits, now: float) -> bool:
    """Whether a source has regained all, and nothing need be known of it."""
    return _regained(failures, limits, now) >= limits.burst


def _regained(before: Failures | None, limits: AttemptLimits, now: float) -> float:
    if before is None:
        return float(limits.burst)
    return min(float(limits.burst), before.left + max(0.0, now - before.at) * limits.per_minute / 60)


def _place_of(source: Address | None) -> object:
    return IPv6Network((source, 64), strict=False) if isinstance(source, IPv6Address) else source


class FailedAttempts:
    """The failures of each source, in bounded memory.

    An IPv6 source is its /64, which one subscriber has all of. Where the table is full of sources that have not
    regained all, further ones share a bucket: nobody buys a fresh start by coming from many places.
    """

    def __init__(self, limits: AttemptLimits) -> None:
        self._limits = limits
        self._table: dict[object, Failures] = {}
        self._swept = 0.0

    def __len__(self) -> int:
        return len(self._table)

    def failed(self, source: Address | None, now: float) -> int | None:
        """Count a failure. Seconds to wait where there were too many, else None."""
        place = _place_of(source)
        if place not in self._table and len(self._table) >= self._limits.sources:
            self._sweep(now)
            if len(self._table) >= self._limits.sources:
                place = "all others"
        verdict = decide_failure(self._table.get(place), self._limits, now)
        self._table[place] = verdict.failures
        return verdict.retry_after_s

    def is_over(self, source: Address | None, now: float) -> bool:
        """Whether one more failure of the source would be one too many. Costs nothing while no source has failed."""
        if not self._table:
            return False
        before = self._table.get(_place_of(source))
        return before is not None and _regained(before, self._limits, now) < 1

    def _sweep(self, now: float) -> None:
        """Forget whom there is nothing to know of; at most once a second, whatever arrives."""
        if now - self._swept < 1 and self._swept:
            return
        self._swept = now
        gone = [place for place, failures in self._table.items() if is_forgotten(failures, self._limits, now)]
        for place in gone:
            del self._table[place]
