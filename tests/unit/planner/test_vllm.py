"""vLLM plans: sizes against published numbers worked out by hand, and what a GPU must be able to do."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from benchmarks.sizing import COUNTS, MODELS, document
from serving.hardware import Gpu, Machine
from serving.hardware.described import described_machine
from serving.hardware.known import KINDS, GpuKind, machine
from serving.planner import Engines, LlamacppPlan, NoFit, Plan, VllmPlan, Wishes, plan
from serving.planner.vllm import equal_gpus
from serving.planner.vllm_memory import cache_bytes
from serving.registry import load_catalogue
from serving.registry.sizes import shard_bytes

GB, GIB, KIB = 10**9, 1024**3, 1024
CATALOGUE = load_catalogue()
VLLM = Engines(vllm=True)
DOCUMENT = Path(__file__).parents[3] / "docs/sizing.md"

PUBLISHED = {
    # billions of parameters, bytes each, as the cards and papers state them
    "llama3-8b": (8.03, 2.0),
    "llama3-70b": (70.55, 2.0),
    "llama3.1-70b": (70.55, 2.0),
    "mixtral-8x7b": (46.70, 2.0),
    "qwen3-32b": (32.76, 2.0),
    "gpt-oss-120b": (116.83, 0.5582),  # 65.2 GB of files for 116.83 billion
    "deepseek-r1": (671.0, 1.0),
}
KV_PER_TOKEN = {
    # layers × 2 × KV heads × head × 2 bytes
    "llama3-8b": 32 * 2 * 8 * 128 * 2,
    "llama3-70b": 80 * 2 * 8 * 128 * 2,
    "llama3.1-70b": 80 * 2 * 8 * 128 * 2,
    "mixtral-8x7b": 32 * 2 * 8 * 128 * 2,
    "qwen3-32b": 64 * 2 * 8 * 128 * 2,
    # layers × (latent + rotary) × 2 bytes
    "deepseek-r1": 61 * (512 + 64) * 2,
}


def planned(name: str, kind: GpuKind, count: int, **wishes: object) -> LlamacppPlan | VllmPlan | NoFit:
    return plan(machine(kind, count), CATALOGUE.find(name), Wishes(**wishes), VLLM)  # type: ignore[arg-type]


def line(outcome: Plan | NoFit, name: str) -> int:
    return next(line.bytes for line in outcome.memory if line.name == name)


def test_kv_sizes_are_the_published_ones() -> None:
    """128 KiB a token for Llama 8B, 320 KiB for 70B, 68.6 KiB for DeepSeek's latent."""
    for name, per_token in KV_PER_TOKEN.items():
        architecture = CATALOGUE.find(name).architecture
        assert architecture is not None
        assert cache_bytes(architecture, 4096, 2, 1, 2048) == 4096 * per_token
    assert KV_PER_TOKEN["llama3-8b"] == 128 * KIB
    assert KV_PER_TOKEN["llama3.1-70b"] == 320 * KIB
    assert KV_PER_TOKEN["deepseek-r1"] / KIB == pytest.approx(68.6, abs=0.05)


def test_windowed_layers_stop_growing_at_their_window() -> None:
    """gpt-oss: 18 of 36 layers see 128 tokens, and keep those and what a step adds."""
    architecture = CATALOGUE.find("gpt-oss-120b").architecture
    assert architecture is not None
    per_layer = 2 * 8 * 64 * 2
    found = cache_bytes(architecture, 131072, 2, 1, 2048)
    assert found == 18 * 131072 * per_layer + 18 * (128 + 2048) * per_layer


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_are_the_published_parameters(name: str) -> None:
    """One GPU would hold them all; shares add up to them and what is on every GPU."""
    billions, each = PUBLISHED[name]
    model = CATALOGUE.find(name)
    variant = next(variant.name for variant in model.variants if "vllm" in variant.backends)
    whole = shard_bytes(model, variant, 1)
    assert whole == pytest.approx(billions * GB * each, rel=0.02)
    for count in (2, 4, 8):
        share = shard_bytes(model, variant, count)
        assert share is not None
        assert whole is not None
        assert whole <= share * count <= whole * 1.05


