"""Operations over a Unix socket: what is asked is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from pathlib import Path
from typing import Any

import pytest

from serving import desk
from serving.desk import MAX_BODY, Body, Caller
from serving.errors import RequestTooLarge


class Say(Body):
    word: str


def say(body: Say, caller: Caller) -> dict[str, Any]:
    return {"length": len(body.word), "uid": caller.uid}


def answer_to(path: Path, head: bytes, piece: bytes, most: int) -> tuple[bytes, int]:
    """What comes back when that piece is sent over and over, and how many bytes were sent until then."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
        connected.settimeout(10)
        connected.connect(str(path))
        connected.sendall(head)
        sent = 0
        with contextlib.suppress(BrokenPipeError):  # what it said before stands there all the same
            while sent < most and not select.select([connected], [], [], 0)[0]:
                connected.sendall(piece)
                sent += len(piece)
        return connected.recv(4096), sent


async def test_a_body_without_an_end_is_refused(tmp_path: Path) -> None:
    """With 413, the connection closed: however it is sent, and who asks properly is answered meanwhile and after."""
    path = tmp_path / "desk.sock"
    most = 64 * MAX_BODY
    async with desk.served({"say": (Say, say)}, path, "audit.directory"):
        for head, piece in (
            (b"transfer-encoding: chunked", b"1000\r\n" + b" " * 0x1000 + b"\r\n"),
            (b"content-length: %d" % most, b" " * 0x1000),
        ):
            request = b"POST /say HTTP/1.1\r\nhost: desk\r\ncontent-type: application/json\r\n" + head + b"\r\n\r\n"
            answer, sent = await asyncio.to_thread(answer_to, path, request, piece, most)
            assert answer.startswith(b"HTTP/1.1 413 "), answer[:100]
            assert b'"request_too_large"' in answer
            assert sent < most
        told = await asyncio.to_thread(desk.ask, path, "say", {"word": "x" * (MAX_BODY - 100)})
        assert told is not None
        assert told["length"] == MAX_BODY - 100


async def test_who_asks_for_too_much_is_told_so(tmp_path: Path) -> None:
    """As the error that it is."""
    path = tmp_path / "desk.sock"
    async with desk.served({"say": (Say, say)}, path, "audit.directory"):
        with pytest.raises(RequestTooLarge, match=str(MAX_BODY)):
            await asyncio.to_thread(desk.ask, path, "say", {"word": "x" * (MAX_BODY + 1)})
