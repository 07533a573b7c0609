"""`serve --model llama3-8b --dummy-weights`: memory against the plan, and decoding against the memory's bandwidth.

    python -m benchmarks.dummy [--model llama3-8b] [--variant q8_0] [--tokens 24] [--rounds 5]

Starts the product as a user does, asks one client's worth of tokens several times, and between the rounds measures
how fast this machine reads memory (`serve hardware --measure`). A token reads every weight but the embedding's table
once; what bandwidth allows is that many bytes into what was read in a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.machine import described
from benchmarks.memory import resident_bytes
from serving.gguf import read_header
from serving.hardware import detect
from serving.hardware.measure import measure_memory

START_S = 900.0


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama3-8b")
    parser.add_argument("--variant", default="q8_0")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps({**described(), **measure(options)}, indent=1))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start it, ask it, and compare."""
    argv = [sys.executable, "-m", "serving", "--open", "--model", options.model, "--variant", options.variant]
    argv += ["--dummy-weights", "--port", "0", "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        plan, url = started(process)
        path = Path(plan["weights"])
        pid = engine_of(process.pid)
        decode(url, options.model, 4)
        speeds, widths = [], []
        for _ in range(options.rounds):
            widths.append(bandwidth())
            speeds.append(decode(url, options.model, options.tokens))
        widths.append(bandwidth())
        taken = resident_bytes(pid)
    finally:
        process.terminate()
        process.wait(60)
    read = bytes_a_token(path)
    allowed = statistics.median(widths) / read
    anonymous, file = plan["anonymous_bytes"], plan["total_bytes"] - plan["anonymous_bytes"]
    return {
        "model": options.model,
        "variant": options.variant,
        "load_mode": plan["load_mode"],
        "anonymous_planned": anonymous,
        "anonymous": taken["RssAnon"],
        "anonymous_ratio": taken["RssAnon"] / anonymous,
        "file_planned": file,
        "file": taken["RssFile"],
        "file_ratio": taken["RssFile"] / file,
        "bytes_a_token": read,
        "bandwidth_bytes_s": statistics.median(widths),
        "tokens_s": statistics.median(speeds),
        "tokens_s_allowed": allowed,
        "share_of_bandwidth": statistics.median(speeds) / allowed,
        "rounds": {"tokens_s": speeds, "bandwidth_bytes_s": widths},
    }


def started(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """The plan and the URL that the log tells. Raises RuntimeError where it ends first."""
    plan: dict[str, Any] = {}
    deadline = time.monotonic() + START_S
    assert process.stderr is not None  # noqa: S101 - a pipe was asked for
    for line in process.stderr:
        with contextlib.suppress(json.JSONDecodeError):
            entry = json.loads(line)
            if entry.get("event") == "plan":
                plan = entry
            if entry.get("event") == "ready":
                return plan, entry["url"].removesuffix("/v1")
        if time.monotonic() > deadline:
            break
    raise RuntimeError(f"it did not start: status {process.poll()}")


def engine_of(gateway: int) -> int:
    """The engine's process."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == gateway and b"serving.llamacpp" in (entry / "cmdline").read_bytes():
                return int(entry.name)
    raise RuntimeError("no engine")


def decode(url: str, model: str, tokens: int) -> float:
    """Tokens a second after the first one, of one stream."""
    body = {"model": model, "prompt": "aqa bqb", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    request = urllib.request.Request(
        f"{url.removesuffix('/v1')}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    times = []
    with urllib.request.urlopen(request, timeout=600) as response:
        for line in response:
            if line.startswith(b"data: {") and b'"text"' in line:
                times.append(time.perf_counter())
    return (len(times) - 1) / (times[-1] - times[0])


def bandwidth() -> float:
    """Bytes a second that all compute threads together read."""
    return measure_memory(detect()).all_threads_bytes_s or 0.0


def bytes_a_token(path: Path) -> int:
    """Bytes of weights that one token is multiplied with: all but the table that embeddings are looked up in."""
    header = read_header(path)
    tied = not any(tensor.name == "output.weight" for tensor in header.tensors)
    return sum(tensor.size for tensor in header.tensors if tied or tensor.name != "token_embd.weight")


if __name__ == "__main__":
    main()
