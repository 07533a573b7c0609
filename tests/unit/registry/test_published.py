"""The catalogue against what was published: configurations, parameter counts and file sizes, each with its source."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from serving.registry import load_catalogue
from serving.registry.model import Architecture, Model, Variant
from serving.registry.tensors import GGUF_QUANTISATIONS, TYPE, gguf_types, parameters_of, tensor_bytes

MIB: Final = 1 << 20

FAMILIES: Final = {
    "CohereForCausalLM": "command-r",
    "DeepseekForCausalLM": "deepseek",
    "DeepseekV3ForCausalLM": "deepseek2",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForConditionalGeneration": "gemma3",
    "GptOssForCausalLM": "gpt-oss",
    "GraniteForCausalLM": "granite",
    "LlamaForCausalLM": "llama",
    "Mistral3ForConditionalGeneration": "llama",
    "MistralForCausalLM": "llama",
    "MistralModel": "llama",
    "MixtralForCausalLM": "llama",
    "Phi3ForCausalLM": "phi3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3moe",
    "XLMRobertaForSequenceClassification": "bert",
    "XLMRobertaModel": "bert",
}
"""llama.cpp's family of each class of transformers."""

PADDED_POSITIONS: Final = 2
"""XLM-RoBERTa counts positions from the padding token's number + 1: its table has so many rows that no token uses."""

WITHOUT_HEAD: Final = {"e5-mistral-7b-instruct", "qwen3-embedding-8b"}
"""Their configurations promise an output matrix that the checkpoints do not hold, as the published counts show."""

WITH_VISION: Final = {"Gemma3ForConditionalGeneration", "Mistral3ForConditionalGeneration"}
"""Their published counts include a vision tower and its projector."""

VISION_PARAMETERS: Final = range(380_000_000, 480_000_000)

STORED_POSITION_IDS: Final = {"multilingual-e5-large": 514}
"""Numbers 0 to 513, which the checkpoint stores and the hub counts."""

LOOSELY_COUNTED: Final = {"gigachat-20b-a3b": 0.03}
"""Its card says 20 billion; its configuration adds up to 20.59."""

HEADER_BYTES: Final = range(16 * MIB)
"""What a file holds beside its tensors: metadata and vocabulary."""

FUSED_BEFORE: Final = {"q4_k_m": "Q5_K"}
"""Type of a fused query, key and value matrix in 2024, when both files of Phi were made.

llama.cpp has since treated it as a value matrix, which makes some layers Q6_K and some Q4_K.
"""

ROUNDING_BYTES: Final = 50_000_000
"""Half of what a size in gigabytes with one decimal is rounded to."""

DTYPES: Final = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


@dataclass(frozen=True, slots=True)
class Published:
    """What was published about one model."""

    model: str
    repository: str
    architecture: str
    kind: str
    config: dict[str, Any]
    parameters: int | None
    licence: str | None
    tool_parser: str | None
    reasoning_parser: str | None
    files: list[dict[str, Any]]
    sources: list[dict[str, str]]

    @property
    def family(self) -> str:
        return FAMILIES[self.architecture]

    @property
    def exact(self) -> bool:
        """The parameters were counted; a count in thousands or millions was rounded."""
        return self.parameters is not None and self.parameters % 1000 != 0


FIXTURES: Final = {
    path.stem: Published(**json.loads(path.read_text(encoding="utf-8")))
    for path in sorted((Path(__file__).parent / "published").glob("*.json"))
}
MODELS: Final = {model.name: model for model in load_catalogue().models if model.name != "demo"}
PUBLISHED: Final = [pytest.param(fixture, id=name) for name, fixture in FIXTURES.items()]
FILES: Final = [
    pytest.param(fixture, file, id=f"{name}-{file['quantisation']}-{number}")
    for name, fixture in FIXTURES.items()
    for number, file in enumerate(fixture.files)
    if file["bytes"] is not None
]


def entry(published: Published) -> Model:
    """The catalogue's model."""
    return MODELS[published.model]


def shape(published: Published) -> Architecture:
    """The catalogue's architecture."""
    architecture = entry(published).architecture
    assert architecture is not None
    return architecture


def context_of(published: Published) -> int:
    """Tokens that the model was made for."""
    config = published.config
    if published.family == "bert":
        return int(config["max_position_embeddings"]) - PADDED_POSITIONS
    if published.architecture == "MistralModel":  # its card advises against more than one window
        return int(config["sliding_window"])
    # Cohere gives the trained length by another name; both engines read that one first.
    return int(config.get("model_max_length") or config["max_position_embeddings"])


