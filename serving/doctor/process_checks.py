"""Checks of this process: its Python, and the limits it runs under."""

from __future__ import annotations

from collections.abc import Iterator

from serving.doctor.facts import Facts
from serving.doctor.finding import Finding
from serving.planner.text import gib

_OPEN_FILES = 4096
"""A connection is two descriptors, here and at the engine; `server.connections` is 1024 unless set."""
_LOCKED_BYTES = 64 * 1024**2
_HEED_THE_LIMIT = ("systemd-coredump", "apport")
"""Programs that are handed every core through a pipe, where the limit does not hold (core(5)), and keep to it."""
_OLDEST_PYTHON = (3, 11)


def check_process(facts: Facts) -> Iterator[Finding]:
    """What a service started like this one would run under."""
    yield from _python(facts)
    yield from _open_files(facts)
    yield from _core_dumps(facts)
    yield from _address_space(facts)
    yield from _locked_memory(facts)


def _python(facts: Facts) -> Iterator[Finding]:
    version = ".".join(map(str, facts.python))
    if facts.python[:2] < _OLDEST_PYTHON:
        yield Finding("python", "problem", version, "3.11 is the oldest that is supported")
    else:
        yield Finding("python", "good", version)


def _open_files(facts: Facts) -> Iterator[Finding]:
    soft, hard = facts.ulimits.open_files, facts.ulimits.open_files_hard
    if soft is None:
        yield Finding("open files", "unknown", "the limit cannot be read")
    elif soft != "unlimited" and soft < _OPEN_FILES:
        advice = "LimitNOFILE=65536 for the service, or `ulimit -n 65536` in this shell"
        yield Finding("open files", "warning", f"{soft} at most (hard limit {hard}): few connections", advice)
    else:
        yield Finding("open files", "good", f"{soft} at most")


def _core_dumps(facts: Facts) -> Iterator[Finding]:
    limit, pattern = facts.ulimits.core_bytes, facts.kernel.core_pattern
    if limit is None:
        yield Finding("core dumps", "unknown", "the limit cannot be read")
        return
    piped = (pattern or "").startswith("|")
    if limit == 0 and piped and not any(name in (pattern or "") for name in _HEED_THE_LIMIT):
        found = f"the limit is 0, but the kernel hands them to `{pattern}` all the same"
        yield Finding("core dumps", "warning", found, "`sysctl kernel.core_pattern=core`: they may hold prompts")
    elif limit == 0:
        yield Finding("core dumps", "good", "off")
    else:
        to = f", to `{pattern}`" if pattern else ""
        found = f"on{to}: a crash writes prompts and answers to disk"
        yield Finding("core dumps", "warning", found, "LimitCORE=0 for the service, or `ulimit -c 0` in this shell")


def _address_space(facts: Facts) -> Iterator[Finding]:
    limit = facts.ulimits.address_space_bytes
    if isinstance(limit, int):
        found = f"{gib(limit)} at most: weights are mapped into it, and CUDA reserves far more than it uses"
        yield Finding("address space", "warning", found, "LimitAS=infinity for the service, or `ulimit -v unlimited`")


def _locked_memory(facts: Facts) -> Iterator[Finding]:
    limit = facts.ulimits.locked_bytes
    if isinstance(limit, int) and limit < _LOCKED_BYTES and len(facts.machine.gpus) > 1:
        found = f"{gib(limit)} at most: GPUs that talk over InfiniBand or RDMA need more"
        yield Finding("locked memory", "warning", found, "LimitMEMLOCK=infinity for the service")
