"""What a model is: names, numbers and the forms its weights come in. Frozen; None is "not known"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from serving.pooling import ENCODERS, Pooling, Task

Backend = Literal["llamacpp", "vllm", "transformers"]
Kind = Literal["chat", "embedding", "reranker"]
KIND_OF: Final[dict[Task, Kind]] = {"generate": "chat", "embed": "embedding", "rerank": "reranker"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a model, as far as its tensors and memory depend on it. Lengths count numbers, not bytes.

    Names and conventions are GGUF's. With multi-head latent attention (`latent`) a cache entry is one vector of
    `key_length` = latent rank + rotary part, `kv_heads` is 1, and the heads' own widths are the `_mla` ones.
    """

    family: str
    """GGUF's `general.architecture`: `llama`, `qwen3`, …"""
    layers: int
    embedding: int
    feed_forward: int | None
    heads: int
    kv_heads: tuple[int, ...]
    """Key/value heads of each layer; 0 where a layer keeps no KV cache."""
    key_length: int
    """Width of one key head."""
    value_length: int
    vocabulary: int | None
    sliding_window: int | None = None
    windowed: tuple[bool, ...] = ()
    """For each layer, whether it sees only the sliding window; () where none does."""
    expert_feed_forward: int | None = None
    """Width of one expert; None where it is `feed_forward`, or there are no experts."""
    experts: int | None = None
    experts_used: int | None = None
    shared_experts: int = 0
    """Experts that see every token, beside the routed ones."""
    dense_layers: int = 0
    """Leading layers without experts."""
    latent: bool = False
    """Keys and values are one latent vector of `key_length` (multi-head latent attention)."""
    kv_rank: int | None = None
    """Latent attention: width of the compressed key and value."""
    q_rank: int | None = None
    """Latent attention: width of the compressed query; None where it is not compressed."""
    key_length_mla: int | None = None
    """Latent attention: width of one key head, rotary part included, once decompressed."""
    value_length_mla: int | None = None
    recurrent_state: int = 0
    """Numbers that one sequence keeps in layers whose state does not grow with the context (Mamba and its like)."""
    tied: bool = False
    """The output matrix is the token embedding."""
    positions: int | None = None
    """Learnt position embeddings; None where positions are rotary."""

    @property
    def encoder(self) -> bool:
        """It reads a whole text at once and keeps no KV cache."""
        return self.family in ENCODERS


@dataclass(frozen=True, slots=True)
class TensorSum:
    """All tensors of one number type and role in a weight file, added up."""

    type: str
    """ggml's name: `F16`, `Q4_K`, …"""
    role: Literal["embedding", "matrix", "expert", "other"]
    size_bytes: int
    rows_by_8: bool
    """Each has a multiple of 8 rows, which llama.cpp asks of what it repacks."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One form of a model's weights: a quantisation in a file format."""

    name: str
    format: Literal["gguf", "safetensors"]
    backends: tuple[Backend, ...]
    size_bytes: int | None
    """Bytes of the weight files; read from the disk where they are there."""
    path: Path | None = None
    """The file (GGUF) or directory (safetensors) on this host; None where it has to be fetched first."""
    source: str | None = None
    """Where it comes from, for people: a hub repository and file."""
    missing: Path | None = None
    """The path that the catalogue gives, where nothing is there; `path` is None then."""
    tensors: tuple[TensorSum, ...] = ()
    """What the file's header says is in it; () where there is no file to read."""
    tied_output: bool = False
    """The output matrix is the token embedding."""
    vocabulary_entries: int | None = None
    """Tokens and merge rules that the file carries; a token whose kind takes more memory counts as several."""
    pooling: Pooling | None = None
    """How a directory says that texts are pooled; None where it does not, and for a file, which says it itself."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue, or one read from a file."""

    name: str
    title: str
    context: int
    """Tokens it was made for."""
    architecture: Architecture | None
    """None until a weight file at hand has been read, where the catalogue does not give it."""
    variants: tuple[Variant, ...]
    """Best first: the planner takes the first that fits."""
    kind: Kind = "chat"
    licence: str | None = None
    parameters: int | None = None
    """As published, exactly; None where no exact count was found. A vision tower counts."""
    tool_parser: str | None = None
    """vLLM's name for the way this model writes tool calls."""
    reasoning_parser: str | None = None
    note: str | None = None
    """What a person should know before using it."""
    template_sha256: str | None = None
    """SHA-256 of the chat template that its makers published; None where that is not known here."""
    dummy: bool = False
    """Its weights are synthetic: answers are noise."""
    warnings: tuple[str, ...] = ()
    """What its entry and its files disagree in, as sentences."""
    origin: str = "catalogue"
    """Where the entry comes from: `catalogue`, or the path of a site file or weight file."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: a small change to a model's matrices, which requests name in place of the model."""

    name: str
    """The name that requests use."""
    path: Path
    """Its directory, in PEFT's form."""
    rank: int
    """The largest rank of its matrices."""
