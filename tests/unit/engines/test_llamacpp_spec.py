"""The llama.cpp engine's command line and environment, from a plan."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from serving.engines.llamacpp import plan_engine
from serving.planner import Plan, Wishes, plan
from serving.settings import Settings
from tests.support.machines import GIB, llama_8b, machine

PROTOCOL = Path(__file__).parents[3] / "docs/engine-protocol.md"
FLAGS = {"--swa-full"}


def planned(**wishes: object) -> Plan:
    """A plan for a model of 8B parameters on a large machine."""
    outcome = plan(machine(256 * GIB), llama_8b(), Wishes(**wishes))  # type: ignore[arg-type]
    assert isinstance(outcome, Plan)
    return outcome


def options(outcome: Plan) -> dict[str, str]:
    """The command line as option → value."""
    spec = plan_engine(outcome, Settings(), Path("/run/x.sock"), Path("/run/home"))
    assert spec.argv[1:4] == ("-P", "-m", "serving.llamacpp")
    rest = list(spec.argv[4:])
    found: dict[str, str] = {}
    while rest:
        name = rest.pop(0)
        found[name] = "" if name in FLAGS else rest.pop(0)
    return found


def test_every_option_is_in_the_protocol() -> None:
    """Nothing is passed that docs/engine-protocol.md does not have."""
    known = set(re.findall(r"--[a-z-]+", PROTOCOL.read_text()))
    for wishes in ({}, {"kv_layout": "unified", "swa_full": True}):
        assert set(options(planned(**wishes))) <= known


def test_the_plan_is_passed_on() -> None:
    """Each number of the plan is where the engine looks for it."""
    passed = options(planned(concurrency=4, context=2048, kv_dtype="q8_0", threads=2, load_mode="none"))
    expected = {
        "--model": "/weights/q8_0.gguf",
        "--uds": "/run/x.sock",
        "--alias": "llama3-8b",
        "--kv-layout": "streams",
        "--parallel": "4",
        "--ctx": "2048",
        "--kv-dtype": "q8_0",
        "--ubatch": "512",
        "--threads": "2",
        "--cores": "0,1",
        "--load-mode": "none",
        "--max-queue": "256",
        "--step-ms": "250",
        "--unknown-fields": "refuse",
    }
    assert {name: passed[name] for name in expected} == expected
    assert "--kv-tokens" not in passed
    assert int(passed["--snapshot-bytes"]) <= Settings().engines.llamacpp.snapshot_bytes


def test_a_unified_pool_has_its_size() -> None:
    """`--kv-tokens` goes with unified, `--snapshot-bytes` with streams."""
    outcome = planned(kv_layout="unified")
    passed = options(outcome)
    assert passed["--kv-tokens"] == str(outcome.kv_tokens)
    assert "--snapshot-bytes" not in passed


def test_the_environment_is_built_from_empty(monkeypatch) -> None:
    """Nothing of the operator's environment reaches the engine; the wait policy is the plan's."""
    monkeypatch.setenv("SECRET_TOKEN", "x")
    outcome = dataclasses.replace(planned(), wait_policy="passive")
    spec = plan_engine(outcome, Settings(), Path("/run/x.sock"), Path("/run/home"), source=Path("/src"))
    assert dict(spec.env) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/run/home",
        "TMPDIR": "/run/home",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
        "OMP_WAIT_POLICY": "passive",
        "OMP_PROC_BIND": "true",
        "OMP_PLACES": ",".join(f"{{{core}}}" for core in outcome.cores),
        "GGML_NO_BACKTRACE": "1",
        "PYTHONPATH": "/src",
    }
