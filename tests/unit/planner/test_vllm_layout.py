"""Which GPUs share layers, which follow each other, and how many copies there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.hardware.known import GpuKind, machine
from serving.planner import Engines, NoFit, VllmPlan, Wishes, plan
from serving.planner.vllm_layout import Layout, cannot_share, plan_layouts, stages_of
from serving.planner.vllm_memory import adapters_line
from serving.registry import Adapter, Architecture, load_catalogue
from serving.registry.sizes import shard_bytes, share_of

CATALOGUE = load_catalogue()
NAMES = ["llama3-8b", "llama3.1-70b", "mixtral-8x7b", "qwen3-32b", "gpt-oss-120b", "deepseek-r1", "llama3.2-3b"]


def planned(name: str, kind: GpuKind, count: int, **wishes: object) -> VllmPlan:
    outcome = plan(machine(kind, count), CATALOGUE.find(name), Wishes(**wishes), Engines(vllm=True))  # type: ignore[arg-type]
    assert isinstance(outcome, VllmPlan), outcome
    return outcome


def refusal(name: str, kind: GpuKind, count: int, **wishes: object) -> str:
    outcome = plan(machine(kind, count), CATALOGUE.find(name), Wishes(**wishes), Engines(vllm=True))  # type: ignore[arg-type]
    assert isinstance(outcome, NoFit)
    return outcome.reason


@given(st.integers(1, 200), st.data())
def test_stages_are_vllms(layers: int, data: st.DataObject) -> None:
    """Every layer is in one stage, in order; none is longer by more than one; the last one is never longer."""
    pipeline = data.draw(st.integers(1, layers))
    stages = stages_of(layers, pipeline)
    assert [layer for stage in stages for layer in stage.layers] == list(range(layers))
    lengths = [len(stage.layers) for stage in stages]
    assert max(lengths) - min(lengths) <= 1
    assert lengths[-1] == min(lengths)
    assert [stage.is_first for stage in stages] == [True] + [False] * (pipeline - 1)
    assert [stage.is_last for stage in stages] == [False] * (pipeline - 1) + [True]


def test_uneven_stages_by_example() -> None:
    """As vLLM's own rule has it: 30 layers in 4 stages are 7, 8, 8, 7; 32 in 6 are 5, 5, 5, 6, 6, 5."""
    assert [len(stage.layers) for stage in stages_of(30, 4)] == [7, 8, 8, 7]
    assert [len(stage.layers) for stage in stages_of(32, 6)] == [5, 5, 5, 6, 6, 5]


@pytest.mark.parametrize("name", NAMES)
def test_stages_hold_the_model_between_them(name: str) -> None:
    """Weights of all stages are the whole model's; what is in two of them is a tied embedding and a vision tower."""
    model = CATALOGUE.find(name)
    variant = next(variant.name for variant in model.variants if "vllm" in variant.backends)
    share, whole = share_of(model, variant, 1), shard_bytes(model, variant, 1)
    assert share is not None
    assert whole is not None
    for pipeline in (2, 3, 5):
        stages = stages_of(len(share.layers), pipeline)
        total = sum(share.of(stage.layers, is_first=stage.is_first, is_last=stage.is_last) for stage in stages)
        twice = share.embedding if share.is_tied else 0
        assert total == pytest.approx(whole + twice + (pipeline - 1) * share.everywhere, abs=pipeline)


def test_three_gpus_that_cannot_share_heads_take_stages() -> None:
    """70B on three H100 is a pipeline of three; the table is the fullest stage's, and says which."""
    outcome = planned("llama3.1-70b", "H100", 3)
    assert (outcome.tensor, outcome.pipeline, outcome.data) == (1, 3, 1)
    weights = next(line for line in outcome.memory if line.name == "weights")
    assert "stage 1 of 3: layers 0 to 26 and embedding" in weights.formula
    assert any("3 GPUs cannot share its 64 heads equally" in one.why for one in outcome.rejected)
    assert any("3 stages share the layers" in reason for reason in outcome.reasons)


