"""From samples to a stage: what counts, over which time, and what speaks against it."""

from __future__ import annotations

import json

import pytest

from serving.bench.meter import Metered
from serving.bench.record import FORMAT, Result, read_result, schema
from serving.bench.result import Taken, stage_of
from serving.bench.run import has_held, saturation_of
from serving.bench.samples import Outcome, Sample
from serving.bench.scenario import Scenario
from serving.bench.watch import Kept
from serving.errors import BadFile, FileMissing
from serving.hardware.power import Reading

FIXED = {"kind": "fixed", "tokens": 10}
CLOSED = {"kind": "closed", "clients": 1}


def scenario(load: dict[str, object] | None = None, requests: int = 40, **more: object) -> Scenario:
    """One whose lengths do not matter."""
    tables = {"title": "t", "requests": requests, "load": load or CLOSED, "prompt": FIXED, "output": FIXED}
    return Scenario.model_validate({**tables, **more})


def sample(sent: float, *, outcome: Outcome = "completed", due: float | None = None, tokens: int = 10) -> Sample:
    """A request that gets a token each tenth of a second, the first after one."""
    arrivals = tuple(sent + 0.1 * (1 + at) for at in range(tokens)) if outcome != "failed" else ()
    return Sample(
        due=sent if due is None else due,
        sent=sent,
        arrivals=arrivals,
        ended=arrivals[-1] if arrivals else sent + 0.1,
        outcome=outcome,
        prompt_tokens=20,
        output_tokens=tokens,
        error="" if outcome == "completed" else "why",
        written_tokens=20,
    )


def taken(*samples: Sample, metered: Metered | None = None, **more: object) -> Taken:
    """One client, whose requests follow each other."""
    return Taken(tuple(enumerate(samples)), 100.0, metered=metered or Metered(), **more)  # type: ignore[arg-type]


def test_rates_are_of_the_time_in_which_the_load_was_whole() -> None:
    """One client, a token each tenth of a second without a pause: ten a second, the last request's tail left out."""
    stage = stage_of(scenario(), taken(*(sample(float(at)) for at in range(40))))
    assert stage.window is not None
    assert (stage.window.begin, stage.window.end, stage.window.kind) == (0.0, 39.0, "steady")
    speed, requests = stage.rates.output_tokens_per_s, stage.rates.requests_per_s
    assert speed is not None
    assert requests is not None
    assert speed.value == pytest.approx(10, rel=0.02)
    assert requests.value == pytest.approx(1, rel=0.03)
    assert stage.rates.prompt_tokens_per_s is not None
    assert stage.rates.prompt_tokens_per_s.value == pytest.approx(20, rel=0.03)
    assert stage.is_whole
    assert sum(part.output_tokens_per_s for part in stage.timeline) / 60 * stage.seconds == pytest.approx(400, rel=1e-6)
    assert max(part.running for part in stage.timeline) == pytest.approx(1)


def test_what_failed_is_counted_and_in_no_rate() -> None:
    """Nor is what came short or was cut off; all of it weighs on goodput."""
    outcomes: list[Outcome] = ["completed", "short", "truncated", "failed"] * 10
    load = scenario(objective={"ttft_ms": 150})
    stage = stage_of(load, taken(*(sample(float(at), outcome=what) for at, what in enumerate(outcomes))))
    assert stage.requests.model_dump() == {"completed": 10, "short": 10, "truncated": 10, "failed": 10}
    assert stage.errors == {"why": 30}
    assert stage.rates.output_tokens_per_s is not None
    assert stage.rates.output_tokens_per_s.value == pytest.approx(2.5, rel=0.05)
    assert stage.goodput is not None
    assert stage.goodput.share is not None
    assert stage.goodput.share.value == 0.25
    assert stage.figures["ttft"].count == 10


def test_all_that_met_the_objective_is_no_certainty() -> None:
    """Forty of forty leave room for one in twelve."""
    stage = stage_of(scenario(objective={"ttft_ms": 150}), taken(*(sample(float(at)) for at in range(40))))
    assert stage.goodput is not None
    assert stage.goodput.share is not None
    assert stage.goodput.share.low95 is not None
    assert 0.9 < stage.goodput.share.low95 < 0.93
    assert stage.goodput.share.high95 == 1.0


def test_the_warm_up_is_in_no_figure() -> None:
    """Its tokens count where they arrive in the window: the server was busy with them."""
    stage = stage_of(scenario(requests=35, warm_up=5), taken(*(sample(float(at)) for at in range(40))))
    assert stage.requests.total == 35
    assert stage.window is not None
    assert stage.window.begin == 5.0


def test_waiting_before_the_sending_shows_from_when_it_was_due() -> None:
    """A client that falls behind its timetable by a second has a TTFT of a second more."""
    load = scenario({"kind": "constant", "rate": 1.0}, objective={"ttft_ms": 600})
    stage = stage_of(load, taken(*(sample(float(at) + 1, due=float(at)) for at in range(40))))
    service, response = stage.figures["ttft"].p50, stage.figures["ttft_from_due"].p50
    assert service is not None
    assert response is not None
    assert response.value - service.value == pytest.approx(1)
    assert stage.goodput is not None
    assert stage.goodput.share is not None
    assert stage.goodput.share_from_sent is not None
    assert (stage.goodput.share.value, stage.goodput.share_from_sent.value) == (0.0, 1.0)
    assert any("after it was due" in doubt for doubt in stage.trust.doubts)


