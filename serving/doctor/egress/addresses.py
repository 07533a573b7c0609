"""Where a call would send something, read from how strace writes socket addresses. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from serving.doctor.egress.lines import Call, fields_of, split, text_of

_PORT: Final = re.compile(r"htons\((\d+)\)")
_IPV4: Final = re.compile(r'inet_addr\("([0-9.]+)"\)')
_IPV6: Final = re.compile(r'inet_pton\(AF_INET6, "([0-9a-fA-F:.]+)", ')
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class Address:
    """A socket address."""

    family: str
    """Such as `AF_INET`; `unreadable` where the watcher could not read what was passed."""
    host: str = ""
    """An IP address, the path of a Unix socket (`@…` an abstract one), else empty."""
    port: int | None = None

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The address as a number, IPv4 mapped into IPv6 as IPv4; None where the family has none."""
        if self.family not in {"AF_INET", "AF_INET6"}:
            return None
        address = ipaddress.ip_address(self.host)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return mapped or address

    def __str__(self) -> str:
        if self.port is None:
            return self.host or self.family
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def destinations(call: Call) -> Iterator[Address]:
    """The addresses that a call sends or connects to; none where it goes along an earlier connection."""
    places = {"connect": 1, "bind": 1, "getsockname": 1, "sendto": 4}
    if call.name in places:
        found = call.arguments[places[call.name]] if len(call.arguments) > places[call.name] else ""
        yield from _address(found, call)
    elif call.name == "sendmsg":
        yield from _of_message(call.arguments[1] if len(call.arguments) > 1 else "", call)
    elif call.name == "sendmmsg":
        messages = call.arguments[1] if len(call.arguments) > 1 else ""
        if not (messages.startswith("[") and messages.endswith("]")):
            yield from _unreadable(call)
            return
        for message in split(messages[1:-1]):
            yield from _of_message(fields_of(message).get("msg_hdr", ""), call)


def _of_message(header: str, call: Call) -> Iterator[Address]:
    fields = fields_of(header)
    if "msg_name" not in fields:
        yield from _unreadable(call)
        return
    yield from _address(fields["msg_name"], call)


def _address(text: str, call: Call) -> Iterator[Address]:
    if text == "NULL":
        return
    fields = fields_of(text)
    family = fields.get("sa_family")
    if family is None:
        yield from _unreadable(call)
    elif family == "AF_UNIX":
        yield Address(family, _unix(fields.get("sun_path", "")))
    elif family in {"AF_INET", "AF_INET6"}:
        host = (_IPV4 if family == "AF_INET" else _IPV6).search(text)
        port = _PORT.search(fields.get("sin_port" if family == "AF_INET" else "sin6_port", ""))
        if host is None or port is None:
            yield from _unreadable(call)
        else:
            yield Address(family, host[1], int(port[1]))
    else:
        yield Address(family)


def _unix(path: str) -> str:
    if path.startswith("@"):
        return "@" + (text_of(path[1:]) or path[1:])
    return text_of(path) or path


def _unreadable(call: Call) -> Iterator[Address]:
    # the kernel could not read it either, so nothing was sent
    if call.error != "EFAULT":
        yield Address(UNREADABLE)
