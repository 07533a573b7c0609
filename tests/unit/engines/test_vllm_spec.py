"""vLLM's command line and environment, from a plan."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.installed import OLDEST_VLLM, TOO_NEW_VLLM, refuse_version
from serving.engines.spec import SILENT, EngineSpec
from serving.engines.vllm import CLOSED, OURS, plan_engine
from serving.errors import BadSettings
from serving.hardware.known import GpuKind, machine
from serving.planner import Engines, VllmPlan, Wishes, plan
from serving.registry import Adapter, load_catalogue
from serving.settings import Settings
from serving.settings.model import Vllm

CATALOGUE = load_catalogue()
KINDS = ("tensor", "pipeline", "data")


def spec(
    model: str = "llama3.1-8b",
    gpus: tuple[GpuKind, int] = ("H100", 1),
    wishes: Wishes | None = None,
    *,
    keys: bool = False,
    **vllm: Any,
) -> EngineSpec:
    """The engine that would serve that model on these GPUs."""
    entry = CATALOGUE.find(model)
    outcome = plan(machine(*gpus), entry, wishes or Wishes(), Engines(vllm=True))
    assert isinstance(outcome, VllmPlan)
    settings = Settings()
    engines = settings.engines.model_copy(update={"vllm": Vllm(**vllm)})
    access = settings.access.model_copy(update={"open": not keys})
    settings = settings.model_copy(update={"engines": engines, "access": access})
    return plan_engine(
        dataclasses.replace(outcome, weights=Path("/srv/model")),
        entry,
        settings,
        Path("/run/x.sock"),
        Path("/run/x.d"),
        Path("/var/cache/p"),
    )


def value(made: EngineSpec, flag: str) -> str:
    """What follows a flag."""
    return made.argv[made.argv.index(flag) + 1]


def test_the_plan_is_passed_on() -> None:
    """Each number of the plan is where vLLM looks for it; several GPUs share the model, named by their UUIDs."""
    made = spec("llama3.1-70b", ("H100", 4), Wishes(context=8192, concurrency=32, kv_dtype="fp8"))
    env = dict(made.env)
    assert value(made, "--max-model-len") == "8192"
    assert value(made, "--max-num-seqs") == "32"
    assert value(made, "--kv-cache-dtype") == "fp8"
    assert int(value(made, "--tensor-parallel-size")) == len(env["CUDA_VISIBLE_DEVICES"].split(","))
    assert 0.5 < float(value(made, "--gpu-memory-utilization")) <= 0.95
    assert value(made, "--load-format") == "safetensors"
    assert value(made, "--tool-call-parser") == "llama3_json"


def test_an_encoder_is_told_how_to_pool_and_nothing_of_writing() -> None:
    """Its route alone is let through; nothing is cached or cut up, and no parser is there to be loaded."""
    made = spec("bge-m3")
    assert (value(made, "--runner"), value(made, "--dtype")) == ("pooling", "float16")
    assert json.loads(value(made, "--pooler-config")) == {"use_activation": True}
    assert json.loads(value(made, "--hf-overrides")) == {"position_embedding_type": "absolute"}
    assert {"--no-enable-prefix-caching", "--no-enable-chunked-prefill"} <= set(made.argv)
    assert int(value(made, "--max-num-batched-tokens")) >= int(value(made, "--max-model-len"))
    foreign = {"--convert", "--override-generation-config", "--structured-outputs-config", "--max-logprobs"}
    assert not foreign & set(made.argv)
    texts = made.capabilities.texts
    assert made.capabilities.tasks == {"embed"}
    assert texts is not None
    assert (texts.context, texts.width, texts.vocabulary) == (8192, 1024, 250002)
    ranker = spec("bge-reranker-v2-m3")
    assert ranker.capabilities.tasks == {"rerank"}
    assert "--pooler-config" not in ranker.argv
    assert spec().capabilities.texts is None


def test_a_decoder_that_embeds_is_converted() -> None:
    """Its class is one that writes, and its prefixes may be shared."""
    made = spec("qwen3-embedding-0.6b")
    assert value(made, "--convert") == "embed"
    assert {"--enable-prefix-caching", "--enable-chunked-prefill"} <= set(made.argv)
    assert "--hf-overrides" not in made.argv


def test_dummy_weights_are_vllms_own() -> None:
    """Where the plan says dummy, vLLM makes them up, and the model's card will say so."""
    entry = CATALOGUE.find("llama3.1-8b")
    outcome = plan(machine("H100", 1), dataclasses.replace(entry, dummy=True), Wishes(), Engines(vllm=True))
    assert isinstance(outcome, VllmPlan)
    made = plan_engine(outcome, entry, Settings(), Path("/run/x.sock"), Path("/run/x.d"), Path("/c"))
    assert value(made, "--load-format") == "dummy"
    assert made.dummy