def windows_of(published: Published) -> tuple[bool, ...]:
    """For each layer, whether a sliding window limits it; () where none is limited."""
    config = published.config
    layers, window = range(config["num_hidden_layers"]), config.get("sliding_window")
    if not window or config.get("use_sliding_window") is False or window >= context_of(published):
        return ()
    if "layer_types" in config:
        return tuple(kind == "sliding_attention" for kind in config["layer_types"])
    if published.family == "gemma2":
        return tuple(layer % 2 == 0 for layer in layers)
    return tuple((layer + 1) % config["sliding_window_pattern"] != 0 for layer in layers)


def architecture_of(published: Published) -> Architecture:
    """The configuration in transformers' words, read as ours."""
    config = published.config
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    windows = windows_of(published)
    fields: dict[str, Any] = {
        "family": published.family,
        "layers": layers,
        "embedding": config["hidden_size"],
        "feed_forward": config["intermediate_size"],
        "heads": heads,
        "kv_heads": (config.get("num_key_value_heads", heads),) * layers,
        "key_length": width,
        "value_length": width,
        "vocabulary": config["vocab_size"],
        "sliding_window": config["sliding_window"] if windows else None,
        "windowed": windows,
        "expert_feed_forward": config.get("moe_intermediate_size"),
        "experts": config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts"),
        "experts_used": config.get("num_experts_per_tok"),
        "shared_experts": config.get("n_shared_experts", 0),
        "dense_layers": config.get("first_k_dense_replace", 0),
        "tied": config.get("tie_word_embeddings", published.family == "gemma2") or published.model in WITHOUT_HEAD,
    }
    if published.family == "deepseek2":
        rank, rotary = config["kv_lora_rank"], config["qk_rope_head_dim"]
        fields |= {
            "kv_heads": (1,) * layers,
            "key_length": rank + rotary,
            "value_length": rank,
            "latent": True,
            "kv_rank": rank,
            "q_rank": config["q_lora_rank"],
            "key_length_mla": config["qk_nope_head_dim"] + rotary,
            "value_length_mla": config["v_head_dim"],
        }
    if published.family == "bert":
        fields |= {"tied": False, "positions": config["max_position_embeddings"] - PADDED_POSITIONS}
    return Architecture(**fields)


def uncounted_parameters(published: Published) -> int:
    """Numbers of the checkpoint that are no tensors of a text model in a GGUF file: an encoder's head and padding."""
    if published.family != "bert":
        return 0
    width = int(published.config["hidden_size"])
    square = width * width + width  # the pooler's dense layer, or the classifier's
    scores = width + 1 if published.architecture.endswith("SequenceClassification") else 0
    return square + scores + PADDED_POSITIONS * width + STORED_POSITION_IDS.get(published.model, 0)


