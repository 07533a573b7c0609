"""What one key that keeps the queue full does to another key's time to the first token.

    python -m benchmarks.fair --model FILE [--parallel 4] [--queue 64] [--asks 60] [--tokens 64] [--rounds 5]

Each round, against one gateway with the real engine behind it:

- idle: one key asks, one request at a time; its TTFT;
- full: another key keeps `--queue` requests in flight meanwhile, each begun anew when it ends;
- in line: the same load, and who asks uses the key that fills the queue: what it would be in order of arrival.

A *scheduling round* is what it takes until a place is free: the gaps between two ends of the other key's requests.
`rounds_waited` counts the ends that were seen between sending a request and its first token: 1 is the place that it
took. One more is an end in the same step, or one that came before the request was read. All over loopback; load,
gateway and engine share the machine's cores, so the idle TTFT is the machine's too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmarks.keyed import Site, site
from benchmarks.machine import described, interval, quantile


def request(key: str, *, model: str, text: str, tokens: int) -> bytes:
    """A streamed completion of exactly that many tokens."""
    asked = {"model": model, "prompt": text, "max_tokens": tokens, "stream": True, "ignore_eos": True}
    body = json.dumps({**asked, "temperature": 0}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Answered(Exception):
    """Something other than a stream came."""


async def ask(address: tuple[str, int], message: bytes) -> tuple[float, float, float]:
    """When it was sent, when its first token was there, and when it had ended."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        sent = time.monotonic()
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise Answered((head + await reader.read(500)).decode("utf-8", "replace"))
        data = b""
        while b"data: " not in data:
            data += await reader.readline()
        first = time.monotonic()
        while not data.endswith(b"\r\n0\r\n\r\n"):
            more = await reader.read(65536)
            if not more:
                raise Answered("the answer was cut")
            data = (data + more)[-16:]
        return sent, first, time.monotonic()
    finally:
        writer.close()


@dataclass
class Crowd:
    """Requests of one key, so many at a time, each begun anew when it ends, or is refused where that `may_be`."""

    may_be_refused: bool = False
    refused: int = 0
    ends: list[float] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self, address: tuple[str, int], key: str, count: int, *, model: str, tokens: int) -> None:
        async def repeat(number: int) -> None:
            turn = 0
            while True:
                turn += 1
                text = f"request {number} and turn {turn} of a crowd"
                length = tokens + number % 7  # so that they do not end together
                message = request(key, model=model, text=text, tokens=length)
                try:
                    self.ends.append((await ask(address, message))[2])
                except Answered:
                    if not self.may_be_refused:
                        raise
                    self.refused += 1
                    await asyncio.sleep(0.02)

        self.tasks = [asyncio.create_task(repeat(number)) for number in range(count)]

    async def leave(self) -> None:
        for task in self.tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


@dataclass(frozen=True, slots=True)
class Waits:
    """What one key saw, request by request."""

    ttft_s: list[float]
    ends: list[int]
    """Ends of the crowd's requests between sending and the first token."""


async def single(served: Site, key: str, count: int, *, model: str, tokens: int, crowd: Crowd) -> Waits:
    """One request after another."""
    waits = Waits([], [])
    for number in range(count):
        message = request(key, model=model, text=f"a single request, number {number}", tokens=tokens)
        sent, first, _ = await ask(served.address, message)
        waits.ttft_s.append(first - sent)
        waits.ends.append(sum(sent < end < first for end in crowd.ends))
    return waits


async def one_round(served: Site, options: argparse.Namespace) -> dict[str, float]:
    """Idle, beside a full queue, and in the line of it."""
    busy, other = served.keys
    model, tokens = options.alias, options.tokens
    idle = await single(served, other, options.asks, model=model, tokens=8, crowd=Crowd())
    crowd = Crowd()
    crowd.begin(served.address, busy, options.queue, model=model, tokens=tokens)
    while len(crowd.ends) < 2 * options.parallel:
        if any(task.done() for task in crowd.tasks):
            break
        await asyncio.sleep(0.05)
    began, before = time.monotonic(), len(crowd.ends)
    full = await single(served, other, options.asks, model=model, tokens=8, crowd=crowd)
    took, ended = time.monotonic() - began, len(crowd.ends) - before
    gaps = [later - earlier for earlier, later in zip(crowd.ends[before:], crowd.ends[before + 1 :], strict=False)]
    in_line = await single(served, busy, max(2, options.asks // 20), model=model, tokens=8, crowd=crowd)
    await crowd.leave()
    return {
        "idle_p50_ms": statistics.median(idle.ttft_s) * 1e3,
        "idle_p99_ms": quantile(idle.ttft_s, 0.99) * 1e3,
        "full_p50_ms": statistics.median(full.ttft_s) * 1e3,
        "full_p99_ms": quantile(full.ttft_s, 0.99) * 1e3,
        "in_line_p50_ms": statistics.median(in_line.ttft_s) * 1e3,
        "round_p50_ms": statistics.median(gaps) * 1e3,
        "round_p99_ms": quantile(gaps, 0.99) * 1e3,
        "rounds_waited_p50": statistics.median(full.ends),
        "rounds_waited_p99": quantile(full.ends, 0.99),
        "rounds_waited_in_line_p50": statistics.median(in_line.ends),
        "crowd_requests_per_s": ended / took,
        "beyond_idle_in_rounds": (quantile(full.ttft_s, 0.99) - quantile(idle.ttft_s, 0.99)) / quantile(gaps, 0.99),
    }


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Every round, and the medians with their intervals."""
    argv = [
        sys.executable,
        "-m",
        "serving.llamacpp",
        "--model",
        str(Path(options.model).absolute()),
        "--alias",
        options.alias,
    ]
    argv += ["--parallel", str(options.parallel), "--ctx", "512", "--threads", str(options.threads)]
    with tempfile.TemporaryDirectory() as directory:
        waiting = {"OMP_WAIT_POLICY": "passive"}
        with site(
            Path(directory), argv, model=options.alias, keys=2, concurrency=options.parallel, environment=waiting
        ) as served:
            rounds = [uvloop.run(one_round(served, options)) for _ in range(options.rounds)]
    medians = {name: round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]}
    bounds = {name: [round(end, 2) for end in interval([one[name] for one in rounds])] for name in rounds[0]}
    return {"what": __doc__.splitlines()[0], "median": medians, "interval": bounds, "rounds": rounds}


def options_of(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--alias", default="m")
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--asks", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(argv)


if __name__ == "__main__":
    print(json.dumps({**measure(options_of()), **described()}, indent=1))
