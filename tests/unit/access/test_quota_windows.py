"""Windows, buckets and headers, by example."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serving.access.quota import (
    SECOND_NS,
    Ask,
    Granted,
    Limits,
    Refused,
    Usage,
    decide_reserve,
    format_duration,
    rate_headers,
    settle,
)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND_NS


NOON = at("2026-03-31T12:00:00")


def reserve(limits: Limits, usage: Usage, tokens: int, cost: int, now: int) -> Granted:
    outcome = decide_reserve(limits, usage, Ask(tokens, cost), now)
    assert isinstance(outcome, Granted), outcome
    return outcome


def test_a_day_and_a_month_begin_at_midnight_in_utc() -> None:
    """A budget that is spent is there again at the turn, and not before; retry-after is the time to it."""
    limits = Limits(cost_per_day=10, cost_per_month=15)
    usage = reserve(limits, Usage(), 0, 10, NOON).usage
    assert decide_reserve(limits, usage, Ask(0, 1), NOON) == Refused("cost_per_day", 12 * 3600)
    assert isinstance(decide_reserve(limits, usage, Ask(0, 1), at("2026-03-31T23:59:59")), Refused)
    usage = reserve(limits, usage, 0, 10, at("2026-04-01T00:00:00")).usage
    usage = reserve(limits, usage, 0, 5, at("2026-04-02T00:00:00")).usage
    refused = decide_reserve(limits, usage, Ask(0, 1), at("2026-04-02T00:00:00"))
    assert refused == Refused("cost_per_month", 29 * 86_400)


def test_a_reservation_belongs_to_the_day_it_was_made_in() -> None:
    """Settled after midnight it gives nothing to the new day, and takes nothing from it."""
    limits = Limits(tokens_per_day=100)
    before = reserve(limits, Usage(), 100, 0, at("2026-03-31T23:59:59"))
    after = reserve(limits, before.usage, 60, 0, at("2026-04-01T00:00:01"))
    usage = settle(limits, after.usage, before.hold, 5, 0, at("2026-04-01T00:00:02"))
    assert usage.day_tokens == 60
    assert usage.all_tokens == 65


def test_a_bucket_fills_evenly() -> None:
    """After a full one was emptied, a tenth is there after a tenth of a minute."""
    limits = Limits(tokens_per_minute=100)
    usage = reserve(limits, Usage(), 100, 0, NOON).usage
    assert decide_reserve(limits, usage, Ask(10), NOON) == Refused("tokens_per_minute", 6)
    reserve(limits, usage, 10, 0, NOON + 6 * SECOND_NS)
    assert decide_reserve(limits, usage, Ask(101), NOON + 600 * SECOND_NS) == Refused("tokens_per_minute", None)


def test_time_gives_nothing_back_twice() -> None:
    """What a settlement returns to a bucket is only what time has not yet returned."""
    limits = Limits(tokens_per_minute=60)
    first = reserve(limits, Usage(), 60, 0, NOON)
    second = reserve(limits, first.usage, 60, 0, NOON + 60 * SECOND_NS)
    usage = settle(limits, second.usage, first.hold, 0, 0, NOON + 60 * SECOND_NS)
    assert isinstance(decide_reserve(limits, usage, Ask(1), NOON + 60 * SECOND_NS), Refused)


def test_more_than_was_reserved_is_counted_too() -> None:
    """An engine that counts more than the bound has done the work."""
    limits = Limits(tokens_per_day=100, cost_in_all=100)
    granted = reserve(limits, Usage(), 10, 10, NOON)
    usage = settle(limits, granted.usage, granted.hold, 150, 120, NOON)
    assert (usage.day_tokens, usage.all_cost) == (150, 120)
    assert decide_reserve(limits, usage, Ask(0, 1), NOON) == Refused("cost_in_all", None)


def test_headers_are_named_and_written_as_openais() -> None:
    """Limit, remaining and reset of requests and tokens, of whichever window has least left."""
    limits = Limits(requests_per_minute=60, tokens_per_minute=600, tokens_per_day=100)
    granted = reserve(limits, Usage(), 90, 0, NOON)
    assert rate_headers(limits, granted.usage, NOON) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": "12h0m0s",
    }


@pytest.mark.parametrize(
    ("length_s", "text"),
    [(0, "0s"), (0.12, "120ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s"), (90.951, "1m30.951s"), (25382.4, "7h3m2.4s")],
)
def test_durations_are_written_as_openais(length_s: float, text: str) -> None:
    """The form that its headers have."""
    assert format_duration(round(length_s * SECOND_NS)) == text


def test_what_was_reserved_before_a_clock_was_set_back_gives_nothing_back() -> None:
    """Time has filled the bucket since, however young it looks by that clock: else each would give a minute's worth."""
    limits = Limits(tokens_per_minute=100)
    usage, holds = Usage(), []
    for minute in range(5):
        granted = reserve(limits, usage, 100, 0, NOON + minute * 60 * SECOND_NS)
        usage = granted.usage
        holds.append(granted.hold)
    usage = reserve(limits, usage, 100, 0, NOON - 3600 * SECOND_NS).usage
    for hold in holds:
        usage = settle(limits, usage, hold, 0, 0, NOON - 3600 * SECOND_NS)
        assert isinstance(decide_reserve(limits, usage, Ask(1), NOON - 3600 * SECOND_NS), Refused)