def foretold_bytes(published: Published, quantisation: str, *, in_2024: bool = False) -> int:
    """Bytes of all tensors in a file, each padded to GGUF's alignment of 32."""
    typed = gguf_types(shape(published), quantisation)
    assert typed is not None
    total = 0
    for tensor, kind in typed:
        fused = in_2024 and tensor.name.endswith("attn_qkv.weight")
        size = tensor_bytes(tensor, TYPE[FUSED_BEFORE[quantisation]] if fused else kind)
        total += -(-size // 32) * 32
    return total


def rest_of(published: Published, file: dict[str, Any]) -> int:
    """Bytes of a published file that are not foretold."""
    return int(file["bytes"]) - foretold_bytes(published, file["quantisation"].lower(), in_2024=True)


def source_of(file: dict[str, Any]) -> str:
    """A published file as the catalogue names it."""
    name = f"/{file['file']}" if file["file"] else ""
    revision = f"@{file['revision']}" if file["revision"] else ""
    return f"huggingface.co/{file['repository']}{name}{revision}"


def offered(published: Published, variant: Variant) -> set[tuple[str, int | None]]:
    """Sources that a variant may name, each with the size it may give."""
    files = [file for file in published.files if file["quantisation"].lower() == variant.name and "note" not in file]
    named = {(source_of(file), None if "rounded" in file else file["bytes"]) for file in files}
    verb = "converted" if variant.name == "f16" else "converted and quantised"
    return named | {(f"huggingface.co/{published.repository}, {verb} with llama.cpp", None)}


def test_each_model_has_its_fixture_and_each_fixture_its_model() -> None:
    """At least 30 of them, Llama 3 8B among them."""
    assert set(FIXTURES) == set(MODELS)
    assert len(MODELS) >= 30
    assert "llama3-8b" in MODELS
    assert all(name == fixture.model for name, fixture in FIXTURES.items())


@pytest.mark.parametrize("published", PUBLISHED)
def test_every_fixture_says_where_its_facts_come_from(published: Published) -> None:
    """A page, or a file of a repository, and what is said there."""
    assert published.sources
    for source in published.sources:
        assert set(source) == {"field", "where", "quote"}
        assert source["where"].startswith("https://") or source["where"].count("/") >= 1
        assert source["quote"]


@pytest.mark.parametrize("published", PUBLISHED)
def test_an_entry_says_what_was_published(published: Published) -> None:
    """Field by field, the architecture included; a rounded parameter count is left out."""
    model = entry(published)
    assert shape(published) == architecture_of(published)
    assert model.context == context_of(published)
    assert model.parameters == (published.parameters if published.exact else None)
    assert model.kind == published.kind
    assert model.licence == published.licence
    assert model.tool_parser == published.tool_parser
    assert model.reasoning_parser == published.reasoning_parser
    assert model.title


@pytest.mark.parametrize("published", PUBLISHED)
def test_gguf_variants_are_the_published_files_best_first(published: Published) -> None:
    """Each has its file's size, or says that it has to be converted; its size can be foretold in any case."""
    variants = [variant for variant in entry(published).variants if variant.format == "gguf"]
    # The larger the better, but for Q4_1: larger than Q4_K_M, and no better.
    sizes = [foretold_bytes(published, variant.name) for variant in variants if variant.name != "q4_1"]
    assert sizes
    assert sizes == sorted(sizes, reverse=True)
    for variant in variants:
        assert variant.name in GGUF_QUANTISATIONS
        assert variant.backends == ("llamacpp",)
        assert (variant.source, variant.size_bytes) in offered(published, variant)


@pytest.mark.parametrize("published", PUBLISHED)
def test_the_last_variant_is_the_original(published: Published) -> None:
    """One in safetensors, named for its number type."""
    *ggufs, original = entry(published).variants
    assert all(variant.format == "gguf" for variant in ggufs)
    assert original.format == "safetensors"
    assert original.source == f"huggingface.co/{published.repository}"
    method = published.config.get("quantization_config", {}).get("quant_method")
    kind = method or DTYPES[published.config.get("torch_dtype", "bfloat16")]
    taken = {variant.name for variant in ggufs}
    assert original.name == (f"{kind}-hf" if kind in taken else kind)
    assert original.backends == (("vllm",) if method == "fp8" else ("vllm", "transformers"))


@pytest.mark.parametrize("published", [p for p in PUBLISHED if FIXTURES[str(p.id)].parameters is not None])
def test_the_parameters_add_up(published: Published) -> None:
    """The tensors of the architecture are as many numbers as were published."""
    architecture, count = shape(published), published.parameters
    counted = parameters_of(architecture)
    assert count is not None
    assert counted is not None
    if published.architecture in WITH_VISION:
        assert count - counted in VISION_PARAMETERS
    elif published.exact:
        assert counted + uncounted_parameters(published) == count
    else:
        tolerance = LOOSELY_COUNTED.get(published.model, 0.01)
        assert counted + uncounted_parameters(published) == pytest.approx(count, rel=tolerance)


@pytest.mark.parametrize(("published", "file"), FILES)
def test_a_file_has_the_size_foretold(published: Published, file: dict[str, Any]) -> None:
    """To the byte, but for its header; or as near as the published size was rounded."""
    rest = rest_of(published, file)
    if "rounded" in file:
        assert -ROUNDING_BYTES <= rest < ROUNDING_BYTES + HEADER_BYTES.stop
    else:
        assert rest in HEADER_BYTES


@pytest.mark.parametrize("published", PUBLISHED)
def test_files_of_one_maker_differ_by_their_tensors_alone(published: Published) -> None:
    """Their headers are equally long, give or take the padding: no mixture is off by as much as one tensor."""
    rests: dict[str, list[int]] = {}
    for file in published.files:
        if file["bytes"] is not None and "rounded" not in file:
            rests.setdefault(file["repository"], []).append(rest_of(published, file))
    assert all(max(rest) - min(rest) <= 32 for rest in rests.values())
