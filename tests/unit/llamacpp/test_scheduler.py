"""The decision of a step, from states written down by hand and from random ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.llamacpp.scheduler import (
    MIN_CHUNK,
    MIN_SHARED,
    Cached,
    Chunk,
    Config,
    Running,
    State,
    Step,
    Waiting,
    choose_stream,
    evict_order,
    plan_moves,
    schedule,
    share_budget,
)

UNIFIED = Config("unified", parallel=4, capacity=1000, batch=512)
STREAMS = Config("streams", parallel=4, capacity=0, batch=512)


def state(waiting=(), running=(), free=1000, evictable=0, rate=1000.0) -> State:
    return State(tuple(waiting), tuple(running), free, evictable, rate)


def test_nothing_to_do_is_an_empty_step() -> None:
    """No requests, no step."""
    assert schedule(state(), UNIFIED) == Step()
    assert schedule(state(), UNIFIED).is_empty


def test_prompts_take_the_time_budget_and_decoding_goes_on_beside() -> None:
    """A quarter of a second at the measured rate, oldest first; everything that decodes decodes."""
    step = schedule(state(running=[Running(1, 100, 99), Running(2, 400, 0), Running(3, 400, 0)], rate=1000), STREAMS)
    assert step.decode == (1,)
    assert step.prefill == (Chunk(2, 250),)


def test_each_account_has_an_equal_part_of_a_step() -> None:
    """A short prompt beside the long ones of another account is computed at once; what it leaves goes to them."""
    others = [Running(number, 4000, 0, account="a") for number in (1, 2, 3)]
    step = schedule(state(running=[*others, Running(4, 100, 0, account="b")], rate=1000), STREAMS)
    assert step.prefill == (Chunk(1, 150), Chunk(4, 100))
    equals = [Running(1, 4000, 0, account="a"), Running(2, 4000, 0, account="b")]
    assert schedule(state(running=equals, rate=1000), STREAMS).prefill == (Chunk(1, 125), Chunk(2, 125))


def test_parts_are_not_too_small_to_be_worth_a_call() -> None:
    """More accounts than there are chunks in the budget: the oldest have theirs, whole."""
    many = [Running(number, 400, 0, account=str(number)) for number in range(10)]
    assert share_budget(many, 3 * MIN_CHUNK, 512) == {number: MIN_CHUNK * (number < 3) for number in range(10)}


@given(
    st.lists(st.tuples(st.integers(1, 900), st.sampled_from(["a", "b", None])), max_size=8),
    st.integers(MIN_CHUNK, 2000),
    st.integers(16, 512),
)
def test_nothing_of_a_step_is_left_unused(prompts, budget: int, batch: int) -> None:
    """The budget is used up, or each prompt has all that one call can compute; one account alone is served in order."""
    entries = [Running(at, tokens + 1, 0, account=account) for at, (tokens, account) in enumerate(prompts)]
    parts = share_budget(entries, budget, batch)
    wanted = {entry.request: min(entry.tokens, batch) for entry in entries}
    assert all(0 <= parts[request] <= most for request, most in wanted.items())
    assert sum(parts.values()) == min(budget, sum(wanted.values()))
    for account in {entry.account for entry in entries}:
        own = [entry.request for entry in entries if entry.account == account]
        begun = [parts[request] < wanted[request] for request in own]
        if len({entry.account for entry in entries}) == 1:
            assert all(not parts[later] for at, later in enumerate(own) if any(begun[:at]))


def test_a_slow_model_still_makes_progress() -> None:
    """At least MIN_CHUNK tokens, however slow."""
    step = schedule(state(running=[Running(1, 400, 0)], rate=1.0), STREAMS)
    assert step.prefill == (Chunk(1, MIN_CHUNK),)


def test_a_request_waits_for_the_prefix_that_another_is_computing() -> None:
    """It is not started, those behind it are, and the leader's chunk ends where it is needed."""
    waiting = [Waiting(2, 700, ready=0, pending=600), Waiting(3, 50, ready=0, pending=0)]
    step = schedule(state(waiting, [Running(1, 710, 0, cuts=(600,))], rate=1e6), Config("streams", 4, 0, batch=2048))
    assert step.admit == (3,)
    assert step.prefill[0] == Chunk(1, 600)


def test_a_prefix_that_is_there_is_not_computed_again() -> None:
    """Only what is missing is in the chunk."""
    step = schedule(state([Waiting(1, 700, ready=600, pending=600)]), STREAMS)
    assert step.admit == (1,)
    assert step.prefill == (Chunk(1, 100),)


