"""TLS in front of a plain server on this host; counts what comes in, which is all that ever left."""

from __future__ import annotations

import asyncio
import ssl
import threading
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit


class TlsFront:
    """A port with TLS that passes everything on; `with` starts and ends it."""

    def __init__(self, origin: str, certificate: Path, key: Path, *, keep: bool = False) -> None:
        """`keep`: what comes in is kept, by connection."""
        parts = urlsplit(origin)
        self._behind = (parts.hostname, parts.port)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.bytes_in = 0
        self.heard: list[bytearray] = []
        self._keep = keep
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context))
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        behind, ahead = await asyncio.open_connection(*self._behind)
        self._writers |= {writer, ahead}
        heard = bytearray()
        if self._keep:
            self.heard.append(heard)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_in: bool) -> None:
            try:
                while data := await source.read(1 << 16):
                    if is_in:
                        self.bytes_in += len(data)
                        if self._keep:
                            heard.extend(data)
                    target.write(data)
                    await target.drain()
            except OSError:
                pass
            finally:
                target.close()

        await asyncio.gather(copy(reader, ahead, is_in=True), copy(behind, writer, is_in=False))
