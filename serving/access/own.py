"""A key for a server that a command starts on loopback for itself, to measure or to watch it, and ends again.

Such a server has no part in the site's keys and record, which another one may hold; and it asks for a key all the same,
since whoever else is on this host could use it meanwhile. It takes that key alone: no token of the site's identity
provider, whose keys it would have to fetch, and no client's certificate. It shows none either: a site's is not for
loopback.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.access.door import Access
from serving.access.keys import Key
from serving.settings import WITHOUT_VARIABLE
from serving.settings import Access as Settings


@dataclass(frozen=True, slots=True)
class OwnKey:
    """What such a server is to be told, and what it is then to be shown."""

    environment: dict[str, str]
    text: str


@contextlib.contextmanager
def own_key() -> Iterator[OwnKey]:
    """A key in a directory of its own, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="perimeter-access-") as name:
        directory = Path(name) / "access"
        access = Access.open(Settings(directory=directory), {})
        try:
            wanted = Key("", "perimeter", "own", b"", 0, scopes=frozenset({"inference", "metrics"}))
            _, text = access.create(wanted)
        finally:
            access.close()
        environment = {
            "PERIMETER_ACCESS__OPEN": "false",
            "PERIMETER_ACCESS__DIRECTORY": str(directory),
            "PERIMETER_ACCESS__PEPPER_FILE": str(directory / "pepper"),
            "PERIMETER_AUDIT__ENABLED": "false",
            WITHOUT_VARIABLE: "server.tls,access.oidc,access.certificates",
        }
        yield OwnKey(environment, text)
