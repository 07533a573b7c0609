"""`python -m benchmarks.gpu`: how figures are judged, and what is said without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu.__main__ import options_from
from benchmarks.gpu.domains import Leaks
from benchmarks.gpu.environment import CannotInstall, environment_from, gpus_of
from benchmarks.gpu.outcome import (
    Outcome,
    exit_status,
    judge_capacity,
    judge_conformance,
    judge_detection,
    judge_leaks,
    judge_overhead,
    judge_plans,
    page,
    stages_of,
)
from benchmarks.gpu.served import SMALL, Setting, served
from benchmarks.gpu.steps import names_of
from benchmarks.peers.compare import Measured
from serving.doctor.gather import ask_vllm
from serving.errors import EngineFailed
from serving.registry import load_catalogue
from serving.settings import load_settings

ROOT = Path(__file__).parents[3]
MIB = 1024**2
statuses = st.sampled_from(["passed", "failed", "unchecked"])


@given(st.lists(statuses))
def test_the_exit_status_is_0_only_where_all_passed(given: list[Any]) -> None:
    """A failure outweighs what could not be checked; every step is on the page, with the counts beneath."""
    outcomes = [Outcome(f"step {at}", status, "" if status == "passed" else "why") for at, status in enumerate(given)]
    expected = 1 if "failed" in given else 2 if "unchecked" in given else 0
    assert exit_status(outcomes) == expected
    text = page(outcomes)
    assert all(outcome.step in text for outcome in outcomes)
    assert text.count("why") == sum(status != "passed" for status in given)
    assert f"{given.count('unchecked')} could not be checked" in text.splitlines()[-1]


def hardware(*gpus: tuple[str, int], faults: tuple[str, ...] = ()) -> dict[str, Any]:
    """As `serve hardware --json` has it."""
    return {"gpus": [{"name": name, "memory_total_bytes": size * MIB} for name, size in gpus], "gpu_faults": faults}


@pytest.mark.parametrize(
    ("told", "oracle", "status", "says"),
    [
        (hardware(("H200", 143771)), [("H200", 143771)], "passed", ""),
        (hardware(("B", 10000), ("A", 20000)), [("A", 20010), ("B", 10000)], "passed", ""),
        (hardware(("H200", 143771)), None, "passed", ""),
        (hardware(("H200", 143771)), [("H200", 143771)] * 2, "failed", "nvidia-smi"),
        (hardware(("H200", 70000)), [("H200", 143771)], "failed", "70000"),
        (hardware(("H100", 143771)), [("H200", 143771)], "failed", "H100"),
        (hardware(("H200", 143771), faults=("GPU 1 does not answer",)), [("H200", 143771)], "failed", "GPU 1"),
        (hardware(), None, "unchecked", "no GPU"),
    ],
)
def test_detection_is_held_against_nvidia_smi(told: Any, oracle: Any, status: str, says: str) -> None:
    """Every GPU, in any order; the driver's tools differ by some reserved memory."""
    verdict = judge_detection(told, oracle)
    assert verdict.status == status
    assert says in verdict.why


def test_what_nvidia_smi_prints() -> None:
    """A line for each GPU; an error text is no GPU."""
    assert gpus_of("NVIDIA H200, 143771\nNVIDIA H200, 143771\n") == [("NVIDIA H200", 143771)] * 2
    assert gpus_of("") == []
    assert gpus_of("NVIDIA-SMI has failed\n") is None


SERVED = (0, {"engine": "vllm", "gpus": ["GPU-0"]})
REFUSED = (6, {"reason": "it is too large"})


@pytest.mark.parametrize(
    ("asked", "needs_gpu", "says"),
    [
        ({"demo": SERVED, "llama3-8b": REFUSED}, True, ""),
        ({"demo": (0, {"engine": "vllm", "gpus": []})}, False, ""),
        ({"demo": (0, {"engine": "vllm", "gpus": []})}, True, "without a GPU"),
        ({"demo": (0, {"engine": "llamacpp"})}, True, "planned for llamacpp"),
        ({"demo": (70, None)}, True, "ended with 70"),
        ({"demo": (6, {"reason": ""})}, True, "without a reason"),
        ({"demo": REFUSED}, True, "nothing can be served"),
    ],
)
def test_a_plan_is_one_by_vllm_or_a_refusal_with_its_reason(asked: Any, needs_gpu: bool, says: str) -> None:
    """Anything else fails, and so does a machine that serves nothing at all."""
    verdict = judge_plans(asked, needs_gpu=needs_gpu)
    assert (verdict.status == "failed") == bool(says)
    assert says in verdict.why


@given(st.integers(1, 10**8), st.integers(0, 10**8), st.floats(0, 1))
def test_the_cache_may_differ_by_a_share(planned: int, held: int, tolerance: float) -> None:
    """Either way, and the wording says which."""
    verdict = judge_capacity(planned, held, tolerance)
    assert (verdict.status == "passed") == (abs(held / planned - 1) <= tolerance)
    assert ("fewer" in verdict.why, "more" in verdict.why) == (
        verdict.status == "failed" and held < planned,
        verdict.status == "failed" and held > planned,
    )


def test_a_cache_of_which_nothing_was_said_is_not_judged() -> None:
    """Unchecked, with what was planned."""
    verdict = judge_capacity(1000, None, 0.1)
    assert (verdict.status, verdict.figures) == ("unchecked", {"planned_tokens": 1000})


JUNIT = """<testsuites><testsuite name="pytest">
<testcase classname="tests.conformance.test_chat" name="test_a[url]"/>
<testcase classname="tests.conformance.test_chat" name="test_b[url]">{}</testcase>
</testsuite></testsuites>"""


