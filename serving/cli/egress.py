"""`serve doctor --egress`."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.access import own_key
from serving.cli.options import settings_for
from serving.cli.show import align, print_json
from serving.doctor.egress.judge import Attempt
from serving.doctor.egress.processes import Process
from serving.doctor.egress.proof import Order, Watch, prove
from serving.doctor.egress.verdict import Result, attempts_counted
from serving.engines.remote import origin_of
from serving.errors import EgressFound, EgressNotProven, UsageError
from serving.settings import Settings

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_MORE_S: Final = 300.0
"""Beyond the time for a start that the settings allow: a traced process is slower."""


@dataclass(frozen=True, slots=True)
class EgressOptions:
    """What `serve doctor --egress` was asked."""

    models: tuple[str, ...] = ()
    backend: str | None = None
    config: Path | None = None
    idle: str = "30s"
    watch: str = "auto"
    json: bool = False


def show_egress(options: EgressOptions) -> int:
    """Watch the stack, and print what was seen. Raises EgressFound or EgressNotProven, after printing."""
    settings = settings_for(options.config)
    watches: dict[str, Watch] = {"auto": "auto", "strace": "strace", "nftables": "nftables"}
    if options.watch not in watches:
        raise UsageError(f"`--watch {options.watch}` is none of {', '.join(watches)}")
    models = options.models or (() if settings.models else ("demo",))
    argv = [sys.executable, "-m", "serving", *(part for model in models for part in ("--model", model))]
    argv += ["--host", "127.0.0.1", "--port", "0", "--json"]
    argv += [] if options.backend is None else ["--engine", options.backend]
    argv += [] if options.config is None else ["--config", str(options.config)]
    with own_key() as key:
        order = Order(
            argv=tuple(argv),
            environment={**os.environ, **key.environment},
            watch=watches[options.watch],
            idle_s=seconds_of(options.idle),
            start_timeout_s=settings.engines.restart.start_timeout_s + _MORE_S,
            wanted=wanted_of(settings),
            key=key.text,
        )
        result = prove(order, lambda phase: _tell(phase, as_json=options.json))
    if options.json:
        print_json(result)
    else:
        sys.stdout.write(page(result))
    if result.verdict == "failed":
        message = f"something of the stack tried to reach out: {result.reasons[0]}"
        raise EgressFound(message, hint="each is listed above, with the process and the phase")
    if result.verdict == "not proven":
        message = f"no attempt was seen, but not everything was: {result.reasons[0]}"
        raise EgressNotProven(message, hint="what was not seen is listed above; docs/egress.md says what to do")
    return 0


def seconds_of(text: str) -> float:
    """`15m`, `30s`, `1h` or a number of seconds. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if found is None:
        raise UsageError(f"`--idle {text}` is not a time", hint="write it as 30s, 15m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def wanted_of(settings: Settings) -> frozenset[tuple[str, int]]:
    """Engines elsewhere that the settings name by address; one named by its name has to be looked up, which counts."""
    found = set()
    for model in settings.models:
        if model.url is not None:
            origin = origin_of(model.url)
            with contextlib.suppress(ValueError):
                found.add((str(ipaddress.ip_address(origin.host)), origin.port))
    return frozenset(found)


def page(result: Result) -> str:
    """The result for people: the verdict last, where the eye rests."""
    watching = result.watching
    began_s = result.phases[0].began_s if result.phases else 0.0
    facts = [
        ("command", " ".join(result.command)),
        ("host", f"{result.host}, Linux {result.kernel}"),
        ("version", f"perimeter {result.version}"),
        ("began", f"{result.began}, {result.seconds:.0f} s"),
        ("watched by", f"{watching.name} {watching.version or ''}".rstrip()),
        *(("cannot see", limit) for limit in watching.limits),
    ]
    phases = [(f"  {one.name}", f"{one.ended_s - one.began_s:.1f} s", one.shortfall or "") for one in result.phases]
    processes = [
        (f"  {one.process.pid}", one.process.name, one.watcher or "nobody", "; ".join(_remarks(one.process)))
        for one in result.processes
    ]
    attempts = attempt_rows(result.attempts, began_s)
    lines = [align(facts, None), "phases\n", align(phases, None), "processes\n", align(processes, None)]
    if result.counted:
        lines += ["counted\n", align([(f"  {one.packets}", one.what) for one in result.counted], None)]
    if attempts:
        lines += ["attempts\n", align(attempts, None)]
    lines += [f"because   {reason}\n" for reason in result.reasons]
    count = attempts_counted(len(result.attempts))
    return "".join([*lines, f"{result.verdict}: {count}, {len(result.processes)} processes\n"])


def attempt_rows(attempts: Sequence[Attempt], began_s: float) -> list[tuple[str, ...]]:
    """Attempts of one kind in one row: when the first one was, how many, who, where to, what came of it."""
    kinds: dict[tuple[str, ...], list[float]] = {}
    for one in attempts:
        where = _where(one.address, one.port, one.family)
        kind = (one.phase, f"{one.process} ({one.pid})", one.call, where, one.result, one.why)
        kinds.setdefault(kind, []).append(one.at_s - began_s)
    return [(f"  +{min(times):.1f} s", f"{len(times)} ×", *kind) for kind, times in kinds.items()]


def _remarks(process: Process) -> tuple[str, ...]:
    return (*process.doubts, "sets a seccomp filter") if process.has_own_filter else process.doubts


def _where(address: str, port: int | None, family: str) -> str:
    host = address or family
    return host if port is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tell(phase: str, *, as_json: bool) -> None:
    sys.stderr.write(f'{{"level": "info", "event": "phase", "phase": "{phase}"}}\n' if as_json else f"{phase} …\n")
    sys.stderr.flush()