@pytest.mark.parametrize(("name", "kind", "count"), list(itertools.product(MODELS, KINDS, COUNTS)))
def test_plan_or_refusal_by_hand(name: str, kind: GpuKind, count: int) -> None:
    """It fits where the weights' share leaves 3.5 GiB of nine tenths of each GPU, and not where it leaves 1.5 GiB."""
    outcome = planned(name, kind, count)
    billions, each = PUBLISHED[name]
    room = {n: 0.9 * KINDS[kind].total_bytes - billions * GB * each / n for n in (1, 2, 4, 8) if n <= count}
    able = name != "deepseek-r1" or KINDS[kind].capability >= (8, 9)
    if isinstance(outcome, VllmPlan):
        assert able
        assert room[len(outcome.gpus)] > 1.5 * GIB
        assert outcome.bytes_of("gpu") <= 0.9 * KINDS[kind].total_bytes
        assert outcome.kv_tokens >= outcome.context
        per_token = KV_PER_TOKEN.get(name)
        if per_token and name != "deepseek-r1":
            assert line(outcome, "KV cache") // outcome.kv_tokens == pytest.approx(
                per_token / len(outcome.gpus), rel=1e-3
            )
    else:
        assert isinstance(outcome, NoFit)
        assert not able or all(left < 3.5 * GIB for left in room.values())
        if outcome.short_bytes is not None:
            total = sum(each.bytes for each in outcome.memory if each.kind == "gpu")
            assert total == (outcome.gpu_budget_bytes or 0) + outcome.short_bytes
        enough = outcome.enough
        if enough and int(enough.split()[0]) <= 16:
            bigger = described_machine(f"{enough.split()[0]}x{kind}")
            assert isinstance(plan(bigger, CATALOGUE.find(name), Wishes(), VLLM), VllmPlan)


def test_the_page_says_in_whole_sentences_why_no_number_is_enough() -> None:
    """Its last column has a number, or why there is none; nothing cut, and no bare dash."""
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    last = [row.split(" | ")[-1].removesuffix(" |") for row in rows if not row.startswith("| GPU")]
    assert all(cell.isdigit() or cell.startswith("none: ") for cell in last)
    assert not any("gguf is served" in cell for cell in last)


