"""The filter of system calls, run by an interpreter of its language."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.confinement import filter as refusing

MACHINES = tuple(refusing.ARCHITECTURES)
EPERM, ENOSYS, EAFNOSUPPORT = (0x00050000 | number for number in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))
CALLS = {
    "x86_64": {"socket": 41, "socketpair": 53, "clone": 56, "ioctl": 16, "read": 0, "execve": 59, "futex": 202},
    "aarch64": {"socket": 198, "socketpair": 199, "clone": 220, "ioctl": 29, "read": 63, "execve": 221, "futex": 98},
}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
WORDS = st.integers(0, 2**64 - 1)


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), architecture: int = 0) -> int:
    """What the kernel would do: BPF as seccomp(2) has it, over its `struct seccomp_data`."""
    arguments = (*arguments, *([0] * (6 - len(arguments))))
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments)
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at, word = 0, 0
    while True:
        operation, when, otherwise, value = code[at]
        at += 1
        if operation == 0x20:
            (word,) = struct.unpack_from("<I", data, value)
        elif operation == 0x06:
            return value
        else:
            holds = {0x15: word == value, 0x35: word >= value, 0x45: bool(word & value)}[operation]
            at += when if holds else otherwise


def judged(machine: str, number: int, *arguments: int, has_ip: bool = False) -> int:
    program = refusing.program(machine, has_ip=has_ip)
    return run(program, number, arguments, refusing.ARCHITECTURES[machine])


@pytest.mark.parametrize("machine", MACHINES)
@given(family=WORDS, has_ip=st.booleans())
def test_only_the_families_that_are_needed(machine: str, family: int, has_ip: bool) -> None:
    """Unix sockets always, IP and netlink where there is a loopback, by the 32 bits that the kernel looks at."""
    allowed = {1, 2, 10, 16} if has_ip else {1}
    low = family & 0xFFFFFFFF
    for name, families in (("socket", allowed), ("socketpair", {1})):
        expected = refusing.ALLOW if low in families else EAFNOSUPPORT
        assert judged(machine, CALLS[machine][name], family, has_ip=has_ip) == expected


@pytest.mark.parametrize("machine", MACHINES)
@given(family=st.sampled_from([0, 1, 2, 3, 9, 10, 16, 17, 29, 38, 40, 41, 44]), has_ip=st.booleans())
def test_the_families_that_there_are(machine: str, family: int, has_ip: bool) -> None:
    """The same for those that mean something."""
    expected = family in ({1, 2, 10, 16} if has_ip else {1})
    assert (judged(machine, CALLS[machine]["socket"], family, has_ip=has_ip) == refusing.ALLOW) == expected


@pytest.mark.parametrize("machine", MACHINES)
@given(flags=WORDS)
def test_no_namespace_is_cloned(machine: str, flags: int) -> None:
    """A clone with any of the flags is refused, threads and processes are not."""
    namespaces = 0x80 | 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
    expected = EPERM if flags & namespaces else refusing.ALLOW
    assert judged(machine, CALLS[machine]["clone"], flags) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_and_processes_are_made(machine: str) -> None:
    """As glibc makes them: pthread_create, fork, vfork and posix_spawn."""
    for flags in (0x3D0F00, 0x1200011, 0x4111):
        assert judged(machine, CALLS[machine]["clone"], flags) == refusing.ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@given(command=WORDS)
def test_no_terminal_is_typed_into(machine: str, command: int) -> None:
    """TIOCSTI and TIOCLINUX are refused, whatever stands in the half of the word that the kernel ignores."""
    expected = EPERM if command & 0xFFFFFFFF in {0x5412, 0x541C} else refusing.ALLOW
    assert judged(machine, CALLS[machine]["ioctl"], 0, command) == expected
    assert judged(machine, CALLS[machine]["ioctl"], 0, (command & ~0xFFFFFFFF) | 0x5412) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
@given(number=st.integers(0, 600), arguments=st.tuples(*[WORDS] * 6), has_ip=st.booleans())
def test_every_other_call_is_decided_by_its_number(
    machine: str, number: int, arguments: tuple[int, ...], has_ip: bool
) -> None:
    """Refused with its errno where the table has it, else allowed."""
    if number in {CALLS[machine][name] for name in ("socket", "socketpair", "clone", "ioctl")}:
        return
    table = {known: 0x00050000 | error for known, error in refusing.refused(machine).values()}
    assert judged(machine, number, *arguments, has_ip=has_ip) == table.get(number, refusing.ALLOW)


@pytest.mark.parametrize("machine", MACHINES)
@given(number=st.integers(0, 2**32 - 1), architecture=st.integers(0, 2**32 - 1))
def test_another_architecture_is_the_end(machine: str, number: int, architecture: int) -> None:
    """Calls of another architecture, i386 on x86_64 above all, go by other numbers: the process is killed."""
    program = refusing.program(machine, has_ip=True)
    if architecture != refusing.ARCHITECTURES[machine]:
        assert run(program, number, (), architecture) == refusing.KILL


@given(number=st.integers(0x40000000, 2**32 - 1))
def test_x32_is_the_end(number: int) -> None:
    """The x32 numbers would pass by the rules made for the others."""
    assert judged("x86_64", number) == refusing.KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_what_libraries_do_without_is_absent_and_the_rest_forbidden(machine: str) -> None:
    """ENOSYS makes glibc and libuv take the older call; EPERM is an answer."""
    errors = {name: error for name, (_, error) in refusing.refused(machine).items()}
    assert {name for name, error in errors.items() if error == errno.ENOSYS} == {
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "clone3",
    }
    for name in ("unshare", "setns", "mount", "ptrace", "bpf", "keyctl", "perf_event_open", "pidfd_getfd"):
        assert errors[name] == errno.EPERM
    for name in ("read", "execve", "futex"):
        assert judged(machine, CALLS[machine][name]) == refusing.ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_the_kernels(machine: str) -> None:
    """Each against the kernel's own headers, as far as those know it."""
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not there (apt install linux-libc-dev)")
    lines = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    known = {name: int(number) for name, number in lines}
    checked = {name: number for name, (number, _) in refusing.refused(machine).items() if name in known}
    assert checked == {name: known[name] for name in checked}
    assert len(checked) > 30
    for name in ("socket", "socketpair", "clone", "ioctl"):
        assert CALLS[machine][name] == known[name]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("has_ip", [True, False])
def test_every_jump_stays_inside(machine: str, has_ip: bool) -> None:
    """The kernel refuses a program that could leave itself, or is longer than 4096 instructions."""
    program = refusing.program(machine, has_ip=has_ip)
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    assert len(code) <= 4096
    for at, (operation, when, otherwise, _) in enumerate(code):
        if operation not in {0x20, 0x06}:
            assert at + 1 + max(when, otherwise) < len(code)
    assert code[-1][0] == 0x06
