"""A GPU that was there at the start and is lost while serving: told, counted, and under `require_gpu` not ready."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.stack import ROOT

PROGRAM = """
import dataclasses, sys
import serving.cli.start as start
import serving.gateway.run as run
from serving.hardware import Gpu, detect
from serving.hardware.watch import GpuWatch

def with_gpu():
    return dataclasses.replace(detect(), gpus=(Gpu(0, "A GPU", "GPU-00000000-0000-4000-8000-000000000000"),))

start.detect = with_gpu
run.GpuWatch = lambda gpus, tell: GpuWatch(gpus, tell, every_s=0.2)
from serving.cli import main
sys.argv = ["serve", "--model", "demo", "--port", "0", "--json", "--config", sys.argv[1]]
sys.exit(main())
"""


def status_of(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())


@pytest.mark.parametrize("required", [True, False])
def test_a_lost_gpu_is_told_and_ends_readiness_where_it_is_required(required: bool, tmp_path: Path) -> None:
    """This machine's driver answers for no such GPU, which is what a lost one looks like."""
    config = tmp_path / "serving.toml"
    config.write_text(f"[hardware]\nrequire_gpu = {str(required).lower()}\n")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(config)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    killer = threading.Timer(60, process.kill)
    killer.start()
    try:
        assert process.stderr is not None
        url, told = "", False
        for line in process.stderr:
            entry = json.loads(line)
            url = str(entry["url"]).removesuffix("/v1") if entry["event"] == "ready" else url
            told = told or "GPU 0 (A GPU" in str(entry.get("what"))
            if url and told:
                break
        assert told
        deadline = time.monotonic() + 5
        wanted = (503, "gpu_lost") if required else (200, "ready")
        while time.monotonic() < deadline:
            code, body = status_of(f"{url}/ready")
            if (code, body["status"]) == wanted:
                break
        assert (code, body["status"]) == wanted
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
            assert b"perimeter_gpus_lost 1.0" in response.read()
    finally:
        killer.cancel()
        process.terminate()
        process.wait(20)
        if process.stderr is not None:
            process.stderr.close()


def test_a_required_gpu_that_is_not_there_is_a_refusal(tmp_path: Path) -> None:
    """Status 11, before anything is loaded."""
    config = tmp_path / "serving.toml"
    config.write_text("[hardware]\nrequire_gpu = true\n")
    argv = [sys.executable, "-m", "serving", "--model", "demo", "--port", "0", "--config", str(config)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 11
    assert "no GPU can be used here" in done.stderr
    assert "require_gpu = false" in done.stderr
