"""What the gateway adds and how much it carries, in front of an upstream that computes nothing.

    python -m benchmarks.relay [--seconds 3] [--rounds 5] [--clients 16] [--litellm /path/to/litellm]

Measured, the whole pipeline of the gateway, one worker, over TCP, upstream on a Unix socket:

- added latency: medians of single requests, gateway minus upstream, taken in turn;
- requests per second (not streamed) and relayed events per second (streamed), at `--clients`;
- the same with events that come one by one, 2 ms apart: each wakes the gateway up, which is the dear case;
- CPU time of the gateway's process per request and per event, from /proc: exact also where the machine is busy;
- with `--litellm`, LiteLLM's proxy in front of the same upstream, in the same run;
- what the gateway's process holds after 10,000 and after `--flat` requests more, whole and streamed in turn;
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

from benchmarks.machine import cpu_seconds, described
from benchmarks.memory import resident_bytes
from benchmarks.peers.compare import free_port
from serving.engines.runtime import socket_in
from serving.gateway.upstream import Upstream

HERE = Path(__file__).parent
SOURCE = HERE.parent
LITELLM = {"LITELLM_LOG": "ERROR", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
"""No keys on either side: what is compared is passing on."""
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


def request(*, stream: bool, extra: str = "") -> bytes:
    """A small chat request; `extra` are further lines of its head."""
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
    return f"{head}{extra}content-length: {len(body)}\r\n\r\n".encode() + body


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


async def connect(target: str | tuple[str, int], *, stream: bool, head: str = "") -> Client:
    """A connection to a Unix socket or an address."""
    loop = asyncio.get_running_loop()
    message = request(stream=stream, extra=head)

    def make() -> Client:
        return Client(message, stream=stream)

    if isinstance(target, str):
        return (await loop.create_unix_connection(make, target))[1]
    return (await loop.create_connection(make, *target))[1]


async def load(
    target: tuple[str, int], pid: int, *, stream: bool, clients: int, seconds: float, head: str = ""
) -> dict[str, float]:
    """Rates, and the gateway's CPU, under a load of `clients` connections that never pause."""
    connections = [await connect(target, stream=stream, head=head) for _ in range(clients)]
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


async def added_latency(direct: str | tuple[str, int], through: tuple[str, int], count: int) -> dict[str, float]:
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


async def flatness(target: tuple[str, int], pid: int, *, clients: int, requests: int) -> dict[str, float]:
    """What the gateway's process holds, after a beginning of a tenth and at the end; whole and streamed in turn."""

    async def send(count: int) -> None:
        for stream in (False, True):
            connections = [await connect(target, stream=stream) for _ in range(clients)]
            for client in connections:
                client.running = True
                client.fire()
            while sum(client.requests for client in connections) < count // 2:
                await asyncio.sleep(0.05)
            for client in connections:
                client.transport.abort()

    await send(requests // 10)
    before = resident_bytes(pid)["RssAnon"]
    await send(requests)
    after = resident_bytes(pid)["RssAnon"]
    return {"requests": requests, "mib_before": before / 2**20, "mib_after": after / 2**20, "ratio": after / before}


async def litellm(program: str, directory: str, options: argparse.Namespace) -> dict[str, float]:
    """LiteLLM's proxy, one worker, in front of the upstream at a TCP port; the medians over rounds."""
    far, near = free_port(), free_port()
    params = {"model": "openai/null", "api_base": f"http://127.0.0.1:{far}/v1", "api_key": "none"}
    config = Path(directory) / "litellm.json"  # YAML reads JSON
    config.write_text(json.dumps({"model_list": [{"model_name": "null", "litellm_params": params}]}))
    upstream = subprocess.Popen([sys.executable, str(HERE / "peers" / "null_upstream.py"), "--port", str(far)])
    argv = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(near), "--num_workers", "1"]
    with (Path(directory) / "litellm.log").open("w") as log:
        proxy = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **LITELLM})
    target, bare = ("127.0.0.1", near), ("127.0.0.1", far)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                await (await connect(target, stream=False)).once()
                break
            except OSError:
                if time.monotonic() > deadline or proxy.poll() is not None:
                    raise
                await asyncio.sleep(0.5)
        rounds = []
        for _ in range(options.rounds):
            found = await added_latency(bare, target, options.pairs // 5)
            for stream in (True, False):
                one = await load(target, proxy.pid, stream=stream, clients=options.clients, seconds=options.seconds)
                kind = "streamed" if stream else "whole"
                found |= {f"{kind}_{name.replace('gateway_', '')}": value for name, value in one.items()}
            rounds.append(found)
        return {name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]}
    finally:
        for process in (proxy, upstream):
            process.terminate()
            process.wait(20)


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
            socket = str(socket_in(Path(directory), kind))
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
                    held = await flatness(target, gateway.pid, clients=options.clients, requests=options.flat)
                    results["memory"] = {name: round(value, 3) for name, value in held.items()}
            finally:
                gateway.terminate()
                gateway.wait(20)
        if options.litellm:
            asked = "import importlib.metadata as m; print(m.version('litellm'))"
            python = str(Path(options.litellm).with_name("python"))
            told = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
            results["litellm"] = {"version": told, **await litellm(options.litellm, directory, options)}
        return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--flat", type=int, default=100_000, help="requests over which memory is to be flat")
    parser.add_argument("--litellm", help="the program of LiteLLM's proxy, to be measured in the same run")
    parser.add_argument("--log", default="warning", help="log level of the gateway; info writes a line per request")
    options = parser.parse_args()
    result = {"what": "the gateway before an upstream that answers at once", **uvloop.run(measure(options))}
    packages = {name: version(name) for name in ("uvicorn", "httptools", "uvloop", "aiohttp", "fastapi")}
    print(json.dumps({**result, "packages": packages, **described()}, indent=1))
