"""Every value is tried once before any combination twice, and only what is better by more than chance is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.bench.tune import Knob, Trial, best_of, is_better, knobs_for, plan_trial, pooled

knob_lists = st.lists(
    st.tuples(st.sampled_from("abcd"), st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True)),
    max_size=4,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: tuple(Knob(name, tuple(values)) for name, values in pairs))


def sure(choice: dict[str, str | int], speed: float, *, meets: bool = True) -> Trial:
    """A trial whose interval is narrow."""
    return Trial(choice, speed, 0.99 * speed, 1.01 * speed, meets=meets)


@given(knobs=knob_lists, speeds=st.lists(st.floats(1, 1000), min_size=400, max_size=400))
def test_a_search_ends_and_tries_every_value(knobs: tuple[Knob, ...], speeds: list[float]) -> None:
    """Whatever comes of the trials; the first is the plan as it is."""
    trials: list[Trial] = []
    while (choice := plan_trial(knobs, trials)) is not None:
        assert dict(choice) not in [dict(trial.choice) for trial in trials]
        trials.append(sure(dict(choice), speeds[len(trials)]))
        assert len(trials) < 400
    assert trials[0].choice == {}
    for knob in knobs:
        assert {trial.choice.get(knob.name) for trial in trials} >= set(knob.values)
    values = sum(len(knob.values) for knob in knobs)
    assert all(len({knob.name for knob in knobs} & set(trial.choice)) <= len(knobs) for trial in trials)
    first = trials[1 : 1 + values]
    assert len({(knob.name, trial.choice.get(knob.name)) for knob in knobs for trial in first}) >= values


def test_settings_that_add_up_are_all_found() -> None:
    """A server in which each setting brings its own: the best of each is in the best of all."""
    gains = {("a", 1): 1.1, ("a", 2): 0.9, ("b", 7): 1.2, ("c", 3): 1.0}
    knobs = (Knob("a", (1, 2)), Knob("b", (7,)), Knob("c", (3,)))
    trials: list[Trial] = []
    while (choice := plan_trial(knobs, trials)) is not None:
        speed = 100.0
        for pair in choice.items():
            speed *= gains[pair]  # type: ignore[index]
        trials.append(sure(dict(choice), speed))
    best = best_of(trials)
    assert best is not None
    assert best.choice == {"a": 1, "b": 7}


def test_better_is_more_than_chance() -> None:
    """Intervals that say nothing, a missed objective, and a start that failed."""
    base = sure({}, 100)
    assert is_better(sure({"a": 1}, 103), base)
    assert not is_better(Trial({"a": 1}, 103, 90, 116, meets=True), base)
    assert not is_better(sure({"a": 1}, 300, meets=False), base)
    assert is_better(sure({"a": 1}, 50), sure({}, 100, meets=False))
    assert not is_better(Trial({"a": 1}, why="it does not fit"), base)
    assert not is_better(Trial({"a": 1}, 500.0, meets=True), base), "no interval: nobody knows"


def test_trials_of_one_choice_together_are_surer() -> None:
    """Half the interval's width at four times the trials; a failed one is passed over."""
    one = Trial({}, 100, 90, 110, meets=True)
    four = pooled([one] * 4)
    assert (four.low95, four.high95) == (95, 105)
    assert pooled([Trial({}, why="no"), one]) == one
    assert pooled([Trial({}, why="no")]).tokens_per_s is None


def test_a_plans_own_values_and_what_is_fixed_are_not_tried() -> None:
    """Each engine has the settings that it knows."""
    plan = {"engine": "llamacpp", "variant": "q8_0", "threads": 2, "n_ubatch": 512, "kv_layout": "streams"}
    knobs = {knob.name: knob.values for knob in knobs_for(plan, ["q8_0", "f16"], (1, 2), 8, ["kv_dtype"])}
    assert knobs["variant"] == ("f16",)
    assert knobs["threads"] == (1,)
    assert knobs["concurrency"] == (4, 8, 16)
    assert 512 not in knobs["ubatch"]
    assert knobs["kv_layout"] == ("unified",)
    assert "kv_dtype" not in knobs
    assert "step_tokens" not in knobs
    vllm = {knob.name for knob in knobs_for({"engine": "vllm", "step_tokens": 8192}, ["bf16"], (1,), 64, [])}
    assert vllm == {"variant", "concurrency", "step_tokens"}