def test_the_page_is_what_the_planner_says() -> None:
    """`python -m benchmarks.sizing > docs/sizing.md` writes it again."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_heads_decide_how_many_gpus_share() -> None:
    """Three GPUs serve on two: 32 heads are not shared by three."""
    three = dataclasses.replace(machine("L4", 4), gpus=machine("L4", 4).gpus[:3])
    outcome = plan(three, CATALOGUE.find("llama3-8b"), Wishes(), VLLM)
    assert isinstance(outcome, VllmPlan)
    assert len(outcome.gpus) == 2
    refused = plan(three, CATALOGUE.find("llama3-8b"), Wishes(tensor_parallel=3), VLLM)
    assert isinstance(refused, NoFit)
    assert "3 GPUs cannot share its 32 heads equally" in refused.reason


def test_more_gpus_than_kv_heads_repeat_them() -> None:
    """16 GPUs for 8 key/value heads: each keeps one whole head."""
    architecture = CATALOGUE.find("llama3-8b").architecture
    assert architecture is not None
    eighth, sixteenth = (cache_bytes(architecture, 1024, 2, count, 0) for count in (8, 16))
    assert eighth == sixteenth == 1024 * 16 * KIB


def test_fp8_halves_the_cache_where_the_gpu_has_it() -> None:
    """Asked for on an L4 it doubles the tokens; on an A100 it is refused with what it needs."""
    plain, quantised = planned("llama3-8b", "L4", 1), planned("llama3-8b", "L4", 1, kv_dtype="fp8")
    assert isinstance(plain, VllmPlan)
    assert isinstance(quantised, VllmPlan)
    assert quantised.kv_tokens == pytest.approx(2 * plain.kv_tokens, rel=0.01)
    refused = planned("llama3-8b", "A100-80", 1, kv_dtype="fp8")
    assert isinstance(refused, NoFit)
    assert "needs compute capability 8.9; NVIDIA A100-SXM4-80GB has 8.0" in refused.reason
    assert refused.nearest


def test_old_gpus_compute_in_float16_or_refuse() -> None:
    """A T4 has no brain floats: Llama runs in float16, Gemma overflows there and is refused, a P40 is too old."""
    t4 = _one(Gpu(0, "Tesla T4", None, 15 * GIB, 15 * GIB, (7, 5)))
    outcome = plan(t4, CATALOGUE.find("llama3.2-3b"), Wishes(), VLLM)
    assert isinstance(outcome, VllmPlan)
    assert (outcome.dtype, outcome.kv_dtype) == ("float16", "f16")
    gemma = plan(t4, CATALOGUE.find("gemma3-4b"), Wishes(backend="vllm"), VLLM)
    assert isinstance(gemma, NoFit)
    assert "need compute capability 8.0; Tesla T4 has 7.5" in gemma.reason
    p40 = _one(Gpu(0, "Tesla P40", None, 24 * GIB, 24 * GIB, (6, 1)))
    refused = plan(p40, CATALOGUE.find("llama3.2-3b"), Wishes(), VLLM)
    assert isinstance(refused, NoFit)
    assert "7.5 or higher" in refused.reason


def test_what_others_take_of_a_gpu_is_not_planned_with() -> None:
    """vLLM is given the share that is free, and the plan says why."""
    gpus = machine("L4", 1).gpus
    busy = dataclasses.replace(gpus[0], memory_free_bytes=20 * GIB)
    outcome = plan(dataclasses.replace(machine("L4", 1), gpus=(busy,)), CATALOGUE.find("llama3-8b"), Wishes(), VLLM)
    assert isinstance(outcome, VllmPlan)
    assert outcome.memory_utilisation == pytest.approx(20 / 22.494, abs=0.002)
    assert outcome.memory_utilisation * (busy.memory_total_bytes or 0) <= 20 * GIB
    assert any("taken by others" in reason for reason in outcome.reasons)


def test_gpus_of_two_kinds_are_not_mixed() -> None:
    """The larger group serves."""
    mixed = (
        *machine("L4", 2).gpus,
        *(dataclasses.replace(gpu, index=2 + gpu.index) for gpu in machine("H100", 1).gpus),
    )
    assert [gpu.index for gpu in equal_gpus(mixed)] == [2]


def test_without_vllm_a_gpu_is_not_left_idle_in_silence() -> None:
    """The plan for the CPU says that the GPU is not used, and why."""
    outcome = plan(machine("L4", 1), CATALOGUE.find("llama3-8b"), Wishes(), Engines())
    assert isinstance(outcome, LlamacppPlan)
    assert any("1 GPU seen and not used" in reason for reason in outcome.reasons)
    assert outcome.rejected[0].what == "engine vllm"
    assert outcome.rejected[0].why == "it is not installed here"


def test_a_model_too_large_for_the_gpus_is_not_served_slowly_instead() -> None:
    """It is refused; the CPU is among the ways out, and more GPUs are."""
    refused = planned("llama3.1-70b", "L4", 1)
    assert isinstance(refused, NoFit)
    assert refused.enough == "8 × NVIDIA L4"
    assert dict(refused.nearest[0].change) == {"backend": "llamacpp"}


def test_a_weak_gpu_takes_some_layers_where_the_build_can() -> None:
    """8 GiB hold a part of an 8B model's layers; the table says what lies where."""
    small = _one(Gpu(0, "RTX 3050", None, 8 * GIB, 7 * GIB, (8, 6)))
    outcome = plan(small, CATALOGUE.find("llama3-8b"), Wishes(variant="q8_0"), Engines(offload=True))
    assert isinstance(outcome, LlamacppPlan)
    assert 0 < outcome.gpu_layers < 33
    assert outcome.gpu == "0"
    assert outcome.bytes_of("gpu") <= 0.9 * 7 * GIB
    alone = plan(small, CATALOGUE.find("llama3-8b"), Wishes(variant="q8_0"), Engines())
    assert isinstance(alone, LlamacppPlan)
    assert line(alone, "weights") - line(outcome, "weights") == line(outcome, "GPU weights")
    whole = plan(_one(machine("H100", 1).gpus[0]), CATALOGUE.find("llama3-8b"), Wishes(), Engines(offload=True))
    assert isinstance(whole, LlamacppPlan)
    assert whole.gpu_layers == 33
    refused = plan(small, CATALOGUE.find("llama3-8b"), Wishes(gpu_layers=20), Engines())
    assert isinstance(refused, NoFit)
    assert "the installed llama.cpp has none" in refused.reason


def test_plans_of_both_engines_come_back_from_json() -> None:
    """The engine tells which of the two it is."""
    for outcome in (planned("qwen3-32b", "H100", 2), plan(machine("L4", 1), CATALOGUE.find("demo"), Wishes())):
        assert isinstance(outcome, Plan)
        assert Plan.from_json(outcome.to_json()) == outcome


def _one(gpu: Gpu) -> Machine:
    return dataclasses.replace(machine("L4", 1), gpus=(gpu,))
