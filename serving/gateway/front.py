"""The listening socket and uvicorn's server on it, without what of uvicorn is ours to do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from serving.errors import AddressUnavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

_BACKLOG: Final = 1024
_KEEP_ALIVE_S: Final = 75
"""An idle client connection is kept this long: longer than common proxies keep theirs, so that they close first."""
_HANDSHAKE_S: Final = 10.0
"""From a connection to the end of its TLS handshake."""


class Front(uvicorn.Server):
    """uvicorn without its signal handling, which is ours, and without its clock."""

    def __init__(self, config: uvicorn.Config, context: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._context = context
        self._bound: list[socket.socket] = []
        self._leaving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections at these sockets. uvicorn's own would wait a minute for a TLS handshake."""
        self._bound = list(sockets or ())
        self.servers = [await self._listen(bound) for bound in self._bound]
        self.started = True

    async def renew(self, context: ssl.SSLContext) -> None:
        """Serve new connections with that context; those that are there keep theirs, and none is turned away."""
        self._context = context
        before, self.servers = self.servers, [await self._listen(bound) for bound in self._bound]
        for server in before:
            server.close()

    async def _listen(self, bound: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()

        def connection() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]  # its base declares no arguments
                config=self.config, server_state=self.server_state, app_state={}, _loop=loop
            )

        return await loop.create_server(
            connection,
            sock=bound.dup(),
            backlog=_BACKLOG,
            ssl=self._context,
            ssl_handshake_timeout=None if self._context is None else _HANDSHAKE_S,
        )

    def leave(self) -> None:
        """Take no more connections, end those that are idle, and return once the others have ended."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """Until it is to leave. uvicorn looks ten times a second, which an idle machine and a busy one both feel."""
        while not await self.on_tick(0):  # renews the `date` of answers
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), 1.0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def front_of(app: Any, protocol: type[asyncio.Protocol], context: ssl.SSLContext | None = None) -> Front:
    """A server of that application over that protocol, to be given a socket that is bound; over TLS with a context."""
    return Front(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
        ),
        context,
    )


def url_of(listening: socket.socket, *, is_tls: bool = False) -> str:
    """Where a client reaches a bound socket."""
    host, port = listening.getsockname()[:2]
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not listening yet. Raises AddressUnavailable."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise AddressUnavailable(f"cannot resolve `{host}`: {error.strerror}", hint="use an address") from None
    bound = socket.socket(family, kind, proto)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        # Listening at once, so that a second server is refused the port while engines still load.
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        hint = "stop what listens there, or choose another with --port" if error.errno == errno.EADDRINUSE else None
        raise AddressUnavailable(f"cannot listen on `{host}:{port}`: {error.strerror}", hint=hint) from None
    return bound
