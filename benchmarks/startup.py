"""Seconds from the command `serve --model demo` to its first token.

python -m benchmarks.startup [--rounds 5]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

from benchmarks.machine import described
from benchmarks.peers.compare import free_port

DEADLINE_S = 60.0


def first_token(model: str) -> float:
    """One start, timed to the first byte of the first answer."""
    port = free_port()
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1}).encode()
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", "--open", "--model", model, "--port", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        while time.perf_counter() - began < DEADLINE_S:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/completions", body, {"content-type": "application/json"}
            )
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
                    response.read(1)
                return time.perf_counter() - began
            threading.Event().wait(0.01)
        raise TimeoutError(f"no token within {DEADLINE_S:g} s")
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Start several times and print the median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    first_token(options.model)  # warms the disk cache
    seconds = [first_token(options.model) for _ in range(options.rounds)]
    result = {"what": "command to first token", "median_s": statistics.median(seconds), "max_s": max(seconds)}
    print(json.dumps({**result, **described()}, indent=1))


if __name__ == "__main__":
    main()
