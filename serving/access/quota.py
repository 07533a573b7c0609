"""How much a key may use: a reservation of the most that a request can cost before it, the truth after it.

Everything here is a function of frozen data. Limits of a minute are token buckets, which hold one minute's worth and
fill evenly; days and months are those of the calendar in UTC. A reservation belongs to the windows that it was made in,
whenever it is settled. Times are nanoseconds since 1970, money is whole micro-units of one currency: nothing is rounded
but what a token bucket takes, and that upwards.

What is made for every request is a named tuple, which takes a fifth of the time of a frozen dataclass.

A bucket is kept as the moment at which it will be full again (the generic cell rate algorithm, ITU-T I.371): to take
from it moves that moment away, and it is empty when that is a minute from now. A moment further away than that is of a
clock that was set back since: how much is missing is then not known, and the bucket counts as full, once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

SECOND_NS: Final = 10**9
_MINUTE_NS: Final = 60 * SECOND_NS
_DAY_NS: Final = 86_400 * SECOND_NS

_MOST: Final = 1 << 62
"""More than any limit is."""

Limit = Literal[
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "requests_per_day",
    "tokens_per_day",
    "cost_per_day",
    "cost_per_month",
    "cost_in_all",
]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an account may use; None: as much as it likes. Tokens are those of prompts and answers together."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    """Requests at one time."""
    cost_per_day: int | None = None
    """Micro-units of the price book's currency; so are the others."""
    cost_per_month: int | None = None
    cost_in_all: int | None = None

    @property
    def has_budget(self) -> bool:
        """Whether money is limited."""
        return not (self.cost_per_day is None and self.cost_per_month is None and self.cost_in_all is None)


UNLIMITED: Final = Limits()


class Usage(NamedTuple):
    """What an account has used and reserved, in the windows of its last reservation."""

    requests_full_ns: int = 0
    """When the bucket of requests is full again."""
    tokens_full_ns: int = 0
    day: int = 0
    """Days since 1970."""
    day_requests: int = 0
    day_tokens: int = 0
    day_cost: int = 0
    month: int = 0
    """Months since the year 0."""
    month_cost: int = 0
    all_requests: int = 0
    all_tokens: int = 0
    all_cost: int = 0
    running: int = 0
    """Requests at this time; of this process only."""


class Ask(NamedTuple):
    """The most that a request can use."""

    tokens: int
    """The prompt's upper bound, and n times the most of an answer."""
    cost: int = 0
    """Micro-units."""


class Hold(NamedTuple):
    """What is reserved, and in which windows."""

    tokens: int
    cost: int
    made_ns: int
    day: int
    month: int


class Granted(NamedTuple):
    """The request may go on; `usage` is what there is from now on."""

    usage: Usage
    hold: Hold


@dataclass(frozen=True, slots=True)
class Refused:
    """A limit is in the way."""

    limit: Limit
    retry_after_s: int | None
    """When it may fit, if nothing else comes; None: never as it is."""


def decide_reserve(limits: Limits, usage: Usage, ask: Ask, now_ns: int) -> Granted | Refused:
    """Whether a request that asks for so much may go on, and what the account has then.

    Where several limits are in the way, the one that takes longest to give way is named.
    """
    now, (tokens, cost) = rolled(usage, now_ns), ask
    requests_full_ns, tokens_full_ns = now.requests_full_ns, now.tokens_full_ns
    if limits.requests_per_minute is not None:
        requests_full_ns = _taken(requests_full_ns, 1, limits.requests_per_minute, now_ns)
    if limits.tokens_per_minute is not None:
        tokens_full_ns = _taken(tokens_full_ns, tokens, limits.tokens_per_minute, now_ns)
    after = Usage(
        requests_full_ns,
        tokens_full_ns,
        now.day,
        now.day_requests + 1,
        now.day_tokens + tokens,
        now.day_cost + cost,
        now.month,
        now.month_cost + cost,
        now.all_requests + 1,
        now.all_tokens + tokens,
        now.all_cost + cost,
        now.running + 1,
    )
    if not _is_within(limits, after, now_ns):
        refused = _in_the_way(limits, now, ask, now_ns)
        return max(refused, key=lambda each: float("inf") if each.retry_after_s is None else each.retry_after_s)
    return Granted(after, Hold(tokens, cost, now_ns, now.day, now.month))


