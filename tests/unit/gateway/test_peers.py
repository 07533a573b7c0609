"""Both ends of an engine's socket look at who is at the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from serving.gateway.upstream import EngineBroke, Upstream
from serving.openai.peers import CheckedProtocol, Peer, peer_of

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
NOBODY = 65534


@pytest.fixture
def directory(tmp_path_factory) -> Iterator[Path]:
    """One that everybody may enter, since it is not about the directory here."""
    path = tmp_path_factory.getbasetemp().parent.parent / f"perimeter-peers-{os.getpid()}"
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    yield path
    for each in path.iterdir():
        each.unlink()
    path.rmdir()


def test_the_kernel_says_who_is_there() -> None:
    """Process and user of the other end; a socket of another family has none."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert peer_of(ours) == Peer(os.getpid(), os.getuid())
    with socket.socket() as other:
        assert peer_of(other) is None
    assert peer_of(None) is None


async def answer(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def engine(path: Path):
    """A server as engines have it."""
    config = uvicorn.Config(answer, uds=str(path), http=CheckedProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    yield
    server.should_exit = True
    await task


async def test_the_gateway_asks_whose_process_it_is(directory: Path) -> None:
    """An answer from a process that is not the engine's is not taken."""
    asked: list[int] = []

    def is_engine(pid: int) -> bool:
        asked.append(pid)
        return len(asked) == 1

    async with engine(directory / "e.sock"):
        upstream = Upstream(directory / "e.sock", is_engine)
        response = await upstream.request("GET", "/")
        assert await response.read_all(10) == b"ok"
        with pytest.raises(EngineBroke, match="somebody else"):
            await Upstream(directory / "e.sock", is_engine).request("GET", "/")
        upstream.close()
    assert asked == [os.getpid()] * 2


@needs_root
async def test_an_engine_serves_nobody_else(directory: Path) -> None:
    """Another user's connection is closed before a byte is read."""
    code = (
        f"import os, socket\nos.setuid({NOBODY})\n"
        f"s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect({str(directory / 'e.sock')!r})\n"
        "try:\n    s.sendall(b'GET / HTTP/1.1\\r\\nhost: e\\r\\n\\r\\n'); print(s.recv(99))\n"
        "except ConnectionError: print(b'')"
    )
    async with engine(directory / "e.sock"):
        (directory / "e.sock").chmod(0o777)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
        said, _ = await process.communicate()
        assert said == b"b''\n"
        response = await Upstream(directory / "e.sock").request("GET", "/")
        assert response.status == 200
        response.close()


@needs_root
async def test_the_gateway_talks_to_nobody_else(directory: Path) -> None:
    """A socket at which another user listens is not the engine's."""
    code = (
        f"import os, socket\nos.setuid({NOBODY})\n"
        f"s = socket.socket(socket.AF_UNIX); s.bind({str(directory / 'e.sock')!r}); s.listen()\n"
        "print('up', flush=True)\n"
        "s.accept()[0].sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n')"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert await process.stdout.readline() == b"up\n"
    with pytest.raises(EngineBroke, match="somebody else"):
        await Upstream(directory / "e.sock").request("GET", "/")
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()
