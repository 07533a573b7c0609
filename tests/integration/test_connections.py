"""What one connection may cost: time, memory, and the answers of others."""

import contextlib
import json
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support.harness import Client, Gateway, chat, gateway


def closed_within(client: Client, seconds: float) -> bool:
    """Whether the server closes, whatever it says before; reads nothing until then has passed or it did."""
    client.socket.settimeout(seconds)
    try:
        while client.socket.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def resident_mib(served: Gateway) -> float:
    return resident(served.process.pid)


def resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError


def test_a_wish_for_another_protocol_is_refused(directory: Path) -> None:
    """Its body must not be read as the next request, whether it has a length or comes in chunks."""
    with gateway(directory) as served:
        hidden = b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n"
        for framing, body in (
            (f"content-length: {len(hidden)}", hidden),
            ("transfer-encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)),
        ):
            client = served.client()
            head = f"POST /tokenize HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: foo\r\n{framing}\r\n\r\n"
            client.send(head.encode())
            time.sleep(0.1)
            with contextlib.suppress(OSError):  # closed already
                client.send(body)
            received = b""
            client.socket.settimeout(5)
            try:
                while data := client.socket.recv(65536):
                    received += data
            except ConnectionError:
                pass
            assert received.startswith(b"HTTP/1.1 400 ")
            assert received.count(b"HTTP/1.1") == 1


def test_a_flood_of_requests_on_one_connection_is_cut(directory: Path) -> None:
    """A few may wait behind the one being answered; memory does not grow with what is sent."""
    with gateway(directory) as served:
        served.chat("tokens=1")
        before = resident_mib(served)
        client = served.client()
        client.socket.settimeout(5)
        with pytest.raises(OSError):  # noqa: PT012 - which of the writes meets the end is left to the kernel
            for _ in range(400):
                client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n" * 2000)
        assert resident_mib(served) < before + 60
        assert served.chat("tokens=1").status == 200


def test_two_or_three_requests_at_once_are_answered_in_order(directory: Path) -> None:
    """Pipelining within reason works."""
    with gateway(directory) as served:
        client = served.client()
        client.send(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n" * 3)
        assert [client.answer().status for _ in range(3)] == [200] * 3


def test_a_client_that_does_not_read_is_let_go(directory: Path) -> None:
    """Also where its answers are complete and only wait to leave; and it does not keep the server from stopping."""
    with gateway(directory, config={"idle_timeout_s": 1.0}) as served:
        client = Client(served.address)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        document = b"GET /openapi.json HTTP/1.1\r\nhost: h\r\n\r\n"
        with contextlib.suppress(ConnectionError):  # it may be let go while it still asks
            for _ in range(200):
                client.send(document)
                time.sleep(0.005)
        time.sleep(2.5)
        assert closed_within(client, 5)
        client.close()
        stuck = Client(served.address)
        stuck.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.send(document * 4)
        time.sleep(0.2)
        served.signal(signal.SIGTERM)
        assert served.process.wait(10) == 0
        stuck.close()


def test_no_connection_is_without_a_timer(directory: Path) -> None:
    """Empty lines after an answer, and the rest of a body that was refused: closed like a head that is late."""
    with gateway(directory) as served:
        lines = served.client()
        lines.send(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n")
        assert lines.answer().status == 200
        lines.send(b"\r\n")
        body = served.client()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\n"
        body.send(head.encode() + b"content-length: 100000\r\n\r\nx")
        assert body.head()[0] == 400
        assert closed_within(body, 5), "after an early refusal the rest of the body is not waited for"
        assert closed_within(lines, 20)


def test_bodies_have_one_bound_for_all(directory: Path) -> None:
    """What is held for all requests together; a body beyond it is refused, and there is room again afterwards."""
    with gateway(directory, config={"held_bytes": 1 << 20}) as served:
        large = json.dumps(chat("x" * 900_000)).encode()
        first = served.client()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
        first.send(f"{head}content-length: {len(large)}\r\n\r\n".encode() + large[:-10])
        time.sleep(0.5)
        second = served.post("/v1/chat/completions", json.loads(large))
        assert (second.status, second.error["code"]) == (503, "overloaded")
        first.send(large[-10:])
        assert first.answer().status == 200
        assert served.chat("tokens=1").status == 200


def test_a_page_of_another_origin_is_not_answered(served: Gateway) -> None:
    """A browser that was led here by a name of somebody's own (DNS rebinding): 421 on every route, nothing is read."""
    for path in ("/health", "/v1/models", "/metrics", "/v1/chat/completions", "/docs"):
        client = served.client()
        client.send(f"GET {path} HTTP/1.1\r\nhost: evil.example:8000\r\n\r\n".encode())
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (421, "wrong_host")
        assert answer.headers["connection"] == "close"
    client = served.client()
    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 10\r\n\r\n")
    assert client.answer().status == 421
    assert served.get("/health").status == 200
