"""`serve mirror` as an HTTP server: uvicorn with the gateway's protocol, which bounds heads, connections and stalls.

A file's bytes never enter this process: the kernel takes them from the page cache to the socket (sendfile(2)), so that
a slow client costs a descriptor and no memory. Over TLS they do, piece by piece. The event loop is asyncio's own, since
uvloop has no sendfile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass
from typing import NoReturn, Protocol

from serving.errors import StartError
from serving.gateway.exposure import check_exposure
from serving.gateway.front import Front, bind, front_of, url_of
from serving.gateway.protocol import GatewayProtocol
from serving.gateway.tls import Tls, TlsFiles, follow, load_tls
from serving.mirror.application import FILE, ClientLeft, Mirror
from serving.mirror.door import Door
from serving.mirror.shelf import Shelf


@dataclass(frozen=True, slots=True)
class MirrorConfig:
    """How the mirror behaves. Times in seconds."""

    host: str = "127.0.0.1"
    port: int = 8090
    allow_insecure_bind: bool = False
    connections: int = 512
    """Open at one time."""
    stall_s: float = 60.0
    """A client that takes no byte for so long is cut; it resumes where it was."""
    drain_s: float = 30.0
    tls: TlsFiles | None = None
    look_s: float = 1.0
    """Between two looks at the keys."""


class Listener(Protocol):
    """What a person, or a log, is told."""

    def on_ready(self, url: str) -> None:
        """Files are handed on, at `url`."""

    def on_drain(self, downloads: int) -> None:
        """A stop was asked for; so many downloads are finished first."""


class MirrorProtocol(GatewayProtocol):
    """One client connection, to which files are sent past uvicorn."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected. One that takes nothing of what was sent is cut by the kernel (tcp(7))."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.stall_s * 1000))

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {FILE: self}  # type: ignore[dict-item]

    async def send_file(self, descriptor: int, start: int, length: int) -> None:
        """Send part of a file as the body, or part of it, of the answer whose head is out. Raises ClientLeft."""
        cycle, transport = self.cycle, self.transport
        if cycle.disconnected or transport.is_closing():
            raise ClientLeft
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            try:
                is_tls = transport.get_extra_info("sslcontext") is not None
                sent = await self.loop.sendfile(transport, file, start, length, fallback=is_tls)
            except (OSError, RuntimeError) as error:  # asyncio's SendfileNotAvailableError is a RuntimeError
                raise ClientLeft from error
        cycle.expected_content_length -= sent
        if sent < length:
            raise ClientLeft

    async def cut(self) -> None:
        """End the connection where it is."""
        self.transport.abort()
        await asyncio.sleep(0)  # uvicorn is told of it


async def serve(shelf: Shelf, config: MirrorConfig, listener: Listener, door: Door) -> int:
    """Hand the shelf's files on until SIGTERM or SIGINT; returns the exit status.

    Raises AddressUnavailable, UnsafeBind.

    A first signal drains: nothing new is taken, downloads get `drain_s`. A second one cuts them; clients resume.
    """
    tls = load_tls(config.tls, time.time()) if config.tls is not None else None
    is_closed = tls is not None and (tls.asks_clients or door.asks_keys)
    check_exposure(config.host, is_allowed=config.allow_insecure_bind or is_closed)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    listening = bind(config.host, config.port)
    mirror = Mirror(shelf, door)
    protocol = type("Protocol", (MirrorProtocol,), {"most_connections": config.connections, "stall_s": config.stall_s})
    front = front_of(mirror, protocol, None if tls is None else tls.context)
    stopped, hurried = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurried if stopped.is_set() else stopped).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    server = asyncio.create_task(front.serve(sockets=[listening]))
    verifier = asyncio.create_task(shelf.keep_verified())
    watched = {verifier}
    if door.asks_keys:
        watched.add(asyncio.create_task(_look_at_keys(door, mirror, config.look_s)))
    if config.tls is not None:
        watched.add(asyncio.create_task(_follow(config.tls, front)))
    listener.on_ready(url_of(listening, is_tls=tls is not None))
    try:
        stop = asyncio.create_task(stopped.wait())
        done, _ = await asyncio.wait({stop, server, *watched}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stop}:
            task.result()  # a bug in one of them is a bug of the whole
    finally:
        for task in watched:
            task.cancel()
        shelf.close()
        front.leave()
        if mirror.running:
            listener.on_drain(mirror.running)
        await mirror.drain(config.drain_s, hurried)
        for connection in list(front.server_state.connections):
            connection.transport.abort()
        front.force_exit = True
        await server
        listening.close()
    return 0


async def _look_at_keys(door: Door, mirror: Mirror, look_s: float) -> NoReturn:
    while True:
        await asyncio.sleep(look_s)
        await asyncio.to_thread(door.look)
        mirror.cut_ended()


async def _follow(files: TlsFiles, front: Front) -> None:
    async def use(outcome: Tls | StartError) -> None:
        if isinstance(outcome, Tls):
            await front.renew(outcome.context)

    await follow(files, use)
