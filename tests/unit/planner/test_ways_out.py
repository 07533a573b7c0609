"""What a refusal offers: plans that come of following it, with the bytes that these take, near what was asked for."""

from __future__ import annotations

import dataclasses

import pytest

from serving.hardware import Machine
from serving.hardware.known import machine as gpus
from serving.planner import Engines, LlamacppPlan, NoFit, Plan, Wishes, plan
from serving.registry import load_catalogue
from serving.registry.catalogue import with_files
from tests.support.machines import GIB, llama_8b, machine

WISHES = (
    Wishes(context=8192, concurrency=16, kv_layout="streams"),
    Wishes(concurrency=256),
    Wishes(kv_tokens=1 << 18),
    Wishes(variant="bf16", context=32768),
)
MACHINES = {"16 GiB": machine(16 * GIB), "64 GiB": machine(64 * GIB), "L4": gpus("L4", 1)}


@pytest.mark.parametrize("host", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("wishes", WISHES, ids=lambda wishes: f"{wishes.context}-{wishes.concurrency}")
def test_the_bytes_of_every_hint_are_those_of_following_it(host: Machine, wishes: Wishes) -> None:
    """Over the whole catalogue: to the byte, in main memory and on each GPU."""
    can = Engines(vllm=True)
    looked_at = 0
    for model in map(with_files, load_catalogue().models[::3]):
        outcome = plan(host, model, wishes, can)
        for fit in outcome.nearest if isinstance(outcome, NoFit) else ():
            changed = dataclasses.replace(wishes, **dict(fit.change))  # type: ignore[arg-type]
            followed = plan(host, model, changed, can)
            assert isinstance(followed, Plan), (model.name, fit)
            assert (followed.total_bytes, followed.bytes_of("gpu")) == (fit.total_bytes, fit.gpu_bytes)
            looked_at += 1
    assert looked_at


@pytest.mark.parametrize(("name", "asked"), [("concurrency", 256), ("context", 8192), ("kv_tokens", 1 << 18)])
def test_the_number_that_is_offered_is_near_the_largest_that_fits(name: str, asked: int) -> None:
    """A tenth more is refused, and it still fits a moment later, when a little more memory is taken."""
    wishes = {"variant": "q4_k_m", name: asked} | ({"concurrency": 64, "kv_layout": "streams"} if asked == 8192 else {})
    host = machine(16 * GIB)
    outcome = plan(host, llama_8b(), Wishes(**wishes))  # type: ignore[arg-type]
    assert isinstance(outcome, NoFit)
    offered = next(change[name] for fit in outcome.nearest if list(change := dict(fit.change)) == [name])
    assert isinstance(offered, int)
    assert offered < asked
    more = {**wishes, name: offered + offered // 10 + 256 * (name != "concurrency")}
    assert isinstance(plan(host, llama_8b(), Wishes(**{**wishes, name: offered})), Plan)  # type: ignore[arg-type]
    assert isinstance(plan(machine(16 * GIB - GIB // 8), llama_8b(), Wishes(**{**wishes, name: offered})), Plan)  # type: ignore[arg-type]
    assert isinstance(plan(host, llama_8b(), Wishes(**more)), NoFit)  # type: ignore[arg-type]


def test_a_pool_that_is_asked_for_is_shared_out() -> None:
    """However tight the rest of the memory is, its cells serve whole contexts, several where buffers allow."""
    outcomes = [
        plan(machine(size * GIB // 16), llama_8b(), Wishes(kv_tokens=99072)) for size in range(17 * 16, 24 * 16)
    ]
    planned = [outcome for outcome in outcomes if isinstance(outcome, LlamacppPlan)]
    assert len(planned) > 50
    assert {outcome.context for outcome in planned} == {8192}
    assert all(outcome.concurrency == 16 for outcome in planned if outcome.n_ubatch >= 128)
