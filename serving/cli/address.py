"""The address to listen on, checked before an engine is started for it."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from serving.errors import AddressUnavailable


def check_address(host: str, port: int, root: Path = Path("/")) -> None:
    """See that the address can be listened on now. Raises AddressUnavailable, naming who holds it if /proc tells."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as failure:
        message = f"cannot listen on `{host}`: {failure.strerror if isinstance(failure, OSError) else failure}"
        name, colon, number = host.rpartition(":")
        hint = "use an address of this host, such as 127.0.0.1"
        if colon and number.isdecimal() and ":" not in name.strip("[]"):
            hint = f"the port goes in --port: `--host {name} --port {number}`"
        raise AddressUnavailable(message, hint=hint) from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as failure:
            raise _unavailable(host, port, failure, root) from None


def _unavailable(host: str, port: int, failure: OSError, root: Path) -> AddressUnavailable:
    if failure.errno == errno.EADDRINUSE:
        holder = who_listens(port, root)
        by = f" by {holder}" if holder else ""
        message = f"cannot listen on `{host}:{port}`: the port is taken{by}"
        return AddressUnavailable(
            message, hint=f"use another: --port {port + 1 if port < 65535 else 8000}, or 0 for any"
        )
    if failure.errno == errno.EACCES:
        message = f"cannot listen on `{host}:{port}`: not allowed for this user"
        return AddressUnavailable(message, hint="ports below 1024 need privileges: use --port 8000")
    if failure.errno == errno.EADDRNOTAVAIL:
        message = f"cannot listen on `{host}:{port}`: it is not an address of this host"
        return AddressUnavailable(message, hint="use 127.0.0.1, or an address that `ip address` shows")
    return AddressUnavailable(f"cannot listen on `{host}:{port}`: {failure.strerror}")


def who_listens(port: int, root: Path = Path("/")) -> str | None:
    """The process that listens on a TCP port, as `name (pid 123)`; None where /proc does not tell."""
    inodes = {
        fields[9]
        for table in ("tcp", "tcp6")
        for fields in _rows(root / "proc/net" / table)
        if len(fields) > 9 and fields[3] == "0A" and fields[1].rpartition(":")[2] == f"{port:04X}"
    }
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted:
        return None
    for process in (root / "proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in wanted for link in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8").strip()
                return f"`{name}` (pid {process.name})"
        except OSError:  # another user's process, or one that has just ended
            continue
    return None


def _rows(table: Path) -> list[list[str]]:
    try:
        return [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
    except OSError:
        return []
