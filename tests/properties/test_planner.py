"""What holds for every machine, model and wish."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.hardware import Cpu, Gpu, Machine, Memory
from serving.planner import Engines, LlamacppPlan, NoFit, Plan, VllmPlan, Wishes, plan
from serving.registry import Architecture, Model, TensorSum, Variant

MIB = 1024**2
TYPES = ("F16", "Q8_0", "Q4_K", "Q6_K", "Q4_0")


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Machines from 64 MiB to 1 TiB, some of them shares of larger ones, some that do not say."""
    total = draw(st.integers(64, 1024 * 1024)) * MIB
    available = draw(st.none() | st.integers(0, total))
    limit = draw(st.none() | st.integers(0, total))
    cores = tuple(range(draw(st.integers(0, 64))))
    quota = draw(st.none() | st.floats(0.1, 64))
    isa = draw(st.sampled_from([(), ("avx2",), ("avx2", "avx512f"), ("asimd", "asimddp")]))
    cpu = Cpu(usable=cores, cores=cores, quota=quota, isa=isa)
    return Machine(gpus=draw(gpus()), cpu=cpu, memory=Memory(total, available, limit, limit))


@st.composite
def gpus(draw: st.DrawFn) -> tuple[Gpu, ...]:
    """None, one or several, of one kind or two, idle or shared, some of which do not say what they have."""
    found: list[Gpu] = []
    for name in draw(st.sampled_from([(), (), ("A",), ("A", "B")])):
        total = draw(st.none() | st.integers(4, 200).map(lambda gib: gib * 1024 * MIB))
        capability = draw(st.none() | st.sampled_from([(6, 1), (7, 5), (8, 0), (8, 9), (9, 0)]))
        for _ in range(draw(st.integers(1, 8))):
            free = None if total is None else draw(st.none() | st.integers(0, total))
            found.append(Gpu(len(found), name, None, total, free, capability))
    return tuple(found)


