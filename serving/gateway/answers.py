"""Writing to the client: one answer per request, always in OpenAI's shape, whatever happened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from serving import eager
from serving.errors import (
    CapacityError,
    RateLimited,
    RequestTimeout,
    RequestTooLarge,
    ServingError,
    Unauthenticated,
)
from serving.gateway.relay import unframed
from serving.openai import responses

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], eager.Job]
Headers = list[tuple[bytes, bytes]]
Shown = Callable[[], bytes | None]
"""Gives a client's certificate in DER, verified, or None where it has shown none."""
Refusal = tuple[int, Headers, bytes]
"""An answer that is whole: status, headers, body."""

FRAMES: Final = "serving.frames"
"""In `scope["extensions"]`: writes whole chunks of the chunked coding, past uvicorn (`gateway.protocol`)."""
WHOLE: Final = "serving.whole"
"""The same of an answer that is not streamed: head and body by one write (`gateway.protocol`)."""
CERTIFICATE: Final = "serving.certificate"
"""In `scope["extensions"]` of a connection over TLS: gives the client's certificate in DER, verified, or None."""
ARRIVED: Final = "serving.arrived"
"""In `scope["extensions"]`: whether all of the request's body has come, so that the next request can follow it."""
JSON: Final = b"application/json"
EVENTS: Final = b"text/event-stream; charset=utf-8"


class Answer:
    """The answer to one request. Its head goes out once; after that an error can only be an event or a cut."""

    __slots__ = ("_at_once", "_request_id", "_send", "extra", "frames", "is_complete", "status")

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        extensions = scope.get("extensions", {})
        self._send = send
        self._at_once: Callable[[int, Headers, bytes], bool] = extensions.get(WHOLE, _never)
        self.frames: Callable[[bytes], bool] = extensions.get(FRAMES, _never)
        """Writes whole chunks of a stream as they are framed; False where it did not, and `events` has to."""
        self._request_id = request_id.encode("ascii")
        self.status = 0
        """The status sent; 0 before the head is out."""
        self.is_complete = False
        self.extra: Headers = []
        """Headers of whatever is answered: what is left of the key's limits."""

    def copy_to(self, keep: Callable[[bytes], None]) -> None:
        """Give `keep` the body that is sent to the client from now on, whatever coding it is sent in."""
        send, frames, at_once = self._send, self.frames, self._at_once

        def copying(message: Message) -> eager.Job:
            if body := message.get("body"):
                keep(body)
            return send(message)

        def framing(data: bytes) -> bool:
            if not frames(data):
                return False
            keep(unframed(data))
            return True

        def writing(status: int, headers: Headers, body: bytes) -> bool:
            if not at_once(status, headers, body):
                return False
            keep(body)
            return True

        self._send = copying
        if frames is not _never:
            self.frames = framing
        if at_once is not _never:
            self._at_once = writing

    async def whole(self, status: int, body: bytes, *extra: tuple[bytes, bytes], kind: bytes = JSON) -> None:
        """Head and body at once."""
        headers = whole_headers(self._request_id, body, [*self.extra, *extra], kind)
        if self._at_once(status, headers, body):
            self.status = status
            self.is_complete = True
            return
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self.status = status
        self.is_complete = True
        await self._send({"type": "http.response.body", "body": body})

    async def start_events(self) -> None:
        """The head of a stream of events."""
        headers = [
            (b"content-type", EVENTS),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            (b"x-request-id", self._request_id),
            *self.extra,
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self.status = 200  # not before: whoever ends the request while this waits has no head to write an event behind

    def events(self, data: bytes) -> eager.Job | None:
        """Some whole events, sent at once; what must be awaited where the client does not take them yet."""
        return eager.begin(self._send({"type": "http.response.body", "body": data, "more_body": True}))

    async def end_events(self, data: bytes = b"") -> None:
        """The last events."""
        self.is_complete = True
        await self._send({"type": "http.response.body", "body": data})

    async def error(self, error: ServingError, *, close: bool = False) -> None:
        """The error as status and body, or as the last event where the head is out already.

        `close`: nothing more is read from this connection, because the rest of a body would be.
        """
        if self.is_complete:
            return
        if self.status:
            await self.end_events(responses.error_event(error))
            return
        await self.whole(error.http_status, responses.error_body(error), *error_headers(error, close=close))


def whole_headers(request_id: bytes, body: bytes, extra: Headers, kind: bytes = JSON) -> Headers:
    """The head of an answer whose body is known."""
    length = b"%d" % len(body)
    return [(b"content-type", kind), (b"content-length", length), (b"x-request-id", request_id), *extra]


def must_close(scope: Scope) -> bool:
    """Whether a request that is answered with its body unread has to be its connection's last."""
    arrived: Callable[[], bool] | None = scope.get("extensions", {}).get(ARRIVED)
    return arrived is None or not arrived()


def _never(*_what: object) -> bool:
    return False


def error_headers(error: ServingError, *, close: bool = False) -> Headers:
    """When to come again, what is left of a key's limits, how to show a key.

    `close`: the rest of the body will not be read.
    """
    headers = []
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, RateLimited):
        headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in error.headers.items()]
    if isinstance(error, CapacityError):
        headers.append((b"retry-after", str(error.retry_after_s).encode("ascii")))
    if close or isinstance(error, RequestTooLarge | RequestTimeout):
        headers.append((b"connection", b"close"))
    return headers
