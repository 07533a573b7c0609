"""Whatever the order of reservations, settlements and time, no budget is exceeded and nothing leaks."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from serving.access.quota import (
    SECOND_NS,
    UNLIMITED,
    Ask,
    Granted,
    Limits,
    Refused,
    Usage,
    decide_reserve,
    rate_headers,
    rolled,
    settle,
)

START_NS = int(datetime(2026, 1, 31, 23, 50, tzinfo=UTC).timestamp()) * SECOND_NS
DAY_NS = 86_400 * SECOND_NS
BOUND = st.none() | st.integers(0, 300)
LIMITS = st.builds(Limits, BOUND, BOUND, BOUND, BOUND, st.none() | st.integers(0, 5), BOUND, BOUND, BOUND)
STEP = st.tuples(
    st.integers(0, 100),  # tokens asked for
    st.integers(0, 100),  # their cost
    st.floats(0, 1),  # the share that is used of it
    st.sampled_from([0, 1, SECOND_NS, 20 * SECOND_NS, 700 * SECOND_NS, DAY_NS]),
    st.integers(0, 10**6),  # which of the open reservations is settled
    st.booleans(),
)


@given(LIMITS, st.lists(STEP, max_size=60))
def test_no_order_of_things_exceeds_a_limit(limits: Limits, steps: list) -> None:
    """In each day, month, in all and at one time; and the account knows exactly what was settled and is held."""
    usage, now, running = Usage(), START_NS, []
    spent: dict[tuple[str, int], list[int]] = {}
    minutes: list[tuple[int, int]] = []
    for tokens, cost, share, later, which, is_settled in steps:
        now += later
        outcome = decide_reserve(limits, usage, Ask(tokens, cost), now)
        if isinstance(outcome, Granted):
            usage = outcome.usage
            running.append((outcome.hold, int(tokens * share), int(cost * share)))
        if running and is_settled:
            hold, used, paid = running.pop(which % len(running))
            usage = settle(limits, usage, hold, used, paid, now)
            for window in (("day", hold.day), ("month", hold.month), ("all", 0)):
                total = spent.setdefault(window, [0, 0, 0])
                total[0] += 1
                total[1] += used
                total[2] += paid
            minutes.append((hold.made_ns, used))
        held = [(hold, tokens_held, hold.cost) for hold, tokens_held, _ in running]
        assert usage.running == len(running)
        assert limits.concurrency is None or usage.running <= limits.concurrency
        today = rolled(usage, now)
        day = [0, 0, 0]
        for total in [spent.get(("day", today.day), [0, 0, 0])]:
            day = list(total)
        for hold, _, _ in held:
            if hold.day == today.day:
                day = [day[0] + 1, day[1] + hold.tokens, day[2] + hold.cost]
        assert [today.day_requests, today.day_tokens, today.day_cost] == day
    for (window, _), (requests, used, paid) in spent.items():
        bounds = {
            "day": (limits.requests_per_day, limits.tokens_per_day, limits.cost_per_day),
            "month": (None, None, limits.cost_per_month),
            "all": (None, None, limits.cost_in_all),
        }[window]
        for bound, value in zip(bounds, (requests, used, paid), strict=True):
            assert bound is None or value <= bound
    if limits.tokens_per_minute is not None:
        for first, _ in minutes:
            within = sum(used for made, used in minutes if first <= made <= first + 60 * SECOND_NS)
            assert within <= 2 * limits.tokens_per_minute  # a full bucket, and what came into it


@given(LIMITS, st.lists(STEP, max_size=40))
def test_what_is_given_back_is_as_if_never_reserved(limits: Limits, steps: list) -> None:
    """Settling everything at nothing leaves nothing reserved: no reservation leaks."""
    usage, now, holds = Usage(), START_NS, []
    for tokens, cost, _, later, _, _ in steps:
        now += later
        outcome = decide_reserve(limits, usage, Ask(tokens, cost), now)
        if isinstance(outcome, Granted):
            usage = outcome.usage
            holds.append(outcome.hold)
    for hold in holds:
        usage = settle(limits, usage, hold, 0, 0, now)
    assert (usage.day_tokens, usage.day_cost, usage.month_cost, usage.all_cost, usage.all_tokens) == (0, 0, 0, 0, 0)
    assert usage.running == 0
    assert usage.all_requests == len(holds)


@given(LIMITS, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=20), st.integers(0, 300))
def test_a_refusal_says_when_it_will_fit(limits: Limits, before: list, asked: int) -> None:
    """After the seconds that it names, if nothing else comes, the limit that was named is not in the way."""
    usage = Usage()
    for tokens, cost in before:
        outcome = decide_reserve(limits, usage, Ask(tokens, cost), START_NS)
        usage = outcome.usage._replace(running=0) if isinstance(outcome, Granted) else usage
    outcome = decide_reserve(limits, usage, Ask(asked, asked), START_NS)
    if isinstance(outcome, Refused) and outcome.retry_after_s is not None:
        later = decide_reserve(limits, usage, Ask(asked, asked), START_NS + outcome.retry_after_s * SECOND_NS)
        assert isinstance(later, Granted)


@given(LIMITS, st.lists(st.integers(0, 200), max_size=20))
def test_headers_say_what_is_left(limits: Limits, before: list[int]) -> None:
    """Never below nothing or above the limit; nothing is said of what is not limited."""
    usage = Usage()
    for tokens in before:
        outcome = decide_reserve(limits, usage, Ask(tokens), START_NS)
        usage = outcome.usage if isinstance(outcome, Granted) else usage
    headers = rate_headers(limits, usage, START_NS)
    for what, bounds in (
        ("requests", (limits.requests_per_minute, limits.requests_per_day)),
        ("tokens", (limits.tokens_per_minute, limits.tokens_per_day)),
    ):
        if bounds == (None, None):
            assert f"x-ratelimit-limit-{what}" not in headers
        else:
            assert 0 <= int(headers[f"x-ratelimit-remaining-{what}"]) <= int(headers[f"x-ratelimit-limit-{what}"])


def test_a_clock_that_is_set_back_opens_nothing() -> None:
    """What is spent today stays spent where the clock says yesterday; a minute's bucket is not shut until tomorrow."""
    limits = Limits(tokens_per_minute=10, cost_per_day=10)
    first = decide_reserve(limits, Usage(), Ask(10, 10), START_NS)
    assert isinstance(first, Granted)
    back = decide_reserve(limits, first.usage, Ask(1, 1), START_NS - DAY_NS)
    assert isinstance(back, Refused)
    assert back.limit == "cost_per_day"
    minute = decide_reserve(Limits(tokens_per_minute=10), first.usage, Ask(10), START_NS - DAY_NS)
    assert isinstance(minute, Granted)
    again = decide_reserve(Limits(tokens_per_minute=10), minute.usage, Ask(1), START_NS - DAY_NS)
    assert isinstance(again, Refused)
    assert again.retry_after_s == 6
    assert isinstance(decide_reserve(UNLIMITED, first.usage, Ask(10**9, 10**9), START_NS), Granted)


