"""What llama.cpp would end the process on, refused before it sees the file.

llama.cpp throws on most of what is wrong with a file, and the engine then says so and exits. On the rest it asserts,
divides by zero or calls through a null pointer: at load, or later, at the first prompt that meets the fault. Each check
here stands for one of those, with its place in the source (0.3.36). A file that is refused here is either damaged or
made to do harm; no converter writes one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from typing import Final

from serving.errors import BadFile
from serving.gguf import Header, Tensor, read_bytes, read_strings
from serving.pooling import ENCODERS, task_of

TOKENS: Final = "tokenizer.ggml.tokens"
MAX_LAYERS: Final = 512
"""LLAMA_MAX_LAYERS."""
MAX_EXPERTS: Final = 1024
"""LLAMA_MAX_EXPERTS."""
MAX_TEMPLATE: Final = 1 << 20
"""Characters of a chat template; published ones have some thousand, and each must be compiled before the first one."""

_ENCODER_MODELS: Final = frozenset({"bert", "t5", "gpt2"})
"""Tokenizers of encoders: BERT's, XLM-RoBERTa's, RoBERTa's."""
_MODELS: Final = frozenset({"llama", "gpt2", "gemma4", "hybriddna", "whitespace", "rwkv", "plamo2"})
"""Tokenizers of decoders. `bert` and `t5` are those of encoders, and end the process on text they do not know."""
_BYTES_NEEDED: Final = frozenset({"llama", "plamo2"})
_DEFAULT_IDS: Final[dict[str, tuple[int | None, int | None]]] = {
    "llama": (1, 2),
    "plamo2": (1, 2),
    "gpt2": (11, 11),
    "hybriddna": (11, 11),
    "whitespace": (11, 11),
    "bert": (101, None),
    "t5": (None, 1),
}
"""BOS and EOS that llama.cpp assumes where the file names none."""
_PRE_WITHOUT_BOS: Final = frozenset({"chatglm-bpe", "glm4", "glm5"})
_PRE_ALWAYS_BOS: Final = frozenset({"gemma4", "granite-embed-multi-311m"})
_ROPE_SCALINGS: Final = frozenset({"none", "linear", "yarn", "longrope"})
_GATINGS: Final = range(5)
_EPSILONS: Final = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.group_norm_epsilon")
_GROUPED_STATE: Final = frozenset(
    {"mamba2", "falcon-h1", "granitehybrid", "nemotron_h", "nemotron_h_moe", "qwen3next", "qwen35", "qwen35moe"}
)
_ONE_HEAD_SIZE: Final = frozenset(
    {
        *("llama", "llama4", "mistral3", "granite", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "deepseek", "phi3"),
        *("command-r", "cohere2", "glm4", "olmo2", "smollm3", "starcoder2", "stablelm", "internlm2"),
        *("gemma", "gemma2", "gemma3", "gpt-oss", "granitemoe", "exaone4", "lfm2", "lfm2moe", "bert"),
    }
)
"""Families whose graph needs keys and values that are equally long. More have that; some others (MLA) differ."""
_PLAIN_TYPES: Final = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_K"})
_ALWAYS_F32: Final = ("norm", "token_types", "ssm_conv1d", "shortconv.conv")
_ALWAYS_F32_ENDS: Final = (".bias", ".ssm_a", ".ssm_d")


def check_sound(header: Header) -> None:
    """Refuse a file whose facts contradict each other where llama.cpp does not survive it. Raises BadFile."""
    for find in _CHECKS:
        for problem in find(header):
            message = f"`{header.path}` cannot be served: {problem}"
            raise BadFile(message, hint="llama.cpp would end the process on it; fetch or convert the model again")


def _layers(header: Header) -> Iterator[str]:
    """llama-model.cpp, load_hparams: n_layer_all, n_layer_nextn."""
    layers, extra = header.integer("block_count") or 0, header.integer("nextn_predict_layers") or 0
    if layers > MAX_LAYERS:
        yield f"it has {layers} layers; {MAX_LAYERS} at most"
    if extra and extra >= layers:
        yield f"{extra} of its {layers} layers predict tokens further ahead, which leaves none to predict the next"


