"""What counts as an attempt to reach out. Pure.

Inside are only: loopback at a port that the stack itself has, the stack's own Unix sockets, the kernel (netlink), and
disconnecting. A failed attempt is one: whatever asked will ask again where there is a route. Who sends by another's
hand (a resolver on loopback, a name service behind a Unix socket, a proxy on this host) reaches out as well.
"""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from serving.doctor.egress.addresses import UNREADABLE, Address, destinations
from serving.doctor.egress.lines import Call, Event
from serving.doctor.egress.processes import Process

SENDING: Final = frozenset({"connect", "sendto", "sendmsg", "sendmmsg"})
_HERE: Final = frozenset({"AF_UNSPEC", "AF_NETLINK", "AF_ALG"})
"""Families that end in this kernel: disconnecting, its own messages, its ciphers."""
_WITHOUT_ADDRESS: Final = frozenset({"AF_PACKET", "AF_XDP", "AF_TIPC", "AF_CAN", "AF_BLUETOOTH", "AF_QIPCRTR"})
"""Families that send without naming an address in a call that is watched: having such a socket is the attempt."""
_NAME_SERVICES: Final = (
    "/run/nscd/", "/run/systemd/resolve/", "/run/systemd/io.systemd.", "/run/systemd/userdb/", "/run/avahi-daemon/",
    "/run/dbus/", "/var/lib/sss/", "/run/unscd/", "/run/nslcd/",
)  # fmt: skip
"""Behind these somebody looks up names in the caller's place; glibc asks nscd for users by the same socket."""
_CARRY_NOTHING: Final = (
    "/run/uuidd/request", "/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket",
    "/run/nvidia-fabricmanager/fm_sm_ipc.socket", "/tmp/nvidia-mps/control",  # noqa: S108 - CUDA's own default
)  # fmt: skip
"""Services of this host that keep a counter or a device: libuuid's, and the NVIDIA driver's."""
_ROUTES: Final = frozenset({
    "IP_OPTIONS", "IP_ADD_MEMBERSHIP", "IP_ADD_SOURCE_MEMBERSHIP", "MCAST_JOIN_GROUP", "MCAST_JOIN_SOURCE_GROUP",
    "IPV6_RTHDR", "IPV6_HOPOPTS", "IPV6_DSTOPTS", "IPV6_2292RTHDR", "IPV6_ADD_MEMBERSHIP", "IPV6_JOIN_GROUP",
})  # fmt: skip
"""Options of a socket that send packets another way than their address says, or make the kernel speak to others."""
_RESOLVER: Final = 53
_REFUSALS: Final = frozenset({"EAFNOSUPPORT", "EPERM", "EACCES"})
"""What a filter of system calls answers."""


@dataclass(frozen=True, slots=True)
class Own:
    """What belongs to the stack."""

    ports: frozenset[tuple[str, int]] = frozenset()
    """Addresses and ports that it has, TCP or UDP; the address is empty where it is any."""
    sockets: frozenset[str] = frozenset()
    """Unix sockets that one of its processes bound."""
    directories: tuple[str, ...] = ()
    """Directories of this run alone: nobody else can have put a socket there."""
    wanted: frozenset[tuple[str, int]] = frozenset()
    """Engines elsewhere that the settings name, as address and port."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to reach out."""

    at_s: float
    """Seconds since the epoch."""
    phase: str
    pid: int
    process: str
    command: str
    call: str
    family: str
    address: str
    port: int | None
    result: str
    """The kernel's answer: `0`, or the name of an error."""
    why: str
    """Why it counts as one."""


def own_of(events: Iterable[Event], directories: Sequence[str], wanted: frozenset[tuple[str, int]]) -> Own:
    """What the stack has, by what its processes bound and were told that they have."""
    ports: set[tuple[str, int]] = set()
    sockets: set[str] = set()
    for event in events:
        if isinstance(event, Call) and event.name in {"bind", "getsockname"} and event.succeeded:
            for address in destinations(event):
                if address.port and address.ip is not None:
                    ports.add(("" if address.ip.is_unspecified else str(address.ip), address.port))
                elif address.family == "AF_UNIX" and address.host and event.name == "bind":
                    sockets.add(_plain(address.host))
    return Own(frozenset(ports), frozenset(sockets), tuple(directories), wanted)


