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
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.audit import disk_ms
from benchmarks.machine import described
from benchmarks.relay import HERE, SOURCE, connect, load
from serving.access import Access, Key, Limits
from serving.engines.runtime import socket_in
from serving.settings import Access as AccessSettings

GATEWAY = """
import json, os, sys
from pathlib import Path
from serving.engines.spec import EngineSpec
from serving.gateway.config import GatewayConfig
from serving.gateway.guard import open_guard
from serving.gateway.run import serve
from serving.settings import Settings
from serving.telemetry import logs
class Listener:
    def on_progress(self, *_): pass
    def on_ready(self, url): print(url, flush=True)
    def on_engine_event(self, text): print(text, file=sys.stderr)
    def on_drain(self): pass
logs.setup("json", "warning")
spec = EngineSpec("null", "llamacpp", tuple(json.loads(sys.argv[1])), (("PATH", "/usr/bin:/bin"),), Path(sys.argv[2]))
with open_guard(Settings.model_validate(json.loads(sys.argv[3]))) as guard:
    sys.exit(serve([spec], GatewayConfig(port=0), Listener(), guard=guard))
"""
LIMITS = Limits(requests_per_minute=10**8, tokens_per_minute=10**12, tokens_per_day=10**14, concurrency=10**5)
"""So many that each is counted and none is in the way."""


class Gateway:
    """A gateway before a null upstream of its own."""

    def __init__(self, directory: Path, settings: dict[str, Any], key: str | None) -> None:
        socket = str(socket_in(directory, "upstream"))
        upstream = [sys.executable, str(HERE / "peers" / "null_upstream.py"), "--uds", socket]
        self.process = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, json.dumps(upstream), socket, json.dumps(settings)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            text=True,
        )
        url = self.process.stdout.readline().strip() if self.process.stdout else ""
        host, _, port = url.removeprefix("http://").partition(":")
        self.target = (host, int(port))
        self.key = key

    @property
    def head(self) -> str:
        """What its clients send besides."""
        return "" if self.key is None else f"authorization: Bearer {self.key}\r\n"

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


async def alternate(bare: Gateway, guarded: Gateway, count: int) -> tuple[float, float]:
    """Median milliseconds of single requests to each, taken in turn."""
    clients = [await connect(each.target, stream=False, head=each.head) for each in (bare, guarded)]
    pairs = [[await client.once() for client in clients] for _ in range(count)][count // 10 :]
    for client in clients:
        client.transport.abort()
    first, second = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    return first, second


async def measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    (directory / "bare").mkdir(mode=0o700)
    (directory / "guarded").mkdir(mode=0o700)
    access = {"open": False, "directory": str(directory / "access")}
    with_access = Access.open(AccessSettings.model_validate(access), os.environ)
    _, key = with_access.create(Key("", "benchmark", "key", b"", 0, limits=LIMITS))
    with_access.close()
    audit = {
        "enabled": True,
        "directory": str(directory / "audit"),
        "signing_key": str(directory / "keys" / "signing.key"),
        "fingerprint_key": str(directory / "keys" / "fingerprint.key"),
    }
    bare = Gateway(directory / "bare", {"access": {"open": True}, "audit": {"enabled": False}}, None)
    guarded = Gateway(directory / "guarded", {"access": access, "audit": audit}, key)
    results: dict[str, Any] = {}
    try:
        for clients in options.clients:
            for stream in (False, True):
                rounds: list[tuple[dict[str, float], dict[str, float]]] = []
                for at in range(options.rounds):
                    both = {}
                    for each in (bare, guarded) if at % 2 else (guarded, bare):
                        both[each] = await load(
                            each.target,
                            each.process.pid,
                            stream=stream,
                            clients=clients,
                            seconds=options.seconds,
                            head=each.head,
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
    finally:
        bare.close()
        guarded.close()
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
