"""The client towards an engine: reuse, replacement, and ends of every kind."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving.gateway.upstream import EngineBroke, Upstream

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Side = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def engine(directory: Path, side: Side):
    """An engine whose connections are served by `side`; yields its client and the count of connections."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await side(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, directory / "s")
    upstream = Upstream(directory / "s")
    try:
        yield upstream, lambda: count
    finally:
        upstream.close()
        server.close()
        await asyncio.sleep(0.01)


async def get(upstream: Upstream) -> bytes:
    response = await upstream.request("GET", "/")
    body = await response.read_all(1 << 20)
    response.close()
    return body


async def test_a_connection_is_used_again(tmp_path: Path) -> None:
    """Requests one after the other go over one connection."""

    async def side(reader, writer) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)

    async with engine(tmp_path, side) as (upstream, count):
        assert [await get(upstream) for _ in range(5)] == [b"ok"] * 5
        assert count() == 1
        assert await asyncio.gather(*(get(upstream) for _ in range(4))) == [b"ok"] * 4
        assert count() == 4


async def test_a_stale_connection_is_replaced(tmp_path: Path) -> None:
    """An idle connection that the engine closed costs no request."""

    async def side(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with engine(tmp_path, side) as (upstream, count):
        assert [await get(upstream) for _ in range(3)] == [b"ok"] * 3
        assert count() == 3


async def test_a_request_that_was_taken_is_not_sent_twice(tmp_path: Path) -> None:
    """Where the engine dies on a fresh connection the request fails: it may have been the reason."""

    async def side(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with engine(tmp_path, side) as (upstream, count):
        with pytest.raises(EngineBroke):
            await get(upstream)
        assert count() == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
    ],
)
async def test_half_an_answer_is_an_error(tmp_path: Path, answer: bytes) -> None:
    """Whatever ends before it is whole, or is not HTTP, raises EngineBroke and nothing else."""

    async def side(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with engine(tmp_path, side) as (upstream, _):
        with pytest.raises(EngineBroke):
            await get(upstream)


async def test_a_body_without_a_length_ends_with_the_connection(tmp_path: Path) -> None:
    """As HTTP/1.0 servers do it; such a connection is not used again."""

    async def side(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nok")

    async with engine(tmp_path, side) as (upstream, count):
        assert [await get(upstream), await get(upstream)] == [b"ok", b"ok"]
        assert count() == 2


async def test_an_answer_that_nobody_asked_for_ends_the_connection(tmp_path: Path) -> None:
    """A second answer to one request is never given to the next request."""

    async def side(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + OK.replace(b"ok", b"no"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with engine(tmp_path, side) as (upstream, count):
        assert await get(upstream) == b"ok"
        await asyncio.sleep(0.01)
        assert await get(upstream) == b"ok"
        assert count() == 2


async def test_a_slow_reader_holds_the_engine_back(tmp_path: Path) -> None:
    """Bytes that nobody reads are left with the engine beyond a bound, and all arrive in the end."""
    written = 0

    async def side(reader, writer) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 << 20))
        for _ in range(64):
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            written += 1 << 20

    async with engine(tmp_path, side) as (upstream, _):
        response = await upstream.request("GET", "/")
        await asyncio.sleep(0.2)
        assert written < 8 << 20
        assert len(await response.read_all(64 << 20)) == 64 << 20
        response.close()


async def test_nobody_at_the_socket(tmp_path: Path) -> None:
    """No socket, or nobody behind it: EngineBroke."""
    with pytest.raises(EngineBroke):
        await get(Upstream(tmp_path / "none"))
