"""Several models on one machine: together they never take more than there is."""

from __future__ import annotations

import dataclasses

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.hardware import Machine
from serving.planner import Engines, LlamacppPlan, NoFit, VllmPlan, Wanted, Wishes, plan, plan_fleet
from serving.registry import Model
from tests.properties.test_planner import engines, machines, models, wishes

few = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Wanted, ...]:
    """One to four models, each with its wishes."""
    wanted = draw(st.lists(st.tuples(models(), wishes()), min_size=1, max_size=4))
    return tuple(Wanted(dataclasses.replace(model, name=f"m{at}"), wish) for at, (model, wish) in enumerate(wanted))


@few
@given(machines(), fleets(), engines)
def test_a_fleet_fits_its_machine_as_a_whole(machine: Machine, wanted: tuple[Wanted, ...], can: Engines) -> None:
    """Main memory adds up to no more than can be had, no GPU is used twice, no core by two engines where it can be."""
    outcome = plan_fleet(machine, wanted, can)
    if isinstance(outcome, NoFit):
        assert outcome.model in [one.model.name for one in wanted]
        return
    assert [each.model for each in outcome] == [one.model.name for one in wanted]
    usable = machine.memory.usable_bytes
    assert usable is None or sum(each.total_bytes for each in outcome) <= usable
    used = [gpu for each in outcome for gpu in (each.gpus if isinstance(each, VllmPlan) else (each.gpu,)) if gpu]
    assert len(used) == len(set(used))
    if len(machine.cpu.cores) >= len(wanted) > 1:
        cores = [core for each in outcome if each.cores for core in set(each.cores)]
        assert len(cores) == len(set(cores))


@few
@given(machines(), models(), wishes(), engines)
def test_a_fleet_of_one_is_planned_as_one(machine: Machine, model: Model, wish: Wishes, can: Engines) -> None:
    """Nothing changes for whoever serves one model."""
    alone = plan(machine, model, wish, can)
    outcome = plan_fleet(machine, (Wanted(model, wish),), can)
    assert outcome == (alone if isinstance(alone, NoFit) else (alone,)) or not machine.cpu.cores


@few
@given(machines(), fleets(), engines)
def test_a_refusal_names_the_one_that_does_not_fit(machine: Machine, wanted: tuple[Wanted, ...], can: Engines) -> None:
    """Those before it fit without it."""
    outcome = plan_fleet(machine, wanted, can)
    if isinstance(outcome, NoFit):
        names = [one.model.name for one in wanted]
        at = names.index(outcome.model)
        if at and len(machine.cpu.cores) < 2:  # else the cores are dealt out differently
            assert not isinstance(plan_fleet(machine, wanted[:at], can), NoFit)
        assert not at or "beside" in outcome.reason


def test_engines_that_must_share_cores_sleep_while_they_wait() -> None:
    """Three engines on two cores: spinning would take the others' time."""
    from serving.registry import load_catalogue
    from tests.support.machines import GIB, machine

    host = machine(64 * GIB)
    cpu = dataclasses.replace(host.cpu, cores=(0, 1), usable=(0, 1))
    host = dataclasses.replace(host, cpu=cpu)
    demo = load_catalogue().find("demo")
    outcome = plan_fleet(host, [Wanted(dataclasses.replace(demo, name=name), Wishes()) for name in "abc"])
    assert not isinstance(outcome, NoFit)
    assert all(isinstance(each, LlamacppPlan) and each.wait_policy == "passive" for each in outcome)
