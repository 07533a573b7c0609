"""What holds for every machine, model and wish."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.hardware import Cpu, Machine, Memory
from serving.planner import NoFit, Plan, Wishes, plan
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
    return Machine(cpu=cpu, memory=Memory(total, available, limit, limit))


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
        kv_heads=tuple(draw(st.lists(st.sampled_from([0, 1, 8]), min_size=layers, max_size=layers))),
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
    return Model("m", "M", draw(st.integers(1, 200_000)), architecture, tuple(variants))


@st.composite
def wishes(draw: st.DrawFn) -> Wishes:
    """Any wishes that the command line lets through."""
    return Wishes(
        variant=draw(st.sampled_from([None, None, None, "v0", "v1"])),
        context=draw(st.none() | st.integers(1, 300_000)),
        concurrency=draw(st.none() | st.integers(1, 256)),
        kv_layout=draw(st.sampled_from([None, "streams", "unified"])),
        kv_dtype=draw(st.sampled_from([None, "f16", "f32", "q8_0", "bf16"])),
        threads=draw(st.none() | st.integers(1, 128)),
        load_mode=draw(st.sampled_from([None, "mmap", "none"])),
        swa_full=draw(st.booleans()),
        ubatch=draw(st.sampled_from([16, 512, 2048])),
        most_concurrency=draw(st.integers(1, 256)),
        snapshot_bytes=draw(st.integers(0, 1024)) * MIB,
        headroom=draw(st.floats(0, 0.5)),
    )


many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(machines(), models(), wishes())
def test_no_plan_exceeds_the_machine_or_the_wishes(machine: Machine, model: Model, asked: Wishes) -> None:
    """A plan stays within what is usable, and is what was asked for."""
    outcome = plan(machine, model, asked)
    if isinstance(outcome, NoFit):
        return
    usable = machine.memory.usable_bytes
    assert usable is None or outcome.total_bytes <= usable * (1 - asked.headroom)
    for name in ("variant", "context", "concurrency", "kv_layout", "kv_dtype", "threads", "load_mode"):
        assert getattr(asked, name) in (None, getattr(outcome, name))
    assert 1 <= outcome.context <= model.context
    assert 1 <= outcome.concurrency <= (asked.concurrency or asked.most_concurrency)
    assert outcome.kv_tokens >= outcome.context
    assert outcome.threads >= 1
    assert set(outcome.cores) <= set(machine.cpu.usable)
    assert all(line.bytes >= 0 for line in outcome.memory)


@many
@given(machines(), models(), wishes(), st.integers(0, 1024**4))
def test_more_memory_never_makes_a_plan_stop_fitting(machine: Machine, model: Model, asked: Wishes, more: int) -> None:
    """What fits a machine fits a larger one; what a larger one refuses, a smaller one refuses."""
    memory = machine.memory
    grown = Memory(
        (memory.total_bytes or 0) + more,
        None if memory.available_bytes is None else memory.available_bytes + more,
        None if memory.limit_bytes is None else memory.limit_bytes + more,
        None if memory.limit_remaining_bytes is None else memory.limit_remaining_bytes + more,
    )
    if isinstance(plan(machine, model, asked), Plan):
        assert isinstance(plan(dataclasses.replace(machine, memory=grown), model, asked), Plan)


@many
@given(machines(), models(), wishes())
def test_every_refusal_names_a_fit_where_there_is_one(machine: Machine, model: Model, asked: Wishes) -> None:
    """The ways out that a refusal names work; and where it names none, the least that can be asked for is refused."""
    outcome = plan(machine, model, asked)
    if isinstance(outcome, Plan):
        return
    for fit in outcome.nearest:
        changed = dataclasses.replace(asked, **dict(fit.change))  # type: ignore[arg-type]
        assert isinstance(plan(machine, model, changed), Plan), fit
    if not outcome.nearest:
        for dtype in (None, "q8_0"):
            least = Wishes(
                kv_dtype=dtype,  # type: ignore[arg-type]
                ubatch=asked.ubatch,
                snapshot_bytes=asked.snapshot_bytes,
                headroom=asked.headroom,
                most_concurrency=asked.most_concurrency,
            )
            assert isinstance(plan(machine, model, least), NoFit)


@many
@given(machines(), models(), wishes())
def test_what_comes_out_round_trips_through_json(machine: Machine, model: Model, asked: Wishes) -> None:
    """Nothing of a plan or a refusal is lost in JSON."""
    outcome = plan(machine, model, asked)
    assert type(outcome).from_json(outcome.to_json()) == outcome
