"""`serve` as an operator would start it, behind a watcher: found through its own log, ended as systemd would."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from serving.errors import EngineFailed

LEAVE_S: Final = 60.0
_LAST_LINES: Final = 12
_FIRST_LINE_S: Final = 20.0
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Stack:
    """A running `serve` and everything below it."""

    def __init__(self, watcher: Sequence[str], argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program, and the watcher that was tried out
            [*watcher, *argv],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is the doctor's, which then ends the stack
            preexec_fn=_leave_with_the_doctor,  # noqa: PLW1509 - no other thread runs yet
        )
        self.first_pid = self._process.pid
        """The watcher's where there is one in front, else `serve`'s."""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._last: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, events: frozenset[str], timeout_s: float) -> dict[str, Any]:
        """The next line of its log with one of these events. Raises EngineFailed with its last words."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise EngineFailed(f"`serve` was not there after {timeout_s:g} s", hint=self._words()) from None
            if line is None:
                status = self._process.wait()
                raise EngineFailed(f"`serve` ended with {status}", hint=self._words())
            self._last = [*self._last[-_LAST_LINES:], line.rstrip()]
            entry = _entry(line)
            if entry.get("event") in events:
                return entry

    @property
    def is_running(self) -> bool:
        """Whether the first process lives."""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Exit status of the first process; negative for a signal, None while it runs."""
        return self._process.poll()

    def end(self, pid: int) -> str | None:
        """Ask `serve`, which has `pid`, to leave, and wait for all; why it did not go well, or None."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self.kill(pid)
            return f"it did not leave within {LEAVE_S:g} s, and was killed"
        return None if self._process.returncode == 0 else f"it ended with {self._process.returncode}"

    def kill(self, pid: int | None) -> None:
        """End what there is, at once."""
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Collect what is left of it here."""
        self._reader.join(5.0)
        if self._process.stderr is not None and not self._reader.is_alive():
            self._process.stderr.close()

    def _read(self) -> None:
        if self._process.stderr is not None:
            for line in self._process.stderr:
                self._lines.put(line)
        self._lines.put(None)

    def _words(self) -> str:
        told = [entry for entry in map(_entry, self._last) if "message" in entry]
        return str(told[-1]["message"]) if told else " | ".join(self._last[-3:]) or "it said nothing"


def _leave_with_the_doctor() -> None:
    """A doctor that is killed leaves nothing running: strace passes the signal on, `serve` drains."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _entry(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return {}


def first_watched(record: Path) -> int | None:
    """The first process of a trace: `serve` itself. Waits for its first line."""
    deadline = time.monotonic() + _FIRST_LINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, IndexError), record.open(encoding="ascii", errors="replace") as f:
            return int(f.readline().split()[0])
        time.sleep(0.02)
    return None