def test_no_more_than_parallel_run() -> None:
    """The fifth waits."""
    waiting = [Waiting(n, 10, 0, 0) for n in range(1, 6)]
    assert schedule(state(waiting), STREAMS).admit == (1, 2, 3, 4)


def test_a_long_request_is_not_overtaken_for_cells() -> None:
    """Where cells decide, arrival order holds, or a long prompt would starve."""
    waiting = [Waiting(2, 900, 0, 0), Waiting(3, 10, 0, 0)]
    step = schedule(state(waiting, [Running(1, 500, 499)], free=500), UNIFIED)
    assert step.admit == ()


def test_the_youngest_gives_way_when_cells_run_out() -> None:
    """No cell left for those that decode: the last to come is set back."""
    step = schedule(state(running=[Running(1, 500, 499), Running(2, 502, 501)], free=1), UNIFIED)
    assert step == Step(preempt=(2,))


def test_prompts_that_block_each_other_are_untied() -> None:
    """Two half-computed prompts and no cell: the younger yields, the older goes on."""
    step = schedule(state(running=[Running(1, 800, 500), Running(2, 800, 500)], free=0), UNIFIED)
    assert step == Step(preempt=(2,))


RUNNING = st.builds(
    lambda computed, more, cut: (computed, computed + more, (computed + cut,) if cut < more else ()),
    st.integers(0, 900),
    st.integers(1, 900),
    st.integers(1, 900),
)
WAITING = st.tuples(st.integers(1, 900), st.integers(0, 900), st.integers(0, 900))


@given(
    st.lists(RUNNING, max_size=4),
    st.lists(WAITING, max_size=6),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.floats(0.1, 1e5),
    st.sampled_from([UNIFIED, STREAMS]),
)
def test_every_step_is_sound(running, waiting, free, evictable, rate, config) -> None:
    """Bounds hold in any state: cells, sequences, the time budget, one mention per request, oldest never set back."""
    runs = [Running(n, tokens, computed, cuts) for n, (computed, tokens, cuts) in enumerate(running)]
    waits = [
        Waiting(100 + n, tokens, min(ready, tokens - 1), min(pending, tokens - 1))
        for n, (tokens, ready, pending) in enumerate(waiting)
    ]
    current = State(tuple(waits), tuple(runs), free, evictable, rate)
    step = schedule(current, config)
    assert step == schedule(current, config)
    if step.preempt:
        assert config.layout == "unified"
        assert step == Step(preempt=(runs[-1].request,))
        return
    assert len(runs) + len(step.admit) <= config.parallel or not step.admit
    chunked = [chunk.request for chunk in step.prefill]
    assert len(set(chunked) | set(step.decode)) == len(chunked) + len(step.decode)
    assert set(step.decode) == {entry.request for entry in runs if entry.is_decoding}
    assert all(chunk.count > 0 for chunk in step.prefill)
    assert sum(chunk.count for chunk in step.prefill) <= max(MIN_CHUNK, int(rate * config.step_s))
    if config.layout == "unified":
        assert sum(chunk.count for chunk in step.prefill) + len(step.decode) <= free + evictable
    for entry in waits:
        if entry.request in step.admit:
            assert entry.pending < entry.ready + MIN_SHARED
    by_request = {entry.request: entry for entry in runs}
    for chunk in step.prefill:
        entry = by_request.get(chunk.request)
        if entry is not None and entry.cuts:
            assert entry.computed + chunk.count <= entry.cuts[0]


def test_the_covered_go_first_then_the_longest_unused() -> None:
    """A prefix that another path contains costs nothing to forget."""
    cached = [Cached(1, 5, 10, covered=False), Cached(2, 9, 10, covered=True), Cached(3, 1, 10, covered=False)]
    assert evict_order(cached) == [2, 3, 1]


def test_a_stream_is_taken_over_in_place_only_if_most_of_it_is_used() -> None:
    """Half or more used: in place. Less: the lowest free stream, and the rest stays for others."""
    cached = [Cached(2, 0, 100, covered=False)]
    assert choose_stream([1, 2, 3], cached, 60, [2]) == 2
    assert choose_stream([1, 2, 3], cached, 40, [2]) == 1
    assert choose_stream([1, 2, 3], cached, 0, []) == 1


@given(st.sets(st.integers(0, 15)), st.data())
def test_moves_leave_no_hole_among_the_busy(busy: set[int], data: st.DataObject) -> None:
    """After the moves the busy ids are 0 … n-1, and no stream was moved upwards."""
    free = sorted(set(range(16)) - busy)
    moves = plan_moves(sorted(busy), free)
    after = set(busy)
    for source, target in moves:
        assert target < source
        after.remove(source)
        after.add(target)
    assert after == set(range(len(busy)))