def attempts_of(
    events: Sequence[Event], owners: Mapping[int, Process], own: Own, phases: Sequence[tuple[str, float]]
) -> tuple[Attempt, ...]:
    """Every attempt, in the order in which the calls ended; `phases` are names with their beginnings."""
    found: list[Attempt] = []
    for place, event in enumerate(events):
        if not isinstance(event, Call):
            continue
        process = owners[place]
        for address, why in _reasons(event, own, has_filter=process.has_own_filter):
            found.append(
                Attempt(
                    at_s=event.at_s,
                    phase=phase_at(event.at_s, phases),
                    pid=process.pid,
                    process=process.name,
                    command=process.command,
                    call=event.name,
                    family=address.family,
                    address=address.host,
                    port=address.port,
                    result=event.error or event.result,
                    why=why,
                )
            )
    return tuple(found)


def phase_at(at_s: float, phases: Sequence[tuple[str, float]]) -> str:
    """The phase that a moment falls into."""
    begun = [name for name, began_s in phases if began_s <= at_s]
    return begun[-1] if begun else phases[0][0] if phases else ""


def _reasons(call: Call, own: Own, *, has_filter: bool) -> Iterable[tuple[Address, str]]:
    if call.name == "socket":
        yield from _of_socket(call, has_filter=has_filter)
    elif call.name == "setsockopt":
        if any(option in call.arguments for option in _ROUTES):
            yield Address(" ".join(call.arguments[1:3])), "a way for packets, or a group of hosts to be in"
    elif call.name == "pidfd_getfd":
        if call.succeeded:
            yield Address("descriptor"), "another process' descriptor, taken from it"
    elif call.name in SENDING:
        for address in destinations(call):
            why = decide_destination(address, own)
            if address.family == "AF_UNSPEC" and call.name != "connect":
                why = "an address of no family, which UDP takes for IP's"
            if why is not None:
                yield address, why


def _of_socket(call: Call, *, has_filter: bool) -> Iterable[tuple[Address, str]]:
    family = call.arguments[0] if call.arguments else UNREADABLE
    if family in _WITHOUT_ADDRESS:
        yield Address(family), "a socket that sends past the address family's own routes"
    elif family not in _HERE | {"AF_UNIX"} and has_filter and call.error in _REFUSALS:
        yield Address(family), "a socket that leads out, which the process' own walls refused"


def decide_destination(address: Address, own: Own) -> str | None:
    """Why sending there is an attempt to reach out; None where it stays inside."""
    if address.family == "AF_UNIX":
        return _decide_unix(address.host, own)
    ip = address.ip
    if ip is not None:
        return _decide_ip(ip, address.port, own)
    if address.family in _HERE:
        return None
    return "nobody could read where to" if address.family == UNREADABLE else "a family that leaves this host"


def _decide_ip(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None, own: Own) -> str | None:
    if (str(ip), port) in own.wanted:
        return None
    if port == _RESOLVER:
        return "a name to be looked up"
    if not (ip.is_loopback or ip.is_unspecified):
        return "beyond this host"
    if port and not _is_own(ip, port, own):
        return "a port of this host that is not the stack's"
    return None


def _is_own(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, own: Own) -> bool:
    if ip.is_unspecified:  # which is loopback, whatever listens there
        return any(each == port for _, each in own.ports)
    return (str(ip), port) in own.ports or ("", port) in own.ports


def _decide_unix(path: str, own: Own) -> str | None:
    plain = _plain(path)
    if not plain or plain in own.sockets or plain in _CARRY_NOTHING:
        return None
    bound = {posixpath.basename(each) for each in own.sockets}
    is_below = any(plain.startswith(f"{_plain(directory)}/") for directory in own.directories)
    if is_below and posixpath.basename(plain) in bound:  # by a relative name; a link to somebody else's was not bound
        return None
    if plain.startswith(_NAME_SERVICES):
        return "a name service, which looks up names in the caller's place"
    return "a service of this host that is not the stack's"


def _plain(path: str) -> str:
    """A path in one spelling: /var/run is /run."""
    if path.startswith("@") or not path:
        return path
    plain = posixpath.normpath(path)
    return plain.removeprefix("/var") if plain.startswith("/var/run/") else plain
