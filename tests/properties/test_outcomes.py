"""Every request ends in exactly one outcome, and gives back what it held, whatever goes wrong and whenever."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving.engines.spec import EngineSpec
from serving.errors import EngineUnavailable
from serving.gateway.admission import Admission
from serving.gateway.config import GatewayConfig
from serving.gateway.engine import Engine
from serving.gateway.pipeline import Pipeline
from serving.gateway.routes import ROUTES
from serving.gateway.upstream import Upstream
from serving.telemetry.metrics import Metrics

OUTCOMES = {"completed", "refused", "failed", "cancelled"}
CHAT = ROUTES[0]


@dataclass
class Script:
    """What an engine does with the one request it gets, piece by piece."""

    pieces: list[bytes]
    """Written one by one, with a turn of the event loop between."""
    hangs_up: bool
    """Close after the last piece, else leave the connection open."""


@dataclass
class FakeSupervisor:
    is_ready: bool = True

    def check_ready(self) -> int:
        if not self.is_ready:
            raise EngineUnavailable("not ready")
        return 1


@dataclass
class Client:
    """The client's end of an ASGI exchange."""

    body: list[bytes]
    leaves_after: int | None
    """Turns of the event loop after which it leaves; None stays."""
    fails_on: int | None
    """The number of the message that cannot be sent; None for none."""

    def __post_init__(self) -> None:
        self.sent: list[dict] = []
        self.gone = asyncio.Event()
        self.left = list(self.body)

    async def receive(self) -> dict:
        if self.gone.is_set():
            return {"type": "http.disconnect"}
        if self.left:
            part = self.left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self.left)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict) -> None:
        await asyncio.sleep(0)
        if self.gone.is_set():
            return
        if self.fails_on is not None and len(self.sent) == self.fails_on:
            raise ConnectionResetError
        self.sent.append(message)

    async def leave(self) -> None:
        if self.leaves_after is not None:
            for _ in range(self.leaves_after):
                await asyncio.sleep(0)
            self.gone.set()


def response(status: int, body: bytes, kind: bytes = b"application/json") -> list[bytes]:
    head = b"HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (status, kind, len(body))
    return [head, body]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


