"""What keys, quotas and the audit log cost together, in front of an upstream that computes nothing.

    python -m benchmarks.access [--seconds 3] [--rounds 7] [--clients 16 64] [--directory DIRECTORY]

Two gateways run side by side, one open and without a record, one with both; ledger and log are in `--directory`, which
is to be on the disk that is meant. Measured in turns, so that a slow second of the machine touches both:

- requests per second, whole and streamed, and their ratio;
- processor time of the gateway's processes per request, from /proc;
- the latency of single requests, and how long the same disk takes to make one record durable: the rest is ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.audit import disk_ms
from benchmarks.keyed import NULL_UPSTREAM, Site, site
from benchmarks.machine import described
from benchmarks.relay import connect, load
from serving.access import Limits

LIMITS = Limits(requests_per_minute=10**8, tokens_per_minute=10**12, tokens_per_day=10**14, concurrency=10**5)
"""So many that each is counted and none is in the way."""


def head_of(site: Site) -> str:
    """What its clients send besides."""
    return "".join(f"authorization: Bearer {key}\r\n" for key in site.keys[:1])


async def alternate(bare: Site, guarded: Site, count: int) -> tuple[float, float]:
    """Median milliseconds of single requests to each, taken in turn."""
    clients = [await connect(each.address, stream=False, head=head_of(each)) for each in (bare, guarded)]
    pairs = [[await client.once() for client in clients] for _ in range(count)][count // 10 :]
    for client in clients:
        client.transport.abort()
    first, second = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    return first, second


async def measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        sites = []
        for is_open in (True, False):
            place = directory / ("open" if is_open else "guarded")
            place.mkdir()
            opened = site(place, NULL_UPSTREAM, model="null", keys=not is_open, account=LIMITS, is_open=is_open)
            sites.append(stack.enter_context(opened))
        return await compare(options, *sites, directory)


async def compare(options: argparse.Namespace, bare: Site, guarded: Site, directory: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for clients in options.clients:
        for stream in (False, True):
            rounds: list[tuple[dict[str, float], dict[str, float]]] = []
            for at in range(options.rounds):
                both = {}
                for each in (bare, guarded) if at % 2 else (guarded, bare):
                    both[each] = await load(
                        each.address,
                        each.pid,
                        stream=stream,
                        clients=clients,
                        seconds=options.seconds,
                        head=head_of(each),
                    )
                rounds.append((both[bare], both[guarded]))
            ratios = sorted(b["requests_per_s"] / a["requests_per_s"] for a, b in rounds)
            results[f"{'streamed' if stream else 'whole'}_{clients}"] = {
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(each, 3) for each in ratios],
                "bare": {name: round(statistics.median(a[name] for a, _ in rounds), 1) for name in rounds[0][0]},
                "guarded": {name: round(statistics.median(b[name] for _, b in rounds), 1) for name in rounds[0][0]},
            }
    latencies = [await alternate(bare, guarded, options.pairs) for _ in range(3)]
    first, second = (statistics.median(column) for column in zip(*latencies, strict=True))
    commit = disk_ms(directory)
    results["latency"] = {
        "bare_ms": round(first, 3),
        "guarded_ms": round(second, 3),
        "disk_ms": commit,
        "beyond_ms": round(second - first - commit, 3),
    }
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--directory", help="a directory of the disk that ledger and log are to be on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        result = {"what": "keys, quotas and the audit log", **uvloop.run(measure(options, Path(name)))}
    print(json.dumps({**result, **described()}, indent=1))
