"""`serve` as its user starts it, its start noted down, and the engine behind it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.engines.vllm_output import capacity_of

ROOT = Path(__file__).parents[2]
SMALL = "synthetic-100m"
"""A shape of our own, for a run on processors."""
_CATALOGUE = f"""
[models.{SMALL}]
title = "Synthetic 100M"
context = 4096

[models.{SMALL}.architecture]
family = "llama"
layers = 10
embedding = 768
feed_forward = 2048
heads = 12
kv_heads = 12
key_length = 64
value_length = 64
vocabulary = 32000

[[models.{SMALL}.variants]]
name = "bf16"
format = "safetensors"
backends = ["vllm"]
source = "nowhere: it is served with synthetic weights"
"""
_LEAVE_S = 60.0
_LAST_LINES = 12


class StartFailed(Exception):
    """`serve` did not get ready."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all commands of a run have in common."""

    config: Path
    runtime: Path
    start_timeout_s: float

    @classmethod
    def write(
        cls, scratch: Path, python: str, cache: Path, environment: Mapping[str, str], start_timeout_s: float
    ) -> Setting:
        """Settings of their own, so that nothing of the host's plays a part."""
        config, runtime, catalogue = scratch / "serving.toml", scratch / "run", scratch / "models.toml"
        catalogue.write_text(_CATALOGUE, encoding="utf-8")
        lines = [
            "[registry]",
            f"site_file = {json.dumps(str(catalogue))}",
            "[engines.vllm]",
            f"python = {json.dumps(python)}",
            "[engines.vllm.environment]",
            *(f"{name} = {json.dumps(value)}" for name, value in environment.items()),
            "[paths]",
            f"runtime_dir = {json.dumps(str(runtime))}",
            f"cache_dir = {json.dumps(str(cache))}",
        ]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return cls(config, runtime, start_timeout_s)


def ask_json(*command: str) -> tuple[int, Any]:
    """`serve COMMAND --json`: its exit status and what it printed, None where that is no JSON."""
    argv = [sys.executable, "-m", "serving", *command, "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode, None


@dataclass
class Served:
    """A running `serve`."""

    process: subprocess.Popen[str]
    setting: Setting
    url: str = ""
    ready_s: float = 0.0
    """From the command to the line that says that the API answers."""
    load_s: float | None = None
    """Of this, the engine's part, as the gateway counts it."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    stages: list[tuple[float, str]] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        """Where the engine itself listens."""
        return self.setting.runtime / f"engine-{self.process.pid}.sock"

    def held_tokens(self) -> int | None:
        """Tokens that vLLM says its KV cache holds, read from its log as the gateway does."""
        logs = [self.socket.with_suffix(".d") / name for name in ("engine.log.1", "engine.log")]
        texts = [log.read_text(encoding="utf-8", errors="replace") for log in logs if log.exists()]
        return capacity_of("".join(texts).splitlines())


@contextlib.contextmanager
def served(setting: Setting, model: str, flags: Sequence[str] = ()) -> Iterator[Served]:
    """`serve --model … --backend vllm`, ready; ended afterwards. Raises StartFailed with its last words."""
    argv = [
        *(sys.executable, "-m", "serving", "--model", model, "--backend", "vllm", "--port", "0", "--json"),
        *("--config", str(setting.config), *flags),
    ]
    began = time.monotonic()
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_pass_on, args=(process, lines), daemon=True)
    reader.start()
    try:
        yield _when_ready(Served(process, setting), lines, began)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        assert process.stderr is not None  # noqa: S101 - a pipe was asked for
        process.stderr.close()


def _pass_on(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stderr is not None  # noqa: S101 - a pipe was asked for
    for line in process.stderr:
        lines.put(line)
    lines.put(None)


def _when_ready(running: Served, lines: queue.SimpleQueue[str | None], began: float) -> Served:
    deadline = began + running.setting.start_timeout_s
    last: list[str] = []
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise StartFailed(f"not ready after {running.setting.start_timeout_s:g} s: {_tail(last)}") from None
        if line is None:
            raise StartFailed(f"ended with {running.process.wait()}: {_tail(last)}")
        last.append(line)
        at_s = time.monotonic() - began
        match _entry(line):
            case {"event": "plan", **plan}:
                running.plan = plan
            case {"event": "loading", "stage": str(stage)}:
                running.stages.append((at_s, stage))
            case {"event": "engine ready", "load_s": float(load_s) | int(load_s)}:
                running.load_s = load_s
            case {"event": "ready", "url": str(url)}:
                running.url, running.ready_s = url.removesuffix("/v1"), at_s
                return running


def _entry(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return {}


def _tail(lines: Sequence[str]) -> str:
    """What it last said, in the words of its errors where it has any."""
    told = [entry["message"] for entry in map(_entry, lines) if entry.get("level") == "error" and "message" in entry]
    return told[-1] if told else os.linesep.join(line.rstrip() for line in lines[-_LAST_LINES:])
