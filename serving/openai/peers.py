"""Who is at the other end of a Unix socket, as the kernel says it (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_CREDENTIALS: Final = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, or the one that listened, when it did."""

    pid: int
    """0 where it is in a process namespace that cannot be seen from here."""
    uid: int
    """The overflow user (65534) where it has no name in this user namespace."""


def peer_of(connection: Any) -> Peer | None:
    """The peer of a connected Unix socket; None for a socket of another family, which has none."""
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    pid, uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(pid, uid)


class CheckedProtocol(HttpToolsProtocol):
    """uvicorn's, for an engine: over a Unix socket only this user is served.

    The gateway runs as the user that the engine was started by, which in the engine's own user namespace is the
    engine's own; everybody else has no name there.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connected."""
        peer = peer_of(transport.get_extra_info("socket"))
        if peer is not None and not self.is_served(peer.uid):
            transport.abort()
            return
        super().connection_made(transport)

    def is_served(self, uid: int) -> bool:
        """Whether that user is."""
        return uid == os.getuid()
