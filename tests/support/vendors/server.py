"""What every stand-in has: a server in a thread, what it was sent, and what it is to do next."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web

KEY = "test-key-0123456789"


@dataclass(frozen=True)
class Received:
    """One request, as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass(frozen=True)
class Say:
    """Answer: with these words in these pieces, thoughts before them, calls behind them."""

    pieces: tuple[str, ...] = ("Good ", "day, ", "world. ", "Привет, ", "мир. ", "🜁")
    thoughts: tuple[str, ...] = ()
    calls: tuple[tuple[str, dict], ...] = ()
    reason: str | None = None
    """The vendor's own word for why it ended; by default what fits."""
    cached: int = 0
    break_after: int | None = None
    """Pieces after which an error comes in the middle of the stream."""
    break_code: str = ""
    cut_after: int | None = None
    """Pieces after which the connection is cut."""
    hang_after: int | None = None
    """Pieces after which nothing comes any more, until the server ends."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class Fail:
    """Refuse; the message repeats the request, as vendors' messages do."""

    status: int
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""


class Refuse(Exception):
    """What a check found, in the vendor's shape."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class Emulator:
    """A vendor's API on a local port; `with` starts and ends it."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.next: deque[Say | Fail] = deque()
        """What is done with the requests to come; `Say()` once it is empty."""
        self.origin = ""
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()

    def act(self, request: Received) -> Say | Fail:
        """What is done with a request that has been let in."""
        return self.next.popleft() if self.next else Say()

    # What a vendor differs in.

    def fail(self, request: Received, fail: Fail) -> Refuse:
        """An error in the vendor's shape."""
        raise NotImplementedError

    def check(self, request: Received) -> None:
        """Raise Refuse for whatever the vendor would refuse."""
        raise NotImplementedError

    def whole(self, request: Received, say: Say) -> object:
        """The body of an answer that is not streamed."""
        raise NotImplementedError

    def is_stream(self, request: Received) -> bool:
        """Whether events are asked for."""
        return request.json.get("stream") is True

    def events(self, request: Received, say: Say) -> tuple[list[bytes], list[list[bytes]], list[bytes]]:
        """What comes before the pieces, each piece's events, and what comes behind them."""
        raise NotImplementedError

    def broken_event(self, request: Received, say: Say) -> bytes:
        """The event with which a stream breaks."""
        raise NotImplementedError

    # What they have in common.

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def last(self) -> Received:
        return self.received[-1]

    @property
    def bytes_received(self) -> int:
        """Bytes of all bodies."""
        return sum(len(request.body) for request in self.received)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        received = Received(
            request.method,
            request.raw_path.partition("?")[0],
            dict(request.query),
            {name.lower(): value for name, value in request.headers.items()},
            await request.read(),
        )
        self.received.append(received)
        try:
            self.check(received)
        except Refuse as refusal:
            return web.json_response(refusal.body, status=refusal.status)
        act = self.act(received)
        if isinstance(act, Fail):
            refusal = self.fail(received, act)
            return web.json_response(refusal.body, status=refusal.status, headers=act.headers)
        if not self.is_stream(received):
            if act.cut_after is not None:
                request.transport.abort()
                return web.Response()
            if act.hang_after is not None:
                await self._stop.wait()
            return web.json_response(self.whole(received, act))
        return await self._stream(request, received, act)

    async def _stream(self, request: web.Request, received: Received, say: Say) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        before, pieces, behind = self.events(received, say)
        for event in before:
            await response.write(event)
        for index, piece in enumerate(pieces):
            if await self._interrupted(request, received, say, index, response):
                return response
            for event in piece:
                await response.write(event)
        if await self._interrupted(request, received, say, len(pieces), response):
            return response
        for event in behind:
            await response.write(event)
        await response.write_eof()
        return response

    async def _interrupted(
        self, request: web.Request, received: Received, say: Say, index: int, response: web.StreamResponse
    ) -> bool:
        if say.break_after == index:
            await response.write(self.broken_event(received, say))
            await response.write_eof()
            return True
        if say.cut_after == index:
            request.transport.abort()
            return True
        if say.hang_after == index:
            await self._stop.wait()
        return False


def body_of(request: Received, refuse: Callable[[str], Refuse]) -> dict:
    """The JSON object of a request."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise refuse("the content type must be application/json")
    try:
        body = json.loads(request.body)
    except ValueError:
        raise refuse("could not parse the JSON body") from None
    if not isinstance(body, dict):
        raise refuse("the body must be an object")
    return body


def texts_of(value: object) -> list[str]:
    """Every string in a body, keys left out."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts_of(item)]
    return []


def tokens_in(value: object) -> int:
    """A count of tokens that is never nothing: about four characters each."""
    return 1 + sum(len(text) for text in texts_of(value)) // 4


def sse(value: object, name: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    data = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{head}data: {data}\n\n".encode()
