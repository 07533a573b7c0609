"""The Transformers engine and the llama.cpp engine, each a process of its own on a Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "serving" / "models" / "demo"
CONTEXT = 512
START_TIMEOUT_S = 120.0
_NEEDED = "import torch, transformers, uvicorn, httptools, uvloop, jinja2, numpy"


@dataclass(frozen=True)
class Server:
    """An engine that is ready."""

    process: subprocess.Popen[str]
    socket: Path

    def http(self) -> httpx2.Client:
        """A client of its socket."""
        transport = httpx2.HTTPTransport(uds=str(self.socket))
        return httpx2.Client(transport=transport, base_url="http://engine", timeout=120)

    def openai(self) -> openai.OpenAI:
        """OpenAI's own client, which gives up at the first error."""
        return openai.OpenAI(base_url="http://engine/v1", api_key="none", http_client=self.http(), max_retries=0)

    def is_ready(self, log: Path) -> bool:
        """Whether it listens, and has loaded."""
        if "Uvicorn running" not in log.read_text():
            return False
        with self.http() as client:
            answer = client.get("/ready")
        assert answer.status_code == 200 or 0.0 <= answer.json()["progress"] <= 1.0
        return answer.status_code == 200

    def metric(self, name: str) -> float:
        """One of its figures."""
        with self.http() as client:
            lines = client.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


@pytest.fixture(scope="session")
def hf_python() -> str:
    """An interpreter with torch and transformers: SERVING_HF_PYTHON, else this one."""
    named = os.environ.get("SERVING_HF_PYTHON")
    tried = subprocess.run([named or sys.executable, "-c", _NEEDED], capture_output=True, text=True, check=False)
    if tried.returncode and named is None:
        pytest.skip("no torch and transformers here; SERVING_HF_PYTHON may name a Python that has them")
    assert tried.returncode == 0, f"SERVING_HF_PYTHON={named}: {tried.stderr}"
    return named or sys.executable


def environment() -> dict[str, str]:
    """With this checkout, and without whatever the caller's shell says of threads."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}


@contextlib.contextmanager
def running(argv: list[str], directory: Path) -> Iterator[Server]:
    """The engine, once it is ready."""
    socket = directory / "e.sock"
    log = directory / "stderr"
    with log.open("w") as written:
        whole = [*argv, "--uds", str(socket), "--alias", "m", "--threads", "1"]
        process = subprocess.Popen(whole, env=environment(), stderr=written, text=True)
        try:
            server = Server(process, socket)
            deadline = time.monotonic() + START_TIMEOUT_S
            while not server.is_ready(log):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "not ready in time"
                time.sleep(0.1)
            yield server
        finally:
            process.kill()
            process.wait()


Start = Callable[..., contextlib.AbstractContextManager[Server]]


@pytest.fixture(scope="session")
def start(hf_python: str, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts the Transformers engine with options."""

    def begin(*options: str, model: Path = MODELS / "hf") -> contextlib.AbstractContextManager[Server]:
        argv = [hf_python, "-m", "serving.hf", "--model", str(model), *options]
        return running(argv, tmp_path_factory.mktemp("h"))

    return begin


@pytest.fixture(scope="session")
def oracle(start: Start) -> Iterator[Server]:
    """The demo model in float32."""
    with start("--dtype", "float32", "--ctx", str(CONTEXT)) as server:
        yield server


@pytest.fixture(scope="session")
def fast(hf_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same weights in the llama.cpp engine."""
    argv = [sys.executable, "-m", "serving.llamacpp", "--model", str(MODELS / "demo-f16.gguf")]
    with running([*argv, "--parallel", "1", "--ctx", str(CONTEXT)], tmp_path_factory.mktemp("l")) as server:
        yield server


@pytest.fixture(scope="session")
def last_words(hf_python: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, object]]:
    """Starts the engine on a directory that it must refuse: the exit status, and the line that says why."""

    def end(model: Path, *options: str) -> dict[str, object]:
        socket = tmp_path_factory.mktemp("x") / "e.sock"
        argv = [hf_python, "-m", "serving.hf", "--model", str(model), "--uds", str(socket), *options]
        ended = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=120, check=False)
        told = json.loads(ended.stderr.splitlines()[-1])
        assert told.pop("event") == "fatal"
        return {"status": ended.returncode, **told}

    return end
