"""What every engine's server shares, as plain ASGI: a table of routes, a body read once, errors as status and body."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from serving.errors import (
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    RequestTooLarge,
    RouteNotFound,
    ServingError,
)
from serving.openai.limits import Limits
from serving.openai.responses import error_body
from serving.openai.strict import parse_body
from serving.telemetry.logs import facts

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

SSE_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Server:
    """An ASGI application of routes; what a handler raises before its first byte becomes a status and a body."""

    def __init__(self, limits: Limits, routes: Mapping[str, Mapping[str, Handler]]) -> None:
        self.limits = limits
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request. A handler that notices its client's leaving sets `client_left` in the scope."""
        if scope["type"] != "http":
            return
        request_id = header(scope, b"x-request-id") or ""
        began = time.monotonic()
        try:
            await self._route(scope)(scope, receive, send)
        except ServingError as error:
            await respond_error(send, error)
            outcome = error.code
        except Exception:
            log.exception("request failed", extra=facts(request_id=request_id))
            await respond_error(send, InternalError(f"the engine failed on this request (id `{request_id}`)"))
            outcome = "internal_error"
        else:
            outcome = "cancelled" if scope.get("client_left") else "ok"
        if scope["method"] == "POST":
            log.info(
                "request",
                extra=facts(
                    request_id=request_id,
                    route=scope["path"],
                    outcome=outcome,
                    duration_s=round(time.monotonic() - began, 4),
                ),
            )

    def _route(self, scope: Scope) -> Handler:
        methods = self._routes.get(scope["path"])
        if methods is None:
            raise RouteNotFound(f"there is no route `{scope['path']}` here")
        route = methods.get(scope["method"])
        if route is None:
            raise MethodNotAllowed(f"`{scope['path']}` takes {' or '.join(methods)}")
        return route


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> dict[str, object]:
    """The request's body, parsed strictly. Raises InvalidRequest, RequestTooLarge."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the client left before its request was complete")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limits.body_bytes:
            raise RequestTooLarge(f"the body has more than {limits.body_bytes} bytes")
        if not message.get("more_body", False):
            break
    return parse_body(
        b"".join(parts),
        limits,
        content_type=header(scope, b"content-type"),
        content_encoding=header(scope, b"content-encoding"),
    )


def header(scope: Scope, name: bytes) -> str | None:
    """A request header's value, None where it is absent."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def respond(send: Send, status: int, body: bytes, *, content_type: bytes = b"application/json") -> None:
    """A whole response."""
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_error(send: Send, error: ServingError) -> None:
    """An error that was met before the first byte."""
    body = error_body(error)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    retry = getattr(error, "retry_after_s", None)
    if retry is not None:
        headers.append((b"retry-after", str(retry).encode()))
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
