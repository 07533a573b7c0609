"""The system calls that an engine is refused: a program for the kernel (seccomp, classic BPF) as bytes. Pure.

It says what is refused, not what is allowed: engines are PyTorch, CUDA and llama.cpp, whose calls change with every
version, and a list of what they need would break them one at a time. What is refused is what opens the kernel up
further than computing takes (namespaces of one's own, tracing, eBPF, io_uring, keys, mounts) and sockets of other
families than the engine has a use for.

A call that has a sound way without it is answered with ENOSYS, so that libraries take that way: io_uring, and clone3,
whose flags stand in memory where no filter can read them. All others get EPERM. Numbers: asm/unistd_64.h, and
asm-generic/unistd.h for aarch64.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Final, Literal

Machine = Literal["x86_64", "aarch64"]

_LD_WORD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""BPF_LD|W|ABS; BPF_JMP|JEQ, JGE and JSET with a constant; BPF_RET|K (linux/bpf_common.h)."""
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`; the low word of an argument comes first, both architectures being little-endian."""
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_X32: Final = 0x40000000
"""Set in the numbers of the x32 calls, which would pass by every rule made for the others."""

ARCHITECTURES: Final[dict[Machine, int]] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_… (linux/audit.h)."""

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
_NEW_NAMESPACES: Final = 0x7E020080
"""CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
"""Type into a terminal, or paste into a console, as if a person did."""

_X86_64: Final = """
ptrace 101, syslog 103, uselib 134, personality 135, ustat 136, sysfs 139, vhangup 153, modify_ldt 154, pivot_root 155,
_sysctl 156, adjtimex 159, chroot 161, acct 163, settimeofday 164, mount 165, umount2 166, swapon 167, swapoff 168,
reboot 169, sethostname 170, setdomainname 171, iopl 172, ioperm 173, create_module 174, init_module 175,
delete_module 176, get_kernel_syms 177, query_module 178, quotactl 179, nfsservctl 180, lookup_dcookie 212,
clock_settime 227, kexec_load 246, add_key 248, request_key 249, keyctl 250, unshare 272, perf_event_open 298,
fanotify_init 300, fanotify_mark 301, name_to_handle_at 303, open_by_handle_at 304, clock_adjtime 305, setns 308,
process_vm_readv 310, process_vm_writev 311, kcmp 312, finit_module 313, kexec_file_load 320, bpf 321,
userfaultfd 323
"""
_AARCH64: Final = """
lookup_dcookie 18, umount2 39, mount 40, pivot_root 41, nfsservctl 42, chroot 51, vhangup 58, quotactl 60, acct 89,
personality 92, unshare 97, kexec_load 104, init_module 105, delete_module 106, clock_settime 112, syslog 116,
ptrace 117, reboot 142, sethostname 161, setdomainname 162, settimeofday 170, adjtimex 171, add_key 217,
request_key 218, keyctl 219, swapon 224, swapoff 225, perf_event_open 241, fanotify_init 262, fanotify_mark 263,
name_to_handle_at 264, open_by_handle_at 265, clock_adjtime 266, setns 268, process_vm_readv 270,
process_vm_writev 271, kcmp 272, finit_module 273, bpf 280, userfaultfd 282, kexec_file_load 294
"""
_BOTH: Final = """
open_tree 428, move_mount 429, fsopen 430, fsconfig 431, fsmount 432, fspick 433, pidfd_getfd 438,
process_madvise 440, mount_setattr 442, quotactl_fd 443, statmount 457, listmount 458, open_tree_attr 467
"""
_ABSENT: Final = "io_uring_setup 425, io_uring_enter 426, io_uring_register 427, clone3 435"


@dataclass(frozen=True, slots=True)
class _Judged:
    """The calls whose arguments decide."""

    socket: int
    socketpair: int
    clone: int
    ioctl: int


_JUDGED: Final[dict[Machine, _Judged]] = {
    "x86_64": _Judged(socket=41, socketpair=53, clone=56, ioctl=16),
    "aarch64": _Judged(socket=198, socketpair=199, clone=220, ioctl=29),
}


def machine_of(name: str) -> Machine | None:
    """The machine of that name (`uname -m`), where its calls are known here."""
    return next((known for known in ARCHITECTURES if known == name), None)


def refused(machine: Machine) -> dict[str, tuple[int, int]]:
    """Each call that is refused whatever its arguments: its number, and the errno that it is answered with."""
    own = _X86_64 if machine == "x86_64" else _AARCH64
    known = {name: (number, errno.EPERM) for name, number in _read(own + "," + _BOTH)}
    return {**known, **{name: (number, errno.ENOSYS) for name, number in _read(_ABSENT)}}


def program(machine: Machine, *, has_ip: bool) -> bytes:
    """The filter for an engine on that machine; with `has_ip` it may use IP inside its own network namespace.

    Netlink goes with IP: getaddrinfo and getifaddrs ask it what addresses there are.
    """
    families = (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK) if has_ip else (AF_UNIX,)
    judged = _JUDGED[machine]
    code: list[tuple[int, int, int, int]] = [
        (_LD_WORD, 0, 0, _AT_ARCHITECTURE),
        (_JEQ, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, KILL),
        (_LD_WORD, 0, 0, _AT_NUMBER),
    ]
    if machine == "x86_64":
        code += [(_JGE, 0, 1, _X32), (_RETURN, 0, 0, KILL)]
    for number, error in refused(machine).values():
        code += [(_JEQ, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]
    code += _only_with(judged.socket, 0, families, errno.EAFNOSUPPORT)
    code += _only_with(judged.socketpair, 0, (AF_UNIX,), errno.EAFNOSUPPORT)
    code += [
        (_JEQ, 0, 4, judged.clone),
        (_LD_WORD, 0, 0, _AT_ARGUMENTS),
        (_JSET, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, ALLOW),
        (_JEQ, 0, 4, judged.ioctl),
        (_LD_WORD, 0, 0, _AT_ARGUMENTS + 8),
        (_JEQ, 1, 0, _TIOCSTI),
        (_JEQ, 0, 1, _TIOCLINUX),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *each) for each in code)


def _only_with(number: int, argument: int, values: tuple[int, ...], error: int) -> list[tuple[int, int, int, int]]:
    """Where it is this call: allowed with one of the values as that argument, else refused; where not, go on."""
    body = [(_LD_WORD, 0, 0, _AT_ARGUMENTS + 8 * argument)]
    for at, value in enumerate(values):
        # to the last instruction, over the other comparisons and the refusal
        body.append((_JEQ, len(values) - at, 0, value))
    body += [(_RETURN, 0, 0, _ERRNO | error), (_RETURN, 0, 0, ALLOW)]
    return [(_JEQ, 0, len(body), number), *body]


def _read(table: str) -> list[tuple[str, int]]:
    pairs = [each.split() for each in table.replace("\n", " ").split(",") if each.strip()]
    return [(name, int(number)) for name, number in pairs]
