"""No io_uring in this process and its children: what a ring does is seen by no watcher of system calls.

uvloop's event loop makes one wherever the kernel has them, for nothing but `epoll_ctl`, and does without where it is
refused. Container runtimes refuse it by default, for their own reasons; this is the same filter, of one rule.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Final

_IO_URING_SETUP: Final = 425
"""The same number on every architecture (the kernel's syscall tables are one from 424 on)."""
_X32: Final = 0x40000000
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_EVERY_THREAD: Final = 1 << 0
_SPEC_ALLOW: Final = 1 << 2
"""Older kernels slow a filtered process down against a fault of processors that this filter has no part in."""
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277, "riscv64": 277, "ppc64le": 358, "s390x": 348}
_LOAD_NUMBER: Final = (0x20, 0, 0, 0)
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.ENOSYS


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def filter_program() -> bytes:
    """The filter in BPF: as if the kernel had no `io_uring_setup`, everything else as it is."""
    program = (
        _LOAD_NUMBER,
        (0x15, 1, 0, _IO_URING_SETUP),
        (0x15, 0, 1, _IO_URING_SETUP | _X32),
        (0x06, 0, 0, _REFUSE),
        (0x06, 0, 0, _ALLOW),
    )
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def refuse_rings(machine: str) -> bool:
    """From here on neither this process nor any child of it can make a ring; whether that is so.

    `machine` is the kernel's name of the architecture. Threads that run already are included. Without the right to
    administer this host the kernel wants a promise first that no program below raises its rights
    (PR_SET_NO_NEW_PRIVS).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    steps = filter_program()
    kept = ctypes.create_string_buffer(steps, len(steps))
    program = _Program(len(steps) // 8, ctypes.addressof(kept))

    def install() -> bool:
        number = _SECCOMP.get(machine)
        if number is not None:
            return bool(libc.syscall(number, 1, _SPEC_ALLOW | _EVERY_THREAD, ctypes.byref(program)) == 0)
        return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)

    return install() or (libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and install())