EVENT = chunk(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
STREAM = [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"]
END = (
    chunk(b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\ndata: [DONE]\n\n') + b"0\r\n\r\n"
)
whole_answers = st.just(response(200, b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'))
event_answers = st.sampled_from(
    [
        [*STREAM, EVENT, EVENT, END],
        [*STREAM, EVENT, b"0\r\n\r\n"],
        [*STREAM, chunk(b": waiting\n\n"), EVENT, chunk(b"data: {half"), chunk(b"}\n\n"), END],
    ]
)
odd_answers = st.sampled_from(
    [
        response(200, b"not JSON", b"text/html"),
        response(400, b'{"error":{"message":"m","code":"context_length_exceeded","param":"messages"}}'),
        response(503, b'{"error":{"message":"m","code":"overloaded"}}'),
        response(500, b"<html>"),
        [*STREAM, EVENT, chunk(b'data: {"error":{"message":"x","code":"internal_error"}}\n\n'), b"0\r\n\r\n"],
        [*STREAM, EVENT, b"garbage\r\n"],
        [b"garbage\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 70_000],
        [END],
        [],
    ]
)


def mostly(usual: st.SearchStrategy, other: st.SearchStrategy) -> st.SearchStrategy:
    """Four times in five the first: several things going wrong at once would hide each other."""
    return st.integers(0, 4).flatmap(lambda dice: other if dice == 4 else usual)


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[Script, list[bytes]]:
    """A request, and what an engine does with it."""
    body = draw(mostly(whole_bodies | event_bodies, broken_bodies))
    usual = event_answers if b'"stream": true' in b"".join(body) else whole_answers
    pieces: list[bytes] = list(draw(mostly(usual, odd_answers | event_answers | whole_answers)))
    kind = draw(mostly(st.just("whole"), st.sampled_from(["cut", "stall"])))
    if kind != "whole":
        pieces = pieces[: draw(st.integers(0, len(pieces)))]
    return Script(pieces, hangs_up=kind == "cut" or (kind == "whole" and draw(st.booleans()))), body


good = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
event_bodies = st.sampled_from(
    [
        [json.dumps({**good, "stream": True}).encode()],
        [json.dumps({**good, "stream": True, "stream_options": {"include_usage": True}}).encode()],
    ]
)
whole_bodies = st.sampled_from(
    [
        [json.dumps(good).encode()],
        [json.dumps(good).encode()[:20], json.dumps(good).encode()[20:]],
    ]
)
broken_bodies = st.sampled_from(
    [
        [json.dumps({**good, "model": "other"}).encode()],
        [json.dumps({**good, "n": 2}).encode()],
        [b"{"],
        [b"x" * 600, b"x" * 600],
    ]
)


@settings(deadline=None, max_examples=500, suppress_health_check=list(HealthCheck))
@given(
    exchange=exchanges(),
    leaves_after=mostly(st.none(), st.integers(0, 60)),
    fails_on=mostly(st.none(), st.integers(0, 4)),
    aborts_after=mostly(st.none(), st.integers(0, 60)),
    is_ready=mostly(st.just(True), st.just(False)),
    is_full=mostly(st.just(False), st.just(True)),
)
@example(  # ended while the head of its answer is on its way
    exchange=(Script([*STREAM, EVENT, EVENT, END], hangs_up=False), [json.dumps({**good, "stream": True}).encode()]),
    leaves_after=None,
    fails_on=None,
    aborts_after=8,
    is_ready=True,
    is_full=False,
)
def test_every_request_ends_once(
    exchange: tuple[Script, list[bytes]],
    leaves_after: int | None,
    fails_on: int | None,
    aborts_after: int | None,
    is_ready: bool,
    is_full: bool,
) -> None:
    """One outcome is counted, one place given back, the engine's connection closed or kept whole, one answer sent."""
    script, body = exchange
    asyncio.run(run(script, Client(body, leaves_after, fails_on), aborts_after, is_ready=is_ready, is_full=is_full))


async def run(script: Script, client: Client, aborts_after: int | None, *, is_ready: bool, is_full: bool) -> None:
    connections: set[asyncio.StreamWriter] = set()

    async def engine_side(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            for piece in script.pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            if not script.hangs_up:
                await reader.read()
        writer.close()
        connections.discard(writer)

    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "s"
        server = await asyncio.start_unix_server(engine_side, socket)
        metrics = Metrics()
        upstream = Upstream(socket)
        engine = Engine(
            EngineSpec("m", "llamacpp", ("x",), (), socket),
            FakeSupervisor(is_ready),
            upstream,
            Admission("m", 0 if is_full else 4),
        )
        bounds = {"first_byte_timeout_s": 0.05, "idle_timeout_s": 0.05, "answer_timeout_s": 0.05}
        config = GatewayConfig(**bounds)
        pipeline = Pipeline(config, {"m": engine}, metrics)
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": CHAT.path, "headers": headers}
        leaving = asyncio.create_task(client.leave())
        if aborts_after is not None:

            async def abort() -> None:
                for _ in range(aborts_after):
                    await asyncio.sleep(0)
                pipeline.abort_all()

            aborting = asyncio.create_task(abort())
        await asyncio.wait_for(pipeline.serve(CHAT, scope, client.receive, client.send), 5)
        await leaving
        if aborts_after is not None:
            await aborting

        counted = [
            sample
            for family in metrics.requests.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        ]
        assert [sample.value for sample in counted] == [1.0]
        assert counted[0].labels["outcome"] in OUTCOMES
        assert engine.admission.taken == 0
        assert pipeline.running == 0
        check_answer(client, counted[0].labels["outcome"])

        upstream.close()
        server.close()
        for _ in range(100):
            if not connections:
                break
            await asyncio.sleep(0.001)
        assert not connections
        assert asyncio.current_task().cancelling() == 0


def check_answer(client: Client, outcome: str) -> None:
    """A client that stayed has a whole answer that agrees with the outcome."""
    if client.gone.is_set() or client.fails_on is not None:
        return
    assert outcome != "cancelled"
    starts = [message for message in client.sent if message["type"] == "http.response.start"]
    assert len(starts) == 1
    assert client.sent[-1]["type"] == "http.response.body"
    assert not client.sent[-1].get("more_body")
    body = b"".join(message["body"] for message in client.sent[1:])
    status = starts[0]["status"]
    if outcome == "completed":
        assert status == 200
        assert b'"error"' not in body
    elif outcome == "refused":
        assert status in {400, 404, 408, 413, 503}
        assert json.loads(body)["error"]["code"]
    else:
        last = body.rstrip().rpartition(b"\n\n")[2].removeprefix(b"data: ")
        assert json.loads(last)["error"]["code"]
