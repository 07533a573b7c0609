"""What a flood of wrong keys does to those who have right ones.

    python -m benchmarks.wrong_keys [--seconds 60] [--rounds 5] [--rate 1000] [--clients 4] [--pace 100] [--gguf FILE]

The whole gateway with keys and audit on, before an upstream that answers at once, or before the real engine (`--gguf`).
Authenticated requests arrive at `--pace` per second over `--clients` kept connections, timed from when they were due:
a server which falls behind shows it. Each round has three stretches, in an order that turns: without a flood, with
it, and with the same flood at another gateway beside this one. Load, flood, gateways and upstreams share the machine's
cores, so the third tells what of the loss is the machine's: `p99_ratio` is with the flood to beside it,
`p99_ratio_alone` with it to none at all.

Wrong keys arrive at `--rate` per second, paced, from 64 addresses of 127.0.0.0/8, in three kinds by turn: well made and
unknown, the id of a key that exists with another secret, and no key at all; over kept connections, or each over a new
one (`--fresh`). The flood comes from a process of its own. `gateway_cpu_us_per_wrong_key` is the gateway's alone, from
/proc. The audit's growth is what is on the disk after each flood, less what authenticated requests wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.keyed import NULL_UPSTREAM, Site, site
from benchmarks.machine import cpu_seconds, described, interval, quantile
from serving.access.keys import new_key

SOURCES = 64


def post(key: str | None) -> bytes:
    """A small chat request."""
    body = json.dumps({"model": "null", "messages": [{"role": "user", "content": "What is the answer?"}]}).encode()
    shown = "" if key is None else f"authorization: Bearer {key}\r\n"
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{shown}content-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> tuple[int, bool]:
    """Send it, read the whole answer: its status, and whether the connection is kept."""
    writer.write(message)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head[9:12]), b"connection: close" not in head


async def paced(count: int, rate: float, clients: int, one: object) -> None:
    """Call `one(number, due)` for each of `count` moments; a client that is late goes on at once."""
    began = time.monotonic()
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await one(number, due)  # type: ignore[operator]

    await asyncio.gather(*(client() for _ in range(clients)))


async def flood(address: tuple[str, int], known: str, *, rate: float, seconds: float, fresh: bool) -> dict[str, float]:
    """Wrong keys; how many were answered, and with what."""
    statuses: dict[int, int] = {}
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    secret = new_key()[1].rpartition("_")[2]
    wrong = [post(new_key()[1]), post(f"{known.rpartition('_')[0]}_{secret}"), post(None)]
    opened = 0

    async def one(number: int, _due: float) -> None:
        nonlocal opened
        while True:
            is_new = fresh or not idle
            if is_new:
                source = f"127.0.{1 + opened % SOURCES // 16}.{1 + opened % 16}"
                opened += 1
                idle.append(await asyncio.open_connection(*address, local_addr=(source, 0)))
            pair = idle.pop()
            try:
                status, is_kept = await exchange(*pair, wrong[number % 3])
                break
            except (asyncio.IncompleteReadError, ConnectionError):
                await close(pair[1])  # it was not used for a while, and the server has ended it
                if is_new:
                    raise
        statuses[status] = statuses.get(status, 0) + 1
        if is_kept and not fresh:
            idle.append(pair)
        else:
            await close(pair[1])

    began = time.monotonic()
    await paced(int(rate * seconds), rate, SOURCES, one)
    took = time.monotonic() - began
    for _, writer in idle:
        await close(writer)
    answered = sum(statuses.values())
    return {"answered": answered, "per_s": answered / took, "opened": opened} | {
        f"status_{status}": count for status, count in statuses.items()
    }


async def right(address: tuple[str, int], key: str, *, rate: float, seconds: float, clients: int) -> list[float]:
    """Seconds from when each authenticated request was due to its answer. Raises where one is not served."""
    pairs = [await asyncio.open_connection(*address) for _ in range(clients)]
    message, took = post(key), []

    async def one(_number: int, due: float) -> None:
        pair = pairs.pop(0)  # by turns, so that none is idle for so long that the server ends it
        status, _ = await exchange(*pair, message)
        took.append(time.monotonic() - due)
        pairs.append(pair)
        if status != 200:
            raise SystemExit(f"an authenticated request was answered with {status}")

    await paced(int(rate * seconds), rate, clients, one)
    for _, writer in pairs:
        await close(writer)
    return took


async def close(writer: asyncio.StreamWriter) -> None:
    """End a connection; the other side may have done it first."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def disk_bytes(directory: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.stat().st_size for path in directory.iterdir())


