"""What is said of two runs is no more than their intervals allow, and never less than what is wrong with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bench.record import Client, Figure, Prompts, Result, Trust
from serving.bench.report.compare import Comparison, Row, compare, is_real, price_of, ratio_of
from serving.bench.statistics import mean
from tests.support.bench_results import figure, result, stage, sweep

values = st.floats(1e-3, 1e6)
spreads = st.floats(1e-4, 0.9)


def row_of(comparison: Comparison, name: str, place: int = 0) -> Row:
    """The row of a figure under one of the loads."""
    (found,) = [row for row in comparison.matched[place].rows if row.quantity.name == name]
    return found


@given(values, spreads, values, spreads)
def test_a_ratio_turned_round_is_its_inverse(one: float, spread: float, other: float, others: float) -> None:
    """Its interval holds it, and A over B says the same as B over A."""
    there, back = (
        ratio_of(figure(one, spread), figure(other, others)),
        ratio_of(figure(other, others), figure(one, spread)),
    )
    assert there is not None
    assert back is not None
    assert None not in (there.low95, there.high95, back.low95, back.high95)
    assert there.low95 <= there.value <= there.high95
    assert there.value * back.value == pytest.approx(1)
    assert there.low95 * back.high95 == pytest.approx(1)
    assert is_real(there) == is_real(back)


@given(values, spreads, spreads)
def test_a_ratio_is_as_wide_as_both_runs_together(value: float, spread: float, others: float) -> None:
    """Wider than either run's own interval, and narrower than if their errors always went against each other."""
    ratio = ratio_of(figure(value, spread), figure(value, others))
    assert ratio is not None
    assert ratio.low95 is not None
    assert ratio.high95 is not None
    assert (1 - spread) / (1 + others) - 1e-9 <= ratio.low95 <= min(1 - spread, 1 / (1 + others)) + 1e-9
    assert max(1 + spread, 1 / (1 - others)) - 1e-9 <= ratio.high95 <= (1 + spread) / (1 - others) + 1e-9
    assert not is_real(ratio)


def test_the_interval_of_a_ratio_holds_the_truth() -> None:
    """In 93 to 97 of a hundred pairs of runs, lognormal as latencies are."""
    random, held, runs = np.random.default_rng(3), 0, 1000
    for number in range(runs):
        told = []
        for place, scale in enumerate((1.3, 1.0)):
            found = mean((scale * random.lognormal(0, 0.8, 600)).tolist(), 2 * number + place)
            assert found is not None
            told.append(Figure(value=found.value, low95=found.low, high95=found.high))
        ratio = ratio_of(*told)
        assert ratio is not None
        held += ratio.low95 is not None and ratio.high95 is not None and ratio.low95 <= 1.3 <= ratio.high95
    assert 0.93 <= held / runs <= 0.97


def test_where_an_interval_is_missing_no_difference_is_called_real() -> None:
    """Nor where one of the two figures is, or the first is nothing."""
    bare = ratio_of(figure(2, None), figure(1))
    assert bare == Figure(value=2)
    assert is_real(bare) is None
    assert ratio_of(None, figure(1)) is None
    assert ratio_of(figure(1), None) is None
    assert ratio_of(figure(1), Figure(value=0)) is None


def test_an_interval_that_reaches_nothing_is_not_narrowed() -> None:
    """It has no logarithm: the ratio's goes from nothing to the quotient of the ends."""
    ratio = ratio_of(Figure(value=0.1, low95=-0.1, high95=0.3), Figure(value=1, low95=0.9, high95=1.1))
    assert ratio is not None
    assert (ratio.low95, ratio.high95) == (0, pytest.approx(0.3 / 0.9))
    assert ratio_of(Figure(value=0.0, low95=0.0, high95=0.0), figure(1)) is not None


def test_a_difference_within_the_noise_is_none() -> None:
    """And one beyond it is for the better or the worse, by what the figure is."""
    noise = compare([result("a"), result("b", stage(ttft=0.201, speed=805))], {})
    assert not row_of(noise, "ttft_p50").cells[1].is_real
    assert row_of(noise, "ttft_p50").cells[1].judged(row_of(noise, "ttft_p50").quantity) == "no difference told"
    real = compare([result("a"), result("b", stage(ttft=0.3, speed=1200))], {})
    told = {name: row_of(real, name) for name in ("ttft_p50", "output_tokens_per_s", "joules_per_output_token")}
    assert {name: row.cells[1].judged(row.quantity) for name, row in told.items()} == {
        "ttft_p50": "worse",
        "output_tokens_per_s": "better",
        "joules_per_output_token": "no interval",
    }


