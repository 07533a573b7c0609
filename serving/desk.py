"""Operations over a Unix socket for those whom the kernel vouches for: `POST /<operation>` with a body of JSON.

What is served where, and to whom, is for those who use it (`access.administration`, `audit.counter`).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import pwd
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.types import Message, Receive, Scope, Send

from serving.errors import (
    InternalError,
    InvalidRequest,
    RequestTooLarge,
    ServingError,
    StartError,
    Untrusted,
)
from serving.listening import DeskProtocol, GroupProtocol, listen_at
from serving.openai.peers import peer_of
from serving.settings.wording import mistake, shown

_TIMEOUT_S: Final = 30.0
_MAX_ANSWER: Final = 256 << 20
MAX_BODY: Final = 1 << 20
"""Bytes of a request's body at most: the longest that an operation takes is a key for hundreds of models."""


class Body(BaseModel):
    """What an operation is asked; closed to unknown fields, no conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the kernel says it."""

    uid: int

    def __str__(self) -> str:
        """The number, and the name that this host has for it now."""
        try:
            return f"uid {self.uid} ({pwd.getpwuid(self.uid).pw_name})"
        except KeyError:
            return f"uid {self.uid}"


def myself() -> Caller:
    """The user of this process."""
    return Caller(os.getuid())


Operation = tuple[type[Body], Callable[[Any, Caller], dict[str, Any]]]
"""What it is asked, and what does it; on a thread."""


class _Server(uvicorn.Server):
    """Signals are its host's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def perform(operations: Mapping[str, Operation], name: str, body: Mapping[str, object]) -> dict[str, Any]:
    """One operation by its name, asked by this very process. Raises ServingError."""
    form, function = operations[name]
    try:
        wanted = form.model_validate(body)
    except ValidationError as failure:
        raise _invalid(failure.errors(include_url=False)) from None
    return function(wanted, myself())


@contextlib.asynccontextmanager
async def served(
    operations: Mapping[str, Operation], path: Path, setting: str, *, is_for_group: bool = False
) -> AsyncIterator[None]:
    """Serve the operations at `path`, to the directory's group too if wanted, beside whatever else the process does.

    The directory is this process's alone: a socket that is there is one that a dead process left. `setting` is what
    says where the directory is. Raises AddressUnavailable.
    """
    listening = listen_at(path, setting, is_for_group=is_for_group)
    protocol = GroupProtocol if is_for_group else DeskProtocol
    config = uvicorn.Config(
        _bounded(_application(operations)), http=protocol, ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
        listening.close()
        _leave(path)


def ask(path: Path, operation: str, body: Mapping[str, object]) -> dict[str, Any] | None:
    """The answer of the server that listens there; None where none does. Raises ServingError."""
    connection = _Connection(path)
    try:
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        connection.request("POST", f"/{operation}", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read(_MAX_ANSWER))
    except PermissionError:
        message = f"this user may not ask the server at `{path}`"
        raise StartError(message, hint="run it as a user that may: the server's own, root, or who it is for") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        message = f"the server at `{path}` did not answer: {type(error).__name__}"
        raise StartError(message, hint="it may be stopping: try again; its log may say more") from None
    finally:
        connection.close()
    if response.status == 200 and isinstance(answer, dict):
        return answer
    raise _error_of(answer)


def _application(operations: Mapping[str, Operation]) -> FastAPI:
    """Errors are in OpenAI's shape, with the hint beside."""
    app = FastAPI(title="Perimeter: administration", openapi_url=None)

    def endpoint(form: type[Body], function: Callable[[Any, Caller], dict[str, Any]]) -> Callable[..., object]:
        def answer(body: Body, request: Request) -> dict[str, Any]:  # on a thread: disks are waited for
            if request.client is None:
                raise InternalError("the kernel does not say who asks")
            return function(body, Caller(int(request.client.host)))

        answer.__annotations__.update(body=form, request=Request)
        return answer

    for name, (form, function) in operations.items():
        app.add_api_route(f"/{name}", endpoint(form, function), methods=["POST"], response_model=None)
    app.add_exception_handler(ServingError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_error)
    return app


def _bounded(app: FastAPI) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The same, with requests read in whole first: what is too long gets 413 and is not kept."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > MAX_BODY:
                refusal = RequestTooLarge(f"the body has more than the {MAX_BODY} bytes that are accepted")
                answer = _told(refusal)
                answer.headers["connection"] = "close"  # the rest of it is not read
                await answer(scope, receive, send)
                return
        whole: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def read() -> Message:
            return whole.pop() if whole else await receive()

        await app(scope, read, send)

    return bounded


async def _answer_error(_: Request, failure: Exception) -> JSONResponse:
    if isinstance(failure, RequestValidationError):
        failure = _invalid(failure.errors())
    if not isinstance(failure, ServingError):
        raise failure
    return _told(failure)


def _told(failure: ServingError) -> JSONResponse:
    told_error = {"code": failure.code, "message": failure.message, "hint": failure.hint}
    status = 409 if isinstance(failure, StartError) else failure.http_status
    return JSONResponse({"error": told_error}, status)


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket, to a process of this user's or root's, or of whose directory it is in."""

    def __init__(self, path: Path) -> None:
        super().__init__("desk", timeout=_TIMEOUT_S)
        self._at = path

    def connect(self) -> None:
        """Raises OSError, Untrusted."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._at))
        peer = peer_of(self.sock)
        if peer is not None and peer.uid not in (0, os.getuid(), self._at.parent.stat().st_uid):
            raise Untrusted(f"somebody else (uid {peer.uid}) listens at `{self._at}`", hint="find out who")


def _error_of(answer: Any) -> ServingError:
    """The error that a server answered, as the class that it was."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return InternalError("the server answered in a way that is not understood", hint="its log may say more")
    classes = {each.code: each for each in _tree(ServingError)}
    kind = classes.get(str(error.get("code")), InternalError)
    hint = error.get("hint")
    return kind(str(error.get("message")), hint=None if hint is None else str(hint))


def _tree(root: type[ServingError]) -> Iterator[type[ServingError]]:
    """The classes below, and then the root: a code of its own comes after one that is inherited."""
    for child in root.__subclasses__():
        yield from _tree(child)
    yield root


def _leave(path: Path) -> None:
    path.unlink(missing_ok=True)


def _invalid(errors: Any) -> InvalidRequest:
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    value = "" if first["type"] == "missing" else f" = `{shown(first['input'])}`"
    return InvalidRequest(f"`{place}`{value}: {mistake(first)}", param=place)
