"""The mirror as an ASGI application: who asks to `door`, requests to `hub`, files from `shelf`, a line a download."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from typing import Final, Protocol

from serving.errors import CapacityError, RequestError, StartError, Unauthenticated, Unverified
from serving.gateway.answers import Receive, Scope, Send
from serving.mirror.door import NOBODY, Caller, Door
from serving.mirror.hub import MAX_BODY, Answer, Part, Request, answer, refuse
from serving.mirror.shelf import NotYet, Shelf
from serving.store.verify import Opened, close_all
from serving.telemetry.logs import facts

log = logging.getLogger(__name__)

FILE: Final = "serving.file"
"""In `scope["extensions"]`: the connection, a `Connection`."""
_SLICE: Final = 16 << 20
"""Bytes sent before others' turn, and before the file is looked at again."""
_BODY_S: Final = 15.0
_CUT_S: Final = 2.0


class ClientLeft(Exception):
    """The client is gone, or takes nothing more."""


class Connection(Protocol):
    """What sends files."""

    async def send_file(self, descriptor: int, start: int, length: int) -> None:
        """Send part of an open file as the answer's body. Raises ClientLeft."""

    async def cut(self) -> None:
        """End the connection where it is."""


class Mirror:
    """The ASGI application."""

    def __init__(self, shelf: Shelf, door: Door) -> None:
        self._shelf = shelf
        self._door = door
        self._downloads: dict[asyncio.Task[object], Caller] = {}
        self._ended: set[asyncio.Task[object]] = set()
        """Downloads whose key is not valid any more, being cut."""
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Downloads under way."""
        return len(self._downloads)

    def cut_ended(self) -> None:
        """Cut the downloads whose key has ended since they began."""
        for download, caller in self._downloads.items():
            if download not in self._ended and not self._door.is_valid(caller):
                self._ended.add(download)
                download.cancel()

    async def drain(self, seconds: float, hurried: asyncio.Event) -> None:
        """Wait until no download runs, so long or until hurried; then cut those that do."""
        waits = {asyncio.create_task(self._idle.wait()), asyncio.create_task(hurried.wait())}
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        for download in self._downloads:
            download.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _CUT_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        caller = NOBODY
        try:
            if scope["raw_path"] != b"/health":
                caller = self._door.admit(scope)
            found = await self._answer(scope, receive)
            opened = None
            if found.part is not None and scope["method"] == "GET":
                opened = await self._shelf.open(found.part.file)
        except NotYet as wait:
            # 429 and not 503: of these two it is the first that the hub's client waits after, and asks again.
            found, opened = refuse(429, None, "the file is being verified", retry_after=str(wait.retry_after_s)), None
        except (RequestError, CapacityError) as error:
            found, opened = _turned_away(error, scope), None
        except StartError as error:
            log.error("refused", extra=facts(path=_path(scope), why=error.message))  # noqa: TRY400 - told, not traced
            found, opened = refuse(500, None, f"damaged here, and so not served ({error.code}); its log has more"), None
        except Exception:
            log.exception("request failed")
            found, opened = refuse(500, None, "the mirror failed on this request"), None
        if opened is None or found.part is None:
            await _start(send, found)
            await send({"type": "http.response.body", "body": found.body})
            log.debug("request", extra=facts(method=scope["method"], path=_path(scope), status=found.status))
        else:
            await self._download(found, found.part, opened, caller, scope, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        if scope["raw_path"] == b"/health":
            return self._health()
        body = b""
        if scope["method"] == "POST":
            try:
                body = await asyncio.wait_for(_body(receive), _BODY_S)
            except TimeoutError:
                return refuse(408, None, "the body did not arrive in time", connection="close")
            if len(body) > MAX_BODY:
                return refuse(413, None, f"the body has more than {MAX_BODY} bytes", connection="close")
        request = Request(
            scope["method"],
            scope["raw_path"].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body,
        )
        return answer(self._shelf.offer(), request)

    def _health(self) -> Answer:
        offer = self._shelf.offer()
        told: dict[str, object] = {"status": "verifying" if self._shelf.is_hashing else "ok"}
        if not self._door.asks_keys:
            told |= {"models": len(offer.models), "downloads": self.running}
        body = json.dumps(told).encode()
        length = ("content-length", str(len(body)))
        return Answer(200, (("content-type", "application/json"), length, ("cache-control", "no-store")), body)

    async def _download(
        self, found: Answer, part: Part, opened: Opened, caller: Caller, scope: Scope, send: Send
    ) -> None:
        verified = os.fstat(opened.descriptor)  # as it looked a moment ago: nothing was awaited since
        connection: Connection = scope["extensions"][FILE]
        task = asyncio.current_task()
        began, outcome, sent = time.monotonic(), "complete", 0
        if task is not None:
            self._downloads[task] = caller
            self._idle.clear()
        try:
            await _start(send, found)
            async for size in _slices(connection, opened, part, verified):
                sent += size
            await send({"type": "http.response.body", "body": b""})
        except ClientLeft:
            outcome = "cut"
        except Unverified as error:
            outcome = error.code
        except asyncio.CancelledError:
            outcome = "key-ended" if task in self._ended else "drained"
        finally:
            close_all([opened])
            if task is not None:
                del self._downloads[task]
                self._ended.discard(task)
            if not self._downloads:
                self._idle.set()
        if outcome != "complete":
            await connection.cut()
        self._door.record(caller, part, sent, outcome)
        told = facts(
            repository=part.repository,
            file=part.file.name,
            commit=part.commit,
            client=caller.source,
            key=caller.key_id,
            status=found.status,
            start=part.start,
            asked_bytes=part.length,
            sent_bytes=sent,
            outcome=outcome,
            duration_s=round(time.monotonic() - began, 4),
        )
        log.log(logging.ERROR if outcome == Unverified.code else logging.INFO, "download", extra=told)


async def _slices(connection: Connection, opened: Opened, part: Part, verified: os.stat_result) -> AsyncIterator[int]:
    """Send the part; the bytes of each piece that went out. Raises ClientLeft, or Unverified where the file changes.

    Another hard link changes the time of its inode, so that only size and content's time are compared here.
    """
    descriptor, at, end = opened.descriptor, part.start, part.start + part.length
    while at < end:
        now = os.fstat(descriptor)
        if (now.st_size, now.st_mtime_ns) != (verified.st_size, verified.st_mtime_ns):
            raise Unverified(f"`{opened.path}` changed while it was sent")
        size = min(_SLICE, end - at)
        os.posix_fadvise(descriptor, at + size, _SLICE, os.POSIX_FADV_WILLNEED)
        await connection.send_file(descriptor, at, size)
        at += size
        yield size


def _turned_away(error: RequestError | CapacityError, scope: Scope) -> Answer:
    """A refusal as the hub's client takes it. A body that was not read is the connection's last."""
    more = {} if scope["method"] in ("GET", "HEAD") else {"connection": "close"}
    if isinstance(error, Unauthenticated):
        more["www_authenticate"] = "Bearer"
    if isinstance(error, CapacityError):
        more["retry_after"] = str(error.retry_after_s)
    return refuse(error.http_status, None, error.message, **more)


def _path(scope: Scope) -> str:
    path: str = scope["raw_path"].decode("ascii", "replace")
    return path


async def _start(send: Send, found: Answer) -> None:
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in found.headers]
    await send({"type": "http.response.start", "status": found.status, "headers": headers})


async def _body(receive: Receive) -> bytes:
    """The request's body, or a little more than the most that is taken of it."""
    body = b""
    while len(body) <= MAX_BODY:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body