def test_six_gpus_share_layers_only_as_far_as_nvlink_joins_them() -> None:
    """With NVLink pairs share the layers of three stages; without, each GPU is a stage."""
    linked = planned("llama3-70b", "A100-40", 6)
    assert (linked.tensor, linked.pipeline) == (2, 3)
    layouts = plan_layouts(_architecture("llama3.1-70b"), machine("L40S", 6).gpus, Wishes(parallel=6))
    assert layouts[0] == Layout(1, 6)
    layouts = plan_layouts(_architecture("llama3.1-70b"), machine("A100-40", 6).gpus, Wishes(parallel=6))
    assert layouts[0] == Layout(2, 3)


def test_without_nvlink_the_other_way_is_named() -> None:
    """Tensor parallelism stays, for the time of a token; that a pipeline would carry more under load is said."""
    outcome = planned("qwen3-32b", "L40S", 4)
    assert (outcome.tensor, outcome.pipeline) == (4, 1)
    assert any(one.what == "pipeline 4" and "NVLink" in one.why for one in outcome.rejected)
    assert not any("NVLink" in one.why for one in planned("qwen3-32b", "A100-40", 4).rejected)


def test_copies_are_made_when_asked_for() -> None:
    """Eight copies of an 8B model hold eight caches; of themselves the GPUs stay free, and the plan says how."""
    one = planned("llama3-8b", "H100", 8)
    assert (one.data, len(one.gpus)) == (1, 1)
    assert any("--data-parallel" in reason for reason in one.reasons)
    eight = planned("llama3-8b", "H100", 8, data_parallel=8)
    assert (eight.tensor, eight.pipeline, eight.data, len(eight.gpus)) == (1, 1, 8, 8)
    assert eight.kv_tokens == 8 * one.kv_tokens
    assert eight.concurrency == 8 * one.concurrency
    assert eight.bytes_of("gpu") == one.bytes_of("gpu")
    cache = next(line.formula for line in eight.memory if line.name == "KV cache")
    assert f"8 copies hold {eight.kv_tokens} together" in cache


def test_copies_of_a_mixture_share_its_experts() -> None:
    """Each of two copies has half of the experts' bytes, and all of the rest."""
    model = CATALOGUE.find("mixtral-8x7b")
    one, two = share_of(model, "bf16", 1), share_of(model, "bf16", 1, 2)
    assert one is not None
    assert two is not None
    assert sum(two.layers) < 0.55 * sum(one.layers)
    assert two.embedding == one.embedding


def test_a_pipeline_splits_a_cache_that_heads_cannot() -> None:
    """DeepSeek's latent is whole on each of the GPUs that share a layer, and in stages it is not."""
    shared = planned("deepseek-r1", "H200", 8)
    staged = planned("deepseek-r1", "H200", 8, pipeline_parallel=2)
    assert (staged.tensor, staged.pipeline) == (4, 2)
    assert staged.kv_tokens > 1.5 * shared.kv_tokens


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"tensor_parallel": 3}, "3 GPUs cannot share its 32 heads equally"),
        ({"tensor_parallel": 16}, "16 GPUs are asked for, 8 equal ones are here"),
        ({"tensor_parallel": 4, "data_parallel": 3}, "12 GPUs are asked for (tensor 4 × data 3), 8 equal ones"),
        ({"pipeline_parallel": 33}, "33 GPUs are asked for, 8 equal ones are here"),
        ({"parallel": 6, "tensor_parallel": 4}, "6 GPUs cannot be 4 × 1 of them"),
        ({"parallel": 8, "tensor_parallel": 2, "pipeline_parallel": 2}, "tensor 2 × pipeline 2 is not 8 GPUs"),
    ],
)
def test_what_cannot_be_is_refused_in_numbers(wishes: dict[str, int], says: str) -> None:
    """How many were asked for, how many there are, and which number does not divide."""
    assert says in refusal("llama3-8b", "H100", 8, **wishes)


