"""An engine that does what it is told: an instrument for failures at exact moments, which a real one cannot time.

It is a real process that speaks HTTP on a Unix socket. What a request does is written in its prompt (the text of
`prompt`, or of the last message) as `key=value` words:

    tokens=3       events before the end
    gap=0.01       seconds between them
    then=done      done | nodone | die | stall | eof | garbage | error | nousage
    before=0       seconds before the first byte
    status=200     another status is answered at once, with `code=…`
    comments=1     SSE comments before the first event
    mutters=1      KiB of the prompt that are said on stderr first

`--record FILE` writes each body it receives, as received, one JSON line `{"path", "headers", "body"}` each.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path


def words(text: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


class ScriptedEngine:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.started = time.monotonic()
        self.running = 0
        self.cancelled = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self.answer(method, path, headers, body, reader, writer)
                await writer.drain()
        writer.close()

    async def answer(self, method, path, headers, body, reader, writer) -> None:
        if method == "GET":
            self.get(path, writer)
            return
        if self.options.record:
            self.record({"path": path, "headers": headers, "body": body.decode("utf-8")})
        request = json.loads(body)
        if path in {"/tokenize", "/detokenize"}:
            answer = {"count": 1, "max_model_len": 100, "tokens": [1]} if path == "/tokenize" else {"prompt": "x"}
            whole(writer, 200, answer)
            return
        is_chat = "messages" in request
        text = request["messages"][-1]["content"] if is_chat else request["prompt"]
        told = words(text if isinstance(text, str) else "")
        if "mutters" in told:
            sys.stderr.write((text + "\n") * (int(told["mutters"]) * 1024 // (len(text) + 1) + 1))
            sys.stderr.flush()
        if "status" in told:
            error = {"message": "told to refuse", "type": "t", "param": told.get("param"), "code": told.get("code")}
            whole(writer, int(told["status"]), {"error": error})
            return
        self.running += 1
        watcher = asyncio.create_task(reader.read(1))
        work = asyncio.create_task(self.generate(request, told, writer, is_chat=is_chat))
        await asyncio.wait({watcher, work}, return_when=asyncio.FIRST_COMPLETED)
        self.running -= 1
        if not work.done():
            work.cancel()
            self.cancelled += 1
            raise ConnectionResetError
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
        await work

    def record(self, line: dict) -> None:
        with Path(self.options.record).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    async def generate(self, request, told, writer, *, is_chat: bool) -> None:
        count, gap, then = int(told.get("tokens", "3")), float(told.get("gap", "0")), told.get("then", "done")
        await asyncio.sleep(float(told.get("before", "0")))
        usage = {"prompt_tokens": 7, "completion_tokens": count, "prompt_tokens_details": {"cached_tokens": 2}}
        if not request.get("stream"):
            for _ in range(count):
                await asyncio.sleep(gap)
            if self.end(then, writer, streaming=False):
                if then == "stall":
                    await asyncio.sleep(3600)
                return
            text = " ".join(f"t{place}" for place in range(count))
            choice = {"index": 0, "finish_reason": "stop"}
            choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
            answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
            whole(writer, 200, answer | ({} if then == "nousage" else {"usage": usage}))
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(int(told.get("comments", "0"))):
            chunk(writer, b": waiting\n\n")
            await asyncio.sleep(gap)
        for place in range(count):
            delta = {"delta": {"content": f"t{place} "}} if is_chat else {"text": f"t{place} "}
            event(writer, {"id": "x", "choices": [{"index": 0, **delta, "finish_reason": None}]})
            await writer.drain()
            await asyncio.sleep(gap)
        if self.end(then, writer, streaming=True):
            if then == "stall":
                await asyncio.sleep(3600)
            return
        if then == "error":
            event(writer, {"error": {"message": "told to fail", "type": "t", "param": None, "code": "internal_error"}})
            writer.write(b"0\r\n\r\n")
            return
        if then != "nousage" and request.get("stream_options", {}).get("include_usage"):
            event(writer, {"id": "x", "choices": [], "usage": usage})
        if then != "nodone":
            chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    def end(self, then: str, writer: asyncio.StreamWriter, *, streaming: bool) -> bool:
        """Do what is told and is not a proper end; True where something was."""
        if then == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif then == "garbage":
            writer.write(b"zzzz\r\nno chunk\r\n" if streaming else b"no HTTP at all\r\n\r\n")
        elif then == "eof":
            writer.close()
        elif then != "stall":
            return False
        return True

    def get(self, path: str, writer: asyncio.StreamWriter) -> None:
        age = time.monotonic() - self.started
        if path == "/ready" and age < self.options.load_s:
            whole(writer, 503, {"status": "loading", "progress": age / self.options.load_s, "stage": "weights"})
        elif path == "/ready":
            whole(writer, 200, {"status": "ready", "n_ctx_seq": 128})
        elif path == "/metrics":
            text = (
                "# HELP perimeter_engine_running Sequences running.\n# TYPE perimeter_engine_running gauge\n"
                f"perimeter_engine_running {self.running}\n"
                "# TYPE perimeter_engine_cancelled_total counter\n"
                f"perimeter_engine_cancelled_total {self.cancelled}\n"
            ).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
        else:
            whole(writer, 200, {"status": "ok"})


def whole(writer: asyncio.StreamWriter, status: int, value: object) -> None:
    body = json.dumps(value, separators=(",", ":")).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


def event(writer: asyncio.StreamWriter, value: object) -> None:
    chunk(writer, b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")


async def main(options: argparse.Namespace) -> None:
    engine = ScriptedEngine(options)
    server = await asyncio.start_unix_server(engine.serve, options.uds)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds", required=True)
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--record")
    parser.add_argument("--fatal", help="code of a fatal error to die of at once")
    parser.add_argument("--exit", type=int, help="exit at once with this status")
    parser.add_argument("--worker", action="store_true", help="start a child that ignores SIGTERM")
    parser.add_argument("--die-once", help="a file: where it is missing, make it and die of SIGSEGV")
    options = parser.parse_args()
    if options.die_once and not Path(options.die_once).exists():
        Path(options.die_once).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if options.fatal:
        line = {"event": "fatal", "code": options.fatal, "message": "told to be fatal", "hint": "a way out"}
        sys.stderr.write(f"some noise before\n{json.dumps(line)}\n")
        sys.exit(5)
    if options.exit is not None:
        sys.stderr.write("last words\n")
        sys.exit(options.exit)
    if options.worker and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(3600)
    with suppress(KeyboardInterrupt):
        asyncio.run(main(options))
