"""Several models resident on one machine: each is planned on what those before it leave. Pure.

In the order given. A GPU that a model uses is its alone, since vLLM takes a share of all of it; processor cores are
dealt out so that no two engines compute on the same one, as long as there are enough of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from serving.hardware import Machine
from serving.planner.plan import plan
from serving.planner.types import AnyPlan, Engines, LlamacppPlan, NoFit, VllmPlan, Wishes, name_of
from serving.registry import Model


@dataclass(frozen=True, slots=True)
class Wanted:
    """One model of a set, and what is wished of it."""

    model: Model
    wishes: Wishes


def plan_fleet(
    machine: Machine,
    wanted: Sequence[Wanted],
    engines: Engines = Engines(),  # noqa: B008 - frozen
) -> tuple[AnyPlan, ...] | NoFit:
    """A plan for each, all of which hold together; or the refusal of the first that does not fit beside the others.

    `NoFit.model` names that one. One model alone is planned as `plan` does.
    """
    plans: list[AnyPlan] = []
    left = machine
    for place, one in enumerate(wanted):
        # Cores are dealt before it is known who computes on them: a GPU's engine may leave its share unused.
        mine = left if len(wanted) == 1 else with_share(left, place, len(wanted))
        outcome = plan(mine, one.model, one.wishes, engines)
        if isinstance(outcome, NoFit):
            return dataclasses.replace(outcome, reason=_beside(outcome.reason, plans))
        if len(wanted) > len(machine.cpu.cores) and isinstance(outcome, LlamacppPlan):
            shared = f"{len(wanted)} engines share {len(machine.cpu.cores)} cores: idle threads sleep"
            wait = one.wishes.wait_policy or "passive"
            outcome = dataclasses.replace(outcome, wait_policy=wait, reasons=(*outcome.reasons, shared))
        plans.append(outcome)
        left = after(left, outcome)
    return tuple(plans)


def share_of(cores: tuple[int, ...], place: int, count: int) -> tuple[int, ...]:
    """The cores of the engine at `place` of `count`: as even as it goes, all of them where there are too few."""
    if len(cores) < count:
        return cores
    return cores[len(cores) * place // count : len(cores) * (place + 1) // count]


def with_share(machine: Machine, place: int, count: int) -> Machine:
    """The machine as the engine at `place` of `count` sees it: its cores, and its part of a quota of time."""
    cpu = machine.cpu
    cores = share_of(cpu.cores, place, count)
    usable = tuple(core for core in cpu.usable if core in cores) or cores
    quota = None if cpu.quota is None else cpu.quota / count
    return dataclasses.replace(machine, cpu=dataclasses.replace(cpu, cores=cores, usable=usable, quota=quota))


def after(machine: Machine, outcome: AnyPlan) -> Machine:
    """What the machine still has once that plan runs on it."""
    memory, gpus = machine.memory, machine.gpus
    if memory.available_bytes is not None:
        available = max(0, memory.available_bytes - outcome.total_bytes)
        memory = dataclasses.replace(memory, available_bytes=available)
    if memory.limit_remaining_bytes is not None:
        left = max(0, memory.limit_remaining_bytes - outcome.total_bytes)
        memory = dataclasses.replace(memory, limit_remaining_bytes=left)
    used = outcome.gpus if isinstance(outcome, VllmPlan) else (outcome.gpu,) if outcome.gpu else ()
    return dataclasses.replace(machine, memory=memory, gpus=tuple(gpu for gpu in gpus if name_of(gpu) not in used))


def _beside(reason: str, plans: Sequence[AnyPlan]) -> str:
    return f"{reason} beside {', '.join(f'`{one.model}`' for one in plans)}" if plans else reason
