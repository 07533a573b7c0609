"""Whether the `Host` of a request names this server.

A page from anywhere can have its own name resolve to this host's address, and so make a browser inside ask this server
as if it were the page's own (DNS rebinding). Such a name is a public one; an address or a name without a dot is none.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import TYPE_CHECKING, Final

from serving.gateway.exposure import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")


def hosts_of(bound: str, names: Iterable[str]) -> Callable[[bytes], bool]:
    """Whether a `Host` header may be answered by a server that listens at `bound` and is known under `names`.

    Addresses always may. Without names, a server on loopback answers to names that no public resolver gives out
    (without a dot, or under `localhost`), and one that is reached from elsewhere to every name.
    """
    known = frozenset(name.lower().rstrip(".") for name in names)
    answers_all = not known and not is_loopback(bound)

    @functools.lru_cache(256)
    def is_ours(header: bytes) -> bool:
        told = _AUTHORITY.fullmatch(header.decode("latin-1").lower())
        if told is None:
            return False
        name = told[1].rstrip(".")
        return answers_all or name in known or _is_address(name) or (not known and _is_local(name))

    return is_ours


def _is_local(name: str) -> bool:
    return "." not in name or name.endswith(".localhost")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
