"""Which watcher can work here, and its command line."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

CALLS: Final = (
    "connect", "sendto", "sendmsg", "sendmmsg", "io_uring_setup", "socket", "bind", "listen", "getsockname",
    "setsockopt", "?pidfd_getfd", "?socketcall", "clone", "?clone3", "?fork", "?vfork", "execve", "?execveat",
    "seccomp", "prctl",
)  # fmt: skip
"""What is watched. A call of another architecture has a number of its own: strace knows those of all that the kernel
runs; `?` before a name that some architecture has not."""
_TRY_S: Final = 20.0
LIMITS: Final = (
    "what goes over a connection that a process outside the stack opened and handed over; asking that process counts",
    "an address that another thread exchanges between the watcher's look and the kernel's",
    "a service of this host on loopback at a port that the stack has too, for another protocol",
)


def command(strace: str, record: Path) -> list[str]:
    """The watcher in front of a command line, which is to follow. `record` is written as the calls are made.

    Every call stops for it, before any filter judges it: strace's faster way (`--seccomp-bpf`) does not see what an
    engine's own filter refuses, and an attempt that was refused is one.
    """
    return [
        *(strace, "-f", "-I", "2", "--decode-pids=pidns", "-ttt", "-s", "256"),
        *("-e", f"trace={','.join(CALLS)}"),
        *("-o", str(record), "--"),
    ]


def find_strace() -> tuple[str | None, str]:
    """The program and its version, where it can really watch a process here; else None and why it cannot."""
    strace = shutil.which("strace")
    program = shutil.which("true")
    if strace is None or program is None:
        return None, "strace is not installed"
    try:
        with tempfile.TemporaryDirectory(prefix="egress-") as directory:
            record = Path(directory) / "trace"
            tried = subprocess.run(  # noqa: S603 - found on the path, run on a program that does nothing
                [*command(strace, record), program], capture_output=True, text=True, timeout=_TRY_S, check=False
            )
            seen = record.read_text(encoding="utf-8", errors="replace") if record.exists() else ""
        told = subprocess.run([strace, "--version"], capture_output=True, text=True, timeout=_TRY_S, check=False)  # noqa: S603 - as above
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"strace cannot be run: {error}"
    if tried.returncode != 0 or "execve(" not in seen or "+++ exited with 0 +++" not in seen:
        words = tried.stderr.strip().splitlines()
        return None, f"strace cannot watch a process here: {words[0][:200] if words else 'it saw nothing'}"
    first = told.stdout.splitlines()
    return strace, first[0].removeprefix("strace -- version ") if first else "unknown"
