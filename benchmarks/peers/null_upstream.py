"""An OpenAI server that computes nothing: fixed answers, no delay. What is measured in front of it is the front.

`python benchmarks/peers/null_upstream.py --uds PATH` (or `--port N`). A streamed answer has `--chunks` events; they are
written at once, or with `--gap-ms` one by one with that pause between, as an engine makes them. It answers `/ready`, so
the gateway can supervise it like any engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import httptools
import uvloop


def answer(status: str, kind: str, body: bytes) -> bytes:
    """A whole response."""
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


USAGE = {"prompt_tokens": 9, "completion_tokens": 64, "total_tokens": 73, "prompt_tokens_details": {"cached_tokens": 0}}
WHOLE = answer(
    "200 OK",
    "application/json",
    json.dumps(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 1,
            "model": "null",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "nothing " * 64}, "finish_reason": "stop"}
            ],
            "usage": USAGE,
        }
    ).encode(),
)
READY = answer("200 OK", "application/json", b'{"status":"ready","model":"null","n_ctx_seq":4096}')
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(value: object) -> bytes:
    """One event as one HTTP chunk."""
    data = b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def text_event() -> bytes:
    """An event with one token of text, of the size that real engines send."""
    return event(
        {
            "id": "chatcmpl-00000000000000000000000000000000",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "null",
            "choices": [{"index": 0, "delta": {"content": " nothing"}, "logprobs": None, "finish_reason": None}],
        }
    )


TAIL = event({"id": "chatcmpl-0", "choices": [], "usage": USAGE}) + event(b"[DONE]") + b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection, which collects each request; `on_message_complete` is for its heirs to answer it."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.loop = asyncio.get_running_loop()
        self.body = b""
        self.url = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body += body


class NullUpstream(Connection):
    """Answers at once, or event by event."""

    def __init__(self, chunks: int, gap_s: float) -> None:
        super().__init__()
        self.chunks = chunks
        self.gap_s = gap_s
        self.text = text_event()
        self.stream = HEAD + self.text * chunks + TAIL

    def on_message_complete(self) -> None:
        if self.url == b"/ready":
            self.transport.write(READY)
        elif b'"stream":true' not in self.body and b'"stream": true' not in self.body:
            self.transport.write(WHOLE)
        elif not self.gap_s:
            self.transport.write(self.stream)
        else:
            self.transport.write(HEAD)
            self.one_by_one(self.chunks)

    def one_by_one(self, left: int) -> None:
        if self.transport.is_closing():
            return
        if left:
            self.transport.write(self.text)
            self.loop.call_later(self.gap_s, self.one_by_one, left - 1)
        else:
            self.transport.write(TAIL)


async def main(options: argparse.Namespace) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()

    def connection() -> NullUpstream:
        return NullUpstream(options.chunks, options.gap_ms / 1000)

    if options.uds:
        server = await loop.create_unix_server(connection, options.uds)
    else:
        server = await loop.create_server(connection, "127.0.0.1", options.port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uds")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--chunks", type=int, default=64)
    parser.add_argument("--gap-ms", type=float, default=0.0)
    uvloop.run(main(parser.parse_args()))