def test_power_becomes_energy_of_a_token() -> None:
    """Fifty watts at ten tokens a second are five joules a token; readings from outside the window do not count."""
    readings = tuple((100 + 0.5 * at, Reading(50.0, 0.5, 1 << 30, 1500.0)) for at in range(78))
    before = ((99.0, Reading(900.0)),)
    metered = Metered(("nvml",), (*before, *readings))
    stage = stage_of(scenario(), taken(*(sample(float(at)) for at in range(40)), metered=metered))
    assert stage.energy is not None
    assert stage.energy.mean_w == 50
    assert stage.energy.joules_per_output_token == pytest.approx(5, rel=0.02)
    assert stage.energy.joules_per_request == pytest.approx(50, rel=0.05)
    assert stage.energy.output_tokens_per_s_per_w == pytest.approx(0.2, rel=0.02)
    assert stage.energy.utilisation == 0.5
    assert stage.energy.memory_peak_bytes == 1 << 30
    assert stage_of(scenario(), taken(*(sample(float(at)) for at in range(40)))).energy is None


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (Kept(lags=(0.02,) * 100, cpu_s=1, wall_s=10), "event loop"),
        (Kept(cpu_s=9, wall_s=10), "90% of a core"),
        (Kept(cpu_s=1, wall_s=10, stolen_share=0.3), "hypervisor"),
    ],
)
def test_a_harness_that_could_not_keep_up_says_so(kept: Kept, words: str) -> None:
    """And one that could says nothing."""
    samples = [sample(float(at)) for at in range(40)]
    assert any(words in doubt for doubt in stage_of(scenario(), taken(*samples, kept=(kept,))).trust.doubts)
    fine = Kept(lags=(0.001,) * 100, cpu_s=1, wall_s=10, stolen_share=0.0)
    assert stage_of(scenario(), taken(*samples, kept=(fine,))).trust.is_sound


def test_counts_that_are_off_are_doubted() -> None:
    """Prompts of another length than they were given, and answers of another than their text."""
    samples = [sample(float(at)) for at in range(40)]
    stage = stage_of(scenario(), taken(*samples, recounted=((100, 50),)))
    assert stage.tokens.output_off == 1.0
    assert any("answers are +100.0%" in doubt for doubt in stage.trust.doubts)
    longer = [Sample(**{**vars_of(one), "written_tokens": 10}) for one in samples]
    assert any("prompts are +100.0%" in doubt for doubt in stage_of(scenario(), taken(*longer)).trust.doubts)


def vars_of(one: Sample) -> dict[str, object]:
    """Its fields."""
    return {name: getattr(one, name) for name in one.__slots__}


def test_nothing_at_all_is_a_stage_too() -> None:
    """Without a figure, and without a crash."""
    stage = stage_of(scenario(), taken())
    assert stage.requests.total == 0
    assert stage.window is None
    assert stage.figures["ttft"].mean is None
    failed = stage_of(scenario(), taken(*(sample(float(at), outcome="failed") for at in range(40))))
    assert failed.rates.output_tokens_per_s is None


def sweep(over: str, **more: object) -> Scenario:
    """A search."""
    return scenario({"kind": "sweep", "over": over, "least": 1, "most": 64}, **more)


def test_a_level_holds_by_its_objective_or_by_what_it_brings() -> None:
    """With one, enough requests meet it; without, more clients bring more tokens."""
    slow, fast = (
        stage_of(scenario(), taken(*(sample(each * at) for at in range(40)))).model_copy(update={"level": level})
        for each, level in ((1.0, 1.0), (0.5, 2.0))
    )
    assert has_held(sweep("clients"), slow, [])
    assert has_held(sweep("clients"), fast, [slow])
    assert not has_held(sweep("clients"), slow.model_copy(update={"level": 4.0}), [slow, fast])
    met = stage_of(scenario(objective={"ttft_ms": 150}), taken(*(sample(float(at)) for at in range(40))))
    missed = stage_of(scenario(objective={"ttft_ms": 50}), taken(*(sample(float(at)) for at in range(40))))
    assert has_held(sweep("rate", objective={"ttft_ms": 150}), met, [])
    assert not has_held(sweep("rate", objective={"ttft_ms": 50}), missed, [])
    found = saturation_of(sweep("clients"), [(1, True), (2, True), (4, False)], [slow, fast])
    assert (found.held, found.failed) == (2, 4)
    assert found.most_output_tokens_per_s == fast.rates.output_tokens_per_s


def result() -> Result:
    """A whole one."""
    stage = stage_of(scenario(), taken(*(sample(float(at)) for at in range(40))))
    return Result.model_validate(
        {
            "made": "2026-01-01T00:00:00+00:00",
            "version": "0",
            "target": {"url": "http://x", "model": "m"},
            "client": {"cores": 2},
            "scenario": {"title": "t"},
            "scenario_sha256": "0" * 64,
            "prompts": {"exact": True, "counted_by": "server"},
            "stages": [stage.model_dump()],
        }
    )


def test_a_result_is_read_as_it_was_written(tmp_path) -> None:
    """To the last figure; with fields that this program does not know, too."""
    path = tmp_path / "r.json"
    path.write_text(result().to_json())
    assert read_result(path) == result()
    path.write_text(json.dumps({**json.loads(result().to_json()), "later": 1}))
    assert read_result(path) == result()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is not JSON"),
        ("[]", "is missing or wrong"),
        ('{"format": 1}', "`made` is missing"),
        (json.dumps({"format": FORMAT + 1}), f"is of format {FORMAT + 1}"),
    ],
)
def test_what_is_no_result_is_said(tmp_path, text: str, words: str) -> None:
    """With what would be one."""
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(BadFile, match=words):
        read_result(path)
    with pytest.raises(FileMissing):
        read_result(tmp_path / "none.json")


def test_the_published_schema_is_that_of_the_code() -> None:
    """docs/bench-result.json; `python -m serving.bench > docs/bench-result.json` writes it."""
    from pathlib import Path

    published = Path(__file__).parents[3] / "docs" / "bench-result.json"
    assert json.loads(published.read_text()) == schema()
