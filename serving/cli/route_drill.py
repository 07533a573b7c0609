"""`serve route drill`: an outage of a provider and the kill switch, tried on the running site with requests of its own.

What is played is real: the switch is the one that an operator throws, and the outage is one for all who use the
destination. Nothing can leave by it that would have stayed.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from serving.cli.options import settings_for
from serving.cli.show import print_json, print_rows
from serving.egress.drill import begin_outage, end_outage
from serving.egress.rooms import Rooms, rooms_of
from serving.engines.remote import read_key
from serving.errors import StartError, UsageError
from serving.policy.facts import ROUTE_HEADER
from serving.store.files import write_whole

_TIMEOUT_S: Final = 120.0
_CUT_S: Final = 1.0
"""A stream that leaves is cut within that time of the switch."""
_WORDS: Final = "Count from one to three hundred in English words, with a comma after each, and say nothing else."


@dataclass(frozen=True, slots=True)
class Drilled:
    """Whom to ask, and as whom."""

    url: str
    key: str
    model: str
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried."""

    name: str
    is_well: bool
    seen: str


@dataclass(slots=True)
class _Stream:
    """A stream that leaves, read beside the drill."""

    has_begun: threading.Event = field(default_factory=threading.Event)
    ended: float | None = None
    last: bytes = b""
    route: str = ""


def drill(
    url: str | None, model: str, key_file: Path, config: Path | None, *, ca: Path | None, is_meant: bool, as_json: bool
) -> int:
    """Try it and print each step; 1 where one was not as it should be. Raises ServingError before anything is done."""
    settings = settings_for(config)
    rooms = rooms_of(settings, os.environ)
    if not is_meant:
        raise UsageError(
            "a drill takes a destination away and throws the kill switch, for everybody, for some seconds",
            hint="add `--yes`; its own requests that leave cost what the provider asks for four short answers",
        )
    if os.path.lexists(rooms.switch):
        raise StartError("the kill switch is thrown already", hint="`serve route open` puts it back")
    scheme = "http" if settings.server.tls.certificate is None else "https"
    asked = Drilled(url or f"{scheme}://127.0.0.1:{settings.server.port}", read_key(key_file), model, ca)
    steps: list[Step] = []
    for step in _steps(asked, rooms):
        steps.append(step)
        if not as_json:
            print_rows([["well" if step.is_well else "BAD ", f"{step.name}: {step.seen}"]])
            sys.stdout.flush()
    if as_json:
        print_json({"steps": [{"name": each.name, "well": each.is_well, "seen": each.seen} for each in steps]})
    return 0 if all(each.is_well for each in steps) else 1


def _steps(asked: Drilled, rooms: Rooms) -> Iterator[Step]:
    """In this order, since a later one says nothing where the first is not well."""
    route = _route(asked)
    destination = _destination(route)
    yield Step("a clean request leaves", destination is not None, route)
    if destination is None:
        return
    with _ending(lambda: end_outage(rooms.drill)):
        begin_outage(rooms.drill, destination, time.time())
        route = _route(asked)
        yield Step(f"`{destination}` is out of order: it is served inside", route.startswith("perimeter"), route)
    route = _route(asked)
    yield Step("the outage is over: it leaves again", _destination(route) is not None, route)
    mark = f"drill {secrets.token_hex(16)}".encode()
    with _ending(lambda: _put_back(rooms.switch, mark)):
        stream = _Stream()
        reader = threading.Thread(target=_read_stream, args=(asked, stream), daemon=True)
        reader.start()
        stream.has_begun.wait(_TIMEOUT_S)
        thrown = time.monotonic()
        write_whole(rooms.switch, mark, 0o600)
        reader.join(_TIMEOUT_S)
        yield _cut(stream, thrown)
        route = _route(asked)
        yield Step("the kill switch is thrown: it is served inside", route == "perimeter; rule=switch", route)
    route = _route(asked)
    yield Step("the switch is back: it leaves again", _destination(route) is not None, route)


def _cut(stream: _Stream, thrown: float) -> Step:
    name = f"a stream that leaves is cut within {_CUT_S:g} s of the switch"
    if stream.ended is None:
        return Step(name, is_well=False, seen=f"it went on for {_TIMEOUT_S:g} s")
    if stream.ended < thrown:
        return Step(name, is_well=False, seen="it had ended before: nothing was tried; drill with a slower model")
    took = stream.ended - thrown
    has_ended_itself = b"[DONE]" in stream.last
    seen = f"{took:.2f} s, {'to its own end' if has_ended_itself else 'with an error event'}; {stream.route}"
    return Step(name, took <= _CUT_S and _destination(stream.route) is not None and not has_ended_itself, seen)


def _put_back(switch: Path, mark: bytes) -> None:
    """Only the drill's own: one that an operator has thrown meanwhile stays."""
    with suppress(FileNotFoundError):
        if switch.read_bytes() == mark:
            switch.unlink()


@contextmanager
def _ending(undo: Callable[[], object]) -> Iterator[None]:
    """Whatever happens meanwhile, an interruption too, it is as it was afterwards."""
    try:
        yield
    finally:
        undo()


def _destination(route: str) -> str | None:
    """The destination that a header names."""
    words = dict(each.strip().partition("=")[::2] for each in route.split(";"))
    return words.get("destination") if "cloud" in words else None


def _route(asked: Drilled) -> str:
    """Which way a clean request went. Raises StartError."""
    with closing(_connection(asked)) as connection:
        answer = _post(asked, connection, stream=False)
        answer.read()
        return answer.headers.get(ROUTE_HEADER, "no way out is known for this key")


def _read_stream(asked: Drilled, stream: _Stream) -> None:
    with suppress(StartError, OSError, http.client.HTTPException), closing(_connection(asked)) as connection:
        answer = _post(asked, connection, stream=True)
        stream.route = answer.headers.get(ROUTE_HEADER, "")
        for line in answer:
            if line.strip():
                stream.last = line
                stream.has_begun.set()
    stream.ended = time.monotonic()
    stream.has_begun.set()


def _post(asked: Drilled, connection: http.client.HTTPConnection, *, stream: bool) -> http.client.HTTPResponse:
    body: dict[str, Any] = {"model": asked.model, "messages": [{"role": "user", "content": _WORDS}]}
    body |= {"max_tokens": 1024, "stream": True} if stream else {"max_tokens": 8}
    headers = {"content-type": "application/json", "authorization": f"Bearer {asked.key}"}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise StartError(f"`{asked.url}` does not answer: {error}", hint="`--url` names the server") from None
    if answer.status == 200:
        return answer
    try:
        told = str(json.loads(answer.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        told = "it gives no reason"
    raise StartError(f"`{asked.url}` answered {answer.status}: {told}")


def _connection(asked: Drilled) -> http.client.HTTPConnection:
    parts = urlsplit(asked.url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(f"`{asked.url}` is no address of a server", hint="such as http://127.0.0.1:8000")
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    try:
        context = ssl.create_default_context(cafile=None if asked.ca is None else str(asked.ca))
    except OSError as error:
        raise UsageError(f"the certificates `{asked.ca}` cannot be read: {error}") from None
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S, context=context)
