"""vLLM plans for models that embed or rank: a whole text a step, no cache where there is none, no more than needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from serving.hardware import Gpu
from serving.hardware.known import machine
from serving.planner import Engines, LlamacppPlan, NoFit, Plan, VllmPlan, Wishes, plan
from serving.registry import Model, Variant, load_catalogue
from tests.support.machines import GIB
from tests.support.machines import machine as host

CATALOGUE = load_catalogue()
ON_GPU = Engines(vllm=True)


def planned(name: str, gpus: int = 1, engines: Engines = ON_GPU, **wishes: Any) -> VllmPlan:
    """The plan on GPUs of 24 GB."""
    outcome = plan(machine("L4", gpus), CATALOGUE.find(name), Wishes(**wishes), engines)
    assert isinstance(outcome, VllmPlan), outcome
    return outcome


@pytest.mark.parametrize(
    ("name", "task", "context"),
    [
        ("bge-m3", "embed", 8192),
        ("bge-reranker-v2-m3", "rerank", 8192),
        ("multilingual-e5-large", "embed", 512),
    ],
)
def test_an_encoder_is_computed_whole_and_keeps_no_cache(name: str, task: str, context: int) -> None:
    """One step holds its longest text; of the GPU it gets what it needs, not all that there is."""
    outcome = planned(name)
    assert (outcome.task, outcome.context, outcome.kv_tokens, outcome.is_encoder) == (task, context, 0, True)
    assert outcome.step_tokens >= context
    assert not [line for line in outcome.memory if "cache" in line.name]
    assert outcome.dtype == "float16"
    needed = outcome.bytes_of("gpu")
    total = machine("L4", 1).gpus[0].memory_total_bytes or 0
    assert needed <= outcome.memory_utilisation * total <= needed + total / 1000
    assert outcome.memory_utilisation < 0.3
    assert Plan.from_json(outcome.to_json()) == outcome


def test_weights_are_counted_as_they_are_computed() -> None:
    """32-bit files take half on a GPU, and what they are on a CPU."""
    outcome = planned("bge-m3", variant="f32")
    assert outcome.memory[0].bytes == pytest.approx(outcome.weights_bytes / 2, rel=1e-6)
    alone = planned("bge-m3", engines=Engines(vllm_cpu=True), variant="f32", backend="vllm")
    assert (alone.gpus, alone.dtype, alone.memory[0].bytes) == ((), "float32", alone.weights_bytes)
    assert not alone.bytes_of("gpu")
    assert alone.kv_bytes


def test_a_decoder_keeps_a_cache_for_a_few_texts() -> None:
    """Its table has the cache, and its context is bounded unless more is asked for."""
    outcome = planned("qwen3-embedding-0.6b")
    assert (outcome.context, outcome.kv_tokens, outcome.dtype, outcome.is_encoder) == (
        8192,
        4 * 8192,
        "bfloat16",
        False,
    )
    assert [line for line in outcome.memory if line.name == "KV cache"]
    assert planned("qwen3-embedding-0.6b", context=32768).context == 32768


def test_one_gpu_serves_it_and_the_others_stay_free() -> None:
    """Several that share it are refused."""
    assert len(planned("bge-m3", 4).gpus) == 1
    refused = plan(machine("L4", 4), CATALOGUE.find("bge-m3"), Wishes(parallel=2), ON_GPU)
    assert isinstance(refused, NoFit)
    assert "one GPU" in refused.reason


def test_without_a_gpu_llamacpp_serves_it() -> None:
    """vLLM's CPU build is taken only where it is asked for."""
    outcome = plan(host(64 * GIB), CATALOGUE.find("bge-m3"), Wishes(), Engines(vllm_cpu=True))
    assert isinstance(outcome, LlamacppPlan)


def test_what_does_not_fit_is_refused_with_numbers() -> None:
    """On a GPU that others fill; llama.cpp is a way out."""
    gpu = dataclasses.replace(machine("L4", 1).gpus[0], memory_free_bytes=GIB)
    full = dataclasses.replace(machine("L4", 1), gpus=(gpu,))
    refused = plan(full, CATALOGUE.find("bge-m3"), Wishes(), ON_GPU)
    assert isinstance(refused, NoFit)
    assert refused.short_bytes == sum(line.bytes for line in refused.memory if line.kind == "gpu") - GIB
    assert dict(refused.nearest[0].change) == {"backend": "llamacpp"}


def with_heads(model: Model, width: int) -> Model:
    """The model with attention heads of another width."""
    assert model.architecture is not None
    return dataclasses.replace(model, architecture=dataclasses.replace(model.architecture, key_length=width))


@pytest.mark.parametrize(
    ("change", "wishes", "says"),
    [
        ({}, {"kv_layout": "streams"}, "`--kv-layout` can be asked of llama.cpp only"),
        ({}, {"gpu_layers": 5}, "llama.cpp only"),
        ({}, {"context": 9000}, "8192"),
        ({"kind": "reranker", "architecture": "decoder"}, {}, "ranks by what it would write"),
        ({"architecture": "other"}, {}, "encoders of the family `nomic-bert` are not served yet"),
        ({"variants": "unsaid"}, {}, "does not say how texts are pooled"),
    ],
)
def test_what_cannot_be_is_said(change: dict[str, str], wishes: dict[str, Any], says: str) -> None:
    """A wish that means nothing here, a model that would be computed wrongly: each is one sentence."""
    model = CATALOGUE.find("bge-m3")
    assert model.architecture is not None
    values: dict[str, Any] = {
        "decoder": CATALOGUE.find("qwen3-embedding-0.6b").architecture,
        "other": dataclasses.replace(model.architecture, family="nomic-bert"),
        "unsaid": (Variant("f32", "safetensors", ("vllm",), GIB, Path("/srv/m")),),
    }
    model = dataclasses.replace(model, **{key: values.get(value, value) for key, value in change.items()})
    outcome = plan(machine("L4", 1), model, Wishes(backend="vllm", **wishes), ON_GPU)
    assert isinstance(outcome, NoFit)
    assert says in outcome.reason


def test_heads_that_the_cpu_build_does_not_compute_are_refused_before_the_first_text() -> None:
    """It would start, and die when a text comes."""
    wishes = Wishes(backend="vllm")
    outcome = plan(host(64 * GIB), with_heads(CATALOGUE.find("bge-m3"), 12), wishes, Engines(vllm_cpu=True))
    assert isinstance(outcome, NoFit)
    assert "no attention for heads of 12 numbers" in outcome.reason


def test_an_old_gpu_computes_a_decoder_in_float16() -> None:
    """It has no brain floats."""
    t4 = dataclasses.replace(machine("L4", 1), gpus=(Gpu(0, "Tesla T4", None, 15 * GIB, 15 * GIB, (7, 5)),))
    outcome = plan(t4, CATALOGUE.find("qwen3-embedding-0.6b"), Wishes(), ON_GPU)
    assert isinstance(outcome, VllmPlan)
    assert outcome.dtype == "float16"
