"""Administration: over a Unix socket that only this user and root can use, or on the database where nothing runs.

Both ways lead to the same operations with the same bodies, so that `serve keys` says the same whichever it took.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from serving.access.door import Access, access_directory
from serving.access.keys import Key, Scope
from serving.access.quota import Limits
from serving.errors import (
    AddressUnavailable,
    InternalError,
    InvalidRequest,
    ServingError,
    StartError,
    Untrusted,
)
from serving.openai.peers import CheckedProtocol, peer_of
from serving.settings import Access as AccessSettings
from serving.settings.wording import mistake, shown

SOCKET: Final = "admin.sock"
_MAX_PATH: Final = 107
"""Bytes of a Unix socket's path, unix(7)."""
_TIMEOUT_S: Final = 30.0
_MAX_ANSWER: Final = 256 << 20
_NAME: Final = r"^[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,126}$"
Name = Annotated[str, Field(pattern=_NAME)]
Id = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,32}$")]
Count = Annotated[int, Field(ge=0, le=10**15)]
Second = Annotated[int, Field(ge=0, le=10**11)]


def _network(text: str) -> str:
    return str(ip_network(text))


class Body(BaseModel):
    """Closed to unknown fields; no conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LimitsBody(Body):
    """As `quota.Limits`; money in micro-units."""

    requests_per_minute: Count | None = None
    requests_per_day: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_per_day: Count | None = None
    concurrency: Count | None = None
    cost_per_day: Count | None = None
    cost_per_month: Count | None = None
    cost_in_all: Count | None = None


class Create(Body):
    """A key that is wanted."""

    owner: Name
    name: Name
    expires: Second | None = None
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=8)] = ["inference"]
    models: Annotated[list[Name], Field(min_length=1, max_length=256)] | None = None
    networks: Annotated[list[Annotated[str, AfterValidator(_network)]], Field(max_length=256)] = []
    cache_domain: Name | None = None
    limits: LimitsBody = LimitsBody()


class Rotate(Body):
    """A key that is to be replaced."""

    id: Id
    grace_s: Annotated[int, Field(ge=0, le=366 * 86_400)] = 86_400
    expires: Second | None = None


class Revoke(Body):
    """A key that is to end."""

    id: Id


class List(Body):
    """Which keys there are."""


class UsageOf(Body):
    """What was used, by whom, when: from `since`, before `before`; unset: this month so far."""

    id: Annotated[str, Field(pattern=r"^(oidc:[a-z2-7]{26}|[0-9A-Za-z]{1,32})$")] | None = None
    since: Second | None = None
    before: Second | None = None


def create(access: Access, body: Create) -> dict[str, object]:
    """The new key, and its text."""
    wanted = Key(
        id="",
        owner=body.owner,
        name=body.name,
        digest=b"",
        created=0,
        expires=body.expires,
        scopes=frozenset(body.scopes),
        models=None if body.models is None else frozenset(body.models),
        networks=tuple(ip_network(each) for each in body.networks),
        cache_domain=body.cache_domain or "",
        limits=Limits(**body.limits.model_dump()),
    )
    key, text = access.create(wanted)
    return {"key": text, **told(access, key)}


def rotate(access: Access, body: Rotate) -> dict[str, object]:
    """The key that takes the other's place, and its text."""
    key, text = access.rotate(body.id, body.grace_s, body.expires)
    return {"key": text, **told(access, key), "instead_of": told(access, access.find(body.id))}


def revoke(access: Access, body: Revoke) -> dict[str, object]:
    """The key as it is now."""
    return told(access, access.revoke(body.id))


def list_keys(access: Access, body: List) -> dict[str, object]:  # noqa: ARG001 - all operations are called alike
    """All keys, none of which can be read again."""
    return {"currency": access.prices.currency, "keys": [told(access, key) for key in access.all_keys()]}


def usage(access: Access, body: UsageOf) -> dict[str, object]:
    """What was settled."""
    now = datetime.now(UTC)
    month = int(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())
    since = month if body.since is None else body.since
    before = int((now + timedelta(seconds=1)).timestamp()) if body.before is None else body.before
    totals = [asdict(total) for total in access.totals(body.id, since, before)]
    return {"since": since, "before": before, "currency": access.prices.currency, "usage": totals}


OPERATIONS: Final[Mapping[str, tuple[type[Body], Callable[[Access, Any], dict[str, object]]]]] = {
    "create": (Create, create),
    "list": (List, list_keys),
    "rotate": (Rotate, rotate),
    "revoke": (Revoke, revoke),
    "usage": (UsageOf, usage),
}


