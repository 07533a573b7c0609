"""The runtime directory: sockets, logs, and the record of each engine that was started from here.

    engine-PID.d/              ours: the record `engine.json`, the log `engine.log`, files that the engine finds in /etc
    engine-PID.d/own/          the engine's: its working directory, home and temporary files, and all that it sees
    engine-PID.d/own/engine.sock

All are mode 0700. The record names the engine's process and the gateway that owns it, both by pid and start time,
since pids are used again. A later gateway finds the records whose owner is gone, kills what is left of those engines,
and nothing else: an engine that could write its own record could have others killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import signal
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from serving.errors import AddressUnavailable, BadSettings

OWN: Final = "own"
"""Of a state directory what the engine itself may see."""
_SOCKET: Final = "engine.sock"
_RECORD: Final = "engine.json"
_TURN: Final = "load.lock"
_SUN_PATH_BYTES: Final = 108
"""Longest Unix socket path, its closing NUL included (sys/un.h)."""
_KILL_WAIT_S: Final = 5.0
_LOGS_KEPT: Final = 5
_START_TIME_FIELD: Final = 19
"""Place of `starttime` in /proc/PID/stat, counted after the command's closing bracket (proc_pid_stat(5), field 22)."""
_SESSION_FIELD: Final = 3
_STATE_FIELD: Final = 0
_PARENT_FIELD: Final = 1


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    start_time: int
    """Clock ticks since boot."""
    boot_id: str


class LoadTurn:
    """The right to load an engine: one at a time of all that have their state in one directory.

    Two that load together each see the memory that the other is about to take as free.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / _TURN
        self._descriptor = -1

    def begin(self) -> bool:
        """Take the turn; False while somebody else has it. Raises BadSettings where the directory is not ours."""
        private_directory(self._path.parent)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def end(self) -> None:
        """Give it back; the kernel does where this process dies first."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def socket_in(root: Path, name: str) -> Path:
    """Where the engine of that name listens, under the runtime directory `root`."""
    return root / f"{name}.d" / OWN / _SOCKET


def root_of(socket: Path) -> Path:
    """The runtime directory that a socket of `socket_in` is in."""
    return socket.parents[2]


def state_directory(socket: Path) -> Path:
    """Where the record and log of the engine that listens on `socket` are, and, one deeper, what is its own."""
    return socket.parents[1]


