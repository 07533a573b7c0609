"""`python -I -S launch.py enter|finish BOX [COMMAND…]`: makes the walls around one engine, then becomes it.

Stands alone: the standard library, ctypes and the kernel. BOX is JSON (`layers.Box`). `enter` makes the namespaces and
the root itself; `finish` is what is left to do where bubblewrap has made them, and the last step of `enter`:

    enter:  leader ──unshare──▶ fork ──▶ init (PID 1: mounts, root, loopback) ──▶ fork ──▶ finish ──exec──▶ the engine

The leader is the process that the supervisor knows. It waits, and ends as the engine did: with its status, or 128 and
the number of the signal. Nobody of the three outlives another: the kernel ends init with the leader, and with init all
that it holds. The leader and init ignore SIGTERM, which the supervisor sends to the whole group: it is the engine's.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
from typing import Any, Final, NoReturn

NAMESPACES: Final = {
    "user": 0x10000000,
    "pid": 0x20000000,
    "mount": 0x00020000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}
"""CLONE_NEW… of each (sched.h)."""
UID: Final = 1000
"""Who the engine is to itself; outside it is the user that started it."""
NAME: Final = "engine"
_NOT_SEALED: Final = (14, "not_sealed")
_ENGINE_FAILED: Final = (9, "engine_failed")
"""Exit status and code of `serving.errors.NotSealed` and EngineFailed, which the last words carry."""

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_SLAVE = 2, 4, 8, 4096, 16384, 1 << 19
_MNT_DETACH: Final = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_RECURSIVE: Final = 0x8000
_NR_MOUNT_SETATTR: Final = 442
"""The same on every architecture since Linux 5.12."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 38, 47
_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION: Final = 0x20080522
_SECCOMP_MODE_FILTER: Final = 2
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_DESCRIPTORS: Final = 1 << 20
"""More than a process may have open by default; closed in one call, whether they are open or not."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A wall could not be made: what was tried, and the kernel's word for why."""


