"""uvicorn's HTTP protocol with what it leaves out: bounds on a request's head, and errors in OpenAI's shape.

llhttp, which reads the bytes, refuses both `content-length` and `transfer-encoding` in one request, two lengths, and
whatever else two readers could take apart differently; here that refusal becomes a clear 400.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.errors import CapacityError, InvalidRequest, Overloaded, RequestTimeout, RequestTooLarge, ServingError
from serving.gateway.answers import ARRIVED, CERTIFICATE, FRAMES, WHOLE, Headers
from serving.openai import responses

_HEAD_BYTES: Final = 64 << 10
_PIPELINED: Final = 4
"""Requests that may wait behind the one being answered on one connection."""
_HEAD_S: Final = 15.0
"""From a connection's first byte, or a request's, to the end of its head."""
_PHRASES: Final = {400: "Bad Request", 408: "Request Timeout", 413: "Content Too Large", 503: "Service Unavailable"}


def protocol_for(most_connections: int, stall_s: float) -> type[GatewayProtocol]:
    """The protocol of a server that keeps so many connections open, and waits so long for a client to read."""
    return type("GatewayProtocol", (GatewayProtocol,), {"most_connections": most_connections, "stall_s": stall_s})


class _Refused(Exception):
    """Ends the parsing of what was read: the connection has had its answer."""


class GatewayProtocol(HttpToolsProtocol):
    """One client connection. At any moment a request is being answered or a timer runs."""

    most_connections = 1024
    stall_s = 60.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = 0
        self._is_in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._certificate: bytes | None = None
        """Of the client, empty where it has shown none; None: not asked yet."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected; it has a while to say what it wants."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            # Said without waiting for a request: those that never send one are the reason.
            self._refuse(Overloaded("too many connections are open", retry_after_s=2))
            return
        self._head_timer = self.loop.call_later(_HEAD_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_head_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came. A head that takes more than one read is counted and timed.

        Timed as well: empty lines between requests, and the rest of a body whose answer is out already.
        """
        if self.transport is None or self.transport.is_closing():
            return
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport is None or self.transport.is_closing():
            return
        if self._is_in_head and self._head_bytes > _HEAD_BYTES:
            self._refuse(RequestTooLarge(f"the head of the request is longer than {_HEAD_BYTES} bytes"))
        elif (self._is_in_head or not self._is_answering) and self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_S, self._head_is_late)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write; for a while that is its right."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def on_message_begin(self) -> None:
        """A request begins; whoever answers it may write chunks itself (`answers.FRAMES`)."""
        self._is_in_head = True
        super().on_message_begin()
        scope = self.scope

        def has_arrived() -> bool:
            cycle = self.cycle
            return cycle is not None and cycle.scope is scope and not cycle.more_body

        def write_whole(status: int, headers: Headers, body: bytes) -> bool:
            return self.cycle.scope is scope and self._write_whole(status, headers, body)

        extensions: dict[str, Any] = {FRAMES: self._write_frames, WHOLE: write_whole, ARRIVED: has_arrived}
        if self.scheme == "https":
            extensions[CERTIFICATE] = self._client_certificate
        scope["extensions"] = extensions

    def _client_certificate(self) -> bytes | None:
        """What the client showed in the handshake, in DER: it is verified, or there would be no connection."""
        if self._certificate is None:
            session = self.transport.get_extra_info("ssl_object")
            self._certificate = b"" if session is None else session.getpeercert(binary_form=True) or b""
        return self._certificate or None

    def _write_frames(self, frames: bytes) -> bool:
        """Write whole chunks of the answer under way; False where it is not sent in chunks, or the client is behind."""
        cycle = self.cycle
        if self.flow.write_paused or cycle.disconnected or cycle.response_complete or not cycle.chunked_encoding:
            return False
        self.transport.write(frames)
        return True

    def _write_whole(self, status: int, headers: Headers, body: bytes) -> bool:
        """Write an answer that has come to its end; False where uvicorn has to, which knows all the cases.

        Its own way there takes a message for the head and one for the body, and looks at each header by itself.
        """
        cycle = self.cycle
        is_usual = cycle.keep_alive and not cycle.response_started and cycle.scope["method"] != "HEAD"
        if not is_usual or self.flow.write_paused or cycle.disconnected:
            return False
        lines = [b"%b: %b\r\n" % each for each in (*cycle.default_headers, *headers)]
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"connection: " in head:
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], head, body))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._is_in_head = False
        self._head_bytes = 0
        self._stop_head_timer()
        if self.parser.should_upgrade():
            # uvicorn would ignore the wish and read the body as the next request.
            self._refuse(InvalidRequest("no other protocol is served here", hint="leave out the `upgrade` header"))
            raise _Refused
        if len(self.pipeline) >= _PIPELINED:
            self.transport.close()
            raise _Refused
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """What came is not HTTP, or could be read in two ways."""
        self._refuse(InvalidRequest("the bytes received are not one valid HTTP request"))

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            if self._is_in_head and self._head_bytes:
                self._refuse(RequestTimeout("the head of the request did not arrive in time"))
            else:
                self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: ServingError) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started or self.pipeline:
                # An answer is under way on this connection; nothing can be put between its bytes.
                self.transport.close()
                return
            # The pipeline waits for a body that turned out to be none; to it, the client has left.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = responses.error_body(error)
        retry = f"retry-after: {error.retry_after_s}\r\n" if isinstance(error, CapacityError) else ""
        head = (
            f"HTTP/1.1 {error.http_status} {_PHRASES[error.http_status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n{retry}\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
