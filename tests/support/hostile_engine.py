"""A program in an engine's place that tries what it must not be able to do, and says what came of each.

`python hostile_engine.py FACTS`: FACTS is JSON with what the test put outside. Writes one JSON object to stdout:
for each attempt `"got …"` or the name of the error that it met.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import socket
import sys
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
FACTS = json.loads(sys.argv[1])
X86 = platform.machine() == "x86_64"
NUMBERS = {
    # x86_64, aarch64
    "ptrace": (101, 117),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "process_vm_readv": (310, 270),
    "userfaultfd": (323, 282),
    "clone": (56, 220),
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "pidfd_getfd": (438, 438),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
}
NEW_USER, NEW_NET = 0x10000000, 0x40000000


def call(name: str, *arguments: object) -> str:
    ctypes.set_errno(0)
    found = LIBC.syscall(NUMBERS[name][0 if X86 else 1], *arguments)
    if found == 0 and name == "clone":
        os._exit(0)
    return f"got {found}" if found >= 0 else errno.errorcode[ctypes.get_errno()]


def tried(attempt: object) -> str:
    try:
        return f"got {attempt()!r}"[:200]
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)


def connect(family: int, address: object, kind: int = socket.SOCK_STREAM) -> str:
    def go() -> None:
        with socket.socket(family, kind) as connection:
            connection.settimeout(2)
            connection.connect(address)
            connection.send(b"x")

    return tried(go)


def made(family: int, kind: int, protocol: int = 0) -> str:
    def go() -> None:
        socket.socket(family, kind, protocol).close()

    return tried(go)


def talk_to_myself() -> bool:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        return True


def status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    wanted = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name in wanted}


def write(path: str) -> str:
    return tried(lambda: os.close(os.open(path, os.O_WRONLY)))


def main() -> None:
    outside, model, own = FACTS["gateway"], FACTS["model"], os.getcwd()
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    found = {
        # what it must have
        "reads its model": tried(lambda: Path(model).read_text()),
        "writes to its own directory": tried(lambda: Path(own, "note").write_text("x")),
        "writes to its cache": tried(lambda: Path(FACTS["cache"], "note").write_text("x")),
        "has shared memory": tried(lambda: Path("/dev/shm/note").write_text("x")),
        "has a temporary directory": tried(lambda: Path("/tmp/note").write_text("x")),
        "has its name": tried(lambda: __import__("pwd").getpwuid(os.getuid()).pw_name),
        "listens at its socket": tried(lambda: socket.socket(socket.AF_UNIX).bind(f"{own}/engine.sock")),
        "talks to itself": tried(talk_to_myself),
        "has randomness": tried(lambda: len(Path("/dev/urandom").open("rb").read(8))),
        # files
        "secret": tried(lambda: Path(FACTS["secret"]).read_text()),
        "other model": tried(lambda: Path(FACTS["other_model"]).read_text()),
        "other state": tried(lambda: os.listdir(FACTS["other_state"])),
        "runtime directory": tried(lambda: sorted(os.listdir(FACTS["runtime"]))),
        "own record": tried(lambda: Path(own, "..", "engine.json").read_text()),
        "etc": tried(lambda: sorted(os.listdir("/etc"))),
        "root": tried(lambda: sorted(os.listdir("/"))),
        "shadow": tried(lambda: Path("/etc/shadow").read_text()),
        "write model": write(model),
        "chmod model": tried(lambda: os.chmod(model, 0o777)),
        "replace model": tried(lambda: os.rename(f"{own}/note", model)),
        "remove model": tried(lambda: os.unlink(model)),
        "write root": tried(lambda: Path("/x").write_text("x")),
        "write etc": tried(lambda: Path("/etc/passwd").write_text("x")),
        "write usr": tried(lambda: Path("/usr/x").write_text("x")),
        "write core_pattern": write("/proc/sys/kernel/core_pattern"),
        "write sysrq": write("/proc/sysrq-trigger"),
        "make a device": tried(lambda: os.mknod(f"{own}/device", 0o20666, os.makedev(1, 1))),
        # processes
        "processes": len(pids),
        "highest": max(pids),
        "gateway environ": tried(lambda: Path(f"/proc/{outside}/environ").read_bytes()),
        "gateway memory": tried(lambda: Path(f"/proc/{outside}/mem").open("rb").close()),
        "gateway root": tried(lambda: os.listdir(f"/proc/{outside}/root")),
        "kill gateway": tried(lambda: os.kill(outside, 0)),
        "init memory": tried(lambda: Path("/proc/1/mem").open("r+b").close()),
        # network
        "engine socket": connect(socket.AF_UNIX, FACTS["other_socket"]),
        "abstract socket": connect(socket.AF_UNIX, "\0" + FACTS["abstract"]),
        "host port": connect(socket.AF_INET, ("127.0.0.1", FACTS["port"])),
        "tcp": connect(socket.AF_INET, ("192.0.2.1", 80)),
        "udp": connect(socket.AF_INET, ("192.0.2.1", 53), socket.SOCK_DGRAM),
        "tcp6": connect(socket.AF_INET6, ("2001:db8::1", 80)),
        "raw": made(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "packet": made(socket.AF_PACKET, socket.SOCK_RAW),
        "netlink": made(socket.AF_NETLINK, socket.SOCK_RAW),
        "vsock": made(40, socket.SOCK_STREAM),
        "kernel crypto": made(38, socket.SOCK_SEQPACKET),
        "socket pair": tried(lambda: socket.socketpair(socket.AF_UNIX)),
        # the kernel
        "own user namespace": call("unshare", NEW_USER),
        "own network namespace": call("unshare", NEW_NET),
        "clone into namespaces": call("clone", NEW_USER | 17, 0, 0, 0, 0),
        "clone3": call("clone3", 0, 0),
        "setns": call("setns", 0, 0),
        "mount": call("mount", b"x", b"/tmp", b"tmpfs", 0, 0),
        "open_tree": call("open_tree", -100, b"/", 0),
        "fsopen": call("fsopen", b"tmpfs", 0),
        "ptrace": call("ptrace", 16, 1, 0, 0),
        "process_vm_readv": call("process_vm_readv", 1, 0, 0, 0, 0, 0),
        "keyctl": call("keyctl", 0, -3, 0, 0, 0),
        "bpf": call("bpf", 0, 0, 0),
        "perf_event_open": call("perf_event_open", 0, 0, -1, -1, 0),
        "userfaultfd": call("userfaultfd", 1),
        "io_uring_setup": call("io_uring_setup", 1, 0),
        "pidfd_getfd": call("pidfd_getfd", 0, 0, 0),
        "type into a terminal": tried(lambda: fcntl.ioctl(0, 0x5412, b"x")),
        # itself
        "rights": status(),
        "uid": os.getuid(),
        "core limit": resource.getrlimit(resource.RLIMIT_CORE),
        "core filter": int(Path("/proc/self/coredump_filter").read_text(), 16),
        "environment": sorted(os.environ),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "host name": socket.gethostname(),
        "interfaces": tried(lambda: [name for _, name in socket.if_nameindex()]),
        "become root": tried(lambda: os.setuid(0)),
    }
    for left in ("/dev/shm/note", "/tmp/note"):  # the host's own, where there was no wall
        with contextlib.suppress(OSError):
            os.unlink(left)
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.close(1)


if __name__ == "__main__":
    main()