def _heads(header: Header) -> Iterator[str]:
    """ggml_flash_attn_ext: each head of keys serves as many of queries; graphs: one head size, rotated in pairs."""
    family = header.architecture
    for heads, kv_heads in zip(_counts(header, "attention.head_count"), _kv_heads(header), strict=False):
        if kv_heads and heads % kv_heads:
            yield f"{heads} attention heads cannot share {kv_heads} heads of keys and values"
            break
    head = max(_counts(header, "attention.head_count"), default=0)
    if not head:
        return
    key = value = (header.integer("embedding_length") or 0) // head
    for suffix in ("", "_swa"):  # what the layers with a window do not say of themselves is as in the others
        key = _given(header.integer(f"attention.key_length{suffix}"), key)
        value = _given(header.integer(f"attention.value_length{suffix}"), value)
        rotated = header.integer(f"rope.dimension_count{suffix}")
        if family in _ONE_HEAD_SIZE and key != value:
            yield f"its attention heads have keys of {key} and values of {value} numbers"
        if rotated is not None and (rotated % 2 or not 0 < rotated <= key):
            yield f"`{family}.rope.dimension_count{suffix}` is {rotated}, not an even number from 2 to {key}"


def _experts(header: Header) -> Iterator[str]:
    """llama-model.cpp, load_hparams: n_expert, n_expert_used, n_expert_groups, n_group_used; build_moe_ffn."""
    experts = header.integer("expert_count") or 0
    used = max(_counts(header, "expert_used_count"), default=0)
    groups, groups_used = header.integer("expert_group_count") or 0, header.integer("expert_group_used_count") or 0
    gating = header.integer("expert_gating_func")
    if experts > MAX_EXPERTS:
        yield f"it has {experts} experts; {MAX_EXPERTS} at most"
    if not (used <= experts and (used > 0) == (experts > 0)) and not _is_hunyuan_dense(header, experts):
        yield f"it uses {used} of {experts} experts"
    if groups and groups >= experts:
        yield f"it has {experts} experts in {groups} groups"
    if groups > 1 and (experts % groups or not 0 < groups_used < groups):
        yield f"it uses {groups_used} of {groups} groups of {experts} experts"
    if gating is not None and gating not in _GATINGS:
        yield f"`{header.architecture}.expert_gating_func` is {gating}, which is unknown"
    if header.architecture == "ernie4_5-moe" and header.integer("interleave_moe_layer_step") == 0:
        yield "each 0th layer has experts (`ernie4_5-moe.interleave_moe_layer_step`)"


def _is_hunyuan_dense(header: Header, experts: int) -> bool:
    """llama.cpp takes these with one expert or none for dense models."""
    return header.architecture in ("hunyuan-dense", "hunyuan_vl") and experts <= 1


def _state(header: Header) -> Iterator[str]:
    """mamba-base.cpp and what divides like it: d_inner by n_head and by n_group."""
    sizes = {name: header.integer(f"ssm.{name}") for name in ("conv_kernel", "inner_size", "state_size")}
    heads, groups = header.integer("ssm.time_step_rank"), header.integer("ssm.group_count")
    for name, size in {**sizes, "time_step_rank": heads}.items():
        if size == 0:
            yield f"`{header.architecture}.ssm.{name}` is 0"
    inner = sizes["inner_size"]
    if header.architecture not in _GROUPED_STATE or not inner or not heads or groups is None:
        return
    if not groups or inner % groups or inner % heads or heads % groups:
        yield f"its state of {inner} numbers cannot be split into {heads} heads in {groups} groups"


def _numbers(header: Header) -> Iterator[str]:
    """ops.cpp, the norms: eps >= 0, which is false of no number too; llama-context.cpp: yarn_ext_factor and others."""
    for key, value in header.metadata.items():
        if isinstance(value, float) and not math.isfinite(value) and key.startswith(f"{header.architecture}."):
            yield f"metadata `{key[:80]}` is {value}" if key.isprintable() else f"a number of its metadata is {value}"
    for key in _EPSILONS:
        epsilon = header.fact(key)
        if isinstance(epsilon, float) and epsilon < 0:
            yield f"`{header.architecture}.{key}` is {epsilon}, below 0"
    if header.fact("attention.causal") is False and task_of(header) == "generate":
        yield "its attention is not causal, so it cannot generate token by token"
    scaling = header.fact("rope.scaling.type")
    if isinstance(scaling, str) and scaling not in _ROPE_SCALINGS:
        yield f"`{header.architecture}.rope.scaling.type` is none of {', '.join(sorted(_ROPE_SCALINGS))}"


