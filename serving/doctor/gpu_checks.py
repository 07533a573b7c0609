"""Checks of the GPUs themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from serving.doctor.facts import Facts
from serving.doctor.finding import Finding
from serving.hardware import Gpu
from serving.planner.text import gib

_CAPPED_BELOW = 0.95
"""A power limit below this share of the default is somebody's decision, and costs speed."""


def check_gpus(facts: Facts) -> Iterator[Finding]:
    """Whether the GPUs that are there can be used, wholly."""
    gpus = facts.machine.gpus
    yield from (Finding("gpu", "problem", fault) for fault in facts.machine.gpu_faults)
    yield from _presence(facts)
    if not gpus:
        return
    whole = list({gpu.slice.parent_uuid if gpu.slice else gpu.uuid or str(gpu.index): gpu for gpu in gpus}.values())
    yield from _fabric(whole)
    yield from _links(whole)
    yield from _memory_errors(whole)
    yield from _power(whole)
    yield from _persistence(whole)
    yield from _use(gpus)


def _presence(facts: Facts) -> Iterator[Finding]:
    gpus, faults = facts.machine.gpus, facts.machine.gpu_faults
    if gpus:
        driver, cuda = gpus[0].driver or "not known", gpus[0].cuda or "not known"
        names = Counter(gpu.name or "unnamed GPU" for gpu in gpus)
        found = ", ".join(f"{count} × {name}" for name, count in names.items())
        yield Finding("gpu", "good", f"{found}; driver {driver}, CUDA up to {cuda}")
    elif facts.require_gpu:
        advice = "give this process a GPU, or set `hardware.require_gpu = false`"
        yield Finding("gpu", "problem", "none, and `hardware.require_gpu` is set: nothing is served", advice)
    elif not faults:
        yield Finding("gpu", "good", "none; models are served from the CPU")


def _fabric(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    if outside := _those(gpus, lambda gpu: gpu.fabric_ready is False):
        advice = (
            "start nvidia-fabricmanager, of the same version as the driver: `systemctl status nvidia-fabricmanager`"
        )
        yield Finding("nvswitch", "problem", f"has not taken in {outside}: CUDA does not start on them", advice)


def _links(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    known = [gpu for gpu in gpus if gpu.nvlink_links is not None]
    if len(known) < 2:
        return
    most = max(gpu.nvlink_links or 0 for gpu in known)
    if fewer := _those(known, lambda gpu: (gpu.nvlink_links or 0) < most):
        advice = "see `nvidia-smi nvlink -s`; a link that stays down after a reset is a fault of the board"
        yield Finding("nvlink", "warning", f"fewer links than the others' {most} on {fewer}", advice)
    else:
        yield Finding("nvlink", "good", f"{most} links up on each GPU")


def _memory_errors(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    name = "gpu memory"
    if broken := _those(gpus, lambda gpu: bool(gpu.repair_failed)):
        yield Finding(name, "problem", f"a broken row could not be replaced on {broken}", "have the GPU replaced")
    if pending := _those(gpus, lambda gpu: bool(gpu.repair_pending)):
        advice = "reset it at the next chance: `nvidia-smi --gpu-reset -i N`, with nothing running on it"
        yield Finding(name, "warning", f"a repair waits for a reset on {pending}", advice)
    if failing := _those(gpus, lambda gpu: bool(gpu.ecc_uncorrected)):
        advice = "one in its life may be chance, more are wear: watch `nvidia-smi -q -d ECC`"
        yield Finding(name, "warning", f"errors that could not be corrected, at some time, on {failing}", advice)
    if not (broken or pending or failing) and any(gpu.ecc for gpu in gpus):
        yield Finding(name, "good", "error correction is on, and has met nothing that it could not correct")


def _power(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    def is_capped(gpu: Gpu) -> bool:
        # Where no limit can be set (laptops) the limit in force moves by itself.
        limit, usual = gpu.power_limit_w, gpu.power_limit_default_w
        return bool(gpu.power_limit_set_w and limit and usual and limit < _CAPPED_BELOW * usual)

    if capped := _those(gpus, is_capped):
        first = next(gpu for gpu in gpus if is_capped(gpu))
        found = f"limited to {first.power_limit_w:g} W of {first.power_limit_default_w:g} W on {capped}"
        yield Finding("gpu power", "warning", found, "if nobody meant it: `nvidia-smi -pl WATTS`; prefill suffers most")


def _persistence(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    if off := _those(gpus, lambda gpu: gpu.persistence is False):
        advice = "`nvidia-smi -pm 1`, or run nvidia-persistenced: without, each first use waits for the GPU to come up"
        yield Finding("gpu persistence", "warning", f"off on {off}", advice)


def _use(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    def used(gpu: Gpu) -> int:
        return (gpu.memory_total_bytes or 0) - (gpu.memory_free_bytes or 0)

    busy = [gpu for gpu in gpus if gpu.processes and used(gpu) > (gpu.memory_total_bytes or 0) / 2]
    if busy:
        named = ", ".join(f"GPU {gpu.index}: {gpu.processes} hold {gib(used(gpu))}" for gpu in busy)
        advice = "plans are made with what is free now; `nvidia-smi` names the processes"
        yield Finding("gpu use", "warning", f"more than half of the memory is taken ({named})", advice)


def _those(gpus: Sequence[Gpu], condition: Callable[[Gpu], bool]) -> str:
    """The GPUs that a condition holds for, as `GPU 0, 3`; empty where for none."""
    numbers = sorted({gpu.index for gpu in gpus if condition(gpu)})
    return f"GPU {', '.join(map(str, numbers))}" if numbers else ""