def stretch(served: Site, options: argparse.Namespace, flooded: Site | None) -> dict[str, float]:
    """One stretch of authenticated load on `served`, beside a flood of wrong keys where one is to be `flooded`."""
    found: dict[str, float] = {}
    before, cpu = disk_bytes(served.audit), cpu_seconds(served.pid)
    process = None
    if flooded is not None:
        given = [flooded.address, flooded.keys[1], options.rate, options.seconds + 1, options.fresh]
        argv = [sys.executable, "-m", "benchmarks.wrong_keys", "--flood", json.dumps(given)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)  # it has begun
    load = right(served.address, served.keys[0], rate=options.pace, seconds=options.seconds, clients=options.clients)
    took = uvloop.run(load)
    if process is not None:
        found = {f"flood_{name}": value for name, value in json.loads(process.communicate()[0]).items()}
    return {
        **found,
        "p50_ms": statistics.median(took) * 1e3,
        "p99_ms": quantile(took, 0.99) * 1e3,
        "served": len(took),
        "gateway_cpu_s": cpu_seconds(served.pid) - cpu,
        "audit_bytes": disk_bytes(served.audit) - before,
    }


def engine_of(gguf: str | None) -> tuple[str, ...]:
    """The command line of what answers."""
    if gguf is None:
        return NULL_UPSTREAM
    engine = (sys.executable, "-m", "serving.llamacpp", "--model", str(Path(gguf).absolute()), "--alias", "null")
    return (*engine, "--parallel", "16", "--ctx", "512", "--threads", "1")


def one_round(served: Site, other: Site, options: argparse.Namespace, number: int) -> dict[str, float]:
    """The three stretches and their ratios."""
    kinds = {"without": None, "with": served, "beside": other}
    order = [*kinds][number % 3 :] + [*kinds][: number % 3]
    found = {kind: stretch(served, options, kinds[kind]) for kind in order}
    without, flooded, beside = found["without"], found["with"], found["beside"]
    each = without["audit_bytes"] / without["served"]
    spent = flooded["gateway_cpu_s"] - without["gateway_cpu_s"]
    return {f"{kind}_{name}": value for kind, values in found.items() for name, value in values.items()} | {
        "p50_ratio": flooded["p50_ms"] / beside["p50_ms"],
        "p99_ratio": flooded["p99_ms"] / beside["p99_ms"],
        "p99_ratio_alone": flooded["p99_ms"] / without["p99_ms"],
        "audit_growth_bytes": flooded["audit_bytes"] - each * flooded["served"],
        "gateway_cpu_us_per_wrong_key": spent / flooded["flood_answered"] * 1e6,
    }


def measure(options: argparse.Namespace) -> dict[str, object]:
    """All rounds, and the medians of each figure with its interval."""
    with contextlib.ExitStack() as stack:
        served, other = (
            stack.enter_context(
                site(Path(stack.enter_context(tempfile.TemporaryDirectory())), argv, model="null", keys=2)
            )
            for argv in (engine_of(options.gguf), NULL_UPSTREAM)
        )
        uvloop.run(right(served.address, served.keys[0], rate=options.pace, seconds=1, clients=options.clients))
        rounds = [one_round(served, other, options, number) for number in range(options.rounds)]
    shown = ("p50_ratio", "p99_ratio", "p99_ratio_alone", "audit_growth_bytes", "gateway_cpu_us_per_wrong_key")
    shown += tuple(f"{kind}_{name}_ms" for kind in ("without", "with", "beside") for name in ("p50", "p99"))
    columns = {name: [one[name] for one in rounds] for name in (*shown, "with_flood_per_s")}
    return {
        "what": __doc__.splitlines()[0],
        "median": {name: round(statistics.median(values), 3) for name, values in columns.items()},
        "interval": {name: [round(end, 3) for end in interval(values)] for name, values in columns.items()},
        "rounds": rounds,
    }


def options_of(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1000.0, help="wrong keys per second")
    parser.add_argument("--pace", type=float, default=100.0, help="authenticated requests per second")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--gguf", help="weights that the real engine answers with, in place of the upstream")
    parser.add_argument("--fresh", action="store_true", help="each wrong key over a new connection")
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main() -> None:
    """Measure, or be the flood."""
    options = options_of()
    if options.flood:
        address, known, rate, seconds, fresh = json.loads(options.flood)
        print(json.dumps(uvloop.run(flood((address[0], address[1]), known, rate=rate, seconds=seconds, fresh=fresh))))
        return
    print(json.dumps({**measure(options), **described()}, indent=1))


if __name__ == "__main__":
    main()