def test_nothing_goes_out_and_nothing_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reports, no hub, no public address, no plugin, no code beside weights; the environment is built from empty."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    made = spec()
    env = dict(made.env)
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "VLLM_DO_NOT_TRACK": "1",
        **SILENT,
        "VLLM_PLUGINS": "",
    }
    assert wanted.items() <= env.items()
    assert not {"HF_TOKEN", "HTTPS_PROXY"} & set(env)
    assert made.argv[1] == "-I"
    assert "--trust-remote-code" not in made.argv
    assert {"--disable-uvicorn-access-log", "--no-enable-log-requests", "--disable-fastapi-docs"} <= set(made.argv)


def test_what_it_reads_is_named() -> None:
    """Weights, adapters and what the operator's own flags and variables point at: behind walls it sees nothing else."""
    adapters = (Adapter("legal", Path("/srv/a"), 12),)
    made = spec(
        wishes=Wishes(adapters=adapters),
        speculative={"method": "eagle", "model": "/srv/draft"},
        environment={"LD_LIBRARY_PATH": "/opt/a:/opt/b"},
    )
    assert set(made.reads) >= {Path("/srv/a"), Path("/srv/draft"), Path("/opt/a"), Path("/opt/b")}
    assert made.writes
    assert made.has_ip
    assert made.has_gpu


def test_answers_do_not_depend_on_the_engines_defaults() -> None:
    """A request that says nothing of sampling gets OpenAI's values, whatever the model's files would like."""
    told = json.loads(value(spec(), "--override-generation-config"))
    assert (told["temperature"], told["top_p"], told["top_k"], told["repetition_penalty"]) == (1.0, 1.0, 0, 1.0)


def test_settings_reach_vllm() -> None:
    """Eager mode, speculation, parallel experts and the operator's own flags and variables."""
    made = spec(
        eager=True,
        prefix_caching=False,
        speculative={"method": "ngram", "num_speculative_tokens": 4},
        extra={"block-size": 32, "async_scheduling": True, "disable-log-stats": False},
        environment={"NCCL_P2P_DISABLE": "1"},
        expert_parallel=True,
    )
    assert {"--enforce-eager", "--no-enable-prefix-caching", "--enable-expert-parallel"} <= set(made.argv)
    assert json.loads(value(made, "--speculative-config"))["num_speculative_tokens"] == 4
    assert {"--block-size=32", "--async-scheduling", "--no-disable-log-stats"} <= set(made.argv)
    assert dict(made.env)["NCCL_P2P_DISABLE"] == "1"


def test_adapters_are_named_to_vllm_and_to_the_gateway() -> None:
    """With room for all of them at once, of a rank that vLLM has."""
    adapters = (Adapter("legal", Path("/srv/a"), 12), Adapter("medical", Path("/srv/b"), 4))
    made = spec(wishes=Wishes(adapters=adapters))
    assert (value(made, "--max-loras"), value(made, "--max-lora-rank")) == ("2", "16")
    at = made.argv.index("--lora-modules")
    assert [json.loads(text) for text in made.argv[at + 1 : at + 3]] == [
        {"name": "legal", "path": "/srv/a"},
        {"name": "medical", "path": "/srv/b"},
    ]
    assert made.adapters == ("legal", "medical")
    assert "--enable-lora" not in spec().argv


