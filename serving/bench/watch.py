"""How well this process itself kept up: what it did to the figures by being late."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_TICK_S: Final = 0.01
_NICE: Final = -10


@dataclass(frozen=True, slots=True)
class Kept:
    """What was seen over a run. None where the kernel does not say."""

    lags: tuple[float, ...] = ()
    """Seconds by which the event loop woke up later than asked, one for each tick."""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    waited_s: float | None = None
    """For which a core was wanted and not had: others on this machine had it."""
    stolen_share: float | None = None
    """Of the processors' time, what the hypervisor gave to other machines."""


@contextlib.contextmanager
def precedence() -> Iterator[None]:
    """Before others on this machine, where this user may: a client that waits for a core notes what came too late."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, min(before, _NICE))
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


class Watch:
    """Watches this process while a block runs."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._task: asyncio.Task[None] | None = None
        self._begin = self._now()
        self.kept = Kept()
        """Complete once the block has ended."""

    async def __aenter__(self) -> Self:
        self._begin = self._now()
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
        wall, cpu, waited, stolen, total = self._now()
        before = self._begin
        self.kept = Kept(
            tuple(self._lags),
            cpu - before[1],
            wall - before[0],
            None if waited is None or before[2] is None else waited - before[2],
            None if stolen is None or before[3] is None else (stolen - before[3]) / max(1, total - before[4]),
        )

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wanted = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self._lags.append(loop.time() - wanted)

    @staticmethod
    def _now() -> tuple[float, float, float | None, int | None, int]:
        waited = stolen = None
        total = 0
        with contextlib.suppress(OSError, ValueError, IndexError):
            # time on a core, time waited for one (ns), slices: Documentation/scheduler/sched-stats.rst
            waited = int(Path(f"/proc/{os.getpid()}/schedstat").read_text().split()[1]) / 1e9
        with contextlib.suppress(OSError, ValueError, IndexError):
            # user nice system idle iowait irq softirq steal guest …, in ticks of all processors: proc_stat(5)
            ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
            stolen, total = ticks[7], sum(ticks)
        return time.perf_counter(), time.process_time(), waited, stolen, total
