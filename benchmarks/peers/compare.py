"""The same load against Perimeter and against llama-server, interleaved, as a ratio with an interval.

    python -m benchmarks.peers.compare --llama-server PATH --model FILE.gguf [--load unshared] [--concurrency 16]

Both servers are up for the whole run, on the same cores with the same number of threads; only one is under load at a
time. A round is A then B (the next one B then A), and a round's figure is the ratio of the two. llama-server runs in
the KV layout that was faster in a first trial of both. Prompts are random and never repeated. Reported: the median
ratio over the rounds and its distribution-free 95% interval (order statistics of the sign test).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp

from benchmarks.machine import described, interval
from serving.synthetic.vocabulary import FIRST, SECOND

READY_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What every client does, again and again."""

    name: str
    shared: int
    """Prompt words that all clients of a round have in common; never those of another round."""
    own: int
    """Prompt words of each request alone."""
    output: int = 64
    """Tokens generated."""
    spread: int = 5
    """Own words vary by this many either way."""


LOADS = {
    load.name: load
    for load in (
        Load("unshared", shared=0, own=110),
        Load("shared-600-110", shared=600, own=110),
        Load("shared-600-25", shared=600, own=25),
        Load("shared-1500-110", shared=1500, own=110),
    )
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One server under one load once."""

    tokens_per_s: float
    ttft_p50_s: float
    ttft_p99_s: float


class Words:
    """Random three-letter words, each one token in the synthetic vocabularies; no text is ever repeated."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def text(self, count: int) -> str:
        """`count` words with a space before each."""
        pick = self._random.choice
        return "".join(f" {pick(FIRST)}{pick(SECOND)}{pick(string.ascii_lowercase)}" for _ in range(count))

    def length(self, load: Load) -> int:
        """Own words of one request."""
        return load.own + self._random.randint(-load.spread, load.spread)


async def ask(session: aiohttp.ClientSession, url: str, model: str, prompt: str, output: int) -> tuple[float, int]:
    """One streamed completion: seconds to the first token's chunk, tokens by the server's own count."""
    began = time.perf_counter()
    first: float | None = None
    tail = b""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": output,
        "temperature": 0.8,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    async with session.post(f"{url}/v1/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{url} answered {response.status}: {(await response.text())[:300]}")
        async for data in response.content.iter_any():
            if first is None and b"data:" in data:
                first = time.perf_counter() - began
            tail = (tail + data)[-4096:]
    tokens = 0
    for line in tail.split(b"\n"):
        if line.startswith(b"data: {") and b'"usage":{' in line.replace(b" ", b""):
            tokens = json.loads(line[6:])["usage"]["completion_tokens"]
    if first is None or tokens != output:
        raise RuntimeError(f"{url}: asked for {output} tokens, got {tokens}")
    return first, tokens


async def measure(
    url: str, load: Load, concurrency: int, requests: int, words: Words, *, unix_socket: Path | None = None
) -> Measured:
    """`concurrency` clients, each asking `requests` times without a pause; over `unix_socket` where one is given."""
    model = await first_model(url, unix_socket)
    shared = words.text(load.shared)
    prompts = [[shared + words.text(words.length(load)) for _ in range(requests)] for _ in range(concurrency)]
    first: list[float] = []
    tokens = 0

    async def client(session: aiohttp.ClientSession, own: Sequence[str]) -> None:
        nonlocal tokens
        for prompt in own:
            ttft, count = await ask(session, url, model, prompt, load.output)
            first.append(ttft)
            tokens += count

    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector_to(unix_socket), timeout=timeout) as session:
        began = time.perf_counter()
        await asyncio.gather(*(client(session, own) for own in prompts))
        took = time.perf_counter() - began
    first.sort()
    return Measured(tokens / took, first[len(first) // 2], first[min(len(first) - 1, math.ceil(0.99 * len(first)) - 1)])


@contextlib.asynccontextmanager
async def server(argv: Sequence[str], ready_url: str, log: Path) -> AsyncIterator[int]:
    """A server process, ready, stopped at the end; yields its pid."""
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(ready_url) as response:
                        if response.status == 200:
                            break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{argv[0]} did not become ready:\n{log.read_text()[-2000:]}")
                await asyncio.sleep(0.1)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peer_command(options: argparse.Namespace, port: int, layout: str) -> list[str]:
    """llama-server as somebody who knows it would start it."""
    return [
        options.llama_server,
        *("-m", str(options.model), "--host", "127.0.0.1", "--port", str(port)),
        *("-np", "16", "-c", str(options.context * 16), "-t", str(options.threads), "-tb", str(options.threads)),
        *("-kvu" if layout == "kvu" else "-no-kvu", "--no-webui", "--metrics"),
    ]


def own_command(options: argparse.Namespace, port: int) -> list[str]:
    """Perimeter, the whole stack: gateway and engine; or the engine alone, to see what the gateway costs."""
    if options.bare_engine:
        return [
            *(sys.executable, "-m", "serving.llamacpp", "--model", str(options.model), "--port", str(port)),
            *("--kv-layout", options.kv_layout or "streams", "--threads", str(options.threads)),
            *("--parallel", "16", "--ctx", str(options.context)),
        ]
    return [
        *(sys.executable, "-m", "serving", "--open", "--model", str(options.model), "--port", str(port)),
        *("--context", str(options.context), "--concurrency", "16", "--json"),
        *(("--kv-layout", options.kv_layout) if options.kv_layout else ()),
    ]


async def compare(options: argparse.Namespace) -> dict[str, object]:
    """All rounds; the result as it is written to disk."""
    load, words = LOADS[options.load], Words(options.seed)
    own_port, peer_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as scratch:
        logs = Path(scratch)
        layout = options.peer_layout or await better_layout(options, load, words, logs)
        own = server(own_command(options, own_port), f"http://127.0.0.1:{own_port}/ready", logs / "own.log")
        peer = server(
            peer_command(options, peer_port, layout), f"http://127.0.0.1:{peer_port}/health", logs / "peer.log"
        )
        urls = {"own": f"http://127.0.0.1:{own_port}", "peer": f"http://127.0.0.1:{peer_port}"}
        rounds: list[dict[str, Measured]] = []
        async with own, peer:
            for url in urls.values():  # warm-up, not counted
                await measure(url, load, options.concurrency, options.requests, words)
            for number in range(options.rounds):
                order = ("own", "peer") if number % 2 == 0 else ("peer", "own")
                rounds.append(
                    {who: await measure(urls[who], load, options.concurrency, options.requests, words) for who in order}
                )
                own_speed, peer_speed = rounds[-1]["own"].tokens_per_s, rounds[-1]["peer"].tokens_per_s
                print(
                    f"round {number + 1}: {own_speed:.0f} against {peer_speed:.0f} tokens/s"
                    f" ({own_speed / peer_speed:.3f}), TTFT p99"
                    f" {rounds[-1]['own'].ttft_p99_s:.3f} against {rounds[-1]['peer'].ttft_p99_s:.3f} s",
                    file=sys.stderr,
                )
    return summary(options, layout, rounds)


async def first_model(url: str, unix_socket: Path | None = None) -> str:
    """The name under which the model is served."""
    connector = connector_to(unix_socket)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"{url}/v1/models") as response:
        return str((await response.json())["data"][0]["id"])


def connector_to(unix_socket: Path | None) -> aiohttp.BaseConnector:
    """Connections without end, each used once: llama-server drops kept ones at will."""
    if unix_socket is not None:
        return aiohttp.UnixConnector(str(unix_socket), limit=0, force_close=True)
    return aiohttp.TCPConnector(limit=0, force_close=True)


async def better_layout(options: argparse.Namespace, load: Load, words: Words, logs: Path) -> str:
    """llama-server's faster KV layout for this load, by one trial of each after a warm-up."""
    found: dict[str, float] = {}
    for layout in ("kvu", "no-kvu"):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        async with server(peer_command(options, port, layout), f"{url}/health", logs / f"{layout}.log"):
            await measure(url, load, options.concurrency, 1, words)
            found[layout] = (await measure(url, load, options.concurrency, options.requests, words)).tokens_per_s
    print(f"llama-server: {found}", file=sys.stderr)
    return max(found, key=lambda layout: found[layout])


def summary(options: argparse.Namespace, layout: str, rounds: Sequence[dict[str, Measured]]) -> dict[str, object]:
    """Figures, and all that is needed to judge or repeat them."""

    def ratios(field: str) -> dict[str, float]:
        values = [getattr(entry["own"], field) / getattr(entry["peer"], field) for entry in rounds]
        low, high = interval(values)
        return {"median": round(sorted(values)[len(values) // 2], 4), "low95": round(low, 4), "high95": round(high, 4)}

    def median(who: str, field: str) -> float:
        values = sorted(getattr(entry[who], field) for entry in rounds)
        return float(round(values[len(values) // 2], 4))

    return {
        "what": "perimeter against llama-server",
        "load": asdict(LOADS[options.load]),
        "concurrency": options.concurrency,
        "model": options.model.name,
        "peer_layout": layout,
        "rounds": len(rounds),
        "throughput_ratio": ratios("tokens_per_s"),
        "ttft_p99_ratio": ratios("ttft_p99_s"),
        "ttft_p50_ratio": ratios("ttft_p50_s"),
        "own": {field: median("own", field) for field in Measured.__dataclass_fields__},
        "peer": {field: median("peer", field) for field in Measured.__dataclass_fields__},
        "samples": [{who: asdict(measured) for who, measured in entry.items()} for entry in rounds],
        "peer_version": version_of(options.llama_server),
        **described(),
    }


def version_of(binary: str) -> str:
    """What the binary says of itself, compiler and flags included."""
    result = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    return " ".join((result.stdout + result.stderr).split())[:300]


def main() -> None:
    """Run and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--load", choices=LOADS, default="unshared")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--requests", type=int, default=2, help="by each client in a round")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--context", type=int, default=2048, help="tokens per sequence")
    parser.add_argument("--kv-layout", choices=("unified", "streams"), help="ours; default: what the planner chooses")
    parser.add_argument("--peer-layout", choices=("kvu", "no-kvu"), help="skip the trial")
    parser.add_argument("--bare-engine", action="store_true", help="without the gateway before it")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    result = asyncio.run(compare(options))
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "samples"}, indent=1))


if __name__ == "__main__":
    main()