def _window(header: Header) -> Iterator[str]:
    """llama-model.cpp, create_memory: a model with a window has a layer with one; the window is counted in 32 bits."""
    window, pattern = header.integer("attention.sliding_window") or 0, header.fact("attention.sliding_window_pattern")
    if window > 1 << 24:
        yield f"its attention window is {window} tokens wide"
    # Of each N layers one has no window; a list says it of each.
    if window and (pattern == 1 or (isinstance(pattern, tuple) and not any(pattern))):
        yield f"its attention has a window of {window} tokens in none of its layers"


def _types(header: Header) -> Iterator[str]:
    """ggml-cpu: integers have no product (a null pointer), and norms, biases and states are read as F32."""
    for tensor in header.tensors:
        if tensor.type in _PLAIN_TYPES and "tid2eid" not in tensor.name:
            yield f"tensor `{_name(tensor)}` is of {tensor.type}, which weights cannot be"
        elif tensor.type != "F32" and _must_be_f32(tensor):
            yield f"tensor `{_name(tensor)}` is of {tensor.type}, and must be of F32"


def _must_be_f32(tensor: Tensor) -> bool:
    if tensor.name.endswith(_ALWAYS_F32_ENDS) or any(part in tensor.name for part in _ALWAYS_F32):
        return True
    return len(tensor.shape) == 1 and "ffn_gate_inp" not in tensor.name


def _name(tensor: Tensor) -> str:
    return tensor.name if tensor.name.isprintable() else ascii(tensor.name)[1:-1]


def _tokenizer(header: Header) -> Iterator[str]:
    """llama-vocab.cpp: load (each token once), byte_to_token, tokenize (special_bos_id and its like)."""
    model, pre = header.text("tokenizer.ggml.model") or "", header.text("tokenizer.ggml.pre") or ""
    is_encoder = header.architecture in ENCODERS
    if model not in (_ENCODER_MODELS if is_encoder else _MODELS):
        which = "encoder" if is_encoder else "decoder"
        yield f"its tokenizer is of a kind that no {which} has (`tokenizer.ggml.model`)"
        return
    if pre == "whitespace" and model != "whitespace":
        yield "pre-tokenizer type `whitespace` needs a tokenizer model of the same name"
    tokens = read_strings(header, TOKENS)
    known = set(tokens)
    if b"" in known or b"\0" in b"".join(known):
        # C ends a text at NUL, and llama.cpp names what is then empty.
        tokens = [token.partition(b"\0")[0] or b"[EMPTY_%d]" % index for index, token in enumerate(tokens)]
        known = set(tokens)
    if len(known) != len(tokens):
        yield f"the {len(tokens)} tokens of its vocabulary are {len(known)} different ones"
    if model in _BYTES_NEEDED or (model == "rwkv" and not _is_known(header, "unknown", None, len(known))):
        missing = [byte for byte in range(256) if known.isdisjoint(_byte_texts(model, byte))]
        if missing:
            yield f"its vocabulary has no token for the byte {missing[0]:#04x}"
    yield from _ends_of_texts(header, model, len(known))
    bos, eos = _DEFAULT_IDS.get(model, (None, None))
    adds_bos = header.metadata.get("tokenizer.ggml.add_bos_token") is True or _PRE_ALWAYS_BOS & {pre, model}
    if adds_bos and not _is_known(header, "bos", None if pre in _PRE_WITHOUT_BOS else bos, len(known)):
        yield "a BOS token is added to each prompt, and there is none"
    if header.metadata.get("tokenizer.ggml.add_eos_token") is True and not _is_known(header, "eos", eos, len(known)):
        yield "an EOS token is added to each prompt, and there is none"


