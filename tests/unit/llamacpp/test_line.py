"""Two threads write one answer: nothing is lost, doubled or out of order, whatever the reader's pace."""

import asyncio
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import uvloop

from serving.llamacpp.engine import Update
from serving.llamacpp.line import Collected, Line

COUNT = 3000


def plain(chunked: bytes) -> str:
    """The body of a chunked answer; every chunk must be whole."""
    out = b""
    while chunked:
        size, _, rest = chunked.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n", "a chunk is cut or doubled"
        out, chunked = out + rest[:length], rest[length + 2 :]
    return out.decode()


class Connection(asyncio.Protocol):
    """What uvicorn's protocol keeps of flow control."""

    def __init__(self) -> None:
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost = asyncio.Event()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def answer(sock: socket.socket, produce: Callable[[Line, Callable[[Update], None]], None]) -> None:
    """The event loop's part, as the server does it, with `produce` as the engine's thread."""
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(Connection, sock=sock)
    line = Line(transport, lambda text: text.encode())
    updates: asyncio.Queue[Update] = asyncio.Queue()
    thread = threading.Thread(
        target=produce, args=(line, lambda update: loop.call_soon_threadsafe(updates.put_nowait, update)), daemon=True
    )
    thread.start()
    while True:
        update = await updates.get()
        line.resume()
        data = update.text.encode()
        await connection.writable.wait()
        if data:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        if update.finish is not None:
            break
        line.handled(1)
    transport.close()
    await connection.lost.wait()
    thread.join()


@pytest.mark.parametrize("pace", ["fast", "slow", "stops and goes"])
def test_every_token_arrives_once_and_in_order(pace: str) -> None:
    """The kernel's buffer is small, so that many writes are refused or taken in part."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    texts = [f"<{n}:{'x' * random.Random(n).choice((0, 5, 700))}>" for n in range(COUNT)]
    direct = 0
    received: list[bytes] = []

    def read() -> None:
        rng = random.Random(1)
        while data := theirs.recv(1 if pace == "slow" and rng.random() < 0.01 else 65536):
            received.append(data)
            if pace == "stops and goes" and rng.random() < 0.05:
                time.sleep(0.01)
            elif pace == "slow":
                time.sleep(0.0005)

    def produce(line: Line, post: Callable[[Update], None]) -> None:
        nonlocal direct
        for n, text in enumerate(texts):
            left = line.pass_on(Update(text, n + 1, 0, "stop" if n == COUNT - 1 else None))
            if left is None:
                direct += 1
            else:
                post(left)
            if n % 100 > 30:
                time.sleep(0.0003)  # steps as an engine has them, and bursts between

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    uvloop.run(answer(ours, produce))
    reader.join()
    theirs.close()
    assert plain(b"".join(received)) == "".join(texts)
    assert direct > 20, "nothing went the short way"
    assert direct < COUNT - 20, "nothing was ever refused"


def test_a_connection_that_is_gone_is_no_error() -> None:
    """The engine's thread goes on; the event loop hears of it from its transport."""
    ours, theirs = socket.socketpair()
    transport = SimpleNamespace(get_extra_info=lambda _: ours, get_write_buffer_size=lambda: 0)
    line = Line(transport, str.encode)  # type: ignore[arg-type]

    async def first() -> None:
        assert line.pass_on(Update("a", 1, 0)) is not None, "the first one is the event loop's, with the head"
        line.handled(1)

    asyncio.run(first())
    assert line.pass_on(Update("b", 2, 0)) is None
    assert theirs.recv(100) == b"1\r\nb\r\n"
    theirs.close()
    assert line.pass_on(Update("c", 3, 0)) is None
    ours.close()
    assert line.pass_on(Update("d", 4, 0)) is None, "its descriptor is its own"


def test_a_whole_answer_wakes_the_event_loop_once() -> None:
    """With its end."""
    collected = Collected()
    assert [collected.pass_on(Update(text, 1, 0)) for text in "abc"] == [None] * 3
    last = Update("d", 4, 0, "length")
    assert collected.pass_on(last) is last
    assert re.sub(r"\W", "", "".join(collected.parts)) == "abcd"