def test_a_price_is_what_a_million_tokens_cost() -> None:
    """At 1,000 tokens a second a million take 1,000 s; the interval is the rate's, turned round."""
    price = price_of(figure(1000, 0.1), 3.6)
    assert price is not None
    assert price.value == pytest.approx(1.0)
    assert price.low95 == pytest.approx(1 / 1.1)
    assert price.high95 == pytest.approx(1 / 0.9)
    assert price_of(figure(1000), None) is None
    assert price_of(Figure(value=0), 3.6) is None
    told = compare([result("a"), result("b", stage(speed=1600))], {"a": 1.0, "b": 4.0}, "CHF")
    row = row_of(told, "price_per_million_output_tokens")
    assert row.cells[1].ratio is not None
    assert row.cells[1].ratio.value == pytest.approx(2)
    assert row.cells[1].is_better(row.quantity) is False
    assert {verdict.question: verdict.best for verdict in told.verdicts}["lowest price of output"] == ("a",)


def test_loads_are_matched_by_kind_and_level() -> None:
    """Sixteen clients are not sixteen requests a second; what only one had is named."""
    first = result("a", stage(8), stage(16))
    other = result("b", stage(16), stage(16, kind="poisson"), stage(32))
    told = compare([first, other], {})
    assert [(matched.kind, matched.level) for matched in told.matched] == [("closed", 16)]
    assert told.unmatched == ("`a` at 8 clients", "`b` at 16 requests/s (poisson)", "`b` at 32 clients")
    nothing = compare([result("a", stage(8)), result("b", stage(16))], {})
    assert not nothing.matched
    assert any("nothing can be compared" in warning for warning in nothing.warnings)


def test_the_best_of_sweeps_is_told_within_the_objective() -> None:
    """By the most tokens a second among the loads that meet it, not by the most of all."""
    fast, slow = sweep("fast", speed=2400, capacity=64), sweep("slow", speed=900, capacity=16)
    told = compare([slow, fast], {})
    verdict = told.verdicts[0]
    assert verdict.best == ("fast",)
    assert [(entry.name, entry.load) for entry in verdict.entries] == [("fast", "64 clients"), ("slow", "16 clients")]
    assert [row.quantity.name for row in told.saturation] == ["held", "most_output_tokens_per_s"]
    assert [cell.figure.value for cell in told.saturation[0].cells if cell.figure is not None] == [16, 64]


def test_what_runs_cannot_tell_apart_has_no_winner() -> None:
    """Both are named, also where a figure has no interval at all."""
    told = compare([result("a"), result("b", stage(speed=805))], {})
    assert {verdict.question: set(verdict.best) for verdict in told.verdicts} == {
        "most requests within the objective (TTFT ≤ 2000 ms, TPOT ≤ 100 ms)": {"a", "b"},
        "most output tokens/s": {"a", "b"},
        "most output tokens/s per W": {"a", "b"},
    }
    assert told.verdicts[1].said == "no difference that these runs can tell: b, a"
    assert told.verdicts[2].said.startswith("b, by the value alone")


def test_who_misses_the_objective_wins_nothing() -> None:
    """However fast; and where all miss it, that is said."""
    told = compare([result("a"), result("b", stage(speed=5000, goodput=0.6))], {})
    assert told.verdicts[1].said == "a, the only one"
    none = compare([result("a", stage(goodput=0.5)), result("b", stage(goodput=0.6))], {})
    assert none.verdicts[1].said.startswith("none")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (result("b", scenario_sha256="cd" * 32), "another scenario"),
        (result("b", stage(trust=Trust(doubts=("the client took 93% of a core",)))), "the client took 93% of a core"),
        (result("b", stage(is_whole=False)), "stopped before its end"),
        (result("b", stage(steady=False)), "latency still grew"),
        (result("b", prompts=Prompts(exact=False, counted_by="none")), "not of exact length"),
        (result("b", client=Client(cores=4, is_on_the_servers_machine=False)), "over a network"),
    ],
)
def test_what_speaks_against_a_comparison_is_said(other: Result, said: str) -> None:
    """And nothing is said of two that are sound."""
    assert compare([result("a"), result("b")], {}).warnings == ()
    (warning,) = compare([result("a"), other], {}).warnings
    assert said in warning


@given(st.lists(st.tuples(values, spreads), min_size=1, max_size=5))
def test_the_best_value_is_always_among_the_best(found: list[tuple[float, float]]) -> None:
    """And whoever else is named has an interval that does not keep it away."""
    runs = [result(str(place), stage(speed=value, spread=spread)) for place, (value, spread) in enumerate(found)]
    verdict = compare(runs, {}).verdicts[1]
    most = max(value for value, _ in found)
    assert found[int(verdict.best[0])][0] == most
    assert all(
        not math.isclose(found[int(name)][0], most) for name in {str(n) for n in range(len(found))} - set(verdict.best)
    )
