"""What the planner chooses and what it says, by example."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serving.hardware import Cpu, Gpu, Machine
from serving.planner import NoFit, Plan, Wishes, decide_wait_policy, plan
from serving.planner.llamacpp import decide_load_mode
from serving.planner.llamacpp_memory import kv_bytes_per_token
from serving.registry import load_catalogue
from tests.support.machines import GIB, LLAMA_8B, MIB, gguf, llama_8b, machine


def planned(*args: object, **wishes: object) -> Plan:
    """The plan; anything else fails the test."""
    outcome = plan(*args, Wishes(**wishes))  # type: ignore[arg-type]
    assert isinstance(outcome, Plan), outcome
    return outcome


def refused(*args: object, **wishes: object) -> NoFit:
    """The refusal; anything else fails the test."""
    outcome = plan(*args, Wishes(**wishes))  # type: ignore[arg-type]
    assert isinstance(outcome, NoFit), outcome
    return outcome


def test_the_demo_model_gets_all_it_was_made_for() -> None:
    """On a small machine: 16 sequences of the model's whole context, a region each."""
    outcome = planned(machine(2 * GIB, cores=2), load_catalogue().find("demo"))
    assert (outcome.variant, outcome.concurrency, outcome.context) == ("q8_0", 16, 4096)
    assert (outcome.kv_layout, outcome.kv_tokens) == ("streams", 65536)
    assert (outcome.threads, outcome.cores) == (2, (0, 1))


def test_kv_bytes_are_the_published_ones() -> None:
    """Llama 3 8B takes 128 KiB per token in 16-bit numbers."""
    assert kv_bytes_per_token(LLAMA_8B, "f16") == 128 * 1024


def test_the_first_variant_that_fits_is_taken() -> None:
    """A large machine serves Q8_0, a small one Q4_K, and says why not the other."""
    assert planned(machine(64 * GIB), llama_8b()).variant == "q8_0"
    outcome = planned(machine(8 * GIB), llama_8b())
    assert outcome.variant == "q4_k_m"
    assert [rejected.what for rejected in outcome.rejected] == ["variant bf16", "variant q8_0"]


def test_layout_follows_memory() -> None:
    """Streams where the whole context of all sequences leaves room, else one pool with the whole context for one."""
    roomy = planned(machine(256 * GIB), llama_8b())
    assert (roomy.kv_layout, roomy.concurrency, roomy.context) == ("streams", 16, 8192)
    tight = planned(machine(24 * GIB), llama_8b())
    assert (tight.kv_layout, tight.concurrency, tight.context) == ("unified", 16, 8192)
    assert 8192 <= tight.kv_tokens < 16 * 8192


def test_wishes_are_kept_to_the_letter() -> None:
    """What was asked for is what is planned."""
    outcome = planned(
        machine(64 * GIB),
        llama_8b(),
        variant="q4_k_m",
        context=3000,
        concurrency=3,
        kv_layout="streams",
        kv_dtype="q8_0",
        threads=5,
        wait_policy="passive",
        load_mode="mmap",
    )
    assert (outcome.variant, outcome.context, outcome.concurrency) == ("q4_k_m", 3000, 3)
    assert (outcome.kv_layout, outcome.kv_dtype, outcome.kv_tokens) == ("streams", "q8_0", 3 * 3072)
    assert (outcome.threads, outcome.cores, outcome.wait_policy) == (5, (0, 1, 2, 3, 4), "passive")
    assert outcome.load_mode == "mmap"


def test_a_refusal_has_numbers_and_ways_out() -> None:
    """It says what is short by how much, and each single change that mends it."""
    outcome = refused(machine(16 * GIB), llama_8b(), variant="q8_0", context=8192, concurrency=16, kv_layout="streams")
    assert outcome.short_bytes
    assert outcome.budget_bytes
    assert sum(line.bytes for line in outcome.memory) == outcome.budget_bytes + outcome.short_bytes
    changes = [dict(fit.change) for fit in outcome.nearest]
    assert [list(change) for change in changes] == [["context"], ["concurrency"], ["kv_layout"]]
    for change in changes:
        wishes = {"variant": "q8_0", "context": 8192, "concurrency": 16, "kv_layout": "streams", **change}
        assert planned(machine(16 * GIB), llama_8b(), **wishes)


def test_a_machine_too_small_for_all_is_refused_without_a_way_out() -> None:
    """Nothing is invented where nothing fits."""
    outcome = refused(machine(2 * GIB), llama_8b())
    assert outcome.nearest == ()
    assert outcome.variant == "q4_k_m"
    assert "needs" in outcome.reason


