"""A small HTTP/1.1 client for one engine: pooled connections, bytes as they arrive, abort at once.

It exists because it was measured (docs/decisions/0020): what a general client spends per request is more than the rest
of the pipeline together. It speaks only what an engine's answers need, over a Unix socket or, elsewhere, TCP or TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import httptools

from serving.eager import Job
from serving.engines.spec import Origin
from serving.errors import EngineUnavailable
from serving.openai.peers import Peer, peer_of

if TYPE_CHECKING:
    from pathlib import Path

Take = Callable[[bytes], Job | None]
"""Takes bytes of an answer; gives back what must be waited for before it can take more."""
Straight = Callable[[bytes], bool]
"""Passes bytes on as the engine framed them, chunk sizes and all; False where it did nothing with them."""

_HEAD_BYTES: Final = 64 << 10
_BUFFERED_BYTES: Final = 1 << 20
"""Unread bytes of an answer at which the engine is made to wait: a slow client must not fill our memory."""
_CONNECT_S: Final = 5.0
SIZE: Final = re.compile(rb"[0-9a-f]{1,5}")
"""Of a chunk that one event fills."""


class EngineBroke(EngineUnavailable):
    """The engine went away, or sent what is not HTTP, in the middle of an exchange."""


class _Refused(EngineBroke):
    """A pooled connection had been closed by the engine before it saw the request: another may be tried."""


class _Connection(asyncio.Protocol):
    """One connection, used by one exchange at a time."""

    def __init__(self, pool: Upstream) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._reset()
        self.used = False

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._seen = 0
        self._head_done = False
        self._complete = False
        self._until_close = False
        self._keeps_alive = False
        self._error: Exception | None = None
        self._take: Take | None = None
        self._straight: Straight | None = None
        self._is_between_chunks = False
        """The last byte that came was the last of a chunk: what comes now begins with the size of another."""
        self._rest: Job | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's by class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        # Whole chunks that follow whole chunks are nothing to the parser, so what passes them by leaves it as it was.
        if self._is_between_chunks and self._goes_straight(data):
            return
        self._seen += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._break("the engine sent what is not HTTP")
            return
        if not self._head_done and self._seen > _HEAD_BYTES:
            self._break("the engine sent too long a head")
        if self._take is not None:
            self._is_between_chunks = not self._complete and ends_a_chunk(data)
            self._pass_on(self._take)
            if self._rest is None and self._error is None and not self._complete:
                return
        self._wake()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._until_close and self._head_done and not self._complete:
            self._complete = True
        elif not self._complete and self._error is None:
            fresh = self.used and self._seen == 0
            kind = _Refused if fresh else EngineBroke
            self._error = kind("the engine closed the connection before its answer was whole")
        self._transport = None
        self._pool.forget(self)
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        # Until the next request is sent, whatever follows a whole answer is one that nobody asked for.
        if self._complete:
            self._break("the engine sent an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._error is not None:
            return
        if self._head_done:  # trailers, which no engine of ours sends, and which nothing would bound
            self._break("the engine sent headers behind its answer")
            return
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._error is not None:
            return
        self.status = self._parser.get_status_code()
        self._head_done = True
        self._until_close = b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    def on_body(self, body: bytes) -> None:
        if self._error is not None:
            return
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > _BUFFERED_BYTES and not self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._paused = True

    def on_message_complete(self) -> None:
        # llhttp knows this only until the message has ended.
        self._keeps_alive = self._parser.should_keep_alive()
        self._complete = True

    # What an exchange calls.

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def peer(self) -> Peer | None:
        return None if self._transport is None else peer_of(self._transport.get_extra_info("socket"))

    def send(self, request: bytes) -> None:
        self._reset()
        if self._transport is None or self._transport.is_closing():
            raise _Refused("the engine closed the connection")
        self._transport.write(request)

    async def head(self) -> None:
        while not self._head_done:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read(self) -> bytes:
        while not self._chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._taken()

    async def pump(self, take: Take, straight: Straight | None) -> None:
        self._take = take
        self._straight = straight
        try:
            while True:
                self._pass_on(take)
                if self._rest is not None:
                    rest, self._rest = self._rest, None
                    self._take = None
                    await rest
                    self._take = take
                elif self._error is not None:
                    raise self._error
                elif self._complete:
                    return
                else:
                    await self._wait()
        finally:
            self._take = None
            self._straight = None
            if self._rest is not None:
                self._rest.close()

    def _goes_straight(self, data: bytes) -> bool:
        """Pass whole chunks on as they are, unless something that came before them is still to be passed on."""
        if self._straight is None or self._rest is not None or self._chunks or self._error is not None:
            return False
        return self._straight(data)

    def _pass_on(self, take: Take) -> None:
        """Give `take` what has arrived, unless it still waits with what it had."""
        if not self._chunks or self._rest is not None:
            return
        try:
            self._rest = take(self._taken())
        except Exception as error:  # noqa: BLE001 - met here in a callback, raised in the task that pumps
            self._error = error

    def _taken(self) -> bytes:
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def may_be_reused(self) -> bool:
        return (
            self._complete
            and not self._chunks
            and self._error is None
            and self.is_open
            and self._keeps_alive
            and not self._until_close
        )

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break(self, message: str) -> None:
        self._error = EngineBroke(message)
        self.abort()


def ends_a_chunk(data: bytes) -> bool:
    """Whether the end of `data` is the end of a chunk with one line of an event in it.

    Told by its size, which stands in `data`: the parser could tell as well, at the price of two calls for every chunk.
    """
    end = len(data) - 2
    head_end = data.rfind(b"\r\n", 0, end)
    if head_end < 0 or not data.endswith(b"\n\n\r\n"):
        return False
    size = data[data.rfind(b"\n", 0, head_end) + 1 : head_end]
    return SIZE.fullmatch(size) is not None and int(size, 16) == end - head_end - 2


class Response:
    """An answer under way. Leave it with `close`, which gives the connection back or, before the end, cuts it."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, connection: _Connection, pool: Upstream) -> None:
        self._connection = connection
        self._pool = pool

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._connection.status

    def header(self, name: bytes) -> bytes:
        """A header's value by its lower-case name; empty where it is not there."""
        return self._connection.headers.get(name, b"")

    async def read(self) -> bytes:
        """All bytes that have arrived, at least one; empty at the end. Raises EngineBroke."""
        return await self._connection.read()

    async def pump(self, take: Take, straight: Straight | None = None) -> None:
        """Hand all bytes to `take` as they arrive, in the very callback that received them, until the answer's end.

        Where `take` gives back something to wait for, nothing more is handed over until that is done; what arrives
        meanwhile is kept, up to a bound at which the engine is made to wait. Raises EngineBroke and what `take` does.

        Bytes that begin where a chunk of the transfer coding does are offered to `straight` first, as they came.
        """
        await self._connection.pump(take, straight)

    async def read_all(self, most: int) -> bytes:
        """The whole body. Raises EngineBroke, also where it is longer than `most` bytes."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            parts.append(data)
            size += len(data)
            if size > most:
                raise EngineBroke(f"the engine's answer is longer than {most} bytes")
        return b"".join(parts)

    def close(self) -> None:
        """End the exchange. An engine whose connection is cut frees the sequence (docs/engine-protocol.md)."""
        self._pool.give_back(self._connection)


class Upstream:
    """Connections to one engine, at its socket or elsewhere; as many as there are exchanges at a time."""

    def __init__(
        self, target: Path | Origin, is_engine: Callable[[int], bool] | None = None, owner: int | None = None
    ) -> None:
        """`is_engine` says whether a process may be the one that listens at the socket; None asks for its user only.

        That is this process's, or `owner`.
        """
        self._target = target
        self._owner = os.getuid() if owner is None else owner
        self._is_engine = is_engine
        self._prefix, self._host, self._tls = "", "engine", None
        if isinstance(target, Origin):
            self._prefix, self._host = target.prefix, str(target).split("/")[2]
            self._tls = ssl.create_default_context() if target.is_tls else None
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    async def request(
        self, method: str, path: str, headers: str = "", body: bytes = b"", on_sent: Callable[[], None] | None = None
    ) -> Response:
        """Send a request and wait for the head of its answer; `headers` are whole lines, each with its CRLF.

        `on_sent` is called when it is written, its connection having been made before where none was there.
        Raises EngineBroke where nobody listens or the engine goes away. A pooled connection that turns out to have
        been closed before it was used is replaced by a fresh one, once.
        """
        start = f"{method} {self._prefix}{path} HTTP/1.1\r\nhost: {self._host}\r\n"
        request = f"{start}content-length: {len(body)}\r\n{headers}\r\n".encode("ascii") + body
        while True:
            connection = self._idle.pop() if self._idle else await self._connect()
            was_used = connection.used
            try:
                connection.send(request)
                if on_sent is not None:
                    on_sent()
                connection.used = True
                await connection.head()
            except _Refused:
                connection.abort()
                if not was_used:
                    raise
            except BaseException:
                connection.abort()
                raise
            else:
                return Response(connection, self)

    def close(self) -> None:
        """Cut every connection."""
        for connection in list(self._all):
            connection.abort()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                if isinstance(self._target, Origin):
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self), self._target.host, self._target.port, ssl=self._tls
                    )
                else:
                    _, connection = await loop.create_unix_connection(lambda: _Connection(self), str(self._target))
        except (OSError, TimeoutError):
            raise EngineBroke("the engine does not answer") from None
        if not self._is_expected(connection):
            connection.abort()
            raise EngineBroke("somebody else listens at the engine's socket")
        self._all.add(connection)
        return connection

    def _is_expected(self, connection: _Connection) -> bool:
        """Whether a Unix socket is served by this user, and by a process of the engine's."""
        peer = connection.peer()
        if peer is None:
            return True
        return peer.uid == self._owner and (self._is_engine is None or self._is_engine(peer.pid))

    def give_back(self, connection: _Connection) -> None:
        """Keep the connection for the next exchange where its answer was read to the end, else cut it."""
        if connection.may_be_reused():
            self._idle.append(connection)
        else:
            connection.abort()

    def forget(self, connection: _Connection) -> None:
        """The connection is gone."""
        self._all.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
