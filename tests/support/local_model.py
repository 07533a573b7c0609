"""A server inside that answers as a model would that is asked for a verdict, or as one never should."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
from collections.abc import Callable
from typing import Self

LABELS_AND_VERDICT = '{{"labels": {labels}, "verdict": "{verdict}"}}'


def content(*labels: str, verdict: str = "clean") -> str:
    """What the model says."""
    return LABELS_AND_VERDICT.format(labels=json.dumps(list(labels)), verdict=verdict)


def answer(said: object, reason: str = "stop") -> bytes:
    """An answer with these words."""
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": reason}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()


def _told(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body


FAULTS: dict[str, bytes] = {
    "garbage": _told(b"\xff\x00 not JSON"),
    "no http": b"hello\r\n\r\n",
    "empty": _told(b""),
    "other JSON": _told(b'[{"verdict": "clean"}]'),
    "no choice": _told(b'{"choices": []}'),
    "words": _told(answer("It is clean.")),
    "no content": _told(answer(None)),
    "cut JSON": _told(answer(content()[:-3])),
    "cut off": _told(answer(content(), "length")),
    "cut connection": _told(answer(content()))[:-20],
    "another label": _told(answer(content("public"))),
    "another verdict": _told(answer(content(verdict="fine"))),
    "no verdict": _told(answer('{"labels": []}')),
    "more than asked": _told(answer('{"labels": [], "verdict": "clean", "why": "x"}')),
    "twice": _told(answer('{"labels": [], "verdict": "sensitive", "verdict": "clean"}')),
    "labels in a text": _told(answer('{"labels": "", "verdict": "clean"}')),
    "two answers": _told(answer(content()).replace(b'"choices": [', b'"choices": [{"index": 1}, ')),
    "redirect": _told(answer(content()), "307 Temporary Redirect", "location: /elsewhere\r\n"),
    "error": _told(answer(content()), "500 Internal Server Error"),
    "refusal": _told(b'{"error": {}}', "400 Bad Request"),
    "partial": _told(answer(content()), "206 Partial Content"),
    "packed": _told(gzip.compress(answer(content())), more="content-encoding: gzip\r\n"),
    "endless": b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (1 << 20) + answer(content()),
    "gone": b"",
}
"""Answers that say nothing, by what is the matter with them; `hang` and `drip` are the server's own."""


class LocalModel:
    """Listens on a port of this host; `say` is what it does with the next requests."""

    def __init__(self) -> None:
        self.say: Callable[[str], str] | str | bytes = content()
        """What the model says; a name of `FAULTS`, `hang` or `drip`; or a function of the text that was asked about."""
        self.received: list[tuple[str, dict[str, str], dict]] = []
        """Path, headers and body of each request."""
        self.at_once = self.most_at_once = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
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
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            self.received.append((head[0].split()[1], headers, body))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                await self._answer(body, writer)
            finally:
                self.at_once -= 1
        writer.close()

    async def _answer(self, body: dict, writer: asyncio.StreamWriter) -> None:
        say = self.say(text_of(body)) if callable(self.say) else self.say
        if say == "hang":
            await asyncio.Event().wait()
        if say == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            for letter in answer(content()):
                writer.write(bytes([letter]))
                await writer.drain()
                await asyncio.sleep(0.1)
            return
        await asyncio.sleep(0.02)  # so that those at one time are there together
        raw = FAULTS.get(say) if isinstance(say, str) else say
        writer.write(_told(answer(say)) if raw is None else raw)
        await writer.drain()


def text_of(body: dict) -> str:
    """The text that was asked about, taken out of its marks."""
    lines = body["messages"][1]["content"].split("\n")
    assert lines[0] == lines[-1]
    return "\n".join(lines[1:-1])