def test_a_quantised_cache_is_offered_last() -> None:
    """A wish of an f16 cache that does not fit is answered with what does."""
    model = dataclasses.replace(llama_8b(), context=512)
    sizes = [size * MIB for size in range(4600, 5600, 8)]
    outcomes = [plan(machine(size), model, Wishes(concurrency=1, variant="q4_k_m")) for size in sizes]
    offered = {fit.change for outcome in outcomes if isinstance(outcome, NoFit) for fit in outcome.nearest}
    assert any(dict(change).get("kv_dtype") == "q8_0" for change in offered)


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"variant": "q5"}, "there is no variant `q5`; there are q8_0, q4_k_m, bf16"),
        ({"context": 10_000}, "made for 8192 tokens of context, 10000 are asked for"),
        ({"variant": "bf16"}, "`bf16` cannot be served by llama.cpp"),
    ],
)
def test_what_no_memory_could_mend_is_said(wishes: dict[str, object], says: str) -> None:
    """An impossible wish is not called a lack of memory, and what is possible is named."""
    outcome = refused(machine(64 * GIB), llama_8b(), **wishes)
    assert says in outcome.reason
    assert outcome.short_bytes is None
    assert outcome.nearest


def test_unknown_memory_refuses_nothing() -> None:
    """A machine whose memory cannot be read is planned for, and the plan says so."""
    outcome = planned(machine(None), llama_8b())
    assert outcome.budget_bytes is None
    assert any("could not be read" in reason for reason in outcome.reasons)


def test_gpus_that_are_not_used_are_said_to_be() -> None:
    """Serving from the CPU beside a GPU is never silent."""
    outcome = planned(dataclasses.replace(machine(64 * GIB), gpus=(Gpu(0, "L4"),)), llama_8b())
    assert any("1 GPU seen and not used" in reason for reason in outcome.reasons)


def test_threads_wait_asleep_on_shares_of_cores() -> None:
    """Spinning is for whole cores; under a quota it burns what it waits for."""
    assert decide_wait_policy(Cpu(cores=(0, 1))) == "brief"
    assert decide_wait_policy(Cpu(cores=(0, 1), quota=2.0)) == "brief"
    assert decide_wait_policy(Cpu(cores=(0, 1, 2, 3), quota=2.0)) == "passive"


def test_threads_follow_the_quota() -> None:
    """Eight cores with time for two and a half get two threads."""
    outcome = planned(machine(64 * GIB, quota=2.5), llama_8b())
    assert (outcome.threads, outcome.cores, outcome.wait_policy) == (2, (0, 1), "passive")


def test_weights_that_are_copied_anyway_are_read_in() -> None:
    """Q4_K is repacked on this CPU, Q8_0 is not; without AVX2 neither is."""
    assert decide_load_mode(gguf("a", "Q4_K", GIB), ("avx2",)) == "none"
    assert decide_load_mode(gguf("a", "Q8_0", GIB), ("avx2",)) == "mmap"
    assert decide_load_mode(gguf("a", "Q4_K", GIB), ()) == "mmap"


def test_the_table_keeps_files_apart_from_private_memory() -> None:
    """Mapped weights are file-backed, with their copy beside them; read in, they are private and there once."""
    mapped = planned(machine(64 * GIB), llama_8b(), variant="q4_k_m", load_mode="mmap")
    size = 4_920_000_000
    assert {line.name: line.bytes for line in mapped.memory if line.kind == "file"}["weights"] == size
    assert next(line.bytes for line in mapped.memory if line.name == "repacked weights") == size - size // 20
    read = planned(machine(64 * GIB), llama_8b(), variant="q4_k_m", load_mode="none")
    assert [line.bytes for line in read.memory if "weights" in line.name] == [size]


def test_windowed_layers_keep_only_their_window() -> None:
    """A sliding window makes the cache smaller; keeping it whole gives it back."""
    windowed = dataclasses.replace(
        LLAMA_8B, sliding_window=1024, windowed=tuple((layer + 1) % 4 != 0 for layer in range(32))
    )
    model = dataclasses.replace(llama_8b(), architecture=windowed)
    wishes = {"context": 8192, "concurrency": 4, "kv_layout": "streams"}
    short = planned(machine(64 * GIB), model, **wishes)
    whole = planned(machine(64 * GIB), model, **wishes, swa_full=True)
    cells = {outcome.swa_full: outcome.memory[1].bytes for outcome in (short, whole)}
    assert cells[True] == 4 * 8192 * 128 * 1024
    assert cells[False] == 4 * (8192 * 8 + 1536 * 24) * 4096


def test_json_round_trips() -> None:
    """A plan and a refusal come back equal."""
    good = planned(machine(24 * GIB), llama_8b())
    assert Plan.from_json(good.to_json()) == good
    bad = refused(machine(9 * GIB), llama_8b(), variant="q8_0")
    assert NoFit.from_json(bad.to_json()) == bad


def test_a_plan_is_made_from_data_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is opened or looked at."""

    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("the planner touched the disk")

    for name in ("exists", "stat", "open", "read_text"):
        monkeypatch.setattr(Path, name, forbidden)
    assert planned(Machine(memory=machine(64 * GIB).memory), llama_8b())
