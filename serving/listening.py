"""A Unix socket on which those are served whom the kernel vouches for."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Final

from serving.errors import AddressUnavailable
from serving.openai.peers import CheckedProtocol, peer_of

_MAX_PATH: Final = 107
"""Bytes of a Unix socket's path, unix(7)."""


class DeskProtocol(CheckedProtocol):
    """Only this user and root are served; others are cut off before a byte is read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connected: who it is goes with each request."""
        super().connection_made(transport)
        peer = peer_of(transport.get_extra_info("socket"))
        if peer is not None:
            self.client = (str(peer.uid), peer.pid)

    def is_served(self, uid: int) -> bool:
        """Whether that user is."""
        return uid in (0, os.getuid())


class GroupProtocol(DeskProtocol):
    """Whoever the socket's mode lets connect is served: this user, root, and its group."""

    def is_served(self, uid: int) -> bool:  # noqa: ARG002 - the kernel has asked the mode already
        """Whether that user is."""
        return True


def listen_at(path: Path, setting: str, *, is_for_group: bool) -> socket.socket:
    """A listening socket for this user alone, or for the group of its directory too. Raises AddressUnavailable."""
    if len(os.fsencode(path)) > _MAX_PATH:
        longest = _MAX_PATH - len(os.fsencode(path.name)) - 1
        message = f"`{path}` is too long a path for a socket"
        raise AddressUnavailable(message, hint=f"set {setting} to a path of at most {longest} bytes")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        if is_for_group:
            os.chown(path, -1, path.parent.stat().st_gid)
            path.chmod(0o660)
        listening.listen()
    except OSError as error:
        listening.close()
        hint = None
        if is_for_group and isinstance(error, PermissionError):
            hint = f"make the server's user one of the group of `{path.parent}`, or chmod g+s it"
        raise AddressUnavailable(f"cannot listen at `{path}`: {error.strerror}", hint=hint) from None
    finally:
        os.umask(before)
    return listening
