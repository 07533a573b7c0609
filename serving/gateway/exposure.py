"""Who could reach an address, whether a key is asked for there, and the refusal of what would serve just anybody."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from serving.errors import UnsafeBind


@dataclass(frozen=True, slots=True)
class Openness:
    """What decides whether a server may do without keys."""

    host: str
    """The address that it listens on."""
    wish: bool | None
    """`access.open`, or `--open`."""
    is_demo: bool
    """All that it serves is the demo model that ships."""
    is_sealed: bool
    """`sealed` is `require`."""
    knows_clients: bool
    """Only those come in who show a certificate (`server.tls.client_ca`)."""


def asks_keys(given: Openness) -> bool:
    """Whether every route wants a key. Raises UnsafeBind where none was to be asked for and that cannot be."""
    if given.wish is None:
        return not (given.is_demo and is_loopback(given.host) and not given.is_sealed)
    if not given.wish:
        return True
    if given.is_sealed:
        raise UnsafeBind(
            "refused to serve without keys: `sealed` is `require`, under which nobody is served who is not known",
            hint="leave `--open` and `access.open` out; `serve keys create --owner NAME` makes a key",
        )
    if not is_loopback(given.host) and not given.knows_clients:
        raise UnsafeBind(
            f"refused to serve without keys on `{given.host}`: anyone who reaches it could use what is served",
            hint="listen on 127.0.0.1, or leave `--open` out and make keys: `serve keys create --owner NAME`",
        )
    return False


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, is_allowed: bool) -> None:
    """Refuse to be reachable from elsewhere over a wire that others read. Raises UnsafeBind."""
    if is_allowed or is_loopback(host):
        return
    raise UnsafeBind(
        f"refused to listen on `{host}` without TLS: whatever travels could be read on the way",
        hint="set server.tls, listen on 127.0.0.1, or pass --allow-insecure-bind where the network itself is trusted "
        "or TLS ends in front",
    )