def test_more_stages_than_layers_are_refused() -> None:
    """A stage without a layer is none."""
    model = CATALOGUE.find("llama3-8b")
    assert model.architecture is not None
    small = dataclasses.replace(model.architecture, layers=2, kv_heads=(8, 8))
    outcome = plan(
        machine("H100", 4), dataclasses.replace(model, architecture=small), Wishes(pipeline_parallel=3),
        Engines(vllm=True),
    )  # fmt: skip
    assert isinstance(outcome, NoFit)
    assert outcome.reason == "3 stages are asked for, and it has 2 layers"


def test_adapters_have_their_line() -> None:
    """Rank 16 of every matrix of an 8B model, by hand, and room made for a rank that vLLM has."""
    adapters = (Adapter("legal", Path("/a"), 12), Adapter("medical", Path("/b"), 4))
    layer = 4096 * 2 + (4096 + 1024) * 2 + 4096 * 2 + 3 * (4096 + 14336)
    line = adapters_line(_architecture("llama3-8b"), adapters, "gpu")
    assert line.bytes == 2 * 16 * 2 * (32 * layer + 2 * (128256 + 4096))
    outcome, plain = planned("llama3-8b", "H100", 1, adapters=adapters), planned("llama3-8b", "H100", 1)
    assert outcome.kv_tokens < plain.kv_tokens
    assert [adapter.name for adapter in outcome.adapters] == ["legal", "medical"]


@st.composite
def asked(draw: st.DrawFn) -> Wishes:
    """Wishes of parallelism, most of them absent."""
    return Wishes(
        parallel=draw(st.none() | st.none() | st.integers(1, 12)),
        tensor_parallel=draw(st.none() | st.none() | st.integers(1, 8)),
        pipeline_parallel=draw(st.none() | st.none() | st.integers(1, 8)),
        data_parallel=draw(st.none() | st.none() | st.integers(1, 4)),
        context=draw(st.none() | st.sampled_from([1024, 8192])),
        concurrency=draw(st.none() | st.integers(1, 64)),
    )


@hypothesis_settings(deadline=None, max_examples=120)
@given(st.sampled_from(NAMES), st.sampled_from(["H100", "H200", "L40S", "L4"]), st.integers(1, 12), asked())
def test_every_layout_is_one_that_vllm_takes(name: str, kind: GpuKind, count: int, wishes: Wishes) -> None:
    """Its product is the GPUs; heads divide; layers suffice; a wish is followed or refused; the table stays in bounds;
    and nothing is lost in JSON."""
    model = CATALOGUE.find(name)
    outcome = plan(machine(kind, count), model, wishes, Engines(vllm=True))
    assert type(outcome).from_json(outcome.to_json()) == outcome
    if isinstance(outcome, NoFit):
        assert outcome.reason
        return
    assert isinstance(outcome, VllmPlan)
    it = model.architecture
    assert it is not None
    assert outcome.tensor * outcome.pipeline * outcome.data == len(outcome.gpus) <= count
    assert it.heads % outcome.tensor == 0
    assert outcome.pipeline <= it.layers
    assert cannot_share(it, outcome.tensor, outcome.data) is None
    assert wishes.tensor_parallel in (None, outcome.tensor)
    assert wishes.pipeline_parallel in (None, outcome.pipeline)
    assert (wishes.data_parallel or 1) == outcome.data
    assert wishes.parallel in (None, outcome.tensor * outcome.pipeline)
    assert outcome.bytes_of("gpu") <= (outcome.gpu_budget_bytes or 0)
    assert outcome.kv_tokens >= outcome.data * outcome.context
    assert wishes.concurrency in (None, outcome.concurrency)
    assert all(line.bytes >= 0 for line in outcome.memory)


def _architecture(name: str) -> Architecture:
    found = CATALOGUE.find(name).architecture
    assert found is not None
    return found