def _template(header: Header) -> Iterator[str]:
    if len(header.text("tokenizer.chat_template") or "") > MAX_TEMPLATE:
        yield f"its chat template has more than {MAX_TEMPLATE} characters"


def _ends_of_texts(header: Header, model: str, tokens: int) -> Iterator[str]:
    """llama-vocab.cpp, tokenize: asserts on special_bos_id, special_sep_id and special_eos_id; unknown text."""
    needed: dict[str, tuple[tuple[str, int | None], ...]] = {
        "bert": (("bos", 101), ("seperator", 102), ("unknown", 100)),
        "t5": (("eos", 1), ("unknown", 2)),
    }
    for which, default in needed.get(model, ()):
        if not _is_known(header, which, default, tokens):
            yield f"its vocabulary needs a token that is not there (`tokenizer.ggml.{which}_token_id`)"
    if model == "t5":
        yield from _normaliser(header)


def _normaliser(header: Header) -> Iterator[str]:
    """llama-vocab.cpp, llm_tokenizer_ugm_session: throws, in the middle of a text, where a table leads outside itself.

    The table is a double array: from a state, a byte leads to the unit `state ^ byte` if that unit bears this byte, and
    there the unit says the next state, and whether a text in place of what was read is at hand. Each state that can be
    reached is looked at, so that no text can lead outside.
    """
    data = read_bytes(header, "tokenizer.ggml.precompiled_charsmap")
    if not data:
        return
    size = int.from_bytes(data[:4], "little")
    texts = data[4 + size :]
    if size % 4 or not texts or texts[-1]:
        yield "the table of its text normaliser is cut short (`tokenizer.ggml.precompiled_charsmap`)"
        return
    units = struct.unpack(f"<{size // 4}I", data[4 : 4 + size])
    children: dict[int, list[int]] = {}
    for place, unit in enumerate(units):
        if 0 < unit & 0x800000FF < 256:
            children.setdefault(place ^ (unit & 0xFF), []).append(place)
    states = [_next(units[0])] if units else []
    seen = set(states)
    for state in states:
        if state | 0xFF >= len(units):
            yield "the table of its text normaliser leads outside itself (`tokenizer.ggml.precompiled_charsmap`)"
            return
        for place in children.get(state, ()):
            after = place ^ _next(units[place])
            if units[place] >> 8 & 1 and not (after < len(units) and units[after] & 0x7FFFFFFF < len(texts)):
                yield "the table of its text normaliser names a text it does not have"
                return
            if after not in seen:
                seen.add(after)
                states.append(after)


def _next(unit: int) -> int:
    """The offset that a unit holds; bit 9 scales it."""
    return (unit >> 10) << ((unit & 1 << 9) >> 6)


def _byte_texts(model: str, byte: int) -> tuple[bytes, ...]:
    """How a vocabulary may write a token that is one byte."""
    raw = bytes([byte])
    if model == "rwkv":  # as Python writes it between quotes, which is how its converter does
        return (repr(raw)[2:-1].encode(),)
    return (b"<0x%02X>" % byte,) if model == "plamo2" else (b"<0x%02X>" % byte, raw)


def _is_known(header: Header, which: str, default: int | None, tokens: int) -> bool:
    """Whether llama.cpp ends up with such a token: the file's, or what it assumes where that is none."""
    told = header.metadata.get(f"tokenizer.ggml.{which}_token_id")
    return any(isinstance(token, int) and 0 <= token < tokens for token in (told, default))


def _given(number: int | None, default: int) -> int:
    return default if number is None else number


def _counts(header: Header, key: str) -> tuple[int, ...]:
    """A fact that is one number for all layers or one for each."""
    value = header.fact(key)
    counts = value if isinstance(value, tuple) else (value,) * (header.integer("block_count") or 0)
    return tuple(count for count in counts if isinstance(count, int))


def _kv_heads(header: Header) -> tuple[int, ...]:
    return _counts(header, "attention.head_count_kv") or _counts(header, "attention.head_count")


_CHECKS: Final[tuple[Callable[[Header], Iterator[str]], ...]] = (
    _layers,
    _heads,
    _experts,
    _state,
    _numbers,
    _window,
    _types,
    _tokenizer,
    _template,
)
