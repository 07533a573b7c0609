"""The product as a user starts it: `python -m serving …` as a process, found through its own log."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60.0
ENGINE = re.compile(rb"serving\.llamacpp|vllm\.entrypoints")


@dataclass
class Stack:
    """A running `serve`."""

    process: subprocess.Popen[str]
    log: list[dict[str, object]] = field(default_factory=list)
    lines: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    url: str = ""

    def wait_for(self, event: str, timeout_s: float = START_TIMEOUT_S) -> dict[str, object]:
        """The next log line with this event. Raises where the process ended or the time passed first."""
        deadline = time.monotonic() + timeout_s
        while True:
            line = self.lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            if line is None:
                raise AssertionError(f"serve ended with {self.process.wait()}: {self.log[-5:]}")
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                self.log.append(entry)
                if entry.get("event") == event:
                    return entry

    def get(self, path: str) -> str:
        """The body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return response.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        total, found = 0.0, False
        for line in self.get("/metrics").splitlines():
            if line.startswith((name + " ", name + "{")):
                total, found = total + float(line.rpartition(" ")[2]), True
        assert found, f"no metric {name}"
        return total

    def engine_pid(self) -> int:
        """The engine child's process id, from /proc."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                    if int(parent) == self.process.pid and ENGINE.search((entry / "cmdline").read_bytes()):
                        return int(entry.name)
        raise AssertionError("no engine child")


@contextlib.contextmanager
def serve(
    *flags: str,
    model: str = "demo",
    config: Path | None = None,
    timeout_s: float = START_TIMEOUT_S,
    is_open: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """`serve --model … --port 0 --json`, ready; stopped at the end. `is_open`: with `--open`."""
    argv = [sys.executable, "-m", "serving", *(["--model", model] if model else []), "--port", "0", "--json", *flags]
    argv += ["--open"] if is_open else []
    if config is not None:
        argv += ["--config", str(config)]
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    stack = Stack(process)

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            stack.lines.put(line)
        stack.lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        stack.url = str(stack.wait_for("ready", timeout_s)["url"]).removesuffix("/v1")
        yield stack
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        reader.join(5)
        if process.stderr is not None:
            process.stderr.close()