def private_directory(path: Path) -> None:
    """Make `path` a directory that only this user may enter, or see that it is one.

    What is there already is never changed. Raises BadSettings where it cannot be made, others may enter it, or it is
    somebody else's.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        check_private(path)
    except OSError as error:
        raise BadSettings(
            f"cannot create the runtime directory `{path}`: {error.strerror}", hint="set paths.runtime_dir"
        ) from None


def check_private(path: Path) -> None:
    """See that a directory which is there is this user's alone, and may be written to. Raises BadSettings."""
    facts = path.lstat()
    elsewhere = "set paths.runtime_dir to a directory of its own; it is made if it is not there"
    if not stat.S_ISDIR(facts.st_mode):
        raise BadSettings(f"the runtime directory `{path}` is not a directory", hint=elsewhere)
    if facts.st_uid != os.getuid():
        message = f"the runtime directory `{path}` belongs to somebody else (uid {facts.st_uid})"
        raise BadSettings(message, hint=elsewhere)
    if facts.st_mode & 0o077:
        # Nobody is told to lock up a directory in which others have their files.
        is_ours = all(entry.name.startswith("engine-") for entry in path.iterdir())
        alone = f"; or `chmod 700 {path}` (systemd: RuntimeDirectoryMode=0700)" if is_ours else ""
        message = f"the runtime directory `{path}` has mode {stat.S_IMODE(facts.st_mode):04o}: others may enter it"
        raise BadSettings(message, hint=f"{elsewhere}{alone}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise BadSettings(f"the runtime directory `{path}` cannot be written to", hint=elsewhere)


def identify(pid: int) -> ProcessId | None:
    """The process that now has `pid`; None where there is none or it has exited."""
    fields = _stat_fields(pid)
    if fields is None or fields[_STATE_FIELD] in {"Z", "X"}:
        return None
    return ProcessId(pid, int(fields[_START_TIME_FIELD]), _boot_id())


def is_alive(process: ProcessId) -> bool:
    """Whether that very process still runs."""
    return identify(process.pid) == process


def claim(socket: Path) -> Path:
    """The state directory of `socket`, made if need be. Raises AddressUnavailable where a live gateway has it."""
    directory = state_directory(socket)
    if len(os.fsencode(socket)) >= _SUN_PATH_BYTES:
        raise BadSettings(
            f"the socket path `{socket}` is longer than {_SUN_PATH_BYTES - 1} bytes",
            hint="set paths.runtime_dir to a shorter directory",
        )
    private_directory(directory)
    record = _read_record(directory)
    if record is not None and record[0] != _myself() and is_alive(record[0]):
        raise AddressUnavailable(
            f"the gateway with pid {record[0].pid} serves from `{directory}`", hint="stop it, or set paths.runtime_dir"
        )
    return directory


def record_engine(directory: Path, engine: ProcessId) -> None:
    """Write down which process runs here, before anything else can go wrong."""
    target = directory / _RECORD
    temporary = directory / f"{_RECORD}.new"
    temporary.write_text(json.dumps({"owner": asdict(_myself()), "engine": asdict(engine)}), encoding="utf-8")
    temporary.replace(target)


def release(directory: Path) -> None:
    """Remove the state directory of an engine that is gone, its socket with it."""
    clear(directory)
    with contextlib.suppress(OSError):
        directory.rmdir()


def clear(directory: Path) -> None:
    """Empty a directory, whatever an engine left in it; what cannot be removed stays.

    Directories are brought up beside each other and removed there: one within another within another, thousands deep,
    is more than recursion, descriptors or a path's length can take.
    """
    pending = [directory]
    while pending:
        each = pending.pop()
        for entry in _entries(each):
            with contextlib.suppress(OSError):
                if entry.is_symlink() or not entry.is_dir():
                    entry.unlink()
                elif each == directory:
                    pending.append(entry)
                else:
                    entry.chmod(0o700)
                    pending.append(entry.rename(directory / f".{secrets.token_hex(8)}"))
        if each != directory:
            with contextlib.suppress(OSError):
                each.rmdir()


def _entries(directory: Path) -> list[Path]:
    try:
        directory.chmod(0o700)
        return list(directory.iterdir())
    except OSError:
        return []


def keep_log(directory: Path) -> Path | None:
    """Move the log of an engine that ended badly out of its directory, to `NAME.log` beside it; None if it has none.

    The newest few are kept: whoever looks into a crash looks after the next start, more often than not.
    """
    kept = directory.with_suffix(".log")
    try:
        (directory / "engine.log").replace(kept)
    except OSError:
        return None
    logs = sorted(directory.parent.glob("engine-*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in logs[_LOGS_KEPT:]:
        old.unlink(missing_ok=True)
    return kept


def reap_leftovers(root: Path) -> list[int]:
    """Kill what dead gateways left running and remove their directories, logs excepted; returns the pids killed.

    Blocks for at most five seconds per engine. Only processes that a record proves to be ours are touched.
    """
    killed: list[int] = []
    for record_file in sorted(root.glob(f"*.d/{_RECORD}")):
        directory = record_file.parent
        record = _read_record(directory)
        if record is None:
            continue
        owner, engine = record
        if is_alive(owner):
            continue
        if engine.boot_id == _boot_id():
            members = [pid for pid in session_members(engine.pid) if _belongs(pid, engine, directory)]
            killed += members
            kill_all(members)
        keep_log(directory)
        release(directory)
    return killed


def session_members(session: int) -> list[int]:
    """Every live process of a session. An engine leads a session of its own, so this is the engine and its workers."""
    return [
        pid
        for pid, fields in _processes()
        if int(fields[_SESSION_FIELD]) == session and fields[_STATE_FIELD] not in {"Z", "X"}
    ]


def orphans_of(parent: int, session: int) -> list[int]:
    """Processes of that session that have exited and wait for `parent`, their reaper, to collect them."""
    found: list[int] = []
    for pid, fields in _processes():
        is_ours = int(fields[_PARENT_FIELD]) == parent and int(fields[_SESSION_FIELD]) == session
        if is_ours and fields[_STATE_FIELD] == "Z":
            found.append(pid)
    return found


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL each, and wait until they are gone or five seconds have passed."""
    handles: list[int] = []
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                handle = os.pidfd_open(pid)
                handles.append(handle)
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_WAIT_S
        for handle in handles:
            _wait_for(handle, deadline)
    finally:
        for handle in handles:
            os.close(handle)


def _wait_for(handle: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    poller.poll(max(0.0, deadline - time.monotonic()) * 1000)


def _belongs(pid: int, engine: ProcessId, directory: Path) -> bool:
    """Whether a member of the recorded session is the recorded engine's.

    The leader is known by its start time. Where it is gone its number may have been used again; what it started still
    works in the engine's directory.
    """
    if is_alive(engine):
        return True
    try:
        works_in = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return False
    return directory.resolve() in (works_in, *works_in.parents)


def _read_record(directory: Path) -> tuple[ProcessId, ProcessId] | None:
    try:
        value = json.loads((directory / _RECORD).read_text(encoding="utf-8"))
        return _process(value["owner"]), _process(value["engine"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _process(value: Mapping[str, object]) -> ProcessId:
    pid, start_time = value["pid"], value["start_time"]
    if not isinstance(pid, int) or not isinstance(start_time, int) or pid <= 1:
        raise ValueError
    return ProcessId(pid, start_time, str(value["boot_id"]))


def _myself() -> ProcessId:
    me = identify(os.getpid())
    assert me is not None  # noqa: S101 - the calling process runs
    return me


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _processes() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        fields = _stat_fields(int(entry.name)) if entry.name.isdecimal() else None
        if fields is not None:
            yield int(entry.name), fields


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command stands in brackets and may itself hold brackets and spaces.
    return text.rpartition(")")[2].split()
