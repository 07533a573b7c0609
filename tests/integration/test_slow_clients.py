"""Five hundred clients that are slow, silent or gone, before a server that asks for keys: others do not notice."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from benchmarks.keyed import NULL_UPSTREAM, Site, site
from benchmarks.wrong_keys import post
from serving.access.keys import new_key
from tests.integration.test_connections import resident
from tests.support.harness import Client, wait_until

COUNT = 500
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture
def served(directory: Path) -> Iterator[Site]:
    with site(directory, NULL_UPSTREAM, model="null", keys=1) as running:
        yield running


class Drip(threading.Thread):
    """Sends the next byte of each connection's message, one a second; reads nothing."""

    def __init__(self, wires: list[socket.socket], messages: list[bytes]) -> None:
        super().__init__(daemon=True)
        self._left = dict(zip(wires, messages, strict=True))
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(1.0):
            for wire, message in list(self._left.items()):
                with contextlib.suppress(OSError):
                    wire.send(message[:1])
                self._left[wire] = message[1:]

    def end(self) -> None:
        self._over.set()
        self.join()


def of_a_head(_: Site) -> bytes:
    """A head that does not end."""
    return HEAD + b"x-slow: " + b"a" * 100


def of_a_body(served: Site) -> bytes:
    """The head with a good key, and then the body."""
    return post(served.keys[0])


def of_a_body_without_a_key(_: Site) -> bytes:
    """The head with a wrong key, and a body that nobody reads."""
    return post(new_key()[1]).replace(b"content-length: ", b"content-length: 9")


def nothing(_: Site) -> bytes:
    """Not a byte."""
    return b""


def whole(served: Site) -> bytes:
    """Complete requests, whose answers are not taken."""
    return post(served.keys[0]) * 3


SLOW: list[Callable[[Site], bytes]] = [of_a_head, of_a_body, of_a_body_without_a_key, nothing, whole]


@pytest.mark.parametrize("message", SLOW)
def test_others_are_answered_in_a_tenth_of_a_second(served: Site, message: Callable[[Site], bytes]) -> None:
    """Beside five hundred of a kind, a request with a key and one to /health."""
    text = message(served)
    at = text.index(b"\r\n\r\n") + 5 if b"\r\n\r\n" in text else len(text) // 2
    at = len(text) if message is whole else at
    with contextlib.ExitStack() as stack:
        wires = []
        for _ in range(COUNT):
            wire = stack.enter_context(contextlib.closing(socket.socket()))
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.connect(served.address)
            wire.sendall(text[:at])
            wires.append(wire)
        drip = Drip(wires, [text[at:]] * COUNT)
        drip.start()
        stack.callback(drip.end)
        took = []
        until = time.monotonic() + 2.5  # two bytes of each
        while time.monotonic() < until:
            took.append(answered_after(served))
    assert median(took) < 0.1
    assert sorted(took)[-2] < 1.0


def answered_after(served: Site) -> float:
    """Seconds to the answers of two requests over a new connection: one free, one with a key."""
    began = time.monotonic()
    with contextlib.closing(Client(served.address)) as client:
        client.send(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert client.answer().status == 200
        client.send(post(served.keys[0]))
        assert client.answer().status == 200
    return time.monotonic() - began


def test_who_shows_no_key_is_refused_before_a_body_is_read(served: Site) -> None:
    """Five hundred that announce eight megabytes: each has its 401 after the head, and memory stays as it was."""
    before = resident(served.pid)
    message = HEAD + f"authorization: Bearer {new_key()[1]}\r\ncontent-length: {8 << 20}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        wires = [
            stack.enter_context(contextlib.closing(socket.create_connection(served.address))) for _ in range(COUNT)
        ]
        for wire in wires:
            wire.sendall(message + b"{" + b" " * 1000)
        told = [b""] * COUNT
        with selectors.DefaultSelector() as ready:
            for number, wire in enumerate(wires):
                ready.register(wire, selectors.EVENT_READ, number)
            deadline = time.monotonic() + 10
            while ready.get_map() and time.monotonic() < deadline:
                for key, _ in ready.select(1.0):
                    data = b""
                    with contextlib.suppress(ConnectionError):
                        data = wires[key.data].recv(65536)
                    told[key.data] += data
                    if not data:
                        ready.unregister(key.fileobj)
            assert not ready.get_map(), "some were neither refused nor closed"
        refused = [one for one in told if one.startswith(b"HTTP/1.1 4") and b"connection: close" in one]
        assert len(refused) == COUNT
    assert resident(served.pid) < before + 60
    assert answered_after(served) < 1.0


def test_half_open_connections_are_let_go(served: Site) -> None:
    """Ends that are gone without a word, by a reset or not: the server holds none of them for long."""

    def held() -> int:
        return sum(1 for _ in Path(f"/proc/{served.pid}/fd").iterdir())

    before = held()
    wires = [socket.create_connection(served.address) for _ in range(COUNT)]
    for number, wire in enumerate(wires):
        wire.sendall(post(served.keys[0])[: 1 + number % 150])
    wait_until(lambda: held() >= before + COUNT * 9 // 10, "they are taken")
    assert answered_after(served) < 1.0
    for number, wire in enumerate(wires):
        if number % 2:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.close()
    wait_until(lambda: held() <= before + 10, "they are gone", 20)
