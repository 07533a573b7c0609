"""What the gateway adds and how much it carries, in front of an upstream that computes nothing.

    python -m benchmarks.relay [--seconds 3] [--rounds 5] [--clients 16]

Measured, the whole pipeline of the gateway, one worker, over TCP, upstream on a Unix socket:

- added latency: medians of single requests, gateway minus upstream, taken in turn;
- requests per second (not streamed) and relayed events per second (streamed), at `--clients`;
- the same with events that come one by one, 2 ms apart: each wakes the gateway up, which is the dear case;
- CPU time of the gateway's process per request and per event, from /proc: exact also where the machine is busy;
- CPU time per request of HTTP clients towards the upstream: ours, and aiohttp's (docs/decisions/0020).

Load, gateway and upstream share the machine's cores, so the rates are lower bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import aiohttp
import uvloop

from benchmarks.machine import described
from serving.gateway.upstream import Upstream

HERE = Path(__file__).parent
SOURCE = HERE.parent
GATEWAY = """
import json, sys
from pathlib import Path
from serving.engines.spec import EngineSpec
from serving.gateway.config import GatewayConfig
from serving.gateway.run import serve
from serving.telemetry import logs
class Listener:
    def on_progress(self, *_): pass
    def on_ready(self, url): print(url, flush=True)
    def on_engine_event(self, text): print(text, file=sys.stderr)
    def on_drain(self): pass
logs.setup("json", sys.argv[3])
spec = EngineSpec("null", "llamacpp", tuple(json.loads(sys.argv[1])), (("PATH", "/usr/bin:/bin"),), Path(sys.argv[2]))
sys.exit(serve([spec], GatewayConfig(port=0), Listener()))
"""


def request(*, stream: bool) -> bytes:
    """A small chat request."""
    body = json.dumps(
        {
            "model": "null",
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "What is the answer to life, the universe and everything?"},
            ],
            "temperature": 0.8,
            "max_tokens": 64,
            "stream": stream,
        },
        separators=(",", ":"),
    ).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Client(asyncio.Protocol):
    """One connection that sends the same request again and again, or once when asked."""

    def __init__(self, message: bytes, *, stream: bool) -> None:
        self.message = message
        self.stream = stream
        self.requests = self.events = 0
        self.running = False
        self.waiter: asyncio.Future[None] | None = None
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def fire(self) -> None:
        self.transport.write(self.message)

    def data_received(self, data: bytes) -> None:
        if self.stream:
            self.events += data.count(b"data: {")
            tail = (self.buffer + data)[-8:]
            self.buffer = tail
            if not tail.endswith(b"\r\n0\r\n\r\n"):
                return
        else:
            self.buffer += data
            head, found, body = self.buffer.partition(b"\r\n\r\n")
            if not found or len(body) < int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]):
                return
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"an answer that is no 200: {head[:200]!r} {body[:300]!r}")
        self.buffer = b""
        self.requests += 1
        if self.running:
            self.fire()
        elif self.waiter is not None:
            self.waiter.set_result(None)

    async def once(self) -> float:
        self.waiter = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self.fire()
        await self.waiter
        self.waiter = None
        return time.perf_counter() - began


async def connect(target: str | tuple[str, int], *, stream: bool) -> Client:
    """A connection to a Unix socket or an address."""
    loop = asyncio.get_running_loop()
    message = request(stream=stream)

    def make() -> Client:
        return Client(message, stream=stream)

    if isinstance(target, str):
        return (await loop.create_unix_connection(make, target))[1]
    return (await loop.create_connection(make, *target))[1]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(target: tuple[str, int], pid: int, *, stream: bool, clients: int, seconds: float) -> dict[str, float]:
    """Rates, and the gateway's CPU, under a load of `clients` connections that never pause."""
    connections = [await connect(target, stream=stream) for _ in range(clients)]
    for client in connections:
        client.running = True
        client.fire()
    await asyncio.sleep(0.5)
    before = sum(client.requests for client in connections), sum(client.events for client in connections)
    cpu, began = cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    took, cpu = time.perf_counter() - began, cpu_seconds(pid) - cpu
    requests = sum(client.requests for client in connections) - before[0]
    events = sum(client.events for client in connections) - before[1]
    for client in connections:
        client.running = False
        client.transport.abort()
    await asyncio.sleep(0.2)
    found = {"requests_per_s": requests / took, "gateway_cpu_us_per_request": cpu / requests * 1e6}
    if stream:
        found |= {"events_per_s": events / took, "gateway_cpu_us_per_event": cpu / events * 1e6}
    return found


