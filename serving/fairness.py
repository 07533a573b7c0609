"""Who comes next, and who may still wait, where several accounts want the same engine. Pure: counts in, answers out.

An account is whoever is counted together: a key and those that took its place. Where there are no keys there is none,
and all is in order of arrival.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

_KEPT_FREE: Final = 8
"""One place in so many is kept for accounts that hold few."""


def order_fairly(
    waiting: Sequence[str | None], running: Mapping[str | None, int], turns: Mapping[str | None, int]
) -> list[int]:
    """Places in `waiting`, which holds the account of each request in order of arrival, in the order they should start.

    First is the account with the fewest requests running, each request before it in its own line counted as one that
    runs; among equals the one whose last start (`turns`, a number that grows) is longest ago, then arrival. So a free
    place goes to whoever has least; an account's own requests keep their order; and nobody waits for ever: once none
    of an account's requests runs, every other account can start at most one before it.
    """
    ahead = Counter(running)
    keyed = []
    for place, account in enumerate(waiting):
        keyed.append((ahead[account], turns.get(account, 0), place))
        ahead[account] += 1
    return [place for _, _, place in sorted(keyed)]


def turn_after(clock: int, last: int | None) -> int:
    """The turn of a request that comes now; the lowest turn that waits is the next to start.

    `last` is the turn of its account's request before it, `clock` the highest turn of those that have ended. For queues
    that sort by a number given once (start-time fair queueing, Goyal et al. 1996): each account's turns go up by one,
    none is behind the clock, so who sends much is in line behind itself and is overtaken by nobody for ever.
    """
    return clock if last is None else max(clock, last + 1)


def may_enter(account: str | None, own: int, taken: int, most: int, count: int = 1) -> bool:
    """Whether `count` more requests of an account that holds `own` of the `taken` places may come in, of `most` in all.

    The last eighth is for accounts that hold no more than an eighth: however many one account sends, another finds a
    place. Without accounts every place is for everybody.
    """
    kept = most // _KEPT_FREE
    if account is None or own + count <= kept:
        return taken + count <= most
    return taken + count <= most - kept
