"""`POST /v1/route/explain`: where a request of whoever asks would go, and why. Nothing is sent or remembered by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fastapi import Request, Response

from serving.errors import Overloaded, RequestTimeout, ServingError
from serving.gateway.answers import error_headers
from serving.openai import responses, serialise
from serving.openai.asgi import read_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.gateway.guard import Guard
    from serving.gateway.outside import Outside
    from serving.openai import Limits

PATH: Final = "/v1/route/explain"
_NAME_CHARS: Final = 256
_AS: Final = "/v1/chat/completions"


class Explaining:
    """Asks the egress process, for one caller at a time: what it does for them, it does not do for requests."""

    def __init__(
        self, outside: Outside, guard: Guard, limits: Limits, body_timeout_s: float, is_here: Callable[[str], bool]
    ) -> None:
        """`is_here`: whether an engine here can take requests of a model now."""
        self._is_here = is_here
        self._guard = guard
        self._outside = outside
        self._limits = limits
        self._body_timeout_s = body_timeout_s
        self._turn = asyncio.Lock()

    async def explain(self, request: Request) -> Response:
        """Of the body of a chat request, as the caller's key would send it."""
        try:
            told = await self._told(request)
        except ServingError as error:
            headers = {name.decode(): value.decode() for name, value in error_headers(error)}
            return Response(responses.error_body(error), error.http_status, headers, "application/json")
        return Response(serialise(told), 200, media_type="application/json")

    async def _told(self, request: Request) -> dict[str, object]:
        try:
            async with asyncio.timeout(self._body_timeout_s):
                body = await read_body(dict(request.scope), request.receive, self._limits)  # type: ignore[arg-type]
        except TimeoutError:
            raise RequestTimeout("the body did not arrive in time", hint="see limits.body_timeout_s") from None
        principal = request.scope["principal"]
        if self._turn.locked():
            raise Overloaded("another request is being explained", hint="ask again")
        async with self._turn:
            model, headers = str(body.get("model")), dict(request.scope["headers"])
            self._guard.count_request(principal, model[:_NAME_CHARS])
            is_here = self._is_here(model)
            return await self._outside.explain("explain", principal, _AS, body, headers, is_here=is_here)
