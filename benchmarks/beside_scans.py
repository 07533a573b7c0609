"""What local streams feel of requests that are scanned beside them.

    python -m benchmarks.beside_scans [--seconds 20] [--rounds 7] [--chars 64000] [--gguf FILE]

The whole gateway with keys, audit and an egress process; 16 streams of a key that is enrolled for nothing, before an
upstream that writes a token to each every `--gap-ms` (or the real engine, with `--gguf`); and `--askers` clients of an
enrolled key which send requests of `--chars` characters one after the other, none twice, so that a scan is always
running. Each holds an e-mail address at its end: it is scanned as a whole, remembered, and answered inside.

Each round has five stretches in an order that turns: `without` such requests; `unscanned`, with such requests of a key
that is enrolled for nothing, which are only served; `with` them; and with the worker that scans at the lowest priority,
by `nice` 19 and by `idle` (SCHED_IDLE). Figures are the time from one token to the next as clients see it, by stretch,
and how much more it is than without in the same round. Load, gateway, scans and upstream share the machine's cores.
`*_cpu` are seconds of processor per second, from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.detection import ENGLISH, GERMAN, RUSSIAN
from benchmarks.keyed import NULL_UPSTREAM, SOURCE, Site, site
from benchmarks.machine import cpu_seconds, described, interval, quantile
from benchmarks.wrong_keys import engine_of
from serving.access import Access, Key
from serving.egress.process import begin_taint
from serving.egress.rooms import Rooms
from serving.settings import Settings

STREAMS = 16
_PLACE = b"000000000000"
"""What no two long requests have in common."""
KINDS = ("without", "unscanned", "with", "nice", "idle")
_WORKER = "serving.egress.worker"
POLICY = """
version = 1
cloud = "on"
[residency]
allowed = ["eu"]
[detection]
required = ["numbers"]
[detection.least_recall]
"email" = 0.5
[endpoints]
"chat.completions" = ["model", "messages.role", "messages.content", "max_tokens"]
[classes.work]
destinations = ["vendor"]
residency = ["eu"]
labels = ["email"]
[classes.work.hard]
always = true
[destinations.vendor]
zone = "cloud"
vendor = "openai"
url = "https://localhost:9/v1"
region = "eu"
models = { "null" = "null" }
prices = "vendor"
[destinations.vendor.attestation]
training_opt_out = true
retention_days = 0
dpa = "none: nothing is sent"
expires = 2099-01-01
"""


@dataclass(frozen=True, slots=True)
class Both:
    """A running gateway and the egress process beside it."""

    site: Site
    egress: int
    """Its process id."""
    enrolled: str
    """A key whose requests are scanned."""

    def workers(self) -> list[int]:
        """Processes that scan."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.egress and _WORKER in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
        return found


