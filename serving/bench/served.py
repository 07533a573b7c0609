"""The server under test, started as its user would start it: `serve --model …` in a process of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from serving.access import own_key
from serving.errors import EngineFailed

_LEAVE_S: Final = 60.0
_LAST_LINES: Final = 12
_READ_BYTES: Final = 1 << 22


@dataclass
class Served:
    """A running `serve`."""

    process: subprocess.Popen[str]
    command: tuple[str, ...]
    key: str
    """What it is to be shown."""
    url: str = ""
    """Without the API's `/v1`."""
    ready_s: float = 0.0
    """From the command to the line that says that the API answers."""
    load_s: float | None = None
    """Of this, the engine's part, as the gateway counts it."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    stages: list[tuple[float, str]] = field(default_factory=list)
    """What it said that it did, each with its second."""


@contextlib.contextmanager
def served(
    flags: Sequence[str], start_timeout_s: float, on_stage: Callable[[str], None] = lambda _: None
) -> Iterator[Served]:
    """`serve FLAGS` on any port of loopback, ready; ended afterwards. Raises EngineFailed with its last words."""
    argv = (sys.executable, "-m", "serving", *flags, "--host", "127.0.0.1", "--port", "0", "--json")
    with own_key() as key:
        began = time.monotonic()
        # in a session of its own: Ctrl-C is the harness's, which ends the server when it has kept what it measured
        process = subprocess.Popen(  # noqa: S603 - our own program
            argv,
            env={**os.environ, **key.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_pass_on, args=(process, lines), daemon=True)
        reader.start()
        try:
            running = Served(process, ("serve", *flags), key.text)
            yield _when_ready(running, lines, began, start_timeout_s, on_stage)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join()
            if process.stderr is not None:
                process.stderr.close()


def _pass_on(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    if process.stderr is not None:
        for line in process.stderr:
            lines.put(line)
    lines.put(None)


def _when_ready(
    running: Served,
    lines: queue.SimpleQueue[str | None],
    began: float,
    start_timeout_s: float,
    on_stage: Callable[[str], None],
) -> Served:
    deadline = began + start_timeout_s
    last: list[str] = []
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            message = f"`{' '.join(running.command)}` was not ready after {start_timeout_s:g} s: {_tail(last)[0]}"
            raise EngineFailed(message, hint="start it by itself to see why") from None
        if line is None:
            words, hint = _tail(last)
            status = running.process.wait()
            message = f"`{' '.join(running.command)}` ended with {status}: {words}"
            raise EngineFailed(message, hint=hint or "start it by itself to see why")
        last.append(line)
        at_s = time.monotonic() - began
        match _entry(line):
            case {"event": "plan", **plan}:
                running.plan = plan
            case {"event": "loading", "stage": str(stage)}:
                running.stages.append((at_s, stage))
                on_stage(stage)
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


def _tail(lines: Sequence[str]) -> tuple[str, str | None]:
    """What it last said, in the words and with the hint of its errors where it has any."""
    told = [entry for entry in map(_entry, lines) if "message" in entry and "hint" in entry]
    if told:
        return str(told[-1]["message"]), told[-1]["hint"]
    return os.linesep.join(line.rstrip() for line in lines[-_LAST_LINES:]), None


def digest_of(weights: Path) -> str:
    """SHA-256 of a weight file; of a directory, of the names and digests of its files. Raises OSError."""
    if not weights.is_dir():
        return _sha256(weights)
    whole = hashlib.sha256()
    for path in sorted(path for path in weights.rglob("*") if path.is_file()):
        whole.update(f"{path.relative_to(weights)} {_sha256(path)}\n".encode())
    return whole.hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()
