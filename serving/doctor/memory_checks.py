"""Checks of main memory."""

from __future__ import annotations

from collections.abc import Iterator

from serving.doctor.facts import Facts
from serving.doctor.finding import Finding
from serving.planner.text import gib

_LITTLE_BYTES = 4 * 1024**3
"""Less is not enough for a model of 7 billion parameters in 4 bits."""
_NEVER_OVERCOMMIT = 2
_SHARED = "/dev/shm"  # noqa: S108 -- it is looked at, not written to
_SHARED_LEAST_BYTES = 1024**3
"""Several GPUs' processes pass tensors through /dev/shm; Docker's 64 MiB end in a bus error."""
_BUSY_SHARE = 0.2
_EXAMPLE_BYTES = 4_920_000_000
"""An 8 billion parameter model in q4_k_m."""


def check_memory(facts: Facts) -> Iterator[Finding]:
    """How much there is, how fast it is, and what the kernel does with it."""
    yield from _size(facts)
    yield from _speed(facts)
    yield from _swap(facts)
    yield from _huge_pages(facts)
    yield from _overcommit(facts)
    yield from _shared(facts)


def _size(facts: Facts) -> Iterator[Finding]:
    memory = facts.machine.memory
    usable = memory.usable_bytes
    if usable is None:
        yield Finding("memory", "unknown", "what is free cannot be read", "see that /proc is mounted")
        return
    found = f"{gib(usable)} to use"
    if memory.total_bytes is not None:
        found += f" of {gib(memory.total_bytes)}"
    if memory.limit_bytes is not None:
        found += f", under a control group limit of {gib(memory.limit_bytes)}"
    if usable < _LITTLE_BYTES:
        advice = "raise the limit" if memory.limit_bytes is not None else "stop what else holds memory, or add some"
        yield Finding("memory", "warning", f"{found}: only small models fit", advice)
    else:
        yield Finding("memory", "good", found)


def _speed(facts: Facts) -> Iterator[Finding]:
    read = facts.memory_read
    if read is None:
        return
    if read.skipped is not None or not read.all_threads_bytes_s:
        yield Finding("memory speed", "unknown", f"not measured: {read.skipped or 'nothing was read'}")
        return
    rate = read.all_threads_bytes_s
    most = rate / _EXAMPLE_BYTES
    found = f"reads {rate / 1e9:.1f} GB/s with {read.threads} threads: at most {most:.1f} tokens/s for one sequence"
    found += " of an 8B model in q4_k_m"
    if read.others_cpus is not None and read.others_cpus > _BUSY_SHARE * (read.threads or 1):
        found += f"; other programs used {read.others_cpus:g} processors meanwhile, so it may be more"
        yield Finding("memory speed", "warning", found, "measure again on a quiet machine; serve on one, too")
    else:
        yield Finding("memory speed", "good", found)


def _swap(facts: Facts) -> Iterator[Finding]:
    swap = facts.machine.memory.swap_total_bytes
    if swap is None:
        yield Finding("swap", "unknown", "cannot be read")
    elif swap:
        found = f"{gib(swap)}: weights and caches may be paged out, and prompts with them, onto a disk"
        yield Finding("swap", "warning", found, "`swapoff -a`, or MemorySwapMax=0 for the service; encrypt it at least")
    else:
        yield Finding("swap", "good", "off")


def _huge_pages(facts: Facts) -> Iterator[Finding]:
    memory = facts.machine.memory
    unused = (memory.huge_pages_free or 0) * (memory.huge_page_bytes or 0)
    if unused:
        found = f"{gib(unused)} set aside in huge pages that nothing uses, and no engine can"
        yield Finding("huge pages", "warning", found, "`sysctl vm.nr_hugepages=0`, if they are nobody else's")
    elif memory.transparent_huge_pages is not None:
        yield Finding("huge pages", "good", f"transparent ones: {memory.transparent_huge_pages}")


def _overcommit(facts: Facts) -> Iterator[Finding]:
    if facts.kernel.overcommit == _NEVER_OVERCOMMIT:
        found = "the kernel promises no more memory than it has: engines reserve more than they use, and fail"
        yield Finding("overcommit", "warning", found, "`sysctl vm.overcommit_memory=0`")
    elif facts.kernel.overcommit is not None:
        yield Finding("overcommit", "good", f"allowed (vm.overcommit_memory={facts.kernel.overcommit})")


def _shared(facts: Facts) -> Iterator[Finding]:
    size, several = facts.shared_memory_bytes, len(facts.machine.gpus) > 1
    if size is None:
        if several:
            yield Finding("shared memory", "unknown", f"{_SHARED} cannot be read; vLLM needs it with several GPUs")
    elif several and size < _SHARED_LEAST_BYTES:
        advice = "`docker run --shm-size=8g` or `--ipc=host`; in a pod, an emptyDir of medium Memory at /dev/shm"
        found = f"{_SHARED} has {gib(size)}: too little for a model on several GPUs"
        yield Finding("shared memory", "problem", found, advice)
    else:
        yield Finding("shared memory", "good", f"{_SHARED} has {gib(size)}")
