"""How fast this machine reads its memory and a disk: what bounds decoding on a CPU, and the loading of weights.

The memory is read by numpy, whose reductions use the widest instructions at hand and release the GIL. numpy is
imported when a measurement is made: looking at a machine must not pay for it.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from serving.hardware.files import read_text
from serving.hardware.machine import Machine
from serving.hardware.measure_disk import DiskRead, measure_disk

_CACHES = 4
"""The arrays together are so many times the last-level cache, so that none of it is found there again."""
_LEAST_BYTES = 256 * 1024**2
_UNKNOWN_CACHE = 64 * 1024**2
_SHARE_OF_MEMORY = 0.25
_BLOCK_BYTES = 4 * 1024**2
"""Bytes per call into numpy: long enough that the call costs nothing, short enough to count by."""
_WINDOWS = 5
_WINDOW_S = 0.5


@dataclass(frozen=True, slots=True)
class MemoryRead:
    """Bytes per second that were read from main memory, the median of several windows."""

    one_thread_bytes_s: float | None = None
    all_threads_bytes_s: float | None = None
    """With a thread on each core that an engine would be bound to."""
    threads: int | None = None
    array_bytes: int | None = None
    """All threads' arrays together."""
    others_cpus: float | None = None
    """Processors that everything else on the machine kept busy meanwhile; well above 0, the rates are too low."""
    skipped: str | None = None
    """Why nothing was measured."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured here."""

    memory: MemoryRead
    disk: DiskRead


def measure(machine: Machine, directory: Path) -> Measurement:
    """Measure memory and the disk under `directory`; takes less than 15 s and a core for each of `cpu.parallel`."""
    return Measurement(measure_memory(machine), measure_disk(directory))


def measure_memory(machine: Machine, *, window_s: float = _WINDOW_S) -> MemoryRead:
    """Read bandwidth with one thread and with `cpu.parallel` of them, each bound to its own of `cpu.cores`."""
    size = array_bytes(machine)
    if size is None:
        return MemoryRead(skipped="too little memory is free for arrays larger than the cache")
    threads = machine.cpu.parallel
    cores = machine.cpu.cores[:threads] or machine.cpu.usable[:threads]
    before = _cpu_seconds()
    return MemoryRead(
        one_thread_bytes_s=_read(1, size, cores, window_s),
        all_threads_bytes_s=_read(threads, size, cores, window_s),
        threads=threads,
        array_bytes=size,
        others_cpus=_others(before, _cpu_seconds()),
    )


def array_bytes(machine: Machine) -> int | None:
    """Bytes to read through: well beyond the caches and well within what is free; None where both cannot be."""
    wanted = max(_LEAST_BYTES, _CACHES * (machine.cpu.last_level_cache_bytes or _UNKNOWN_CACHE))
    free = machine.memory.usable_bytes
    return wanted if free is None or wanted <= _SHARE_OF_MEMORY * free else None


class _Readers:
    """Threads that read their own array from the start to the end, over and over, and count."""

    def __init__(self, threads: int, total_bytes: int, cores: tuple[int, ...]) -> None:
        self._counts = [0] * threads
        self._stop = threading.Event()
        self._ready = threading.Barrier(threads + 1)
        self._threads = [
            threading.Thread(
                target=self._run, args=(number, total_bytes // threads, cores[number : number + 1]), daemon=True
            )
            for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def read_bytes(self) -> int:
        """Bytes read so far by all of them."""
        return sum(self._counts)

    def _run(self, number: int, size: int, core: tuple[int, ...]) -> None:
        import numpy as np  # noqa: PLC0415 -- see the head of the module

        if core:
            os.sched_setaffinity(0, core)  # of this thread alone
        # Written by the thread that reads it, so that its pages lie on the thread's own NUMA node.
        array = np.ones(size // 8, dtype=np.int64)
        step = _BLOCK_BYTES // 8
        blocks = [array[start : start + step] for start in range(0, len(array), step)]
        # Of numpy's reductions the one that read fastest: a sum of whole numbers is an addition per word and no more.
        total = np.add.reduce
        self._ready.wait()
        while not self._stop.is_set():
            for block in blocks:
                total(block)
                self._counts[number] += block.nbytes


def _read(threads: int, total_bytes: int, cores: tuple[int, ...], window_s: float) -> float:
    rates = []
    with _Readers(threads, total_bytes, cores) as readers:
        time.sleep(window_s / 2)  # clocks and page tables settle
        for _ in range(_WINDOWS):
            before, began = readers.read_bytes(), time.monotonic()
            time.sleep(window_s)
            rates.append((readers.read_bytes() - before) / (time.monotonic() - began))
    return statistics.median(rates)


@dataclass(frozen=True, slots=True)
class _CpuSeconds:
    at: float
    machine: float
    own: float


def _cpu_seconds() -> _CpuSeconds | None:
    """Time that processors have worked, for all and for this process; None where the kernel does not say."""
    line = (read_text(Path("/proc/stat")) or "").partition("\n")[0].split()
    if line[:1] != ["cpu"] or len(line) < 9:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, line[1:9])
    times = os.times()
    worked = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return _CpuSeconds(time.monotonic(), worked, times.user + times.system)


def _others(before: _CpuSeconds | None, after: _CpuSeconds | None) -> float | None:
    if before is None or after is None:
        return None
    others = (after.machine - before.machine) - (after.own - before.own)
    return round(max(0.0, others) / (after.at - before.at), 2)
