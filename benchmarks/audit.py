"""What the audit log costs: an intent's wait beyond the disk's own, and processor time of a request.

`python -m benchmarks.audit [DIRECTORY]`: in a directory of the disk that is meant; in memory (/dev/shm) the processor
alone is measured. A request is an intent that is waited for, an outcome, and a fingerprint of each side, as the gateway
does it; the same loop without the log stands beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from serving.audit import Audit, Places
from serving.audit.chain import Link, write_entry
from serving.audit.keys import make_keys
from serving.audit.records import Intent, Outcome, body_of

REQUESTS = 20_000
PROMPT = b"x" * 2000
Request = Callable[[], Awaitable[None]]


def intent(prompt: str) -> Intent:
    return Intent(
        request="req-0123456789abcdef",
        route="chat.completions",
        principal="team-a",
        key="k_0123456789",
        source="10.0.0.7",
        model="llama3.1-8b",
        weights="a" * 64,
        engine="llama3.1-8b#0",
        destination="local",
        reasons=("policy:default",),
        prompt=prompt,
        output_limit=256,
        stream=True,
    )


def outcome(number: int | None, answer: str) -> Outcome:
    return Outcome(
        intent=number,
        request="req-0123456789abcdef",
        outcome="completed",
        status=200,
        prompt_tokens=20,
        cached_tokens=3,
        output_tokens=17,
        is_estimated=False,
        answer=answer,
        duration_us=123_456,
    )


def own_s() -> float:
    """Processor time that was spent in this process's own code; the kernel's is the disk's."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


async def load(clients: int, request: Request) -> dict[str, float]:
    waits: list[float] = []
    each = max(20, REQUESTS // max(clients, 8))

    async def client() -> None:
        for _ in range(each):
            began = time.perf_counter()
            await request()
            waits.append(time.perf_counter() - began)

    began, spent = time.perf_counter(), own_s()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall, spent = time.perf_counter() - began, own_s() - spent
    count = clients * each
    return {
        "clients": clients,
        "requests_per_s": round(count / wall),
        "median_ms": round(statistics.median(waits) * 1e3, 3),
        "own_us_per_request": round(spent / count * 1e6, 1),
    }


def disk_ms(directory: Path) -> float:
    """Milliseconds that one write of a record takes to be durable."""
    path = directory / "floor"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
    times = []
    for place in range(300):
        began = time.perf_counter()
        os.pwrite(descriptor, b"x" * 700, place * 700)
        times.append(time.perf_counter() - began)
    os.close(descriptor)
    return round(statistics.median(times) * 1e3, 3)


def form_us() -> float:
    """Microseconds to form and chain one record, without queue, disk or waiting."""
    record, link = intent("b" * 64), Link()
    began = time.perf_counter()
    for _ in range(REQUESTS):
        _, link = write_entry(link, "2026-01-31T12:34:56.000000Z", body_of(record))
    return round((time.perf_counter() - began) / REQUESTS * 1e6, 2)


async def measure(audit: Audit) -> list[dict[str, float]]:
    async def audited() -> None:
        number = await audit.intent(intent(audit.fingerprints.of("prompt", PROMPT)))
        audit.outcome(outcome(number, audit.fingerprints.of("answer", PROMPT)))

    loop = asyncio.get_running_loop()

    async def bare() -> None:
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn

    rows = []
    for clients in (1, 16, 64, 256):
        without, row = await load(clients, bare), await load(clients, audited)
        row["own_us_per_request"] = round(row["own_us_per_request"] - without["own_us_per_request"], 1)
        rows.append(row)
    return rows


def main() -> None:
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=parent) as name:
        directory = Path(name)
        places = Places(directory / "log", directory / "signing.key", directory / "fingerprint.key")
        make_keys(places.signing_key, places.fingerprint_key)
        audit = Audit.open(places, version="benchmark")
        rows = uvloop.run(measure(audit))
        audit.close()
        result = {"disk_write_median_ms": disk_ms(directory), "form_us_per_record": form_us(), "rows": rows}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