def test_the_suites_run_is_read_from_its_own_file() -> None:
    """Failures and errors by name, skips with their reason; a run in which nothing passed proves nothing."""
    assert judge_conformance(JUNIT.format("")).figures["passed"] == 2
    for kind in ("failure", "error"):
        verdict = judge_conformance(JUNIT.format(f'<{kind} message="x"/>'))
        assert (verdict.status, verdict.why) == ("failed", "test_chat::test_b[url]")
    verdict = judge_conformance(JUNIT.format('<skipped message="refused plainly"/>'))
    assert verdict.figures["skipped"] == {"test_chat::test_b[url]": "refused plainly"}
    assert judge_conformance("<testsuites/>").status == "unchecked"


speeds = st.floats(1, 1e5)


@given(st.lists(st.tuples(speeds, speeds), min_size=1, max_size=12), st.floats(0.1, 2))
def test_overhead_is_the_median_of_the_rounds_ratios(given: list[tuple[float, float]], least: float) -> None:
    """It lies within its interval; what falls short of the least fails."""
    rounds = [(Measured(ours, 0.2, 0.3), Measured(bare, 0.1, 0.2)) for ours, bare in given]
    verdict = judge_overhead(rounds, least, 20.0)
    ratio = verdict.figures["throughput_ratio"]
    assert ratio["low95"] - 1e-4 <= ratio["median"] <= ratio["high95"] + 1e-4
    assert verdict.figures["ttft_p50_added_ms"] == 100.0
    if abs(ratio["median"] - least) > 1e-3:
        assert (verdict.status == "failed") == (ratio["median"] < least)
    assert judge_overhead(rounds, 0.0, 31.0).status == "failed"


@pytest.mark.parametrize(
    ("leaked", "kept", "ratio", "says"),
    [
        (0, 608, 1.02, ""),
        (16, 608, 1.0, "16 tokens of another cache domain"),
        (0, 0, 1.0, "nothing is proved"),
        (0, 608, 0.4, "0.400 ×"),
    ],
)
def test_domains_are_apart_where_neither_count_nor_clock_tells(leaked: int, kept: int, ratio: float, says: str) -> None:
    """And only where the cache works at all."""
    verdict = judge_leaks(Leaks(50, leaked, kept, ratio))
    assert (verdict.status == "passed") == (not says)
    assert says in verdict.why


def test_a_stage_is_told_once_with_its_first_second() -> None:
    """However often progress was reported."""
    seen = [(1.04, "weights"), (2.0, "weights"), (9.5, "compiling"), (11.0, "weights")]
    assert stages_of(seen) == [{"stage": "weights", "at_s": 1.0}, {"stage": "compiling", "at_s": 9.5}]


def test_settings_are_as_serve_reads_them(tmp_path: Path) -> None:
    """Values with signs that TOML gives a meaning come through."""
    python = '/opt/a "b"/python'
    setting = Setting.write(tmp_path, python, tmp_path / "cache", {"CC": "/opt/gcc"}, 5)
    settings = load_settings(setting.config, environment={})
    assert settings.engines.vllm.python == Path(python)
    assert settings.engines.vllm.environment == {"CC": "/opt/gcc"}
    assert settings.paths.cache_dir == tmp_path / "cache"
    assert load_catalogue(settings.registry.site_file).find(SMALL).architecture is not None


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    """In the words of `serve`'s own error."""
    setting = Setting.write(tmp_path, "/no/such/python", tmp_path / "cache", {}, 60)
    with pytest.raises(EngineFailed, match="/no/such/python"), served(setting, "demo"):
        pass


def test_wheels_without_vllm_are_refused(tmp_path: Path) -> None:
    """Before anything is made; and wheels that cannot be installed are told of in pip's words."""
    with pytest.raises(CannotInstall, match="no wheel of vLLM among the 0"):
        environment_from(tmp_path, tmp_path / "env")
    (tmp_path / "vllm-0.32.0-py3-none-any.whl").write_bytes(b"no zip")
    with pytest.raises(CannotInstall, match=r"pip install.*vllm-0"):
        environment_from(tmp_path, tmp_path / "env")


def test_an_environment_is_made_from_wheels_alone(tmp_path: Path) -> None:
    """What lies there is installed, and no index is asked."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    info = "vllm-0.32.0.dist-info"
    files = {
        "vllm/__init__.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheels / "vllm-0.32.0-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)
    install = ask_vllm(environment_from(wheels, tmp_path / "env"))
    assert (install.failure, install.version, install.torch) == (None, "0.32.0", None)


def test_defaults_are_for_a_gpu_and_small_ones_for_a_trial() -> None:
    """llama3-8b on a GPU; a small shape on processors."""
    on_gpu, _ = options_from([])
    assert (on_gpu.shapes, on_gpu.cpu) == (("llama3-8b",), False)
    trial, out = options_from(["--cpu", "--environment", "A=b=c", "-o", "x.json"])
    assert (trial.shapes, trial.environment) == ((SMALL,), {"A": "b=c"})
    assert out == Path("x.json")
    assert "demo: conformance" in names_of(replace(trial, shapes=("a",)))
    with pytest.raises(SystemExit):
        options_from(["--environment", "nonsense"])


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU here")
def test_without_a_gpu_every_step_says_why_it_was_not_taken(tmp_path: Path) -> None:
    """Nothing failed, nothing passed, and the result is written all the same."""
    argv = [sys.executable, "-m", "benchmarks.gpu", "-o", str(tmp_path / "gpu.json")]
    done = subprocess.run(argv, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert json.loads(done.stdout) == result
    assert {"date", "machine", "versions", "gpus", "steps"} <= result.keys()
    assert all(step["status"] == "unchecked" and "no GPU" in step["why"] for step in result["steps"])
    assert "demo: conformance" in [step["step"] for step in result["steps"]]
    assert "could not be checked" in done.stderr