def told(access: Access, key: Key) -> dict[str, object]:
    """What may be told of a key: all but its digest."""
    used = access.usage(key)
    return {
        "id": key.id,
        "owner": key.owner,
        "name": key.name,
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "rotated_to": key.rotated_to,
        "grace_until": key.grace_until,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "networks": [str(network) for network in key.networks],
        "cache_domain": key.cache_domain or key.owner,
        "account": key.counted_at,
        "limits": asdict(key.limits),
        "used": {
            "requests": used.all_requests,
            "tokens": used.all_tokens,
            "cost": used.all_cost,
            "running": used.running,
        },
    }


def perform(access: Access, operation: str, body: Mapping[str, object]) -> dict[str, Any]:
    """One operation by its name. Raises ServingError."""
    form, function = OPERATIONS[operation]
    try:
        wanted = form.model_validate(body)
    except ValidationError as failure:
        raise _invalid(failure.errors(include_url=False)) from None
    return function(access, wanted)


def application(access: Access) -> FastAPI:
    """The operations as `POST /<operation>`, errors in OpenAI's shape with the hint and exit status beside it."""
    app = FastAPI(title="Perimeter: keys", openapi_url=None)

    def endpoint(form: type[Body], function: Callable[[Access, Any], dict[str, object]]) -> Callable[..., object]:
        def answer(body: Body) -> dict[str, object]:  # on a thread: the database is waited for
            return function(access, body)

        answer.__annotations__["body"] = form
        return answer

    for name, (form, function) in OPERATIONS.items():
        app.add_api_route(f"/{name}", endpoint(form, function), methods=["POST"], response_model=None)
    app.add_exception_handler(ServingError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_error)
    return app


async def _answer_error(_: Request, failure: Exception) -> JSONResponse:
    if isinstance(failure, RequestValidationError):
        failure = _invalid(failure.errors())
    if not isinstance(failure, ServingError):
        raise failure
    told_error = {"code": failure.code, "message": failure.message, "hint": failure.hint}
    status = 409 if isinstance(failure, StartError) else failure.http_status
    return JSONResponse({"error": told_error}, status)


class AdministrationProtocol(CheckedProtocol):
    """Only this user and root are served; others are cut off before a byte is read."""

    def is_served(self, uid: int) -> bool:
        """Whether that user is."""
        return uid in (0, os.getuid())


class _Server(uvicorn.Server):
    """Signals are its host's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def administered(access: Access, directory: Path) -> AsyncIterator[Path]:
    """Serve the administration in this directory, beside whatever else the process does. Raises AddressUnavailable.

    The directory's lock is this process's: a socket that is there is one that a dead process left.
    """
    path = directory / SOCKET
    listening = _listen(path)
    config = uvicorn.Config(
        application(access), http=AdministrationProtocol, ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield path
    finally:
        server.should_exit = True
        await task
        listening.close()
        path.unlink(missing_ok=True)


def ask(
    settings: AccessSettings, environment: Mapping[str, str], operation: str, body: Mapping[str, object]
) -> dict[str, Any]:
    """One operation by the server that runs, or on the database under its lock where none does. Raises ServingError."""
    path = access_directory(settings.directory, environment) / SOCKET
    answer = _ask_server(path, operation, body)
    if answer is not None:
        return answer
    access = Access.open(settings, environment)
    try:
        return perform(access, operation, body)
    finally:
        access.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket, to a process of this user's or root's."""

    def __init__(self, path: Path) -> None:
        super().__init__("access", timeout=_TIMEOUT_S)
        self._at = path

    def connect(self) -> None:
        """Raises OSError, Untrusted."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._at))
        peer = peer_of(self.sock)
        if peer is not None and peer.uid not in (0, os.getuid(), self._at.parent.stat().st_uid):
            raise Untrusted(f"somebody else (uid {peer.uid}) listens at `{self._at}`", hint="find out who")


def _ask_server(path: Path, operation: str, body: Mapping[str, object]) -> dict[str, Any] | None:
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
        message = f"this user may not administer the server at `{path}`"
        raise StartError(message, hint="run it as the user that the server runs as, or as root") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        message = f"the server at `{path}` did not answer: {type(error).__name__}"
        raise StartError(message, hint="it may be stopping: try again; its log may say more") from None
    finally:
        connection.close()
    if response.status == 200 and isinstance(answer, dict):
        return answer
    raise _error_of(answer)


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


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _MAX_PATH:
        message = f"`{path}` is too long a path for a socket"
        raise AddressUnavailable(message, hint=f"set access.directory to a path of at most {_MAX_PATH - 12} bytes")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        listening.listen()
    except OSError as error:
        listening.close()
        raise AddressUnavailable(f"cannot listen at `{path}`: {error.strerror}") from None
    finally:
        os.umask(before)
    return listening


def _invalid(errors: Any) -> InvalidRequest:
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    value = "" if first["type"] == "missing" else f" = `{shown(first['input'])}`"
    return InvalidRequest(f"`{place}`{value}: {mistake(first)}", param=place)
