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
    """What is spent today stays spent where the clock says yesterday; no bucket is shut for longer than a minute."""
    limits = Limits(tokens_per_minute=10, cost_per_day=10)
    first = decide_reserve(limits, Usage(), Ask(10, 10), START_NS)
    assert isinstance(first, Granted)
    back = decide_reserve(limits, first.usage, Ask(1, 1), START_NS - DAY_NS)
    assert isinstance(back, Refused)
    assert back.limit == "cost_per_day"
    minute = decide_reserve(Limits(tokens_per_minute=10), first.usage, Ask(1), START_NS - DAY_NS)
    assert isinstance(minute, Refused)
    assert minute.retry_after_s <= 60
    assert isinstance(decide_reserve(UNLIMITED, first.usage, Ask(10**9, 10**9), START_NS), Granted)