def settle(limits: Limits, usage: Usage, hold: Hold, tokens: int, cost: int, now_ns: int) -> Usage:
    """What the account has once a reservation turned out to be `tokens` and `cost`.

    More than was reserved is counted too: what an engine did was done; a minute's bucket is empty at worst. Of that no
    more is given back than can still be missing there, since time has filled it as well.
    """
    full_ns = usage.tokens_full_ns
    if limits.tokens_per_minute is not None:
        more_ns = _need_ns(tokens, limits.tokens_per_minute) - _need_ns(hold.tokens, limits.tokens_per_minute)
        if more_ns > 0:
            full_ns = now_ns + min(_missing_ns(full_ns, now_ns) + more_ns, _MINUTE_NS)
        elif now_ns >= hold.made_ns:  # else the clock was set back since, and how long ago it was is not known
            full_ns -= max(0, -more_ns - (now_ns - hold.made_ns))
    is_day, is_month = usage.day == hold.day, usage.month == hold.month
    return Usage(
        requests_full_ns=usage.requests_full_ns,
        tokens_full_ns=full_ns,
        day=usage.day,
        day_requests=usage.day_requests,
        day_tokens=usage.day_tokens + (tokens - hold.tokens if is_day else 0),
        day_cost=usage.day_cost + (cost - hold.cost if is_day else 0),
        month=usage.month,
        month_cost=usage.month_cost + (cost - hold.cost if is_month else 0),
        all_requests=usage.all_requests,
        all_tokens=usage.all_tokens + tokens - hold.tokens,
        all_cost=usage.all_cost + cost - hold.cost,
        running=max(0, usage.running - 1),
    )


