"""One engine process: started in a session of its own, watched, and killed with everything that it started."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from serving.engines import runtime
from serving.engines.confinement.means import write_files
from serving.errors import EngineFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from serving.engines.spec import EngineSpec

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LOG_BYTES: Final = 4 << 20
"""The log file of an engine starts again at this size; the one before is kept beside it."""
_LAST_WORDS_BYTES: Final = 64 << 10
_READ_BYTES: Final = 1 << 16
_SIGNALLED: Final = 128
_LAST_READS: Final = 32
"""What is read after the exit: a pipe holds 64 KiB at most unless somebody still writes to it."""

# Loaded here, not between fork and exec, where nothing may allocate or take a lock.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Orphans of an engine become this process's children, so that they can be found and collected."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: exactly one of the first two is set."""

    status: int | None
    signal: int | None
    reason: str = ""
    """Why we killed it, where it was us."""

    def __str__(self) -> str:
        if self.reason:
            return self.reason
        if self.signal is None:
            return f"exit status {self.status}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(self.signal).name}"
        return f"signal {self.signal}"


class LastWords:
    """The end of what a process wrote to stderr, and all of it, up to a size, in a file that only we may read."""

    def __init__(self, log_file: Path) -> None:
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._log_file = log_file
        self._descriptor = self._open()
        self._written = os.fstat(self._descriptor).st_size
        """Of an engine that came back the log goes on."""

    def feed(self, data: bytes) -> None:
        """Keep what the process wrote. A full disk costs the file, not the engine."""
        self._tail.append(data)
        self._tail_bytes += len(data)
        while self._tail_bytes - len(self._tail[0]) >= _LAST_WORDS_BYTES:
            self._tail_bytes -= len(self._tail.popleft())
        with contextlib.suppress(OSError):
            if self._written + len(data) > _LOG_BYTES:
                os.close(self._descriptor)
                self._log_file.replace(self._log_file.with_suffix(".log.1"))
                self._descriptor = self._open()
                self._written = 0
            self._written += os.write(self._descriptor, data)

    def lines(self) -> list[str]:
        """The last whole lines, oldest first."""
        return [line for line in b"".join(self._tail).decode("utf-8", "replace").splitlines() if line.strip()]

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def by_descriptor(spec: EngineSpec) -> tuple[str, ...]:
    """The command line without walls: a weight file that was verified is named as the descriptor it is open at.

    A directory keeps its path, and with it what may happen to the path: vLLM's processes do not inherit descriptors.
    """
    opened = {str(path): f"/proc/self/fd/{fd}" for fd, path in spec.weights}
    return tuple(opened.get(each, each) for each in spec.argv)


class Process:
    """A running engine process.

    Everything happens on the event loop's thread, which must be the main thread: the kernel ends the child when the
    *thread* that started it ends.
    """

    def __init__(self, spec: EngineSpec, directory: Path, on_exit: Callable[[Exit], None]) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("engines are started from the main thread")
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self._exit: Exit | None = None
        self._exited = asyncio.Event()
        self._walls = spec.confinement
        self.words = LastWords(directory / "engine.log")
        reader, writer = os.pipe()
        parent = os.getpid()

        def between_fork_and_exec() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # the gateway died before the line above
                os._exit(1)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.umask(0o077)  # its sockets and files are this user's alone
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # what the gateway is, its engines are not
            if self._walls is not None:
                # the whole group is asked to end, and who ends is the engine, whom the launcher gives its signal back
                signal.signal(signal.SIGTERM, signal.SIG_IGN)

        write_files(directory)
        for path in spec.writes:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - argv comes from the plan, never from a client
                by_descriptor(spec) if self._walls is None else self._walls.argv,
                env=dict(spec.env),
                cwd=directory / runtime.OWN,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                start_new_session=True,
                pass_fds=[fd for fd, _ in spec.weights],
                preexec_fn=between_fork_and_exec,  # noqa: PLW1509 - see the class: no other thread forks
            )
        except OSError as error:
            os.close(reader)
            self.words.close()
            raise EngineFailed(
                f"cannot start the engine of `{spec.model}`: {error.strerror} (`{spec.argv[0]}`)"
            ) from None
        finally:
            os.close(writer)
        self.pid = self._popen.pid
        identity = runtime.identify(self.pid)
        if identity is not None:
            runtime.record_engine(directory, identity)
        self._stderr = reader
        os.set_blocking(reader, False)
        self._loop.add_reader(reader, self._read_stderr)
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._collect)

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._exit

    async def exited(self, within_s: float) -> bool:
        """Wait for the end; whether it came in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._exited.wait()
        return self._exit is not None

    def terminate(self) -> None:
        """Ask the whole group to end."""
        self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """End everything of its session, without asking. Returns at once; the exit is reported as any other."""
        self._signal_group(signal.SIGKILL)
        for pid in runtime.session_members(self.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def collect_orphans(self) -> bool:
        """Collect what the engine started and left to us; True once nothing of its session is left."""
        for pid in runtime.orphans_of(os.getpid(), self.pid):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return not runtime.session_members(self.pid)

    def _signal_group(self, number: signal.Signals) -> None:
        # The number stays taken while any member of the group lives, so this cannot reach a stranger; but once the
        # leader is collected and the group empty it could be used again.
        if self._exit is None or runtime.session_members(self.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _collect(self) -> None:
        status = self._popen.poll()
        if status is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        for _ in range(_LAST_READS):
            if self._stderr >= 0:
                self._read_stderr()
        # A worker that outlives the engine may hold the pipe open; what it says is no longer of interest.
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1
        self.words.close()
        if self._walls is not None and status > _SIGNALLED:
            status = _SIGNALLED - status  # as the launcher tells of a signal, it being the one who was waited for
        self._exit = Exit(status, None) if status >= 0 else Exit(None, -status)
        self._exited.set()
        self._on_exit(self._exit)

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._stderr, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.words.feed(data)
            return
        self._loop.remove_reader(self._stderr)
        os.close(self._stderr)
        self._stderr = -1
