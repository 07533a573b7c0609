"""What llama.cpp would end the process on is refused before, by name; what it serves is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

import serving
from serving.errors import BadFile
from serving.gguf import read_header
from serving.registry.local import check_servable
from tests.support.hostile import ARRAY, F32, STRING, Entry, Model, Mutant, models

DEMO = Path(serving.__file__).parent / "models/demo"
F16, Q8_0, I32 = 1, 8, 26


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return models(tmp_path_factory.mktemp("sound"))


def written(model: Model, path: Path) -> Path:
    header = b"".join(part for _, part in model.pieces())
    header += b"\0" * (-len(header) % 32)
    return Mutant(header, len(header) + model.data_bytes, ()).write(path)


@pytest.mark.parametrize("kind", ["plain", "window", "hybrid", "recurrent", "experts", "pieces"])
def test_sound_models_pass(kind: str, sound: dict[str, Model], tmp_path: Path) -> None:
    """A model of each kind that llama.cpp serves."""
    check_servable(read_header(written(sound[kind], tmp_path / "a.gguf")))


@pytest.mark.parametrize("name", ["demo-q8_0.gguf", "demo-f16.gguf"])
def test_the_demo_models_pass(name: str) -> None:
    """What ships is served."""
    check_servable(read_header(DEMO / name))


def put(key: str, kind: int, *values: object, is_array: bool = False) -> Callable[[Model], None]:
    """Give a fact that value."""

    def change(model: Model) -> None:
        model.entries = [entry for entry in model.entries if entry.key != key.encode()]
        model.entries.append(Entry(key.encode(), ARRAY if is_array else kind, list(values), kind if is_array else None))

    return change


def tensor(name: str, kind: int | None = None, shape: list[int] | None = None) -> Callable[[Model], None]:
    """Give the tensors whose names end so another type or shape."""

    def change(model: Model) -> None:
        for weight in model.weights:
            if weight.name.endswith(name.encode()):
                weight.kind, weight.shape = F32 if kind is None else kind, shape or weight.shape
        model.lay_out()

    return change


def token(index: int, text: bytes) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        model.entry("tokenizer.ggml.tokens").values[index] = text

    return change


def all_of(*changes: Callable[[Model], None]) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        for one in changes:
            one(model)

    return change


REFUSED: dict[str, tuple[str, Callable[[Model], None], str]] = {
    "more layers than llama.cpp has": ("plain", put("llama.block_count", 4, 513), "513 layers"),
    "layers that only look ahead": ("plain", put("llama.nextn_predict_layers", 4, 3), "3 of its 3 layers"),
    "keys and values that cannot be shared": (
        "plain",
        all_of(
            put("llama.attention.head_count_kv", 4, 3),
            tensor("attn_k.weight", F32, [64, 48]),
            tensor("attn_v.weight", F32, [64, 48]),
        ),
        "4 attention heads cannot share 3",
    ),
    "keys and values of two lengths": (
        "window",
        all_of(put("gemma3.attention.value_length", 4, 8), tensor("attn_v.weight", F32, [64, 16])),
        "keys of 16 and values of 8",
    ),
    "an odd rotation": ("window", put("gemma3.rope.dimension_count", 4, 7), "is 7, not an even number"),
    "a rotation of nothing": ("window", put("gemma3.rope.dimension_count", 4, 0), "is 0, not an even number"),
    "a rotation beyond the head": ("window", put("gemma3.rope.dimension_count_swa", 4, 32), "from 2 to 16"),
    "1025 experts": ("experts", put("llama.expert_count", 4, 1025), "1025 experts"),
    "more experts used than there are": ("experts", put("llama.expert_used_count", 4, 5), "uses 5 of 4"),
    "more used in one layer": ("experts", put("llama.expert_used_count", 4, 2, 5, 2, is_array=True), "uses 5 of 4"),
    "no expert used": ("experts", put("llama.expert_used_count", 4, 0), "uses 0 of 4"),
    "an expert used and none there": ("plain", put("llama.expert_used_count", 4, 1), "uses 1 of 0"),
    "as many groups as experts": ("experts", put("llama.expert_group_count", 4, 4), "in 4 groups"),
    "groups that do not divide": ("experts", put("llama.expert_group_count", 4, 3), "groups of 4 experts"),
    "no group used": ("experts", put("llama.expert_group_count", 4, 2), "uses 0 of 2 groups"),
    "an unknown gating": ("experts", put("llama.expert_gating_func", 4, 5), "expert_gating_func"),
    "a state of no size": ("recurrent", put("mamba.ssm.time_step_rank", 4, 0), "time_step_rank` is 0"),
    "a state that cannot be split": (
        "recurrent",
        all_of(
            put("general.architecture", STRING, b"mamba2"),
            *(put(f"mamba2.{key}", 4, 1) for key in ("block_count", "context_length", "embedding_length")),
            *(put(f"mamba2.ssm.{key}", 4, 16) for key in ("inner_size", "state_size", "conv_kernel", "time_step_rank")),
            put("mamba2.ssm.group_count", 4, 0),
        ),
        "16 heads in 0 groups",
    ),
    "an epsilon that is no number": ("plain", put("llama.attention.layer_norm_rms_epsilon", 6, math.nan), "is nan"),
    "an epsilon below zero": ("plain", put("llama.attention.layer_norm_rms_epsilon", 6, -1.0), "is -1.0, below 0"),
    "an endless base": ("plain", put("llama.rope.freq_base", 6, math.inf), "is inf"),
    "an unknown scaling": ("plain", put("llama.rope.scaling.type", STRING, b"su"), "rope.scaling.type"),
    "attention to what comes": ("plain", put("llama.attention.causal", 7, 0), "not causal"),
    "a window without end": ("window", put("gemma3.attention.sliding_window", 4, (1 << 32) - 1), "attention window"),
    "a window in no layer": ("window", put("gemma3.attention.sliding_window_pattern", 4, 1), "in none of its layers"),
    "a window in no layer of a list": (
        "window",
        put("gemma3.attention.sliding_window_pattern", 7, 0, 0, 0, 0, is_array=True),
        "in none of its layers",
    ),
    "whole numbers for weights": ("plain", tensor("attn_q.weight", I32), "which weights cannot be"),
    "a norm that is quantised": ("plain", tensor("output_norm.weight", Q8_0), "must be of F32"),
    "a convolution of halves": ("hybrid", tensor("shortconv.conv.weight", F16), "must be of F32"),
    "an encoder's tokenizer": ("plain", put("tokenizer.ggml.model", STRING, b"t5"), "tokenizer.ggml.model"),
    "a tokenizer of llama.cpp's tests": ("plain", put("tokenizer.ggml.model", STRING, b"test"), "tokenizer.ggml.model"),
    "a pre-tokenizer of another model": ("plain", put("tokenizer.ggml.pre", STRING, b"whitespace"), "whitespace"),
    "a token twice": ("plain", token(7, b"a"), "284 different ones"),
    "an empty token like another": ("plain", all_of(token(7, b""), token(8, b"[EMPTY_7]")), "284 different ones"),
    "no token for a byte": ("pieces", token(3 + 0x0A, b"??"), "byte 0x0a"),
    "no token for a byte, nor for what is unknown": (
        "plain",
        put("tokenizer.ggml.model", STRING, b"rwkv"),
        "byte 0x00",
    ),
    "a BOS that is not there": (
        "plain",
        all_of(put("tokenizer.ggml.pre", STRING, b"glm4"), put("tokenizer.ggml.add_bos_token", 7, 1)),
        "a BOS token is added",
    ),
    "a BOS that gemma4 wants": ("plain", put("tokenizer.ggml.model", STRING, b"gemma4"), "a BOS token is added"),
    "an EOS that is not there": (
        "plain",
        all_of(
            put("tokenizer.ggml.model", STRING, b"gemma4"),
            put("tokenizer.ggml.bos_token_id", 4, 1),
            put("tokenizer.ggml.add_eos_token", 7, 1),
            put("tokenizer.ggml.eos_token_id", 4, 1 << 20),
        ),
        "an EOS token is added",
    ),
    "a chat template of 2 MB": ("plain", put("tokenizer.chat_template", STRING, b"x" * (2 << 20)), "chat template"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_does_not_survive_is_refused(name: str, sound: dict[str, Model], tmp_path: Path) -> None:
    """Each is BadFile with the fact at fault, and a hint."""
    kind, change, says = REFUSED[name]
    model = sound[kind].copy()
    change(model)
    header = read_header(written(model, tmp_path / "a.gguf"))
    with pytest.raises(BadFile) as caught:
        check_servable(header)
    assert says in caught.value.message
    assert caught.value.hint


def test_a_long_vocabulary_is_looked_through(sound: dict[str, Model], tmp_path: Path) -> None:
    """Tokens beyond what a header keeps are read from the file again; one with a NUL is what C takes it for."""
    model = sound["plain"].copy()
    tokens = [b"t%d" % number for number in range(2000)]
    model.entry("tokenizer.ggml.tokens").values = tokens
    for weight in model.weights:
        if weight.shape == [64, len(sound["plain"].entry("tokenizer.ggml.tokens").values)]:
            weight.shape = [64, len(tokens)]
    model.lay_out()
    check_servable(read_header(written(model, tmp_path / "a.gguf")))
    tokens[1999] = b"t5\0more"
    with pytest.raises(BadFile, match="2000 tokens of its vocabulary are 1999"):
        check_servable(read_header(written(model, tmp_path / "a.gguf")))


@pytest.mark.parametrize("name", ["ssm_dt.weight", "ssm_alpha.weight", "ffn_gate_inp_shexp.weight", "attn_q.weight"])
def test_what_is_multiplied_may_be_of_halves(name: str, sound: dict[str, Model], tmp_path: Path) -> None:
    """Only what is added or scanned must be of F32; the names of the others begin like some of those."""
    model = sound["recurrent"].copy()
    if not any(weight.name.endswith(name.encode()) for weight in model.weights):
        model.weights[-1].name = f"blk.0.{name}".encode()
    tensor(name, F16)(model)
    check_servable(read_header(written(model, tmp_path / "a.gguf")))


def test_a_state_without_groups_is_refused_only_where_it_is_divided(sound: dict[str, Model], tmp_path: Path) -> None:
    """The converter of plamo2 writes 0 groups, and llama.cpp divides by them in other families alone."""
    model = sound["recurrent"].copy()
    put("mamba.ssm.group_count", 4, 0)(model)
    check_servable(read_header(written(model, tmp_path / "a.gguf")))
