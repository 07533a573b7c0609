"""Who could reach an address, and the refusal of one that others could while there are no keys."""

from __future__ import annotations

import ipaddress

from serving.errors import UnsafeBind


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, is_allowed: bool) -> None:
    """Refuse to be reachable from elsewhere without keys. Raises UnsafeBind."""
    if is_allowed or is_loopback(host):
        return
    raise UnsafeBind(
        f"refused to listen on `{host}`: anyone who reaches it could use the models, since there are no keys",
        hint="listen on 127.0.0.1, ask clients for certificates (server.tls.client_ca), or pass --allow-insecure-bind "
        "where the network itself is trusted",
    )
