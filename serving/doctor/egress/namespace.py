"""A network namespace of its own, with loopback and nothing else, and what its counters say."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import Final

from serving.doctor.egress.verdict import Counted
from serving.errors import EgressNotProven
from serving.unrouted import read_unrouted

_NEW_USER: Final = 0x10000000
_NEW_NET: Final = 0x40000000
_SET_FLAGS: Final = 0x8914
_UP_AND_RUNNING: Final = 0x1 | 0x40
_NFT_S: Final = 20.0
_TABLE: Final = "perimeter_egress"
_RULES: Final = f"""
table inet {_TABLE} {{
    counter names {{ }}
    counter beyond {{ }}
    chain out {{
        type filter hook output priority 0; policy accept;
        oifname "lo" meta l4proto {{ tcp, udp }} th dport 53 counter name names
        oifname != "lo" counter name beyond
    }}
}}
"""
LIMITS: Final = (
    "which process it was",
    "Unix sockets of services on this host that reach out in the caller's place, such as nscd and systemd-resolved",
    "raw sockets, and processes that were too short to be seen in another namespace",
)


def enter() -> None:
    """Put this process, which must have one thread, into a namespace with loopback only.

    Raises EgressNotProven where that is not allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_NEW_NET) != 0:
        refusal = ctypes.get_errno()
        if refusal == errno.EPERM and libc.unshare(_NEW_USER | _NEW_NET) == 0:
            Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
        else:
            message = f"a network namespace cannot be made here: {os.strerror(ctypes.get_errno() or refusal)}"
            raise EgressNotProven(message, hint="install strace and allow tracing, or run it as root")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP_AND_RUNNING))


def count_with_nftables() -> tuple[str | None, str]:
    """Have nftables count in this namespace; its version, or None and why it does not."""
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if nft is None:
        return None, "nft is not installed"
    done = subprocess.run([nft, "-f", "-"], input=_RULES, capture_output=True, text=True, timeout=_NFT_S, check=False)  # noqa: S603 - our own rules
    if done.returncode != 0:
        return None, f"nft does not take the rules: {done.stderr.strip()[:200]}"
    told = subprocess.run([nft, "--version"], capture_output=True, text=True, timeout=_NFT_S, check=False)  # noqa: S603 - as above
    words = told.stdout.removeprefix("nftables ").split()
    return words[0] if words else "unknown", nft


def counted(nft: str | None) -> tuple[Counted, ...]:
    """What was counted in this namespace since it was made."""
    found = [Counted("asked for a way to another host, and found none", read_unrouted("self") or 0)]
    if nft is not None:
        done = subprocess.run(  # noqa: S603 - as above
            [nft, "-j", "list", "counters"], capture_output=True, text=True, timeout=_NFT_S, check=False
        )
        packets = {}
        with contextlib.suppress(ValueError, KeyError, TypeError):
            for entry in json.loads(done.stdout)["nftables"]:
                if "counter" in entry:
                    packets[entry["counter"]["name"]] = int(entry["counter"]["packets"])
        found.append(Counted("asked a resolver on loopback for a name", packets.get("names", 0)))
        found.append(Counted("left by another interface than loopback", packets.get("beyond", 0)))
    return tuple(found)
