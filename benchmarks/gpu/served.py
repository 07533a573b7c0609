"""`serve` as its user starts it, its start noted down, and the engine behind it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.bench.served import Served as Started
from serving.bench.served import served as started
from serving.engines.runtime import socket_in, state_directory
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


@dataclass(frozen=True, slots=True)
class Served:
    """A running `serve`, and where the engine behind it is found."""

    running: Started
    setting: Setting

    @property
    def url(self) -> str:
        """Without the API's `/v1`."""
        return self.running.url

    @property
    def process(self) -> subprocess.Popen[str]:
        """The gateway's."""
        return self.running.process

    @property
    def ready_s(self) -> float:
        """From the command to the line that says that the API answers."""
        return self.running.ready_s

    @property
    def load_s(self) -> float | None:
        """Of this, the engine's part, as the gateway counts it."""
        return self.running.load_s

    @property
    def plan(self) -> Mapping[str, Any]:
        """What was planned."""
        return self.running.plan

    @property
    def stages(self) -> Sequence[tuple[float, str]]:
        """What it said that it did, each with its second."""
        return self.running.stages

    @property
    def socket(self) -> Path:
        """Where the engine itself listens."""
        return socket_in(self.setting.runtime, f"engine-{self.process.pid}")

    def held_tokens(self) -> int | None:
        """Tokens that vLLM says its KV cache holds, read from its log as the gateway does."""
        logs = [state_directory(self.socket) / name for name in ("engine.log.1", "engine.log")]
        texts = [log.read_text(encoding="utf-8", errors="replace") for log in logs if log.exists()]
        return capacity_of("".join(texts).splitlines())


@contextlib.contextmanager
def served(setting: Setting, model: str, flags: Sequence[str] = ()) -> Iterator[Served]:
    """`serve --model … --backend vllm`, ready; ended afterwards. Raises EngineFailed with its last words."""
    argv = ("--open", "--model", model, "--backend", "vllm", "--config", str(setting.config), *flags)
    with started(argv, setting.start_timeout_s) as running:
        yield Served(running, setting)
