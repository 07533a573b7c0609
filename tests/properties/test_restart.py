"""When a dead engine is started again, as properties of the pure decision."""

from hypothesis import given
from hypothesis import strategies as st

from serving.engines.restart import Crash, GiveUp, RestartAfter, RestartPolicy, decide_restart, forget_old

policies = st.builds(
    RestartPolicy,
    backoff_s=st.floats(0, 10),
    backoff_max_s=st.floats(0, 100),
    max_crashes=st.integers(1, 10),
    window_s=st.floats(0.1, 1000),
)
histories = st.lists(
    st.builds(Crash, st.floats(0, 2000), st.just(True), st.none() | st.integers(0, 255)), min_size=1, max_size=30
).map(lambda crashes: tuple(sorted(crashes, key=lambda crash: crash.at)))


@given(history=histories, policy=policies)
def test_it_is_given_up_on_exactly_at_the_bound(history: tuple[Crash, ...], policy: RestartPolicy) -> None:
    """A ready engine is given up on exactly where the window holds `max_crashes`."""
    recent = sum(1 for crash in history if history[-1].at - crash.at <= policy.window_s)
    assert isinstance(decide_restart(history, policy), GiveUp) == (recent >= policy.max_crashes)


@given(history=histories, policy=policies)
def test_pauses_grow_and_are_bounded(history: tuple[Crash, ...], policy: RestartPolicy) -> None:
    """A pause is never negative, never above the bound, and never shorter than with one crash less."""
    decision = decide_restart(history, policy)
    if isinstance(decision, RestartAfter):
        assert 0 <= decision.delay_s <= policy.backoff_max_s
        before = decide_restart(history[1:], policy) if len(history) > 1 else None
        if isinstance(before, RestartAfter):
            assert before.delay_s <= decision.delay_s


@given(history=histories, policy=policies)
def test_what_is_forgotten_does_not_matter(history: tuple[Crash, ...], policy: RestartPolicy) -> None:
    """Dropping crashes outside the window changes no decision, so the history stays small."""
    assert decide_restart(forget_old(history, policy), policy) == decide_restart(history, policy)


@given(history=histories, policy=policies, status=st.integers(0, 255))
def test_an_exit_before_it_was_ever_ready_is_final(
    history: tuple[Crash, ...], policy: RestartPolicy, status: int
) -> None:
    """An engine that exits by itself while it first loads has found something that a restart will not change."""
    last = Crash(history[-1].at, was_ready=False, exit_status=status)
    assert isinstance(decide_restart((*history, last), policy), GiveUp)


@given(policy=policies, count=st.integers(1, 5000))
def test_no_number_of_crashes_overflows(policy: RestartPolicy, count: int) -> None:
    """Thousands of crashes at one moment give a decision."""
    many = RestartPolicy(policy.backoff_s, policy.backoff_max_s, count + 1, policy.window_s)
    decision = decide_restart((Crash(1.0, was_ready=True, exit_status=None),) * count, many)
    assert isinstance(decision, RestartAfter)
