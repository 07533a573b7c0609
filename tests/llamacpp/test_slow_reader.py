"""A client that does not read: the engine goes on, and nothing of its answer is lost."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import SOURCE

MODEL = SOURCE / "serving" / "models" / "demo" / "demo-q8_0.gguf"
TOKENS = 3500
"""About a megabyte of events, several times what the kernel holds for a connection."""


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(120)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def ask(path: Path, *, stream: bool, **fields: object) -> socket.socket:
    body = {
        "model": "m",
        "prompt": "a",
        "seed": 7,
        "ignore_eos": True,
        "max_tokens": TOKENS,
        "stream": stream,
        **fields,
    }
    data = json.dumps(body).encode()
    connection = connect(path)
    head = "POST /v1/completions HTTP/1.1\r\nhost: e\r\ncontent-type: application/json\r\nconnection: close\r\n"
    connection.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    connection.close()
    return b"".join(parts)


def text_of(answer: bytes) -> str:
    """The text of a stream in chunked encoding."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    assert events.pop() == b"[DONE]"
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The engine by itself, two sequences at a time."""
    path = tmp_path_factory.mktemp("e") / "e.sock"
    argv = [sys.executable, "-m", "serving.llamacpp", "--model", str(MODEL), "--uds", str(path), "--alias", "m"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_WAIT_POLICY": "passive"}
    with subprocess.Popen([*argv, "--parallel", "2", "--ctx", "4096", "--threads", "1"], env=environment) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    connection = connect(path)
                    connection.sendall(b"GET /ready HTTP/1.1\r\nhost: e\r\nconnection: close\r\n\r\n")
                    if b"200 OK" in read_all(connection):
                        break
                except OSError:
                    pass
                time.sleep(0.1)
            yield path
        finally:
            process.kill()


def test_an_answer_that_is_read_late_is_whole(engine: Path) -> None:
    """The stream of a client that first reads nothing, then slowly, is the text of the same answer sent whole."""
    _, _, whole = read_all(ask(engine, stream=False)).partition(b"\r\n\r\n")
    late = ask(engine, stream=True)
    time.sleep(2)
    # another client meanwhile is served as ever
    assert len(text_of(read_all(ask(engine, stream=True, max_tokens=50)))) > 0
    parts = []
    while data := late.recv(20_000):
        parts.append(data)
        time.sleep(0.01)
    late.close()
    assert text_of(b"".join(parts)) == json.loads(whole)["choices"][0]["text"]


def test_a_client_that_leaves_without_reading_frees_its_place(engine: Path) -> None:
    """Four that leave, on two places; then one that stays is served."""
    for _ in range(4):
        gone = ask(engine, stream=True)
        time.sleep(0.3)
        gone.close()
    assert len(text_of(read_all(ask(engine, stream=True, max_tokens=20)))) > 0
