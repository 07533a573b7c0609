"""What one process of `serve bench` drives: 1,000 streams, before a server that computes nothing.

    python -m benchmarks.client [--clients 1000] [--gap-ms 45]

The server has the last core, the client the others; it is one process, so it has one of them. Each stream gets a token
every so many milliseconds, as an engine would write them. The result says whether the client could keep up, by the same
limits as any other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.machine import described
from serving.bench.record import read_result

ROOT = Path(__file__).parents[1]
TOKENS = 64
SCENARIO = """
title = "Many streams"
requests = {requests}
warm_up = {clients}
[load]
kind = "closed"
clients = {clients}
[prompt]
kind = "fixed"
tokens = 30
[output]
kind = "fixed"
tokens = {tokens}
"""


def measure(clients: int, gap_ms: float, rounds: int) -> dict[str, object]:
    """One run."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        requests = clients * rounds
        (place / "s.toml").write_text(SCENARIO.format(clients=clients, requests=requests, tokens=TOKENS))
        os.sched_setaffinity(0, cores[-1:])
        server = [sys.executable, "-m", "benchmarks.peers.null_upstream", "--gap-ms", str(gap_ms), "--port", "18765"]
        with subprocess.Popen([*server, "--chunks", str(TOKENS)], cwd=ROOT, stdout=subprocess.DEVNULL) as upstream:
            os.sched_setaffinity(0, cores[:-1] or cores)
            try:
                until_ready("http://127.0.0.1:18765/ready")
                argv = [sys.executable, "-m", "serving", "bench", "run", str(place / "s.toml"), "--processes", "1"]
                argv += ["--url", "http://127.0.0.1:18765", "--model", "null", "-o", str(place / "r.json")]
                subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            finally:
                upstream.terminate()
        (stage,) = read_result(place / "r.json").stages
    speed = stage.rates.output_tokens_per_s
    return {
        "what": "one process of serve bench before a server that computes nothing",
        "clients": clients,
        "completed": stage.requests.completed,
        "streams": max(part.running for part in stage.timeline),
        "tokens_per_s": 0.0 if speed is None else speed.value,
        "cpu_share": stage.trust.cpu_share,
        "loop_lag_p99_ms": 1000 * (stage.trust.loop_lag_p99_s or 0.0),
        "doubts": len(stage.trust.doubts),
        "said": stage.trust.doubts,
        **described(),
    }


def until_ready(url: str) -> None:
    """Return once it answers."""
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def main() -> None:
    """Run and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--gap-ms", type=float, default=45.0)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    print(json.dumps(measure(options.clients, options.gap_ms, options.rounds), indent=1))


if __name__ == "__main__":
    main()
