"""Plans for models that embed or rank: pure, and true to what an engine takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import request, resident_bytes, running
from serving.hardware import detect
from serving.planner import LlamacppPlan, NoFit, Plan, Wishes, plan
from serving.planner.llamacpp_memory import CODE_BYTES
from serving.registry import Architecture, Model, Variant, load_catalogue, model_from_file
from serving.synthetic import write_dummy
from tests.support.machines import GIB, machine

ENCODER = Architecture(
    family="bert",
    layers=4,
    embedding=512,
    feed_forward=2048,
    heads=8,
    kv_heads=(8,) * 4,
    key_length=64,
    value_length=64,
    vocabulary=30_000,
    positions=2048,
)
DECODER = dataclasses.replace(ENCODER, family="qwen3", kv_heads=(4,) * 4, positions=None, tied=True)


def planned(name: str, gib: float = 64, **wishes: Any) -> LlamacppPlan:
    """The plan for a model of the catalogue, weights or not."""
    outcome = plan(machine(int(gib * GIB)), load_catalogue().find(name), Wishes(**wishes))
    assert isinstance(outcome, LlamacppPlan), outcome
    return outcome


@pytest.mark.parametrize(
    ("name", "task", "context"),
    [
        ("bge-m3", "embed", 8192),
        ("bge-reranker-v2-m3", "rerank", 8192),
        ("multilingual-e5-large", "embed", 512),
        ("multilingual-e5-base", "embed", 512),
    ],
)
def test_an_encoder_gets_its_whole_context_in_one_pass_and_no_cache(name: str, task: str, context: int) -> None:
    """The micro-batch is the longest text."""
    outcome = planned(name)
    assert (outcome.task, outcome.context, outcome.n_ubatch, outcome.kv_tokens) == (task, context, context, 0)
    assert not [line for line in outcome.memory if "cache" in line.name]
    assert Plan.from_json(outcome.to_json()) == outcome


def test_a_decoder_keeps_a_cache_for_its_longest_text() -> None:
    """It reads a long text in several passes."""
    outcome = planned("qwen3-embedding-0.6b")
    assert (outcome.task, outcome.context, outcome.n_ubatch, outcome.kv_tokens) == ("embed", 8192, 512, 8192)
    assert planned("qwen3-embedding-0.6b", context=32768).context == 32768


def test_where_memory_is_short_texts_are_shorter() -> None:
    """Half of the context, and so on; what is insisted on is kept or refused with numbers."""
    shorter = planned("bge-m3", 1.55, variant="f16")
    assert LEAST <= shorter.context < 8192
    assert any("tokens at most" in reason for reason in shorter.reasons)
    refused = plan(machine(int(1.55 * GIB)), load_catalogue().find("bge-m3"), Wishes(variant="f16", context=8192))
    assert isinstance(refused, NoFit)
    assert refused.short_bytes
    assert refused.nearest


LEAST = 128


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"kv_tokens": 4096}, "no cache to lay out"),
        ({"kv_layout": "streams"}, "no cache to lay out"),
        ({"gpu_layers": 5}, "on the CPU only"),
        ({"context": 9000}, "8192"),
    ],
)
def test_what_cannot_be_is_said(wishes: dict[str, Any], says: str) -> None:
    """A wish that means nothing here is refused, not ignored."""
    outcome = plan(machine(64 * GIB), load_catalogue().find("bge-m3"), Wishes(**wishes))
    assert isinstance(outcome, NoFit)
    assert says in outcome.reason


@pytest.mark.parametrize(
    ("kind", "shape", "quantisation"),
    [
        ("embedding", ENCODER, "f16"),
        ("embedding", dataclasses.replace(ENCODER, vocabulary=250_002, positions=1024), "q8_0"),
        ("reranker", dataclasses.replace(ENCODER, positions=4096), "f16"),
        ("embedding", DECODER, "q8_0"),
    ],
    ids=["embedder", "large-vocabulary", "reranker", "decoder"],
)
def test_an_engine_takes_what_was_planned(kind: Any, shape: Architecture, quantisation: str, tmp_path: Path) -> None:
    """What an engine that computed its longest text keeps: its own memory and its weights within 10% of the plan.

    Of code, what is resident differs by kernel, which maps around a fault what its page cache happens to hold: 25 MiB
    on one machine, 32 on another with the same libraries. It is counted apart, so that it cannot hide a wrong sum.
    """
    made = Model(kind, kind, shape.positions or 2048, shape, (), kind=kind)
    path = write_dummy(made, Variant(quantisation, "gguf", ("llamacpp",), None), tmp_path)
    outcome = plan(detect(), model_from_file(path), Wishes())
    assert isinstance(outcome, LlamacppPlan)
    with running(outcome, tmp_path) as (pid, socket):
        longest = [5] * outcome.context
        bodies: list[tuple[str, dict[str, Any]]] = [("/v1/embeddings", {"input": [longest, *[[1, 2, 3]] * 100]})]
        if kind == "reranker":
            bodies = [("/v1/rerank", {"query": "aqa", "documents": ["aqa " * (outcome.context - 64), "aqb"]})]
        for route, body in bodies:
            status, answer = request(socket, "POST", route, {"model": outcome.model, **body})
            assert status == 200, answer
        taken, weights = resident_bytes(pid), mapped_bytes(pid, path)
    assert taken["RssAnon"] == pytest.approx(outcome.bytes_of("anonymous"), rel=0.1, abs=4 * 2**20)
    assert weights == pytest.approx(outcome.bytes_of("file") - CODE_BYTES, rel=0.1, abs=2**20)
    assert taken["RssFile"] - weights == pytest.approx(CODE_BYTES, rel=0.4)


def mapped_bytes(pid: int, path: Path) -> int:
    """Resident bytes of a process that map one file."""
    total, is_ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024 if is_ours else 0
        elif not line.split()[0].endswith(":"):
            is_ours = line.endswith(f" {path}")
    return total
