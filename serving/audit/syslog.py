"""A syslog server as a receiver: RFC 5424 messages over TLS, counted in octets as RFC 5425 has it.

The server is checked against the site's certificates and by its name. The protocol has no acknowledgement of its own:
a message counts as delivered when the other host's kernel has acknowledged all of its bytes; after a broken connection
everything that did not is sent again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import ssl
import struct
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving import tripwire
from serving.audit.courier import NotDelivered
from serving.errors import BadSettings

_PRIORITY: Final = 13 * 8 + 5
"""Facility 13, log audit; severity 5, notice (RFC 5424, 6.2.1)."""
_TIMEOUT_S: Final = 10.0
_LOOK_S: Final = 0.002
_TIME: Final = slice(7, 34)
"""Where an entry's line has its time, which is a timestamp of RFC 5424 as it stands."""


def frame(line: bytes, host: bytes, process: int) -> bytes:
    """An entry's line, without its newline, as one counted message."""
    message = b"<%d>1 %b %b perimeter %d audit - %b" % (_PRIORITY, line[_TIME], host, process, line)
    return b"%d %b" % (len(message), message)


def header_name(host: str) -> bytes:
    """A host's name as a header may have it: printable ASCII without blanks, 255 at most; `-` where nothing is left."""
    return bytes(byte for byte in host.encode("ascii", "ignore") if 33 <= byte <= 126)[:255] or b"-"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and by what it is known."""

    host: str
    port: int = 6514
    ca_file: Path | None = None
    """Certificates that the server's is checked against; None takes the system's."""
    certificate: Path | None = None
    """Our own, where the server wants one; with its key in `key`."""
    key: Path | None = None


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[v6]:port`; 6514 (RFC 5425) unless said. Raises BadSettings."""
    host, port = text, "6514"
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        host, port = (host, rest.removeprefix(":") or port) if closed else ("", port)
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadSettings(f"`{text}` is no address of a syslog server", hint="such as `audit.example:6514`")
    return host, int(port)


class SyslogReceiver:
    """One connection, made when there is something to deliver and again when it broke."""

    name = "syslog"

    def __init__(self, address: Address) -> None:
        """Raises BadSettings where the certificates cannot be used."""
        self._address = address
        self._host = header_name(socket.gethostname())
        self._process = os.getpid()
        self._connection: ssl.SSLSocket | None = None
        try:
            self._context = ssl.create_default_context(cafile=address.ca_file)
            self._context.minimum_version = ssl.TLSVersion.TLSv1_2
            if address.certificate is not None:
                self._context.load_cert_chain(address.certificate, address.key)
        except (OSError, ssl.SSLError) as error:
            message = f"the certificates for the syslog server `{address.host}` cannot be used: {error}"
            raise BadSettings(
                message, hint="see audit.syslog_ca, audit.syslog_certificate and audit.syslog_key"
            ) from None

    def deliver(self, lines: bytes) -> None:
        """Send the lines, a message each, and wait until the other host has them. Raises NotDelivered, OSError."""
        try:
            connection = self._connected()
            frames = [frame(line, self._host, self._process) for line in lines.splitlines()]
            connection.sendall(b"".join(frames))
            self._wait_for_the_other(connection)
            if not self._is_alive(connection):
                raise NotDelivered("the syslog server closed the connection")  # noqa: TRY301 - the way out is one
        except (OSError, NotDelivered):
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError, ValueError):
                connection.settimeout(1.0)
                connection.unwrap()
            connection.close()

    def _connected(self) -> ssl.SSLSocket:
        if self._connection is not None and not self._is_alive(self._connection):
            # not `close`: what it says at its end interests nobody
            self._connection.close()
            self._connection = None
        if self._connection is None:
            with tripwire.meant():
                plain = socket.create_connection((self._address.host, self._address.port), _TIMEOUT_S)
            try:
                self._connection = self._context.wrap_socket(plain, server_hostname=self._address.host)
            except BaseException:
                plain.close()
                raise
        return self._connection

    def _is_alive(self, connection: ssl.SSLSocket) -> bool:
        """Whether the server has not closed its side, as far as is known here. It has nothing to say otherwise."""
        connection.settimeout(0)
        try:
            while connection.recv(1024):
                pass
        except (ssl.SSLWantReadError, BlockingIOError):
            return True
        except OSError:
            return False
        finally:
            connection.settimeout(_TIMEOUT_S)
        return False

    def _wait_for_the_other(self, connection: ssl.SSLSocket) -> None:
        """Until the other kernel has acknowledged every byte (tcp(7), SIOCOUTQ, which is TIOCOUTQ)."""
        deadline = time.monotonic() + _TIMEOUT_S
        while struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0]:
            if not self._is_alive(connection):  # what a connection that was reset still had is never acknowledged
                raise NotDelivered("the syslog server closed the connection")
            if time.monotonic() > deadline:
                raise NotDelivered("the syslog server does not take what it is sent")
            time.sleep(_LOOK_S)