engines = st.builds(Engines, vllm=st.booleans(), vllm_cpu=st.booleans(), offload=st.booleans())


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Models from toys to 70B shapes: plain, windowed, mixtures of experts."""
    layers = draw(st.integers(1, 80))
    heads = draw(st.sampled_from([1, 4, 32, 64]))
    width = draw(st.sampled_from([32, 64, 128, 256]))
    window = draw(st.none() | st.integers(1, 8192))
    experts = draw(st.none() | st.integers(2, 128))
    architecture = Architecture(
        family="llama",
        layers=layers,
        embedding=heads * width,
        feed_forward=draw(st.integers(1, 8)) * heads * width,
        heads=heads,
        kv_heads=tuple(draw(st.lists(st.sampled_from([0, 1, 8]), min_size=1, max_size=4)) * layers)[:layers],
        key_length=width,
        value_length=width,
        vocabulary=draw(st.none() | st.integers(1, 300_000)),
        sliding_window=window,
        windowed=tuple(layer % 2 == 0 for layer in range(layers)) if window else (),
        experts=experts,
        experts_used=2 if experts else None,
    )
    variants = []
    for number in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 80_000)) * MIB
        tensors = (TensorSum(draw(st.sampled_from(TYPES)), "matrix", size, rows_by_8=draw(st.booleans())),)
        path = draw(st.sampled_from([Path("/w.gguf"), None])) if number else Path("/w.gguf")
        variants.append(Variant(f"v{number}", "gguf", ("llamacpp",), size, path, tensors=tensors))
    for name in draw(st.sets(st.sampled_from(["bf16", "f16", "fp8", "other"]), max_size=2)):
        size = draw(st.none() | st.integers(1, 200_000).map(lambda mib: mib * MIB))
        path = draw(st.sampled_from([Path("/w"), None]))
        variants.insert(draw(st.integers(0, len(variants))), Variant(name, "safetensors", ("vllm",), size, path))
    return Model("m", "M", draw(st.integers(1, 200_000)), architecture, tuple(variants))


@st.composite
def wishes(draw: st.DrawFn) -> Wishes:
    """Any wishes that the command line lets through."""
    return Wishes(
        backend=draw(st.sampled_from([None, None, None, "llamacpp", "vllm"])),
        variant=draw(st.sampled_from([None, None, None, None, "v0", "v1", "bf16"])),
        local=draw(st.booleans()),
        context=draw(st.none() | st.integers(1, 300_000)),
        concurrency=draw(st.none() | st.integers(1, 256)),
        kv_layout=draw(st.sampled_from([None, "streams", "unified"])),
        kv_dtype=draw(st.sampled_from([None, "f16", "f32", "q8_0", "bf16", "fp8"])),
        kv_tokens=draw(st.none() | st.none() | st.integers(256, 1 << 20)),
        parallel=draw(st.none() | st.none() | st.sampled_from([1, 2, 3, 4, 8])),
        gpu_layers=draw(st.none() | st.none() | st.integers(0, 100)),
        threads=draw(st.none() | st.integers(1, 128)),
        load_mode=draw(st.sampled_from([None, "mmap", "none"])),
        swa_full=draw(st.booleans()),
        ubatch=draw(st.sampled_from([16, 512, 2048])),
        most_concurrency=draw(st.integers(1, 256)),
        snapshot_bytes=draw(st.integers(0, 1024)) * MIB,
        headroom=draw(st.floats(0, 0.5)),
    )


SLOW = bool(os.environ.get("SERVING_TEST_SLOW"))
CASES = 10_000 if SLOW else 300
pytestmark = pytest.mark.timeout(3600 if SLOW else 300)
"""Of each of the four properties: 10,000 in the slow run."""
many = settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)


@many
@given(machines(), models(), wishes(), engines)
def test_no_plan_exceeds_the_machine_or_the_wishes(machine: Machine, model: Model, asked: Wishes, can: Engines) -> None:
    """A plan stays within what is usable, and is what was asked for."""
    outcome = plan(machine, model, asked, can)
    if isinstance(outcome, NoFit):
        return
    usable = machine.memory.usable_bytes
    assert usable is None or outcome.total_bytes <= usable * (1 - asked.headroom)
    assert asked.backend in (None, outcome.engine)
    for name in ("variant", "context", "concurrency", "kv_dtype"):
        assert getattr(asked, name) in (None, getattr(outcome, name))
    assert 1 <= outcome.context <= model.context
    assert outcome.kv_tokens >= outcome.context
    assert all(line.bytes >= 0 for line in outcome.memory)
    assert not (asked.local and outcome.weights is None)
    if isinstance(outcome, VllmPlan):
        _is_within_gpus(machine, outcome, asked)
        assert can.vllm
        assert asked.parallel in (None, len(outcome.gpus))
        return
    assert isinstance(outcome, LlamacppPlan)
    for name in ("kv_layout", "threads", "load_mode"):
        assert getattr(asked, name) in (None, getattr(outcome, name))
    assert 1 <= outcome.concurrency <= (asked.concurrency or asked.most_concurrency)
    assert outcome.threads >= 1
    assert set(outcome.cores) <= set(machine.cpu.usable)
    if outcome.gpu_layers:
        assert can.offload
        free = machine.gpus[int(outcome.gpu or 0)].memory_free_bytes
        assert free is not None
        assert outcome.bytes_of("gpu") <= free * (1 - asked.headroom)
    else:
        assert not outcome.bytes_of("gpu")


def _is_within_gpus(machine: Machine, outcome: VllmPlan, asked: Wishes) -> None:
    """Each GPU that takes part is there, equal to the others, and has what is taken of it."""
    taken = [machine.gpus[int(index)] for index in outcome.gpus]
    assert len({(gpu.name, gpu.memory_total_bytes) for gpu in taken}) == 1
    assert len(set(outcome.gpus)) == len(outcome.gpus)
    for gpu in taken:
        assert gpu.memory_total_bytes
        assert outcome.bytes_of("gpu") <= gpu.memory_total_bytes * outcome.memory_utilisation
        assert outcome.memory_utilisation <= 1 - asked.headroom
        free = gpu.memory_free_bytes
        assert free is None or gpu.memory_total_bytes * outcome.memory_utilisation <= free


@many
@given(machines(), models(), wishes(), engines, st.integers(0, 1024**4), st.integers(0, 200 * 1024 * MIB))
def test_more_memory_never_makes_a_plan_stop_fitting(
    machine: Machine, model: Model, asked: Wishes, can: Engines, more: int, more_on_gpus: int
) -> None:
    """What fits a machine fits a larger one; what a larger one refuses, a smaller one refuses."""
    memory = machine.memory
    grown = Memory(
        (memory.total_bytes or 0) + more,
        None if memory.available_bytes is None else memory.available_bytes + more,
        None if memory.limit_bytes is None else memory.limit_bytes + more,
        None if memory.limit_remaining_bytes is None else memory.limit_remaining_bytes + more,
    )
    larger = tuple(
        dataclasses.replace(
            gpu,
            memory_total_bytes=gpu.memory_total_bytes and gpu.memory_total_bytes + more_on_gpus,
            memory_free_bytes=None if gpu.memory_free_bytes is None else gpu.memory_free_bytes + more_on_gpus,
        )
        for gpu in machine.gpus
    )
    if isinstance(plan(machine, model, asked, can), Plan):
        assert isinstance(plan(dataclasses.replace(machine, memory=grown, gpus=larger), model, asked, can), Plan)


@many
@given(machines(), models(), wishes(), engines)
def test_every_refusal_names_a_fit_where_there_is_one(
    machine: Machine, model: Model, asked: Wishes, can: Engines
) -> None:
    """The ways out that a refusal names work; and where it names none, the least that can be asked for is refused."""
    outcome = plan(machine, model, asked, can)
    if isinstance(outcome, Plan):
        return
    for fit in outcome.nearest:
        changed = dataclasses.replace(asked, **dict(fit.change))  # type: ignore[arg-type]
        followed = plan(machine, model, changed, can)
        assert isinstance(followed, Plan), fit
        assert (followed.total_bytes, followed.bytes_of("gpu")) == (fit.total_bytes, fit.gpu_bytes)
    if not outcome.nearest:
        for backend, dtype in itertools.product((None, "llamacpp", "vllm"), (None, "q8_0", "fp8")):
            least = Wishes(
                backend=backend,  # type: ignore[arg-type]
                kv_dtype=dtype,  # type: ignore[arg-type]
                local=asked.local,
                ubatch=asked.ubatch,
                snapshot_bytes=asked.snapshot_bytes,
                headroom=asked.headroom,
                most_concurrency=asked.most_concurrency,
            )
            assert isinstance(plan(machine, model, least, can), NoFit)


@many
@given(machines(), models(), wishes(), engines)
def test_what_comes_out_round_trips_through_json(machine: Machine, model: Model, asked: Wishes, can: Engines) -> None:
    """Nothing of a plan or a refusal is lost in JSON."""
    outcome = plan(machine, model, asked, can)
    assert type(outcome).from_json(outcome.to_json()) == outcome
