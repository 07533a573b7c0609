"""`serve hardware` and `serve doctor` as a person runs them, on whatever machine this is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving.hardware import Machine
from tests.e2e.stack import ROOT


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`serve …`."""
    argv = [sys.executable, "-m", "serving", *arguments]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_hardware_is_a_machine_that_reads_back() -> None:
    """The JSON is what `serve plan --machine` takes, with measured speeds in it as well as without."""
    plain, measured = run("hardware", "--json"), run("hardware", "--json", "--measure", "--directory", "/tmp")
    for done in (plain, measured):
        assert done.returncode == 0, done.stderr
        assert Machine.from_json(done.stdout).cpu.cores
    speeds = json.loads(measured.stdout)["measured"]
    assert speeds["memory"]["one_thread_bytes_s"] or speeds["memory"]["skipped"]
    assert speeds["disk"]["read_bytes_s"] or speeds["disk"]["skipped"]


def test_doctor_looks_this_host_over() -> None:
    """Findings and the facts they rest on; the status says whether there is a problem, and the error names it."""
    done = run("doctor", "--json")
    report = json.loads(done.stdout)
    problems = [finding["name"] for finding in report["findings"] if finding["status"] == "problem"]
    assert report["healthy"] == (not problems)
    assert done.returncode == (12 if problems else 0), done.stderr
    assert all(name in done.stderr for name in problems)
    assert report["facts"]["machine"]["cpu"]["cores"]
    found = {finding["name"]: finding for finding in report["findings"]}
    assert found["llama.cpp"]["status"] in ("good", "warning")
    assert found["runtime directory"]["status"] == "good"


def test_a_required_gpu_is_a_problem_where_there_is_none(tmp_path: Path) -> None:
    """The page is printed first, then the error, with its status."""
    if json.loads(run("hardware", "--json").stdout)["gpus"]:
        pytest.skip("this machine has a GPU")
    config = tmp_path / "serving.toml"
    config.write_text("[hardware]\nrequire_gpu = true\n")
    done = run("doctor", "--config", str(config))
    assert done.returncode == 12
    assert done.stdout.startswith("problem  gpu")
    assert done.stderr.startswith("error: this host has 1 problem: gpu\nhint: ")