def main() -> int:
    """Do what the command line says. Where anything fails nothing is started."""
    what, box = sys.argv[1], json.loads(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(Failed):  # a kernel without core dumps has no such file; it is kept over fork and exec
        _write("/proc/self/coredump_filter", "0")
    try:
        if what == "enter" and box["namespaces"]:
            return enter(box, sys.argv[3:])
        finish(box, sys.argv[3:])
    except Failed as failure:
        return _tell(_NOT_SEALED, f"the engine is not sealed: {failure}")


def enter(box: dict[str, Any], command: list[str]) -> int:
    """Make the namespaces, start init in them, and wait for it; returns how the engine ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    names = box["namespaces"]
    uid, gid = os.geteuid(), os.getegid()
    if "user" in names:
        _call("unshare(user)", _LIBC.unshare, NAMESPACES["user"])
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{UID} {uid} 1")
        _write("/proc/self/gid_map", f"{UID} {gid} 1")
    others = [name for name in names if name != "user"]
    _call(f"unshare({', '.join(others)})", _LIBC.unshare, sum(NAMESPACES[name] for name in others))
    if "uts" in names:
        _call("sethostname", _LIBC.sethostname, NAME.encode(), len(NAME))
    watched, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        try:
            os._exit(init(box, command, watched))
        except Failed as failure:
            os._exit(_tell(_NOT_SEALED, f"the engine is not sealed: {failure}"))
    os.close(watched)
    drop_capabilities()
    for fd, _path in box["weights"]:
        os.close(fd)
    return ended(os.waitpid(child, 0)[1])


def _tell(kind: tuple[int, str], message: str) -> int:
    """Say why there is no engine in the line that the supervisor reads; returns the exit status."""
    status, code = kind
    hint = "docs/sealed.md says what a host must have" if kind == _NOT_SEALED else None
    sys.stderr.write(json.dumps({"event": "fatal", "code": code, "message": message, "hint": hint}) + "\n")
    sys.stderr.flush()
    return status


def init(box: dict[str, Any], command: list[str], leader: int) -> int:
    """The first process in there: makes the root, starts the engine, and collects what it leaves behind.

    `leader` is the end of a pipe that the leader holds open while it lives.
    """
    die_with(leader)
    names = box["namespaces"]
    if "mount" in names:
        make_root(box)
    if "net" in names:
        bring_up_loopback()
    engine = os.fork()
    if engine == 0:
        try:
            finish(box, command)
        except Failed as failure:
            os._exit(_tell(_NOT_SEALED, f"the engine is not sealed: {failure}"))
    # Nobody is to reach what is refused to the engine by way of this process.
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.closerange(3, _DESCRIPTORS)
    give_up_rights(box)
    while True:
        pid, status = os.wait()
        if pid == engine:
            return ended(status)  # the kernel ends the rest with PID 1


def ended(status: int) -> int:
    """What the supervisor is told of a wait status, the way a shell would: 128 and the number of a signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def die_with(leader: int) -> None:
    """Have the kernel end this process with its parent, which may have died before this line."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    poller = select.poll()
    poller.register(leader, select.POLLHUP)
    if poller.poll(0):
        os._exit(1)
    os.close(leader)


def make_root(box: dict[str, Any]) -> None:
    """Put a root of its own in place of the host's: a tmpfs that holds what BOX names, and nothing else."""
    base = box["base"]
    _mount("", "/", "", _MS_REC | _MS_SLAVE, "")
    _mount("tmpfs", base, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    os.mkdir(f"{base}/old")
    os.mkdir(f"{base}/new")
    _call("pivot_root", _LIBC.pivot_root, base.encode(), f"{base}/old".encode())
    os.chdir("/")
    _mount("tmpfs", "/new", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    for kind, source, target in box["mounts"]:
        _place(kind, source, f"/new{target}")
    os.mkdir("/new/.old")
    _call("pivot_root", _LIBC.pivot_root, b"/new", b"/new/.old")
    os.chdir("/")
    _call("umount", _LIBC.umount2, b"/.old", _MNT_DETACH)
    os.rmdir("/.old")
    _restrict("/", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0)


def _place(kind: str, source: str, target: str) -> None:
    """One entry of the root: a bind (`ro`, `rw`, `dev`), a `tmpfs`, a `proc` or a `link`."""
    if kind == "link":
        _make_directory(os.path.dirname(target))
        os.symlink(source, target)
    elif kind == "tmpfs":
        _make_directory(target)
        _mount("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    elif kind == "proc":
        _make_directory(target)
        _mount("proc", target, "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "")
    elif kind == "dir":
        _make_directory(target)
    else:
        _make_place(f"/old{source}", target)
        _bind(f"/old{source}", target)
        restricted = _ATTR_NOSUID | (0 if kind == "dev" else _ATTR_NODEV) | (_ATTR_RDONLY if kind == "ro" else 0)
        _restrict(target, restricted)


def bring_up_loopback() -> None:
    """A new network namespace has its `lo`, switched off."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            name = struct.pack("16sh22x", b"lo", 0)
            (flags,) = struct.unpack("16xh22x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, name))
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))
    except OSError as error:
        raise Failed(f"loopback: {error.strerror}") from None


def finish(box: dict[str, Any], command: list[str]) -> NoReturn:
    """What is done last, in the process that becomes the engine: no more rights, no more descriptors, no more calls."""
    for fd, path in box["weights"]:
        check_same(fd, path)
    os.closerange(3, _DESCRIPTORS)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    give_up_rights(box)
    if not command:
        os._exit(0)
    environment = {name: os.environ[name] for name in box["environment"] if name in os.environ}
    try:
        os.chdir(box["directory"])
        os.execvpe(command[0], command, environment)  # noqa: S606 - argv comes from the plan, never from a client
    except OSError as error:
        os._exit(_tell(_ENGINE_FAILED, f"cannot start `{command[0]}`: {error.strerror}"))


def check_same(fd: int, path: str) -> None:
    """See that what the engine finds at `path` is the file that the parent verified and holds open as `fd`."""
    held = os.fstat(fd)
    try:
        found = os.stat(path)
    except OSError as error:
        raise Failed(f"`{path}`: {error.strerror}") from None
    if (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino):
        raise Failed(f"`{path}` is no longer the file that was verified")


def give_up_rights(box: dict[str, Any]) -> None:
    """No capabilities, none to come, and the calls that are refused, for this process and what it starts."""
    drop_capabilities()
    _call("no_new_privs", _LIBC.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if box["filter"]:
        refuse_calls(bytes.fromhex(box["filter"]))


def drop_capabilities() -> None:
    """No capability left, and none to be had by exec, not even as uid 0."""
    _LIBC.prctl(_PR_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused where there is nothing to drop
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _call("capset", _LIBC.capset, header, bytes(24))


def refuse_calls(program: bytes) -> None:
    """Have the kernel run that BPF program before every system call of this process and all that it starts."""
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    _call("seccomp", _LIBC.prctl, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_, 0, 0)


def _bind(source: str, target: str) -> None:
    _mount(source, target, "", _MS_BIND | _MS_REC, "")


def _restrict(target: str, attributes: int, flags: int = _AT_RECURSIVE) -> None:
    """Take rights from a mount, and from those beneath it."""
    change = struct.pack("=QQQQ", attributes, 0, 0, 0)
    _call(f"restrict `{target}`", _LIBC.syscall, _NR_MOUNT_SETATTR, -100, target.encode(), flags, change, len(change))


def _mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    what = f"mount {kind or 'bind'} on `{target}`"
    _call(what, _LIBC.mount, source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def _make_directory(target: str) -> None:
    try:
        os.makedirs(target, mode=0o755, exist_ok=True)
    except OSError as error:
        raise Failed(f"`{target}`: {error.strerror}") from None


def _make_place(source: str, target: str) -> None:
    """Something to mount upon, of the same kind as `source`."""
    try:
        if stat.S_ISDIR(os.stat(source).st_mode):
            _make_directory(target)
            return
        _make_directory(os.path.dirname(target))
        if not os.path.lexists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    except OSError as error:
        raise Failed(f"`{source}`: {error.strerror}") from None


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise Failed(f"write `{path}`: {error.strerror}") from None


def _call(what: str, function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        raise Failed(f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    sys.exit(main())