@pytest.mark.parametrize(
    ("wishes", "flags"),
    [
        (Wishes(), {}),
        (Wishes(tensor_parallel=4), {"tensor": "4"}),
        (Wishes(pipeline_parallel=3), {"pipeline": "3"}),
        (Wishes(tensor_parallel=2, data_parallel=3), {"tensor": "2", "data": "3"}),
    ],
)
def test_the_layout_is_passed_on(wishes: Wishes, flags: dict[str, str]) -> None:
    """Each number where it is more than one; copies meet on this host, and what is told of sequences is for each."""
    made = spec(gpus=("H100", 6), wishes=dataclasses.replace(wishes, concurrency=7))
    found = {kind: value(made, f"--{kind}-parallel-size") for kind in KINDS if f"--{kind}-parallel-size" in made.argv}
    assert found == flags
    copies = int(flags.get("data", "1"))
    assert ("--data-parallel-address" in made.argv) == (copies > 1)
    assert value(made, "--max-num-seqs") == {1: "7", 3: "3"}[copies]
    gpus = len(dict(made.env)["CUDA_VISIBLE_DEVICES"].split(","))
    assert gpus == math.prod(map(int, flags.values()))


def test_every_refused_flag_is_a_whole_word() -> None:
    """A name that a line's end cut in two would guard nothing."""
    assert not [flag for flag in OURS | CLOSED if not re.fullmatch(r"[a-z][a-z-]*[a-z]", flag)]
    assert {"kv-cache-dtype", "tool-call-parser"} <= OURS
    assert {"logits-processors", "kv-events-config", "enable-tokenizer-info-endpoint", "master-addr"} <= CLOSED


@pytest.mark.parametrize("flag", sorted(OURS | CLOSED))
def test_no_extra_flag_undoes_what_was_decided(flag: str) -> None:
    """Neither by its name, nor with underscores, nor negated, nor by a beginning of it that argparse would take."""
    spellings = (flag, flag.replace("-", "_"), f"--{flag}", f"no-{flag}", flag.upper(), flag[: max(3, len(flag) - 2)])
    for spelled in spellings:
        with pytest.raises(BadSettings, match=r"engines\.vllm\.extra"):
            spec(extra={spelled: True})


@given(st.text(max_size=30))
def test_an_extra_flags_value_stays_one_word(text: str) -> None:
    """Whatever it is, it cannot become a flag of its own."""
    made = spec(extra={"block-size": text})
    assert f"--block-size={text}" in made.argv


SECRET_OR_CODE = ["PYTHONPATH", "HF_TOKEN", "VLLM_SERVER_DEV_MODE", "https_proxy", "VLLM_PLUGINS", "A B"]


@pytest.mark.parametrize("name", SECRET_OR_CODE)
def test_no_extra_variable_opens_a_way(name: str) -> None:
    """Neither code, nor secrets, nor proxies come in through the table of variables."""
    with pytest.raises(BadSettings, match="refused"):
        spec(environment={name: "1"})


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("0.32.0", False),
        ("0.33.1.post1", False),
        ("0.31.9", True),
        ("0.9.2", True),
        ("0.34.0", True),
        ("1.0.0", True),
        ("0.32.0+cpu", False),
        ("unknown", True),
    ],
)
def test_one_range_of_versions_is_started(version: str, *, refused: bool) -> None:
    """Older has published holes, newer was never tried; the refusal names both ends."""
    found = refuse_version(version)
    assert (found is not None) == refused
    if found is not None:
        assert ".".join(map(str, OLDEST_VLLM)) in found
        assert ".".join(map(str, TOO_NEW_VLLM)) in found
        assert re.search(re.escape(version), found)


def test_with_keys_vllm_sorts_who_waits() -> None:
    """By the turn that the gateway gives each request; without keys it keeps its own order, and is sent none."""
    assert "--scheduling-policy" not in spec().argv
    assert not spec().capabilities.priority
    made = spec(keys=True)
    assert value(made, "--scheduling-policy") == "priority"
    assert made.capabilities.priority
