"""A gateway process in front of a scripted engine, and a client that speaks raw HTTP to it."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from serving.engines.runtime import socket_in

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent


def wait_until(condition: Callable[[], bool], what: str, within_s: float = 10.0) -> float:
    """Poll until `condition` holds; returns the seconds it took, fails beyond `within_s`."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_s:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - began


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def error(self) -> dict:
        return self.json["error"]

    @property
    def events(self) -> list:
        """The data of each event; JSON where it is."""
        found = []
        for part in self.body.split(b"\n\n"):
            if part.startswith(b"data: "):
                data = part[6:]
                found.append(data.decode() if data == b"[DONE]" else json.loads(data))
        return found


class Client:
    """One connection; sends bytes as they are given."""

    def __init__(
        self, address: tuple[str, int], timeout_s: float = 20.0, context: ssl.SSLContext | None = None
    ) -> None:
        self.socket = socket.create_connection(address, timeout=timeout_s)
        if context is not None:
            try:
                self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
            except OSError:
                self.socket.close()
                raise
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        named = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        head = f"POST {path} HTTP/1.1\r\nhost: h\r\n" + "".join(f"{key}: {value}\r\n" for key, value in named.items())
        self.send(head.encode("latin-1") + b"\r\n" + body)

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.buffer += data

    def head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def chunks(self) -> Iterator[bytes]:
        while True:
            while b"\r\n" not in self.buffer:
                self._more()
            size, _, self.buffer = self.buffer.partition(b"\r\n")
            length = int(size, 16)
            while len(self.buffer) < length + 2:
                self._more()
            data, self.buffer = self.buffer[:length], self.buffer[length + 2 :]
            if not length:
                return
            yield data

    def answer(self) -> Answer:
        status, headers = self.head()
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, b"".join(self.chunks()))
        length = int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            self._more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Answer(status, headers, body)

    def close(self) -> None:
        self.socket.close()


@dataclass
class Gateway:
    """A running gateway."""

    process: subprocess.Popen
    directory: Path
    said: queue.Queue = field(default_factory=queue.Queue)
    heard: list = field(default_factory=list)
    address: tuple[str, int] = ("", 0)
    context: ssl.SSLContext | None = None
    """With which its clients speak TLS."""
    clients: list = field(default_factory=list)

    @property
    def log(self) -> list[dict]:
        lines = (self.directory / "stderr").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def errors(self) -> str:
        return (self.directory / "stderr").read_text()

    @property
    def engine_pid(self) -> int:
        record = next(self.directory.glob("run/*.d/engine.json"))
        return json.loads(record.read_text())["engine"]["pid"]

    @property
    def received(self) -> list[dict]:
        """What the engine received, where it records."""
        file = self.directory / "recorded" / "received"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def wait_for(self, what: str, within_s: float = 15.0) -> str:
        """The text of the next thing of that kind that the listener is told."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                kind, text = self.said.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"never heard `{what}`, but {self.heard}; {self.errors}") from None
            self.heard.append([kind, text])
            if kind == what:
                return text

    def client(self) -> Client:
        """A new connection; closed at the end if not before."""
        self.clients.append(Client(self.address, context=self.context))
        return self.clients[-1]

    def get(self, path: str) -> Answer:
        client = self.client()
        client.send(f"GET {path} HTTP/1.1\r\nhost: h\r\n\r\n".encode())
        try:
            return client.answer()
        finally:
            client.close()
            self.clients.remove(client)

    def post(self, path: str, body: bytes | dict, headers: dict[str, str] | None = None) -> Answer:
        client = self.client()
        client.post(path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)
        try:
            return client.answer()
        finally:
            client.close()
            self.clients.remove(client)

    def chat(self, told: str, headers: dict[str, str] | None = None, **fields: object) -> Answer:
        return self.post("/v1/chat/completions", chat(told, **fields), headers)

    def metric(self, start: str) -> float:
        """The sum of all samples whose line starts so."""
        lines = self.get("/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    def is_idle(self) -> bool:
        return self.metric("perimeter_requests_in_flight{") == 0 and self.metric("perimeter_engine_running") == 0

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


def chat(told: str, **fields: object) -> dict:
    """A chat request whose prompt tells the scripted engine what to do."""
    return {"model": "m", "messages": [{"role": "user", "content": told}], **fields}


@contextmanager
def gateway(directory: Path, *, wait: bool = True, **given: object) -> Iterator[Gateway]:
    """A gateway that runs while the block does; what is still alive afterwards is killed."""
    run = directory / "run"
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    given.setdefault("socket", str(socket_in(run, "engine")))
    engine = [*given.pop("engine", []), "--record", str(directory / "recorded" / "received")]
    with (directory / "stderr").open("a") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "run_gateway.py"), json.dumps({**given, "engine": engine})],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            cwd=directory,
        )
    running = Gateway(process, directory)

    def listen() -> None:
        for line in process.stdout:
            running.said.put(json.loads(line))

    threading.Thread(target=listen, daemon=True).start()
    try:
        if wait:
            host, _, port = running.wait_for("ready").partition("://")[2].partition(":")
            running.address = (host, int(port))
        yield running
    finally:
        for client in running.clients:
            client.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        process.kill()
        process.wait()
        process.stdout.close()