PER_MINUTE = 60
ASKS = st.tuples(
    st.integers(0, PER_MINUTE),  # tokens asked for
    st.floats(0, 1),  # the share that is used of it
    st.sampled_from([0, 1, 7, 20, 59, 60, 61, 200]).map(lambda seconds: seconds * SECOND_NS),  # later
    st.integers(0, 10**6) | st.none(),  # which of the open reservations is settled
)


@given(
    st.lists(ASKS, max_size=40), st.integers(0, 40), st.sampled_from([1, 30, 59, 60, 61, 90, 119, 600, 3600, 86_400])
)
def test_a_clock_set_back_costs_a_minute_at_most(steps: list, at: int, back_s: int) -> None:
    """In any span of true time no more is used than without, but for a minute's worth; and nobody waits for longer than
    a minute, wherever the clock was set back and however far."""
    limits = Limits(tokens_per_minute=PER_MINUTE)
    usage, true_ns, set_back_ns, running = Usage(), START_NS, 0, []
    used: list[tuple[int, int]] = []
    for number, (tokens, share, later_ns, which) in enumerate(steps):
        true_ns += later_ns
        set_back_ns = back_s * SECOND_NS if number >= at else 0
        now_ns = true_ns - set_back_ns
        outcome = decide_reserve(limits, usage, Ask(tokens), now_ns)
        if isinstance(outcome, Granted):
            usage = outcome.usage
            running.append((true_ns, outcome.hold, int(tokens * share)))
        else:
            assert outcome.retry_after_s is not None
            assert outcome.retry_after_s <= 60
            waited = decide_reserve(limits, usage, Ask(tokens), now_ns + 60 * SECOND_NS)
            assert isinstance(waited, Granted)
        if which is not None and running:
            made_ns, hold, spent = running.pop(which % len(running))
            usage = settle(limits, usage, hold, spent, 0, now_ns)
            used.append((made_ns, spent))
    used += [(made_ns, hold.tokens) for made_ns, hold, _ in running]
    used.sort()
    for first, (begins_ns, _) in enumerate(used):
        total = 0
        for ends_ns, spent in used[first:]:
            total += spent
            filled = (ends_ns - begins_ns) * PER_MINUTE // (60 * SECOND_NS)
            assert total <= PER_MINUTE + filled + (PER_MINUTE if at < len(steps) else 0)


@given(st.integers(0, 3600), st.integers(1, 500), st.integers(0, 500))
def test_more_than_was_reserved_empties_a_bucket_at_worst(back_s: int, asked: int, more: int) -> None:
    """An engine that counts more than the bound shuts a minute's limit for a minute and no longer."""
    limits = Limits(tokens_per_minute=500)
    first = decide_reserve(limits, Usage(), Ask(asked), START_NS)
    assert isinstance(first, Granted)
    now_ns = START_NS - back_s * SECOND_NS
    usage = settle(limits, first.usage, first.hold, asked + more * 10, 0, now_ns)
    asks = [decide_reserve(limits, usage, Ask(500), now_ns + later_s * SECOND_NS) for later_s in (0, 60)]
    assert any(isinstance(ask, Granted) for ask in asks)
    if back_s == 0:
        assert [isinstance(ask, Granted) for ask in asks] == [False, True]
