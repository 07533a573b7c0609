"""What clients see when a process is killed: `kill -9` of the engine under 16 streams, then of the gateway.

    python -m benchmarks.death [--model demo] [--rounds 3]

Worst values over the rounds: seconds until every stream had its error event, streams that were not told, answers other
than 503 with Retry-After until the engine was back, seconds to the next success, and, after the gateway's death,
processes alive 5 s later and bytes of memory not given back.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.machine import described
from benchmarks.peers.compare import free_port
from serving.engines.runtime import identify

STREAMS = 16
START_S, END_S = 120.0, 30.0


@dataclass
class Stream:
    """One client in the middle of an answer."""

    url: str
    model: str
    begun: threading.Event = field(default_factory=threading.Event)
    last: bytes = b""
    ended_at: float | None = None

    def run(self) -> None:
        """Read to the end, whatever it is."""
        body = {"model": self.model, "prompt": "a", "max_tokens": 1800, "ignore_eos": True, "stream": True}
        with contextlib.suppress(OSError), _post(self.url, body) as response:
            for line in response:
                self.begun.set()
                self.last = line if line.strip() else self.last
        self.ended_at = time.perf_counter()

    @property
    def was_told(self) -> bool:
        """Whether its last event says that the engine is gone."""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return bool(json.loads(self.last.removeprefix(b"data: "))["error"]["code"] == "engine_unavailable")
        return False


@dataclass
class Round:
    """What one round saw."""

    told_s: float
    not_told: int
    wrong_answers: int
    next_success_s: float
    processes_left: int
    bytes_left: int


def _post(url: str, body: dict[str, object]) -> http.client.HTTPResponse:
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=START_S)
    return response


def children(pid: int) -> list[int]:
    """Child processes of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found


def available_bytes() -> int:
    """Memory that the machine has to give."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    raise OSError("no MemAvailable in /proc/meminfo")


def one_round(model: str) -> Round:
    """Start, kill the engine, see it come back, kill the gateway."""
    before = available_bytes()
    port = free_port()
    url, name = f"http://127.0.0.1:{port}", "demo" if model == "demo" else Path(model).stem
    argv = [sys.executable, "-m", "serving", "--open", "--model", model, "--port", str(port), "--json"]
    gateway = subprocess.Popen([*argv, "--context", "2048", "--concurrency", "16"], stderr=subprocess.DEVNULL)
    short: dict[str, object] = {"model": name, "prompt": "a", "max_tokens": 1}
    try:
        _until_served(url, short, START_S)
        streams = [Stream(url, name) for _ in range(STREAMS)]
        threads = [threading.Thread(target=stream.run) for stream in streams]
        for thread in threads:
            thread.start()
        for stream in streams:
            stream.begun.wait(START_S)
        [engine] = children(gateway.pid)
        killed = time.perf_counter()
        os.kill(engine, signal.SIGKILL)
        wrong = _until_served(url, short, END_S)
        served = time.perf_counter()
        for thread in threads:
            thread.join(END_S)
        ends = [stream.ended_at or float("inf") for stream in streams]
        processes = [gateway.pid, *children(gateway.pid)]
    finally:
        gateway.kill()
        gateway.wait()
    time.sleep(5)
    return Round(
        told_s=max(ends) - killed,
        not_told=sum(not stream.was_told for stream in streams),
        wrong_answers=wrong,
        next_success_s=served - killed,
        processes_left=sum(identify(pid) is not None for pid in processes),
        bytes_left=max(0, before - available_bytes()),
    )


def _until_served(url: str, body: dict[str, object], limit_s: float) -> int:
    """Ask until it is answered; how many answers were neither a success nor a 503 with Retry-After."""
    wrong = 0
    deadline = time.perf_counter() + limit_s
    while time.perf_counter() < deadline:
        try:
            with _post(url, body) as response:
                response.read()
        except urllib.error.HTTPError as error:
            code = json.loads(error.read())["error"]["code"]
            wrong += (error.code, code, error.headers["retry-after"] is not None) != (503, "engine_unavailable", True)
        except OSError:
            pass  # it does not listen yet
        else:
            return wrong
        time.sleep(0.02)
    raise TimeoutError(f"not served within {limit_s:g} s")


def main() -> None:
    """Print the worst over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds = [asdict(one_round(options.model)) for _ in range(options.rounds)]
    worst = {key: max(entry[key] for entry in rounds) for key in rounds[0]}
    result = {"what": "kill -9 of engine and gateway", "worst": worst, "rounds": rounds}
    print(json.dumps({**result, **described()}, indent=1))


if __name__ == "__main__":
    main()
