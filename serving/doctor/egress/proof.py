"""The whole run: a watcher is chosen, the stack is started behind it and walked through, the record is judged."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import serving
from serving.doctor.egress import namespace, watchers
from serving.doctor.egress.judge import Attempt, attempts_of, own_of
from serving.doctor.egress.lines import Event, Unread, read_lines
from serving.doctor.egress.processes import Process, processes_of
from serving.doctor.egress.sampled import Sampler
from serving.doctor.egress.stack import Stack, first_watched
from serving.doctor.egress.verdict import Counted, Phase, Result, Watched, Watching, decide_verdict
from serving.doctor.egress.walk import Walk, phase_starts
from serving.errors import EgressNotProven

Watch = Literal["auto", "strace", "nftables"]
RUNTIME_VARIABLE: Final = "PERIMETER_PATHS__RUNTIME_DIR"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be proven of which stack."""

    argv: tuple[str, ...]
    """The stack's command line."""
    environment: Mapping[str, str]
    watch: Watch = "auto"
    idle_s: float = 30.0
    start_timeout_s: float = 900.0
    wanted: frozenset[tuple[str, int]] = frozenset()
    """Engines elsewhere, address and port, that it is meant to reach."""
    key: str | None = None
    """What the stack wants to be shown."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a watcher's record comes to."""

    watching: Watching
    processes: tuple[Process, ...]
    attempts: tuple[Attempt, ...] = ()
    counted: tuple[Counted, ...] = ()


def prove(order: Order, on_phase: Callable[[str], None]) -> Result:
    """Start the stack under observation, walk it through all phases, and judge what was seen.

    Must be called in a process with one thread. Raises EgressNotProven where nothing can watch here.
    """
    strace, told = watchers.find_strace() if order.watch != "nftables" else (None, "")
    if strace is None and order.watch == "strace":
        raise EgressNotProven(told, hint="install strace and allow tracing, or use --watch nftables")
    began, begun = datetime.now(UTC), time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="egress-"))
    try:
        run = _traced if strace is not None else _counted
        seen, phases = run(order, directory, on_phase, strace or "", told)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    verdict, reasons = decide_verdict(seen.attempts, seen.counted, seen.processes, phases, seen.watching)
    return Result(
        verdict=verdict,
        reasons=reasons,
        attempts=seen.attempts,
        counted=seen.counted,
        processes=tuple(Watched(process, None if process.doubts else seen.watching.name) for process in seen.processes),
        phases=tuple(phases),
        watching=seen.watching,
        version=serving.__version__,
        kernel=platform.release(),
        host=socket.gethostname(),
        command=order.argv,
        began=began.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begun, 3),
    )


def _traced(
    order: Order, directory: Path, on_phase: Callable[[str], None], strace: str, version: str
) -> tuple[_Seen, list[Phase]]:
    record = directory / "trace"
    front = watchers.command(strace, record)
    began_s = time.time()
    stack = Stack(front, order.argv, _environment(order, directory))
    pid = first_watched(record)
    phases: list[Phase] = []
    try:
        if pid is not None:
            phases = _walk(order, directory, stack, pid, began_s, on_phase)
    finally:
        if stack.is_running:
            stack.kill(pid)
        stack.close()
    with record.open(encoding="utf-8", errors="replace") as lines:
        events = list(read_lines(lines))
    shortfall = _shortfall(events, stack.status)
    watching = Watching("strace", version, " ".join(front[:-3]), shortfall, watchers.LIMITS)
    return judge_trace(events, directory, order.wanted, phases, watching), phases


def judge_trace(
    events: Sequence[Event],
    directory: Path,
    wanted: frozenset[tuple[str, int]],
    phases: Sequence[Phase],
    watching: Watching,
) -> _Seen:
    """Processes and attempts of a trace."""
    processes, owners = processes_of(events)
    own = own_of(events, [str(directory)], wanted)
    return _Seen(watching, processes, attempts_of(events, owners, own, phase_starts(phases)))


def _shortfall(events: Sequence[Event], status: int | None) -> str | None:
    """Why a trace is not the whole of what happened; strace ends as what it watched does."""
    if status is None or status < 0:
        return f"strace did not end by itself (status {status})"
    unread = [event.text for event in events if isinstance(event, Unread)]
    if unread:
        return f"{len(unread)} lines of the trace were not understood, the first: {unread[0]}"
    return None


def _counted(
    order: Order, directory: Path, on_phase: Callable[[str], None], _strace: str, refusal: str
) -> tuple[_Seen, list[Phase]]:
    namespace.enter()
    version, how = namespace.count_with_nftables()
    began_s = time.time()
    stack = Stack((), order.argv, _environment(order, directory))
    sampler = Sampler(stack.first_pid)
    phases: list[Phase] = []
    try:
        phases = _walk(order, directory, stack, stack.first_pid, began_s, on_phase)
    finally:
        if stack.is_running:
            stack.kill(stack.first_pid)
        stack.close()
        processes = sampler.stop()
    nft = None if version is None else how
    counted = namespace.counted(nft)
    if sampler.unrouted_elsewhere:
        counted += (Counted("asked in namespaces of their own, and found no way", sampler.unrouted_elsewhere),)
    watching = Watching(
        "namespace counters" if nft is None else "nftables",
        version,
        f"counters of a network namespace with loopback only{f'; {refusal}' if refusal else ''}",
        f"what asks a resolver on loopback is not counted: {how}" if nft is None else None,
        namespace.LIMITS,
    )
    return _Seen(watching, processes, (), counted), phases


def _walk(
    order: Order, directory: Path, stack: Stack, pid: int, began_s: float, on_phase: Callable[[str], None]
) -> list[Phase]:
    runtime = directory / "run"
    walk = Walk(stack, pid, runtime, key=order.key, start_timeout_s=order.start_timeout_s, idle_s=order.idle_s)
    walk.go(began_s, on_phase)
    return walk.phases


def _environment(order: Order, directory: Path) -> dict[str, str]:
    """The operator's, with a runtime directory that is this run's alone."""
    os.umask(0o077)
    kept = {name: value for name, value in order.environment.items() if name != "NOTIFY_SOCKET"}
    return {**kept, RUNTIME_VARIABLE: str(directory / "run")}
