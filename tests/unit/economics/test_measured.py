"""What benchmarks and ledgers say, as inputs."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from serving.bench.record import Rates, Saturation
from serving.economics.bills import bills, usage_of
from serving.economics.measured import measured_machine, measured_workload, other_machine
from serving.errors import UsageError
from tests.support.bench_results import result, stage, sweep
from tests.support.cases import market


def test_a_machine_does_what_it_did_at_the_load_that_held() -> None:
    """As the interval that was measured, with where it is from; its power as it was metered."""
    found = sweep()
    held = next(each for each in found.stages if found.saturation and each.level == found.saturation.held)
    rate = held.rates.output_tokens_per_s
    assert rate is not None
    measured = measured_machine(found)
    decode = measured.capacity["decode_tokens_per_s"]
    assert [float(decode[name]) for name in ("low", "likely", "high")] == pytest.approx(
        [rate.low95, rate.value, rate.high95], rel=1e-5
    )
    assert measured.capacity["measured"] == "together"
    assert "2026-11-20" in measured.capacity["source"]
    assert held.energy is not None
    assert measured.busy_w == Decimal(str(held.energy.mean_w))


def test_what_speaks_against_a_benchmark_is_said() -> None:
    """No sweep, no meter; and a result in which nothing held gives no capacity."""
    notes = measured_machine(result("one", stage(8, power_w=None))).notes
    assert any("no sweep" in note for note in notes)
    assert any("no power" in note for note in notes)
    none = result("one", stage(8), saturation=Saturation(over="clients", held=None, failed=1, why="99% within 1 s"))
    with pytest.raises(UsageError, match="no load held"):
        measured_machine(none)
    with pytest.raises(UsageError, match="no rates"):
        measured_machine(result("one", stage(8).model_copy(update={"rates": Rates()})))


def test_another_machine_is_no_measure_of_this_one() -> None:
    """Which is said where both names are known."""
    assert other_machine(result(), "L40S") == []
    assert "NVIDIA L40S" in other_machine(result(), "H100 SXM")[0]
    assert other_machine(result(machine=None), "H100 SXM") == []
    assert other_machine(result(), None) == []
    bare = {**result().machine, "gpus": []}
    assert "without a GPU" in other_machine(result(machine=bare), "H100 SXM")[0]
    source = measured_machine(result("one", stage(8), machine=bare)).capacity["source"]
    assert f"{result().target.model} on " in source
    assert "no GPU" in source


LINES: list[dict[str, Any]] = [
    {
        "model": "a",
        "requests": 30,
        "fresh": 600,
        "cached": 400,
        "output": 100,
        "reasoning": 50,
        "cost": 7,
        "estimated": 1,
    },
    {
        "model": "b",
        "requests": 10,
        "fresh": 400,
        "cached": 600,
        "output": 300,
        "reasoning": 0,
        "cost": 5,
        "estimated": 0,
    },
]


def test_a_ledger_is_a_workload() -> None:
    """What was sent a day, what of it was found cached, and hidden tokens for each that is seen."""
    hours = [{"input": 500, "output": 50}, {"input": 1500, "output": 250}, {"input": 0, "output": 150}]
    days = date(2026, 5, 1), date(2026, 5, 21)
    assert measured_workload(usage_of(LINES, *days, "EUR"), hours) == {
        "requests_per_day": 2,
        "input_tokens_per_day": 100,
        "output_tokens_per_day": 20,
        "turns": 1,
        "cached": Decimal("0.5"),
        "reasoning": Decimal("0.125"),
        "hours_per_day": Decimal("0.15"),
        "days_per_week": 7,
        "peak": Decimal("2.25"),
    }
    with pytest.raises(UsageError, match="the ledger has no request"):
        measured_workload(usage_of([], *days, "EUR"), [])


def test_the_same_tokens_elsewhere() -> None:
    """At the price that held then: cached ones at theirs, and beside it as if none were."""
    thousands = [
        {**line, **{name: line[name] * 10**6 for name in ("fresh", "cached", "output", "reasoning")}} for line in LINES
    ]
    usage = usage_of(thousands, date(2026, 5, 1), date(2026, 6, 1), "EUR")
    assert (usage.cost, usage.requests, usage.estimated) == (Decimal("0.000012"), 40, 1)
    found = {each.name: each for each in bills(usage, market(), date(2026, 6, 1))}
    opus = found["anthropic/claude-opus-4.7"]
    assert opus.cost.likely == 1000 * 5 + 1000 * Decimal("0.5") + 450 * 25
    assert opus.uncached.likely == 2000 * 5 + 450 * 25
    before = usage_of(thousands, date(2026, 3, 1), date(2026, 4, 1), "EUR")
    assert "anthropic/claude-opus-4.7" not in {each.name for each in bills(before, market(), date(2026, 6, 1))}
    seeds = found["seeds-2026/frontier"].cost
    assert seeds.low == 2000 * Decimal("2.5") + 4500
    assert seeds.high == 2000 * 5 + 450 * 15