def rolled(usage: Usage, now_ns: int) -> Usage:
    """The usage in the windows of now. A clock that was set back opens no new ones."""
    day = max(usage.day, now_ns // _DAY_NS)
    if day == usage.day:
        return usage
    month = _month_of(day)
    return Usage(
        requests_full_ns=usage.requests_full_ns,
        tokens_full_ns=usage.tokens_full_ns,
        day=day,
        month=month,
        month_cost=usage.month_cost if month == usage.month else 0,
        all_requests=usage.all_requests,
        all_tokens=usage.all_tokens,
        all_cost=usage.all_cost,
        running=usage.running,
    )


def rate_headers(limits: Limits, usage: Usage, now_ns: int) -> dict[str, str]:
    """`x-ratelimit-*` as OpenAI names them: of requests and of tokens, the limit of which least is left.

    Nothing is said of what is not limited. `reset` is when all of it is there again, as in `6m0s` or `120ms`.
    """
    now = rolled(usage, now_ns)
    headers: dict[str, str] = {}
    if not (limits.requests_per_minute is None and limits.requests_per_day is None):
        left = _left(
            limits.requests_per_minute, now.requests_full_ns, limits.requests_per_day, now.day_requests, now.day, now_ns
        )
        headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"] = str(left[1]), str(left[0])
        headers["x-ratelimit-reset-requests"] = format_duration(left[2])
    if not (limits.tokens_per_minute is None and limits.tokens_per_day is None):
        left = _left(
            limits.tokens_per_minute, now.tokens_full_ns, limits.tokens_per_day, now.day_tokens, now.day, now_ns
        )
        headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-remaining-tokens"] = str(left[1]), str(left[0])
        headers["x-ratelimit-reset-tokens"] = format_duration(left[2])
    return headers


def _left(
    per_minute: int | None, full_ns: int, per_day: int | None, used: int, today: int, now_ns: int
) -> tuple[int, int, int]:
    """What is left of a minute's limit or a day's, whichever is less; that limit; nanoseconds until all is there."""
    minute = day = (_MOST, 0, 0)
    if per_minute is not None:
        missing_ns = _missing_ns(full_ns, now_ns)
        minute = ((_MINUTE_NS - missing_ns) * per_minute // _MINUTE_NS, per_minute, missing_ns)
    if per_day is not None:
        day = (max(0, per_day - used), per_day, (today + 1) * _DAY_NS - now_ns if used else 0)
    return min(minute, day)


def format_duration(length_ns: int) -> str:
    """A length of time as OpenAI's headers have it: `0s`, `120ms`, `1.5s`, `6m0s`, `7h13m2s`; upwards to 1 ms."""
    milliseconds = -(-length_ns // 10**6)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    end = f"{seconds}.{thousandths:03}".rstrip("0") if thousandths else str(seconds)
    return f"{hours}h{minutes}m{end}s" if hours else f"{minutes}m{end}s" if minutes else f"{end}s"


def _is_within(limits: Limits, after: Usage, now_ns: int) -> bool:
    """Whether an account may have this; the same as that nothing is in the way, in a fraction of the time."""
    return (
        (limits.concurrency is None or after.running <= limits.concurrency)
        and (limits.requests_per_minute is None or after.requests_full_ns - now_ns <= _MINUTE_NS)
        and (limits.tokens_per_minute is None or after.tokens_full_ns - now_ns <= _MINUTE_NS)
        and (limits.requests_per_day is None or after.day_requests <= limits.requests_per_day)
        and (limits.tokens_per_day is None or after.day_tokens <= limits.tokens_per_day)
        and (limits.cost_per_day is None or after.day_cost <= limits.cost_per_day)
        and (limits.cost_per_month is None or after.month_cost <= limits.cost_per_month)
        and (limits.cost_in_all is None or after.all_cost <= limits.cost_in_all)
    )


def _in_the_way(limits: Limits, now: Usage, ask: Ask, now_ns: int) -> list[Refused]:
    found: list[Refused] = []
    if limits.concurrency is not None and now.running >= limits.concurrency:
        found.append(Refused("concurrency", 1 if limits.concurrency else None))
    if limits.requests_per_minute is not None:
        found += _bucket("requests_per_minute", limits.requests_per_minute, now.requests_full_ns, 1, now_ns)
    if limits.tokens_per_minute is not None:
        found += _bucket("tokens_per_minute", limits.tokens_per_minute, now.tokens_full_ns, ask.tokens, now_ns)
    windows: tuple[tuple[Limit, int | None, int, int], ...] = (
        ("requests_per_day", limits.requests_per_day, now.day_requests, 1),
        ("tokens_per_day", limits.tokens_per_day, now.day_tokens, ask.tokens),
        ("cost_per_day", limits.cost_per_day, now.day_cost, ask.cost),
        ("cost_per_month", limits.cost_per_month, now.month_cost, ask.cost),
        ("cost_in_all", limits.cost_in_all, now.all_cost, ask.cost),
    )
    for name, limit, used, asked in windows:
        if limit is not None and used + asked > limit:
            found.append(Refused(name, None if asked > limit else _ends_s(name, now, now_ns)))
    return found


def _ends_s(name: Limit, now: Usage, now_ns: int) -> int | None:
    if name == "cost_in_all":
        return None
    if name == "cost_per_month":
        return _seconds(_month_ends_ns(now.month) - now_ns)
    return _seconds((now.day + 1) * _DAY_NS - now_ns)


def _bucket(name: Limit, per_minute: int, full_ns: int, asked: int, now_ns: int) -> list[Refused]:
    if asked > per_minute:
        return [Refused(name, None)]
    over_ns = _missing_ns(full_ns, now_ns) + _need_ns(asked, per_minute) - _MINUTE_NS
    return [Refused(name, _seconds(over_ns))] if over_ns > 0 else []


def _taken(full_ns: int, amount: int, per_minute: int, now_ns: int) -> int:
    """When a bucket is full again of which so much was taken; more than a minute from now where it has not so much."""
    need_ns = -(-amount * _MINUTE_NS // per_minute) if per_minute else 2 * _MINUTE_NS * amount
    if now_ns < full_ns <= now_ns + _MINUTE_NS:
        return full_ns + need_ns
    return now_ns + need_ns


def _missing_ns(full_ns: int, now_ns: int) -> int:
    """What a bucket lacks, in time; nothing where the clock was set back."""
    missing_ns = full_ns - now_ns
    return missing_ns if 0 < missing_ns <= _MINUTE_NS else 0


def _need_ns(amount: int, per_minute: int) -> int:
    return -(-amount * _MINUTE_NS // per_minute) if per_minute else 0


def _seconds(length_ns: int) -> int:
    """Whole seconds that are enough."""
    return max(1, -(-length_ns // SECOND_NS))


@functools.lru_cache(maxsize=8)
def _month_of(day: int) -> int:
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return date.year * 12 + date.month - 1


@functools.lru_cache(maxsize=8)
def _month_ends_ns(month: int) -> int:
    year, index = divmod(month + 1, 12)
    return int(datetime(max(1970, year), index + 1, 1, tzinfo=UTC).timestamp()) * SECOND_NS
