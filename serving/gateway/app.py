"""The ASGI application: engine routes go straight to the pipeline, everything else to a small FastAPI application."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

import serving
from serving.errors import InternalError, InvalidRequest, MethodNotAllowed, RouteNotFound, ServingError, WrongHost
from serving.gateway.admin import Admin
from serving.gateway.answers import (
    Answer,
    Headers,
    Message,
    Receive,
    Refusal,
    Scope,
    Send,
    Shown,
    error_headers,
    must_close,
    whole_headers,
)
from serving.gateway.guard import Guard
from serving.gateway.hosts import hosts_of
from serving.gateway.pipeline import Pipeline, request_id_of
from serving.gateway.routes import ROUTES
from serving.openai import openapi, responses

if TYPE_CHECKING:
    from serving.gateway.config import GatewayConfig

_ROUTES: Final = {route.path: route for route in ROUTES}


class Gateway:
    """The outermost ASGI callable.

    The routes that carry the load are told apart here, before any framework: FastAPI's layers cost more per request
    than the pipeline does.
    """

    def __init__(self, config: GatewayConfig, pipeline: Pipeline, admin: Admin, guard: Guard | None = None) -> None:
        self._pipeline = pipeline
        self._guard = guard or Guard()
        self._is_ours = hosts_of(config.host, config.hosts)
        self._app = build_app(config, admin)

    def turn_away(
        self, method: bytes, path: bytes, headers: Headers, peer: str | None, certificate: Shown | None
    ) -> Refusal | None:
        """The answer to a request whose key is wrong, from a source that has sent too many; None for any other.

        It is asked for by the connection before there is a task for the request: so a flood costs a third.
        """
        where = path.decode("ascii")
        error = self._guard.turn_away(where, headers, peer, certificate)
        if error is None:
            return None
        if (route := _ROUTES.get(where)) is not None and method == b"POST":
            self._pipeline.turned_away(route, error)
        body = responses.error_body(error)
        fields = whole_headers(request_id_of(dict(headers)).encode("ascii"), body, error_headers(error))
        return error.http_status, fields, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        if any(name == b"host" and not self._is_ours(value) for name, value in scope["headers"]):
            error = WrongHost("this server is not called that", hint="its names are in the setting server.hosts")
            await Answer(scope, send, request_id_of(dict(scope["headers"]))).error(error, close=True)
            return
        route = _ROUTES.get(scope["path"])
        if route is not None and scope["method"] == "POST":
            await self._pipeline.serve(route, scope, receive, send)
            return
        request_id = request_id_of(dict(scope["headers"])).encode("ascii")

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        try:
            scope["principal"] = self._guard.admit_to(scope["path"], scope)
            if not scope["path"].isprintable():  # a pattern of Starlette's takes a line's end for the path's
                raise RouteNotFound("there is no such path", hint="see /docs")
        except ServingError as error:
            await Answer(scope, send, request_id.decode("ascii")).error(error, close=must_close(scope))
            return
        await self._app(scope, receive, with_id)


def build_app(config: GatewayConfig, admin: Admin) -> FastAPI:
    """Health, metrics, models and the documents."""
    # FastAPI's own /docs loads its scripts from a CDN, which a perimeter does not reach; ours is one page without any.
    app = FastAPI(title="Perimeter", version=serving.__version__, docs_url=None, redoc_url=None)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(Exception, _on_bug)
    app.include_router(admin.router())

    for path in _ROUTES:
        app.add_api_route(path, _never_called, methods=["POST"], include_in_schema=False)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            generated = FastAPI.openapi(app)
            generated["paths"] |= openapi.paths(config.limits)
            app.openapi_schema = generated
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()))

    return app


async def _never_called() -> None:
    """Stands for the engine routes in FastAPI's table, so that another method on them is a 405 and not a 404."""


def page(document: dict[str, Any]) -> str:
    """The routes and their fields as one HTML page that loads nothing."""
    parts = ["<!doctype html><meta charset=utf-8><title>Perimeter API</title><h1>Perimeter API</h1>"]
    parts.append('<p>The whole schema: <a href="/openapi.json">/openapi.json</a></p>')
    for path, methods in sorted(document["paths"].items()):
        for method, operation in methods.items():
            summary = html.escape(operation.get("summary", ""))
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2><p>{summary}</p>")
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            schema = content.get("schema", {})
            if "properties" in schema:
                required = schema.get("required", [])
                rows = "".join(
                    f"<tr><td><code>{html.escape(name)}</code>{' *' if name in required else ''}</td>"
                    f"<td>{html.escape(str(field.get('description', '')))}</td></tr>"
                    for name, field in schema["properties"].items()
                )
                parts.append(f"<table border=1 cellpadding=4>{rows}</table>")
    return "".join(parts)


def _answer(error: ServingError) -> Response:
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    return Response(responses.error_body(error), error.http_status, headers, "application/json")


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    method, path = request.method, request.url.path[:200]
    if status == 404:
        return _answer(RouteNotFound(f"there is no `{method} {path}`", hint="see /docs"))
    if status == 405:
        answer = _answer(MethodNotAllowed(f"`{path}` does not take `{method}`", hint="see /docs"))
        if isinstance(error, HTTPException) and error.headers:
            answer.headers.update(error.headers)
        return answer
    return _answer(InternalError("the server failed") if status >= 500 else InvalidRequest("the request is malformed"))


async def _on_validation_error(_request: Request, _error: Exception) -> Response:
    return _answer(InvalidRequest("the request is malformed"))


async def _on_bug(_request: Request, _error: Exception) -> Response:
    return _answer(InternalError("the server failed; its log has the request id"))
