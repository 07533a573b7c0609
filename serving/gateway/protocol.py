"""uvicorn's HTTP protocol with what it leaves out: bounds on a request's head, and errors in OpenAI's shape.

llhttp, which reads the bytes, refuses both `content-length` and `transfer-encoding` in one request, two lengths, and
whatever else two readers could take apart differently; here that refusal becomes a clear 400.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.errors import CapacityError, InvalidRequest, Overloaded, RequestTimeout, RequestTooLarge, ServingError
from serving.gateway.answers import ARRIVED, CERTIFICATE, FRAMES, WHOLE, Headers, Refusal, Shown
from serving.openai import responses

_HEAD_BYTES: Final = 64 << 10
_PIPELINED: Final = 4
"""Requests that may wait behind the one being answered on one connection."""
_HEAD_S: Final = 15.0
"""From a connection's first byte, or a request's, to the end of its head."""
_PHRASES: Final = {400: "Bad Request", 408: "Request Timeout", 413: "Content Too Large", 503: "Service Unavailable"}


TurnAway = Callable[[bytes, bytes, Headers, str | None, Shown | None], Refusal | None]
"""Of a request's method, path, headers, its peer's address, and its certificate: the answer, if it is known by then."""


def _let_in(*_: object) -> None:
    return None


def protocol_for(most_connections: int, stall_s: float, turn_away: TurnAway = _let_in) -> type[GatewayProtocol]:
    """The protocol of a server that keeps so many connections open, and waits so long for a client to read."""
    bounds = {"most_connections": most_connections, "stall_s": stall_s, "turn_away": staticmethod(turn_away)}
    return type("GatewayProtocol", (GatewayProtocol,), bounds)


class _Refused(Exception):
    """Ends the parsing of what was read: the connection has had its answer."""


class GatewayProtocol(HttpToolsProtocol):
    """One client connection. At any moment a request is being answered or a timer runs."""

    most_connections = 1024
    stall_s = 60.0
    turn_away: TurnAway = staticmethod(_let_in)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = 0
        self._is_in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._refusal: Refusal | None = None
        """What answers the request that is being read, as soon as it has been."""
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
        if self._refusal is not None:
            # The rest of its body is not waited for.
            self._write_refusal(b"connection: close\r\n")
            self.transport.close()
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
        head = _lines([*cycle.default_headers, *headers])
        if head is None:
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], head, body))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _write_refusal(self, more: bytes = b"") -> None:
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            status, headers, body = refusal
            head = _lines([*self.server_state.default_headers, *headers])
            if head is None:
                self.transport.close()
            else:
                self.transport.write(b"%b%b%b\r\n%b" % (STATUS_LINE[status], head, more, body))

    def _find_refusal(self) -> Refusal | None:
        """The answer to a request of the usual kind that is not let in; None: it goes the usual way."""
        is_usual = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        if not is_usual or self.expect_100_continue or self._is_answering or b"%" in self.url:
            return None
        peer = None if self.client is None else self.client[0]
        shown = self._client_certificate if self.scheme == "https" else None
        method, path = self.parser.get_method(), httptools.parse_url(self.url).path
        return None if method == b"HEAD" else self.turn_away(method, path, self.headers, peer, shown)

    def on_body(self, body: bytes) -> None:
        """Some of a request's body."""
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has come as a whole."""
        if self._refusal is None:
            super().on_message_complete()
        elif not self.flow.write_paused:
            self._write_refusal()
            self.on_response_complete()

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
        self._refusal = self._find_refusal()
        if self._refusal is None:
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


def _lines(headers: Headers) -> bytes | None:
    """Headers as they are sent; None where one of them holds the end of a line, or ends the connection."""
    lines = [b"%b: %b\r\n" % each for each in headers]
    head = b"".join(lines)
    is_plain = head.count(b"\n") == len(lines) and head.count(b"\r") == len(lines)
    return head if is_plain and b"connection: " not in head else None
