"""What goes to the client does not depend on whether it goes straight, nor on how its bytes arrive."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import Mock

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.gateway.answers import FRAMES, Answer, Message
from serving.gateway.config import GatewayConfig
from serving.gateway.exchange import Exchange
from serving.gateway.passage import Passage, Silence
from serving.gateway.relay import framed_events
from serving.gateway.upstream import Response, Upstream, _Connection, ends_a_chunk
from tests.properties.test_event_stream import cut, encode, text_events, usages

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def said(text: str) -> dict:
    """An event of this text."""
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def framed(*parts: bytes) -> bytes:
    """Chunks of the transfer coding."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


class Reader:
    """A client's end: takes an answer's chunks apart as any client would."""

    def __init__(self) -> None:
        self.body = b""
        self.is_complete = False
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(HEAD)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True

    def frames(self, data: bytes) -> bool:
        """Whole chunks, past the server."""
        self._parser.feed_data(data)
        return True

    async def send(self, message: Message) -> None:
        """As a server frames it."""
        if body := message.get("body", b""):
            self.frames(framed(body))


async def passed(arrivals: list[bytes], refusals: list[bool], *, straight: bool) -> tuple[Reader, Passage, int]:
    """What a client reads of a stream that arrives so, and how many arrivals went straight."""
    reader, turns = Reader(), iter(refusals)
    count = 0

    def frames(data: bytes) -> bool:
        nonlocal count
        if next(turns, False):
            return False
        count += 1
        return reader.frames(data)

    exchange = Exchange("chat", "r")
    answer = Answer({"extensions": {FRAMES: frames} if straight else {}}, reader.send, "r")
    silence = Silence(exchange, GatewayConfig(), stream=True)
    passage = Passage(exchange, answer, silence, withhold_usage=True)
    pool = Upstream(Path("nowhere"))
    connection = _Connection(pool)
    connection.connection_made(Mock(is_closing=lambda: False))
    connection.send(b"")
    connection.data_received(HEAD)
    pumping = asyncio.create_task(Response(connection, pool).pump(passage.take, passage.straight))
    await asyncio.sleep(0)
    for arrival in arrivals:
        if arrival:
            connection.data_received(arrival)
        await asyncio.sleep(0)
    await asyncio.wait_for(pumping, 5)
    silence.close()
    assert connection.may_be_reused()
    return reader, passage, count


@settings(deadline=None)
@given(
    events=st.lists(text_events, max_size=8),
    together=st.lists(st.integers(1, 3), max_size=8),
    usage=st.none() | usages,
    places=st.lists(st.integers(0, 4000), max_size=10),
    refusals=st.lists(st.booleans(), max_size=8),
)
@example(events=[{"choices": []}] * 6, together=[], usage=None, places=[], refusals=[])
@example(events=[said(text) for text in ("", "[DONE]", "", "")], together=[], usage=None, places=[], refusals=[])
def test_straight_or_not_a_client_reads_the_same(
    events: list[dict], together: list[int], usage: dict | None, places: list[int], refusals: list[bool]
) -> None:
    """Whatever shares a chunk, wherever an arrival is cut, and whenever the client is behind."""
    encoded = [*map(encode, events), *([encode(usage)] if usage else []), DONE]
    chunks = []
    while encoded:
        size = together.pop() if together else 1
        chunks.append(b"".join(encoded[:size]))
        del encoded[:size]
    stream = framed(*chunks) + b"0\r\n\r\n"
    arrivals = cut(stream, places) if places else [*map(framed, chunks), b"0\r\n\r\n"]
    ways = [asyncio.run(passed(arrivals, refusals, straight=straight)) for straight in (False, True)]
    (plain, plain_passage, none), (reader, passage, went) = ways
    assert reader.body == plain.body == b"".join(map(encode, events)) + DONE
    for one in (plain_passage, passage):
        assert one.stream.events == len(events)
        assert one.stream.is_done
        assert (one.stream.usage is None) == (usage is None)
    assert none == 0
    if not places and not refusals and not together and usage is None and len(chunks) == len(events) + 1:
        # the first shows where chunks end, and one that speaks of the stream's end has to be read
        assert went >= sum(b"[DONE]" not in encode(event) for event in events[1:])


@given(st.lists(st.lists(text_events, min_size=1, max_size=3), max_size=4), st.integers(0, 4000))
def test_only_whole_chunks_of_whole_events_go_straight(chunks: list[list[dict]], place: int) -> None:
    """Their events are counted, unless one may have to be read; cut anywhere inside a chunk, neither side passes."""
    parts = [b"".join(map(encode, events)) for events in chunks]
    data = framed(*parts)
    ends = {len(framed(*parts[:count])) for count in range(len(parts) + 1)}
    may_be_read = any(mark in data for mark in (b"[DONE]", b'"usage"', b'"error"'))
    assert framed_events(data) == (0 if may_be_read else sum(map(len, chunks)))
    place %= len(data) + 1
    if place not in ends:
        assert framed_events(data[:place]) == 0
        assert framed_events(data[place:]) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0\r\n\r\n",
        framed(b": waiting\n\n"),
        framed(DONE),
        framed(b'data: {"usage":null}\n\n'),
        framed(b'data: {"error":{}}\n\n'),
        framed(b"data: x\n"),
        framed(b"data: x\r\n\r\n"),
        framed(b"data: x\n\n") + b"0\r\n\r\n",
        b"+9\r\ndata: x\n\n\r\n",
        b"0x9\r\ndata: x\n\n\r\n",
        b"0_9\r\ndata: x\n\n\r\n",
        b" 9\r\ndata: x\n\n\r\n",
        b"9;a=b\r\ndata: x\n\n\r\n",
        b"8\r\ndata: x\n\n\r\n",
        b"a\r\ndata: x\n\n\r\n",
        b"0000009\r\ndata: x\n\n\r\n",
    ],
)
def test_what_has_to_be_read_or_is_framed_oddly_does_not_go_straight(data: bytes) -> None:
    """The client would read the framing as it came."""
    assert framed_events(data) == 0


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (framed(b"data: x\n\n"), True),
        (framed(b"data: x\n\n", b"data: yy\n\n"), True),
        (b"half of one\n\n\r\n" + framed(b"data: x\n\n"), True),
        (framed(b"data: x\n\n")[1:], False),
        (framed(b"data: x\n\n") + b"9", False),
        (framed(b"data: x\n\n") + b"9\r\n", False),
        (framed(b"data: x\n\n")[:-2], False),
        (framed(b"data: x\n\n") + b"0\r\n\r\n", False),
        (b"zz\r\ndata: x\n\n\r\n", False),
        (b"\n\n\r\n", False),
        (b"", False),
    ],
)
def test_the_end_of_a_chunk_is_told_by_its_size(data: bytes, *, expected: bool) -> None:
    """As far as it stands in the same bytes."""
    assert ends_a_chunk(data) is expected
