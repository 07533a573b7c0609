"""Reads hostile weight files under hard bounds, in a process of its own, and prints what came of it as one JSON line.

`hostile_child.py gguf|safetensors COUNT SEED FOLDER` makes that many mutants and reads each; `hostile_child.py read
PATH …` reads those files and directories, each in a process of its own again. The address space may grow by 512 MiB
from where it is once everything is imported.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from serving import gguf, safetensors
from serving.errors import BadFile, FileMissing
from serving.registry.local import check_servable, model_of
from tests.support import hostile, hostile_safetensors

MEMORY_BYTES = 512 << 20
TIME_S = 2.0
SEED_STEP = 1_000_003
INDEX_EVERY = 10
"""Of the safetensors mutants, one in this many is an index with its shards."""


def read_gguf(path: Path) -> None:
    """What `serve --model FILE` does with the file before anything else does."""
    header = gguf.read_header(path)
    check_servable(header)
    model_of(header)
    assert all(tensor.offset + tensor.size <= header.file_bytes for tensor in header.tensors)


def read_safetensors(path: Path) -> None:
    for header in safetensors.read_index(path) if path.is_dir() else (safetensors.read_header(path),):
        ends = [tensor.offset + tensor.size for tensor in header.tensors]
        assert all(end <= header.file_bytes for end in ends)


def mutants(kind: str, count: int, seed: int, folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    bases = hostile.models(folder) if kind == "gguf" else {}
    names = sorted(bases)
    path = folder / f"mutant.{kind}"
    directory = folder / "directory"
    directory.mkdir()
    for number in range(count):
        rng = random.Random(seed * SEED_STEP + number)
        if kind == "gguf":
            name = names[number % len(names)]
            mutant = hostile.gguf_mutant(rng, bases[name])
            yield mutant.write(path), (f"number {number}, of {name}", *mutant.changes)
        elif number % INDEX_EVERY == 0:
            yield directory, (f"number {number}, an index", *hostile_safetensors.write_index_mutant(rng, directory))
        else:
            mutant = hostile_safetensors.safetensors_mutant(rng)
            yield mutant.write(path), (f"number {number}", *mutant.changes)


def limit(cpu_s: int) -> None:
    """From here on: 512 MiB more, and that many seconds of computing, after which the kernel ends the process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    cpu_s += math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))


def run(read: Callable[[Path], None], files: Iterator[tuple[Path, tuple[str, ...]]]) -> dict[str, object]:
    accepted = refused = longest = 0
    slowest: tuple[float, tuple[str, ...]] = (0.0, ())
    messages: dict[str, int] = {}
    last = ""
    for path, changes in files:
        began = time.process_time()
        try:
            read(path)
            accepted += 1
        except (BadFile, FileMissing) as error:
            refused += 1
            longest = max(longest, len(error.message))
            one_line = error.message.isprintable() and len(error.message) < 500
            if not one_line or str(path) not in error.message:
                return {"broken": changes, "message": error.message}
            last = error.message.replace(str(path), "F")
            kind = last[:60]
            messages[kind] = messages.get(kind, 0) + 1
        except BaseException:  # noqa: BLE001 - whatever else it is, it is what is looked for
            return {"broken": changes, "message": traceback.format_exc()[-3000:]}
        took = time.process_time() - began
        slowest = max(slowest, (took, changes))
        if took > TIME_S:
            return {"broken": changes, "message": f"took {took:.2f} s"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {
        "accepted": accepted,
        "refused": refused,
        "slowest_s": round(slowest[0], 4),
        "slowest": slowest[1],
        "longest": longest,
        "peak_mib": peak,
        "messages": len(messages),
        "last": last,
    }


def main() -> int:
    kind, *arguments = sys.argv[1:]
    if kind == "read":
        return max(read_one(Path(name)) for name in arguments)
    count, seed, folder = int(arguments[0]), int(arguments[1]), Path(arguments[2])
    files = mutants(kind, count, seed, folder)
    limit(cpu_s=300)
    return say(run(read_gguf if kind == "gguf" else read_safetensors, files))


def read_one(path: Path) -> int:
    if pid := os.fork():
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            return say({"broken": [path.name], "message": f"ended by signal {os.WTERMSIG(status)}"})
        return os.WEXITSTATUS(status)
    limit(cpu_s=10)
    os._exit(say(run(read_gguf if path.suffix == ".gguf" else read_safetensors, iter([(path, (path.name,))]))))


def say(result: dict[str, object]) -> int:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    return int("broken" in result)


if __name__ == "__main__":
    sys.exit(main())