@contextlib.contextmanager
def both(directory: Path, options: argparse.Namespace) -> Iterator[Both]:
    """Start all of it."""
    directory.chmod(0o700)
    rooms = Rooms(directory / "egress", directory / "egress" / "egress.sock", directory / "egress" / "credentials")
    policy, config = directory / "policy.toml", directory / "serving.toml"
    policy.write_text(POLICY)
    config.write_text(f'[egress]\npolicy = "{policy}"\ndirectory = "{rooms.directory}"\n')
    begin_taint(rooms)
    given = {"access": {"open": False, "directory": str(directory / "access")}}
    access = Access.open(Settings(**given).access, os.environ)
    key = Key("", "enrolled", "key", b"", 0, classes=frozenset({"work"}), residency=frozenset({"eu"}))
    _, enrolled = access.create(key)
    access.close()
    upstream = (*NULL_UPSTREAM, "--gap-ms", str(options.gap_ms), "--chunks", "100000")
    more = {"egress": {"policy": str(policy), "directory": str(rooms.directory)}}
    argv = [sys.executable, "-m", "serving", "egress", "--config", str(config), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise SystemExit("the egress process did not start")
            engine = engine_of(options.gguf) if options.gguf else upstream
            with site(directory, engine, model="null", keys=2, concurrency=STREAMS + options.askers, more=more) as made:
                yield Both(made, process.pid, enrolled)
        finally:
            process.terminate()


def post(key: str, text: str, **fields: object) -> bytes:
    """A chat request."""
    body = json.dumps(
        {"model": "null", "messages": [{"role": "user", "content": text}], **fields}, ensure_ascii=False
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Stream(asyncio.Protocol):
    """A stream that is read, and asked for again where it has ended; when its tokens came is kept."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._last: float | None = None
        self._tail = b""
        self._has_begun = False
        self.gaps: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._message)  # type: ignore[attr-defined] # TCP's has it

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self._has_begun and not data.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"an answer that is no 200: {data[:300]!r}")
        self._has_begun = True
        count = data.count(b"data: {")
        if count:
            if self._last is not None:
                self.gaps += [now - self._last, *[0.0] * (count - 1)]
            self._last = now
        self._tail = (self._tail + data)[-8:]
        if self._tail.endswith(b"\r\n0\r\n\r\n"):
            self._last, self._tail, self._has_begun = None, b"", False
            self.transport.write(self._message)  # type: ignore[attr-defined]


async def asker(address: tuple[str, int], message: bytes, pace_s: float, took: list[tuple[float, float]]) -> None:
    """Long requests, one after the other, no two alike; when each was answered, and how long it took."""
    reader, writer = await asyncio.open_connection(*address)
    while True:
        began = time.monotonic()
        writer.write(message.replace(_PLACE, os.urandom(len(_PLACE) // 2).hex().encode()))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        if head[9:12] not in (b"200", b"400"):  # the real engine has no room for so long a prompt
            raise SystemExit(f"a long request was answered with {head[9:12]!r}")
        ended = time.monotonic()
        took.append((ended, ended - began))
        await asyncio.sleep(max(0.0, pace_s - (ended - began)))


async def askers(address: tuple[str, int], key: str, chars: int, count: int, pace_s: float) -> None:
    """A process of its own, so that it takes no time of the one that measures. It ends when its input does."""
    piece = ENGLISH + GERMAN + RUSSIAN
    page = (piece * (chars // len(piece) + 1))[: chars - 80]
    text = f"Page {_PLACE.decode()}. {page} Write to maria.keller@example-bank.de."
    message = post(key, text, max_tokens=1)
    took: list[tuple[float, float]] = []
    asking = [asyncio.create_task(asker(address, message, pace_s, took)) for _ in range(count)]
    while len(took) < count:
        await asyncio.wait(asking, timeout=0.05)
        for task in asking:
            if task.done():
                task.result()
    print("begun", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in asking:
        task.cancel()
    print(json.dumps(took))


def ask_on(made: Both, options: argparse.Namespace, kind: str) -> subprocess.Popen[str] | None:
    """Clients with long requests, and a worker that has begun to scan theirs at the priority of this kind."""
    if kind == "without":
        return None
    for pid in made.workers():  # a priority is never raised again: the next one begins with the usual one
        os.kill(pid, signal.SIGKILL)
    key = made.site.keys[1] if kind == "unscanned" else made.enrolled
    given = [made.site.address, key, options.chars, options.askers, options.pace_s]
    argv = [sys.executable, "-m", "benchmarks.beside_scans", "--ask", json.dumps(given)]
    asking = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=SOURCE)
    if asking.stdout is None or asking.stdout.readline() != "begun\n":
        raise SystemExit("no long request was answered")
    for pid in made.workers():
        if kind == "nice":
            os.setpriority(os.PRIO_PROCESS, pid, 19)
        elif kind == "idle":
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    return asking


async def stretch(made: Both, options: argparse.Namespace, kind: str) -> dict[str, float]:
    """Streams for a while, with scans beside them or without."""
    loop = asyncio.get_running_loop()
    message = post(made.site.keys[0], "What is the answer?", stream=True, max_tokens=64 if options.gguf else 4096)
    asking = ask_on(made, options, kind)
    streams = [(await loop.create_connection(lambda: Stream(message), *made.site.address))[1] for _ in range(STREAMS)]
    await asyncio.sleep(1.0)  # all have begun
    for each in streams:
        each.gaps.clear()
    pids = {"worker": made.workers(), "egress": [made.egress], "gateway": [made.site.pid]}
    before = {name: sum(map(cpu_seconds, found)) for name, found in pids.items()}
    began = time.monotonic()
    await asyncio.sleep(options.seconds)
    lasted = time.monotonic() - began
    gaps = [gap for each in streams for gap in each.gaps]
    cpu = {f"{name}_cpu": (sum(map(cpu_seconds, found)) - before[name]) / lasted for name, found in pids.items()}
    told = "[]" if asking is None else asking.communicate("")[0]
    took = [each for ended, each in json.loads(told) if began <= ended <= began + lasted]
    for each in streams:
        each.transport.abort()  # type: ignore[attr-defined]
    await asyncio.sleep(0.3)
    return {
        "p50_ms": statistics.median(gaps) * 1e3,
        "p99_ms": quantile(gaps, 0.99) * 1e3,
        "most_ms": max(gaps) * 1e3,
        "tokens": len(gaps),
        "scans_per_s": len(took) / lasted,
        "scan_p50_ms": statistics.median(took) * 1e3 if took else 0.0,
        **cpu,
    }


async def measure(options: argparse.Namespace, made: Both) -> dict[str, Any]:
    """All rounds, and the medians of each figure with its interval."""
    rounds = []
    for number in range(options.rounds):
        turned = [*KINDS[number % len(KINDS) :], *KINDS[: number % len(KINDS)]]
        rounds.append({kind: await stretch(made, options, kind) for kind in turned})
    median, spread = {}, {}
    for kind in KINDS:
        columns = {name: [one[kind][name] for one in rounds] for name in rounds[0]["without"]}
        if kind != "without":
            for name in ("p50_ms", "p99_ms"):
                columns[f"{name[:3]}_growth_ms"] = [one[kind][name] - one["without"][name] for one in rounds]
        median[kind] = {name: round(statistics.median(values), 3) for name, values in columns.items()}
        spread[kind] = {name: [round(end, 3) for end in interval(values)] for name, values in columns.items()}
    return {"median": median, "interval": spread, "rounds": rounds}


def main() -> None:
    """Measure and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--chars", type=int, default=64_000)
    parser.add_argument("--askers", type=int, default=2, help="clients with long requests: two, so that one waits")
    parser.add_argument("--pace-s", type=float, default=0.1, help="least time from one long request to the next")
    parser.add_argument("--gap-ms", type=float, default=25.0, help="between two tokens of a stream, as they are made")
    parser.add_argument("--gguf", help="weights that the real engine answers with, in place of the upstream")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        address, *rest = json.loads(options.ask)
        uvloop.run(askers(tuple(address), *rest))
        return
    with tempfile.TemporaryDirectory(prefix="b") as name, both(Path(name), options) as made:
        result = {"what": (__doc__ or "").splitlines()[0], **uvloop.run(measure(options, made))}
    print(json.dumps({**result, **described()}, indent=1))


if __name__ == "__main__":
    main()