async def added_latency(direct: str, through: tuple[str, int], count: int) -> dict[str, float]:
    """Median latencies of single requests in seconds, taken in turn."""
    bare, relayed = await connect(direct, stream=False), await connect(through, stream=False)
    pairs = []
    for _ in range(count):
        pairs.append((await bare.once(), await relayed.once()))
    pairs = pairs[count // 10 :]
    bare_s, relayed_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    bare.transport.abort()
    relayed.transport.abort()
    return {"upstream_ms": bare_s * 1e3, "gateway_ms": relayed_s * 1e3, "added_ms": (relayed_s - bare_s) * 1e3}


async def client_cost(socket: str, count: int) -> dict[str, float]:
    """CPU microseconds per request that an HTTP client spends in this process, not streamed and streamed."""
    ours = Upstream(Path(socket))
    found = {}
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=socket, limit=0)) as session:
        for stream in (False, True):
            body = request(stream=stream).partition(b"\r\n\r\n")[2]

            async def by_ours(body: bytes = body) -> None:
                answer = await ours.request("POST", "/v1/chat/completions", "content-type: application/json\r\n", body)
                while await answer.read():
                    pass
                answer.close()

            async def by_aiohttp(body: bytes = body) -> None:
                headers = {"content-type": "application/json"}
                async with session.post("http://engine/v1/chat/completions", data=body, headers=headers) as answer:
                    async for _ in answer.content.iter_any():
                        pass

            for name, call in (("ours", by_ours), ("aiohttp", by_aiohttp)):
                spent = []
                for _ in range(5):
                    began = resource.getrusage(resource.RUSAGE_SELF)
                    for _ in range(count):
                        await call()
                    ended = resource.getrusage(resource.RUSAGE_SELF)
                    spent.append(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
                kind = "streamed" if stream else "whole"
                found[f"{name}_{kind}_us"] = statistics.median(spent) / count * 1e6
    ours.close()
    return found


async def measure(options: argparse.Namespace) -> dict[str, object]:
    """Everything, once per round; medians over the rounds."""
    with tempfile.TemporaryDirectory() as directory:
        results: dict[str, object] = {}
        for kind, extra in (("together", []), ("paced", ["--gap-ms", "2"])):
            socket = f"{directory}/{kind}.sock"
            argv = [sys.executable, str(HERE / "peers" / "null_upstream.py"), "--uds", socket, *extra]
            environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
            gateway = subprocess.Popen(
                [sys.executable, "-c", GATEWAY, json.dumps(argv), socket, options.log],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                text=True,
            )
            try:
                url = gateway.stdout.readline().strip() if gateway.stdout else ""
                host, _, port = url.removeprefix("http://").partition(":")
                target = (host, int(port))
                rounds: list[dict[str, float]] = []
                for _ in range(options.rounds):
                    streamed = await load(
                        target, gateway.pid, stream=True, clients=options.clients, seconds=options.seconds
                    )
                    found = {f"streamed_{name}": value for name, value in streamed.items()}
                    if kind == "together":
                        whole = await load(
                            target, gateway.pid, stream=False, clients=options.clients, seconds=options.seconds
                        )
                        found |= {f"whole_{name}": value for name, value in whole.items()}
                        found |= await added_latency(socket, target, options.pairs)
                    rounds.append(found)
                results[kind] = {name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]}
                if kind == "together":
                    costs = await client_cost(socket, 500)
                    results["clients"] = {name: round(value, 1) for name, value in costs.items()}
            finally:
                gateway.terminate()
                gateway.wait(20)
        return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--log", default="warning", help="log level of the gateway; info writes a line per request")
    options = parser.parse_args()
    result = {"what": "the gateway before an upstream that answers at once", **uvloop.run(measure(options))}
    packages = {name: version(name) for name in ("uvicorn", "httptools", "uvloop", "aiohttp", "fastapi")}
    print(json.dumps({**result, "packages": packages, **described()}, indent=1))
