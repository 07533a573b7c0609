"""A wire between a client and a server that can be slow, break off, or change what goes over it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from urllib.parse import urlsplit

_PIECE = 16384


class Between:
    """Listens on loopback and passes everything on to `url`'s server and back. What is set takes effect at once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.cut_after: int | None = None
        """Bytes from the server after which every connection is cut; None never."""
        self.bytes_per_s: float | None = None
        self.flip_at: int | None = None
        """The byte from the server, of all together, that is changed once."""
        self.passed = 0
        """Bytes that came from the server."""
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closing alone does not end the thread that waits in accept(2)
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server)
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_PIECE):
                server.sendall(data)
        self._end(client, server)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := bytearray(server.recv(_PIECE)):
                with self._lock:
                    if self.flip_at is not None and self.passed <= self.flip_at < self.passed + len(data):
                        data[self.flip_at - self.passed] ^= 1
                        self.flip_at = None
                    self.passed += len(data)
                    is_cut = self.cut_after is not None and self.passed >= self.cut_after
                if is_cut:
                    break
                client.sendall(data)
                if self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
        self._end(client, server)

    @staticmethod
    def _end(*sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
