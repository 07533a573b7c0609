"""The process that writes the log, begun by the server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving import errors
from serving.audit import wire
from serving.audit.book import Durable
from serving.audit.process import Setup
from serving.audit.tail import Written
from serving.errors import StartError

_OPEN_S: Final = 60.0
"""For the process to come up: it follows the last segment in whole."""
_BUFFER: Final = 4 << 20
"""Of the socket, each way; bytes."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that has the log open."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    durable: Durable
    found: list[Written]
    """What was written after the entry that was named, where one was."""


def begin(setup: Setup, after: int | None = None) -> Child:
    """A process that has the log open; `after` is the last entry that one before it has acknowledged.

    Raises what opening the log does, StartError, OSError.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = _spawn(theirs, ours)
    except BaseException:
        ours.close()
        raise
    ours.settimeout(_OPEN_S)
    try:
        ours.sendall(wire.frame((wire.SETUP, setup.told(), after)))
        told = wire.read(ours)
    except OSError:
        told = None
    if told is not None and told[0] == "open":
        ours.settimeout(None)
        return Child(process, ours, Durable(*told[1]), told[2])
    ours.close()
    process.kill()
    process.wait()
    if told is None:
        raise StartError("the process that writes the audit log did not come up", hint="its words are in this log")
    _, name, message, hint = told
    raise getattr(errors, name)(message, hint=hint)


def _spawn(theirs: socket.socket, ours: socket.socket) -> subprocess.Popen[bytes]:
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    environment = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(  # noqa: S603 - this interpreter, and nothing from outside
        [sys.executable, "-P", "-m", "serving.audit", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment,
        cwd="/",
    )
