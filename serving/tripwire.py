"""A tripwire in our own processes: names the module and line that would reach out.

It is no proof. Python tells of its own sockets only: uvloop, C and Rust libraries open theirs without a word. What is
proven is proven by the kernel (`serve doctor --egress`); this says which line it was, and counts in production.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, Final

log = logging.getLogger(__name__)

WHAT: Final = "Calls of this process that would leave the host and were not asked for."
"""What the count is of, as metrics say it."""
_STDLIB: Final = frozenset({
    "socket", "ssl", "asyncio", "selectors", "http", "urllib", "smtplib", "ftplib", "socketserver", "concurrent",
    "threading", "contextlib", "xmlrpc", "imaplib", "poplib", "logging", __name__,
})  # fmt: skip
"""Modules that call sockets for somebody else: the culprit is who called them."""
_CULPRITS: Final = 256
"""Different lines that are told of; more are counted only."""


class Tripwire:
    """Counts calls that would leave this host, and tells of each line that makes them once."""

    def __init__(self, wanted: Iterable[str] = (), *, has_ip: bool = True) -> None:
        """`wanted` are hosts, names or addresses, that this process is meant to reach.

        Without IP a socket for it counts already, whatever would be done with it: behind walls it is refused.
        """
        self._reaching = _REACHING if has_ip else _WITHOUT_IP
        self.attempts = 0
        """Calls so far."""
        self._wanted = frozenset(host.lower() for host in wanted)
        self._told: set[str] = set()

    def hook(self) -> Callable[[str, tuple[Any, ...]], None]:
        """What `sys.addaudithook` takes. It is called at every event of the interpreter, and costs a look-up there."""
        reaching = self._reaching  # a local name: most events are none of these, and end at this look-up

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            if event in reaching:
                self._look(reaching[event](arguments))

        return watch

    def _look(self, host: str | None) -> None:
        if host is None or host in self._wanted or getattr(_here, "is_meant", False):
            return
        self.attempts += 1
        culprit = _culprit(sys._getframe(2))  # noqa: SLF001 - there is no other way to the caller's line
        if culprit not in self._told and len(self._told) < _CULPRITS:
            self._told.add(culprit)
            # never the address, which may be a name that somebody sent us
            log.warning("a call that would leave this host", extra={"facts": {"by": culprit}})


_installed: list[Tripwire] = []
_here: Final = threading.local()


@contextlib.contextmanager
def meant() -> Iterator[None]:
    """What this thread reaches meanwhile it was told to reach, by name in the settings: it is not counted."""
    _here.is_meant = True
    try:
        yield
    finally:
        _here.is_meant = False


def install(wanted: Iterable[str] = (), *, has_ip: bool = True) -> None:
    """Set the tripwire in this process, for good: a hook cannot be taken back. Once is enough."""
    if not _installed:
        _installed.append(Tripwire(wanted, has_ip=has_ip))
        sys.addaudithook(_installed[0].hook())


def attempts() -> int:
    """What the tripwire of this process has counted; 0 where none is set."""
    return _installed[0].attempts if _installed else 0


def beyond(host: object) -> str | None:
    """The host that a socket address names, where it is not this one; None for loopback, Unix sockets and nothing."""
    name = host.decode("utf-8", "replace") if isinstance(host, bytes | bytearray) else str(host or "")
    name = name.lower()
    if name in {"", "localhost"}:
        return None
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    return None if address.is_loopback or address.is_unspecified else name


def _at(place: int) -> Callable[[tuple[Any, ...]], str | None]:
    """Of an event with a socket address at `place`; that of a Unix socket is a path."""

    def host(arguments: tuple[Any, ...]) -> str | None:
        address = arguments[place] if len(arguments) > place else None
        return beyond(address[0]) if isinstance(address, tuple) and address else None

    return host


def _named(arguments: tuple[Any, ...]) -> str | None:
    """Of an event that looks a name up; an address needs no looking up."""
    name = beyond(arguments[0]) if arguments else None
    if name is None:
        return None
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name
    return None


def _turned_round(arguments: tuple[Any, ...]) -> str | None:
    """Of an event that looks up the name of an address."""
    return beyond(arguments[0]) if arguments else None


def _family(arguments: tuple[Any, ...]) -> str | None:
    """Of an event that makes a socket, the family where it is IP's."""
    family = arguments[1] if len(arguments) > 1 else None
    return "a socket for IP" if family in (socket.AF_INET, socket.AF_INET6) else None


_REACHING: Final[dict[str, Callable[[tuple[Any, ...]], str | None]]] = {
    "socket.connect": _at(1),
    "socket.sendto": _at(1),
    "socket.sendmsg": _at(1),
    "socket.getaddrinfo": _named,
    "socket.gethostbyname": _named,
    "socket.gethostbyaddr": _turned_round,
    "socket.getnameinfo": _at(0),
}
"""Events of Python's socket module (its table of audit events), and how to read where each would go."""


_WITHOUT_IP: Final = {
    "socket.__new__": _family,
    **{event: _REACHING[event] for event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")},
}
"""The same for a process that needs no IP."""


def _culprit(frame: FrameType | None) -> str:
    """`module:line` of the nearest caller that is not the library of sockets and events itself."""
    first = frame
    while frame is not None:
        name = str(frame.f_globals.get("__name__", "?"))
        if name.partition(".")[0] not in _STDLIB and name != __name__:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return f"{first.f_globals.get('__name__', '?')}:{first.f_lineno}" if first is not None else "?"
