"""One driver, or several in processes of their own, that drive one load together and share its clock."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

import uvloop

from serving.bench.drive import Driver, Target
from serving.bench.prepare import Job
from serving.bench.samples import Sample
from serving.bench.stopping import unless_stopped
from serving.bench.watch import Kept
from serving.errors import InternalError

CLIENTS_EACH: Final = 1000
RATE_EACH: Final = 400.0
"""What one process drives without being late, with room to spare."""
_START_S: Final = 3.0
"""For the processes to import what they need before the first request is due."""


class Listener(Protocol):
    """Told of a run as it goes on."""

    def on_first(self, ttft: float) -> None:
        """A first token came."""

    def on_sample(self, number: int, sample: Sample) -> None:
        """The request of this number has ended."""


@dataclass(slots=True)
class Driven:
    """What a load left behind."""

    began: float = 0.0
    samples: dict[int, Sample] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    kept: tuple[Kept, ...] = ()
    is_stopped: bool = False


def crew_size(clients: int | None, rate: float, cores: int) -> int:
    """How many processes a load wants."""
    wanted = -(-clients // CLIENTS_EACH) if clients is not None else int(-(-rate // RATE_EACH))
    return max(1, min(wanted, cores))


async def drive(
    target: Target,
    jobs: Sequence[Job],
    clients: int | None,
    stop: asyncio.Event,
    listener: Listener,
    processes: int = 1,
) -> Driven:
    """Drive a load to its end, or until `stop` is set; what was measured by then is kept."""
    if processes == 1:
        return await _alone(target, jobs, clients, stop, listener)
    return await _Crew(listener).drive(target, jobs, clients, stop, processes)


async def _alone(
    target: Target, jobs: Sequence[Job], clients: int | None, stop: asyncio.Event, listener: Listener
) -> Driven:
    driver = Driver(target, listener.on_sample, listener.on_first)
    began = time.perf_counter()
    _, is_stopped = await unless_stopped(stop, driver.run(jobs, clients, began))
    return Driven(began, driver.samples, driver.texts, (driver.kept,), is_stopped)


class _Crew:
    """Processes, each of which has every n-th job and its share of the clients."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._left = asyncio.Event()
        self._members: list[tuple[Any, Connection]] = []
        self._kept: list[Kept] = []
        self._driven = Driven(time.perf_counter() + _START_S)

    async def drive(
        self, target: Target, jobs: Sequence[Job], clients: int | None, stop: asyncio.Event, processes: int
    ) -> Driven:
        """Drive it. Raises InternalError where a process dies."""
        for at in range(processes):
            share = None if clients is None else clients // processes + (at < clients % processes)
            self._start((target, jobs[at::processes], share, self._driven.began))
        _, self._driven.is_stopped = await unless_stopped(stop, self._left.wait())
        if self._driven.is_stopped:
            for _, connection in self._members:
                with contextlib.suppress(OSError):
                    connection.send("stop")
            await self._left.wait()
        for process, _ in self._members:
            process.join()
        self._driven.kept = tuple(self._kept)
        if len(self._kept) < processes:
            raise InternalError("a process of the harness died", hint="was it killed for its memory? see `dmesg`")
        return self._driven

    def _start(self, work: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_member, args=(theirs, *work), daemon=True)
        process.start()
        theirs.close()
        self._members.append((process, ours))
        asyncio.get_running_loop().add_reader(ours.fileno(), self._take, ours)

    def _take(self, connection: Connection) -> None:
        try:
            kind, number, value = connection.recv()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(connection.fileno())
            connection.close()
            if all(one.closed for _, one in self._members):
                self._left.set()
            return
        match kind:
            case "first":
                self._listener.on_first(value)
            case "sample":
                self._driven.samples[number] = value
                self._listener.on_sample(number, value)
            case "text":
                self._driven.texts[number] = value
            case "kept":
                self._kept.append(value)


def _member(connection: Connection, target: Target, jobs: Sequence[Job], clients: int | None, began: float) -> None:
    """One process of a crew: drives its share, and tells of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the crew is stopped by its head, which keeps what was measured
    driver = Driver(
        target,
        lambda number, sample: connection.send(("sample", number, sample)),
        lambda ttft: connection.send(("first", 0, ttft)),
    )

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_reader(connection.fileno(), stop.set)
        await unless_stopped(stop, driver.run(jobs, clients, began))

    uvloop.run(run())
    for number, text in driver.texts.items():
        connection.send(("text", number, text))
    connection.send(("kept", 0, driver.kept))
    connection.close()
