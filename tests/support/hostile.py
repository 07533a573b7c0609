"""GGUF files that are wrong somewhere: a seeded generator of mutants that knows how the format is built.

A mutant is a sound tiny model changed in one to three places. Half of the places are in what the file says (a fact, a
token, a tensor's shape), written out again as a sound file would be; the others are in how it says it (a count, a
length, an offset, a type, a boundary at which the file ends), with the rest left as it was.
"""

from __future__ import annotations

import copy
import math
import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serving.gguf import TYPES
from tests.llamacpp import zoo

FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY, F32 = 8, 9, 0
EDGES = [0, 1, 2, 3, 5, 7, 8, 31, 32, 33, 63, 64, 127, 255, 256, 511, 513, 1023, 4095, 65535, 65536, 1 << 20]
EDGES += [
    sign * (1 << bits) + near for bits in (24, 31, 32, 40, 48, 62, 63, 64) for near in (-1, 0, 1) for sign in (1,)
]
FLOATS = [0.0, -0.0, -1.0, 1e-45, 1e-5, 1.0, 3.4e38, math.inf, -math.inf, math.nan]
WORDS = [b"", b"\0", b"llama", b"a\0b", b"\n", b"\x1b[31m", b"\xff\xfe", "ключ".encode(), "😀".encode(), b"x" * 64]
WORDS += [b"..", b"../../etc/passwd", b"x" * 300, b"\xed\xa0\x80", b" ", b"blk.0.attn_q.weight", b"0", b"-1", b"true"]
FAMILIES = [
    b"llama",
    b"gemma3",
    b"lfm2",
    b"mamba",
    b"qwen2",
    b"qwen3",
    b"phi3",
    b"bert",
    b"t5",
    b"gpt2",
    b"clip",
    b"rwkv7",
]
TEXTS = {
    "general.architecture": FAMILIES,
    "tokenizer.ggml.model": [
        b"llama",
        b"gpt2",
        b"bert",
        b"t5",
        b"rwkv",
        b"test",
        b"none",
        b"no_vocab",
        b"gemma4",
        b"plamo2",
    ],
    "tokenizer.ggml.pre": [b"default", b"llama3", b"qwen2", b"whitespace", b"glm4", b"gemma4", b"superbpe", b"tekken"],
    "rope.scaling.type": [b"none", b"linear", b"yarn", b"longrope", b"su", b"dynamic"],
}
ADDED: list[tuple[str, int]] = [
    *((f"attention.{name}", 4) for name in ("key_length", "value_length", "sliding_window", "group_norm_groups")),
    *(
        (f"attention.{name}", 4)
        for name in ("head_count", "head_count_kv", "key_length_mla", "kv_lora_rank", "q_lora_rank")
    ),
    *((f"attention.{name}", 6) for name in ("layer_norm_rms_epsilon", "layer_norm_epsilon", "scale", "clamp_kqv")),
    *((f"expert_{name}", 4) for name in ("count", "used_count", "group_count", "group_used_count", "gating_func")),
    *(
        (f"rope.{name}", 6)
        for name in ("freq_base", "freq_base_swa", "scaling.factor", "scaling.attn_factor", "scale_linear")
    ),
    *(
        (f"rope.{name}", 6)
        for name in ("scaling.yarn_log_multiplier", "scaling.yarn_ext_factor", "scaling.yarn_beta_fast")
    ),
    *((f"rope.{name}", 4) for name in ("dimension_count", "dimension_count_swa", "scaling.original_context_length")),
    *((f"ssm.{name}", 4) for name in ("conv_kernel", "inner_size", "state_size", "time_step_rank", "group_count")),
    *((name, 4) for name in ("vocab_size", "nextn_predict_layers", "leading_dense_block_count", "pooling_type")),
    *((name, 4) for name in ("context_length", "embedding_length", "block_count", "feed_forward_length")),
    *((name, 6) for name in ("logit_scale", "residual_scale", "embedding_scale", "final_logit_softcapping")),
    *((name, 6) for name in ("attn_logit_softcapping", "router_logit_softcapping")),
    ("attention.causal", 7),
    ("use_parallel_residual", 7),
    ("rope.scaling.type", STRING),
]
TOKENIZER = [
    *(
        (f"tokenizer.ggml.{name}_token_id", 4)
        for name in ("bos", "eos", "eot", "unknown", "padding", "seperator", "mask")
    ),
    *((f"tokenizer.ggml.add_{name}", 7) for name in ("bos_token", "eos_token", "sep_token", "space_prefix")),
    *((f"tokenizer.ggml.{name}", 7) for name in ("remove_extra_whitespaces", "escape_whitespaces", "ignore_merges")),
    ("tokenizer.ggml.token_type_count", 4),
    ("tokenizer.chat_template", STRING),
    ("general.alignment", 4),
    ("general.file_type", 4),
    ("split.count", 2),
    ("split.no", 2),
]


@dataclass
class Entry:
    """A piece of metadata; a scalar has one value."""

    key: bytes
    kind: int
    values: list[Any]
    element: int | None = None
    """The type of the elements, where it is an array."""

    def pieces(self) -> Iterable[tuple[str, bytes]]:
        yield from _text("key", self.key)
        if self.element is None:
            yield "type", struct.pack("<I", self.kind)
            yield from _value(self.kind, self.values[0])
            return
        yield "type", struct.pack("<I", ARRAY)
        yield "element type", struct.pack("<I", self.element)
        yield "array length", struct.pack("<Q", len(self.values))
        for value in self.values:
            yield from _value(self.element, value)


@dataclass
class Weight:
    """A tensor; its data is `size` bytes at `source` of the model that the mutant was made from."""

    name: bytes
    shape: list[int]
    kind: int
    offset: int

    @property
    def size(self) -> int:
        block, block_bytes = (TYPES[self.kind].block, TYPES[self.kind].block_bytes) if self.kind in TYPES else (1, 4)
        return max(0, math.prod(self.shape)) // block * block_bytes


@dataclass
class Model:
    """A GGUF file taken apart."""

    entries: list[Entry]
    weights: list[Weight]
    data: bytes = field(repr=False)
    family: str = "llama"

    def pieces(self) -> list[tuple[str, bytes]]:
        """The header, each part of it under the name of its role."""
        found = [("magic", b"GGUF"), ("version", struct.pack("<I", 3))]
        found += [("tensor count", struct.pack("<Q", len(self.weights)))]
        found += [("metadata count", struct.pack("<Q", len(self.entries)))]
        for entry in self.entries:
            found.extend(entry.pieces())
        for weight in self.weights:
            found.extend(_text("tensor name", weight.name))
            found.append(("dimensions", struct.pack("<I", len(weight.shape) & 0xFFFFFFFF)))
            found += [("shape", struct.pack("<Q", length % (1 << 64))) for length in weight.shape]
            found += [
                ("tensor type", struct.pack("<I", weight.kind)),
                ("offset", struct.pack("<Q", weight.offset % (1 << 64))),
            ]
        return found

    def lay_out(self) -> None:
        """Put the tensors one after another, as a sound file has them."""
        at = 0
        for weight in self.weights:
            weight.offset = at
            at += -(-weight.size // 32) * 32

    @property
    def data_bytes(self) -> int:
        last = self.weights[-1] if self.weights else None
        return 0 if last is None else max(0, min(last.offset + last.size, 1 << 22))

    def copy(self) -> Model:
        """As deep as mutators change it."""
        entries = [replace(entry, values=list(entry.values)) for entry in self.entries]
        return Model(entries, [replace(one, shape=list(one.shape)) for one in self.weights], self.data, self.family)

    def entry(self, key: str) -> Entry:
        return next(entry for entry in self.entries if entry.key == key.encode())


@dataclass(frozen=True)
class Mutant:
    """A file to be written: its header, where it ends, and what was done to it."""

    header: bytes
    length: int
    changes: tuple[str, ...]
    data: bytes = field(repr=False, default=b"")

    def write(self, path: Path, *, whole: bool = False) -> Path:
        """Write it; unless `whole`, with a hole where the numbers would be."""
        with path.open("wb") as file:
            file.write(self.header[: self.length])
            if whole and self.length > len(self.header) and self.data:
                left = self.length - len(self.header)
                file.write((self.data * (left // len(self.data) + 1))[:left])
            file.truncate(self.length)
        return path


def _text(role: str, raw: bytes) -> list[tuple[str, bytes]]:
    return [(f"{role} length", struct.pack("<Q", len(raw))), (role, raw)]


def _value(kind: int, value: Any) -> list[tuple[str, bytes]]:
    if kind == STRING:
        return _text("string", value if isinstance(value, bytes) else str(value).encode())
    return [("value", pack(kind, value))]


def pack(kind: int, value: Any) -> bytes:
    """The value in that type, wrapped around where it does not fit."""
    form = struct.Struct("<" + FORMS.get(kind, "I"))
    if form.format in ("<f", "<d"):
        try:
            return form.pack(float(value if not isinstance(value, bytes) else len(value)))
        except OverflowError:
            return form.pack(math.inf)
    number = int(value) if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) else 1
    return (number % (1 << (8 * form.size))).to_bytes(form.size, "little")


def take_apart(path: Path) -> Model:
    """A sound GGUF file as a `Model`."""
    raw, at = path.read_bytes(), 24

    def read(form: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from("<" + form, raw, at)
        at += struct.calcsize("<" + form)
        return value

    def text() -> bytes:
        nonlocal at
        length = read("Q")
        at += length
        return raw[at - length : at]

    def value(kind: int) -> Any:
        return text() if kind == STRING else read(FORMS[kind])

    n_weights, n_entries = struct.unpack_from("<QQ", raw, 8)
    entries = []
    for _ in range(n_entries):
        key, kind = text(), read("I")
        if kind != ARRAY:
            entries.append(Entry(key, kind, [value(kind)]))
            continue
        element, count = read("I"), read("Q")
        entries.append(Entry(key, kind, [value(element) for _ in range(count)], element))
    weights = []
    for _ in range(n_weights):
        name, dimensions = text(), read("I")
        weights.append(Weight(name, [read("Q") for _ in range(dimensions)], read("I"), read("Q")))
    model = Model(entries, weights, raw[-(-at // 32) * 32 :])
    model.family = model.entry("general.architecture").values[0].decode()
    return model


def models(folder: Path) -> dict[str, Model]:
    """Sound tiny models, one for each kind of memory, one with experts and one with a SentencePiece vocabulary."""
    found = {kind: take_apart(zoo.write_model(folder, kind)) for kind in zoo.MODELS}
    found["experts"] = _with_experts(found["plain"].copy())
    found["pieces"] = _with_pieces(found["plain"].copy())
    for model in found.values():
        model.entries.append(
            Entry(b"tokenizer.chat_template", STRING, [b"{% for m in messages %}{{ m.content }}{% endfor %}"])
        )
    return found


def _with_experts(model: Model) -> Model:
    experts = 4
    model.entries += [Entry(b"llama.expert_count", 4, [experts]), Entry(b"llama.expert_used_count", 4, [2])]
    weights = []
    for weight in model.weights:
        block, _, part = weight.name.decode().rpartition(".ffn_")
        if not block or part.startswith("norm"):
            weights.append(weight)
            continue
        name = part.removesuffix(".weight")
        weights.append(Weight(f"{block}.ffn_{name}_exps.weight".encode(), [*weight.shape, experts], F32, 0))
        if name == "gate":
            weights.append(Weight(f"{block}.ffn_gate_inp.weight".encode(), [weight.shape[0], experts], F32, 0))
    model.weights = weights
    model.lay_out()
    return model


def _with_pieces(model: Model) -> Model:
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256))]
    count = len(model.entry("tokenizer.ggml.tokens").values)
    tokens += [b"\xe2\x96\x81" if letter == 0 else bytes([96 + letter]) for letter in range(count - len(tokens))]
    model.entry("tokenizer.ggml.model").values = [b"llama"]
    model.entry("tokenizer.ggml.tokens").values = tokens
    model.entry("tokenizer.ggml.token_type").values = [2, 3, 3, *[6] * 256, *[1] * (count - 259)]
    model.entry("tokenizer.ggml.eos_token_id").values = [2]
    model.entries.append(Entry(b"tokenizer.ggml.scores", 6, [-float(rank) for rank in range(count)], 6))
    return model


class GgufMutator:
    """Changes what a model says. Each change returns what it did, or None where it found nothing to do it to."""

    def __init__(self, rng: random.Random, model: Model) -> None:
        self.rng = rng
        self.model = model
        self.changes: list[Callable[[], str | None]] = [
            *[self.number] * 4,
            *[self.added] * 4,
            *[self.text] * 2,
            *[self.array] * 3,
            *[self.tensor_type] * 2,
            *[self.tensor_shape] * 2,
            self.retyped,
            self.dropped,
            self.doubled,
            self.renamed,
            self.tensor_name,
            self.tensor_gone,
            self.tensor_doubled,
            self.tensors_swapped,
            self.tensor_moved,
        ]

    def change(self) -> str:
        while True:
            did = self.rng.choice(self.changes)()
            if did is not None:
                return did

    def edge(self, near: int = 0) -> int:
        return self.rng.choice([*EDGES, near - 1, near + 1, near * 2, near // 2, near * 3, -near, -1])

    def some(self, *, is_array: bool) -> Entry | None:
        found = [entry for entry in self.model.entries if (entry.element is not None) == is_array]
        return self.rng.choice(found) if found else None

    def number(self) -> str | None:
        entry = self.some(is_array=False)
        if entry is None or entry.kind == STRING:
            return None
        old = entry.values[0]
        new: Any = self.rng.choice(FLOATS) if entry.kind in (6, 12) else self.edge(int(old))
        entry.values = [new]
        return f"{_told(entry.key)}: {old} -> {new}"

    def added(self) -> str:
        name, kind = self.rng.choice([*ADDED, *ADDED, *TOKENIZER])
        key = name if (name, kind) in TOKENIZER else f"{self.model.family}.{name}"
        value: Any
        if kind == STRING:
            value = self.rng.choice(
                TEXTS.get(name, [b"{{ messages }}", b"{% for", b"{{ 1/0 }}", b"{% for a in range(9) %}"])
            )
        elif kind == 6:
            value = self.rng.choice(FLOATS)
        else:
            value = self.edge(self.rng.choice([1, 2, 4, 16, 64, 285]))
        self.model.entries = [entry for entry in self.model.entries if entry.key != key.encode()]
        self.model.entries.append(Entry(key.encode(), kind, [value]))
        return f"{key} = {value!r:.40}"

    def text(self) -> str | None:
        entry = self.some(is_array=False)
        if entry is None or entry.kind != STRING:
            return None
        known = next((texts for key, texts in TEXTS.items() if entry.key.decode().endswith(key)), WORDS)
        entry.values = [self.rng.choice([*known, self.rng.choice(WORDS)])]
        return f"{_told(entry.key)} = {entry.values[0]!r:.40}"

    def array(self) -> str | None:
        entry = self.some(is_array=True)
        if entry is None or not entry.values:
            return None
        count, values, rng = len(entry.values), list(entry.values), self.rng
        what = rng.choice(["shorter", "longer", "empty", "one", "twice", "other", "scalar", "type", "blank", "many"])
        spot = rng.randrange(count)
        if what == "shorter":
            values = values[: rng.randrange(count)]
        elif what == "longer":
            values += values[: rng.choice([1, 2, count])]
        elif what == "many":
            values = (values * (2000 // count + 1))[:2000]
        elif what == "empty":
            values = []
        elif what == "one":
            values = values[:1]
        elif what == "twice":
            values[spot] = rng.choice(values)
        elif what == "blank":
            values[spot] = b"" if entry.element == STRING else 0
        elif what == "other":
            values[spot] = rng.choice(WORDS) if entry.element == STRING else self.edge(3)
        elif what == "scalar":
            entry.kind, entry.element, values = entry.element or 4, None, values[:1]
        else:
            entry.element = rng.choice([*FORMS, STRING, ARRAY, 13])
        entry.values = values
        return f"{_told(entry.key)}: {what}"

    def retyped(self) -> str | None:
        entry = self.some(is_array=False)
        if entry is None:
            return None
        entry.kind = self.rng.choice([*FORMS, STRING, 13, 1 << 31])
        if self.rng.random() < 0.3:
            entry.element, entry.values = entry.kind, entry.values * self.rng.choice([1, 2, 3, 4])
        return f"{_told(entry.key)} of type {entry.kind}"

    def dropped(self) -> str | None:
        if not self.model.entries:
            return None
        entry = self.model.entries.pop(self.rng.randrange(len(self.model.entries)))
        return f"without {_told(entry.key)}"

    def doubled(self) -> str | None:
        if not self.model.entries:
            return None
        entry = copy.deepcopy(self.rng.choice(self.model.entries))
        if self.rng.random() < 0.5:
            entry.key += self.rng.choice([b"\0", b" ", b"\n", b"2"])
        self.model.entries.append(entry)
        return f"{_told(entry.key)} once more"

    def renamed(self) -> str | None:
        if not self.model.entries:
            return None
        entry = self.rng.choice(self.model.entries)
        old, entry.key = entry.key, self.rng.choice([*WORDS, entry.key.swapcase(), entry.key + b"\0"])
        return f"{_told(old)} renamed {_told(entry.key)}"

    def weight(self) -> Weight | None:
        return self.rng.choice(self.model.weights) if self.model.weights else None

    def tensor_name(self) -> str | None:
        weight = self.weight()
        if weight is None:
            return None
        others = [other.name for other in self.model.weights]
        parts = weight.name.split(b".")
        layer = [*parts[:1], b"7", *parts[2:]] if parts[0] == b"blk" else [b"blk", b"0", *parts]
        old = weight.name
        weight.name = self.rng.choice(
            [*WORDS, *others[:4], b".".join(layer), old + b"\0", old.replace(b"weight", b"bias")]
        )
        return f"tensor {_told(old)} renamed {_told(weight.name)}"

    def tensor_type(self) -> str | None:
        weight = self.weight()
        if weight is None:
            return None
        same = [kind for kind, told in TYPES.items() if told.block_bytes * 1 == 4 and told.block == 1]
        old, weight.kind = weight.kind, self.rng.choice([*same, *same, *TYPES, 4, 31, 36, 40, 41, 99, 1 << 31])
        self.maybe_lay_out()
        return f"tensor {_told(weight.name)} of type {old} -> {weight.kind}"

    def tensor_shape(self) -> str | None:
        weight = self.weight()
        if weight is None:
            return None
        old, shape, rng = list(weight.shape), weight.shape, self.rng
        what = rng.randrange(7)
        spot = rng.randrange(len(shape)) if shape else 0
        if what == 0:
            shape = shape[::-1]
        elif what == 1:
            shape = [math.prod(shape)]
        elif what == 2:
            shape = [*shape, 1][: rng.choice([1, 2, 3, 4, 5])]
        elif what == 3:
            shape = [*shape[:-1], shape[-1] // 2, 2] if shape else [0]
        elif what == 4 and shape:
            shape = [*shape[:spot], self.edge(shape[spot]), *shape[spot + 1 :]]
        elif what == 5:
            shape = [*shape, *[1] * rng.choice([1, 2, 3, 60])]
        else:
            shape = []
        weight.shape = shape
        self.maybe_lay_out()
        return f"tensor {_told(weight.name)} of {old} -> {shape[:6]}"

    def tensor_gone(self) -> str | None:
        if not self.model.weights:
            return None
        weight = self.model.weights.pop(self.rng.randrange(len(self.model.weights)))
        self.maybe_lay_out()
        return f"without tensor {_told(weight.name)}"

    def tensor_doubled(self) -> str | None:
        weight = self.weight()
        if weight is None:
            return None
        more = copy.deepcopy(weight)
        if self.rng.random() < 0.7:
            more.name += self.rng.choice([b"2", b"\0", b".scale"])
        self.model.weights.append(more)
        self.maybe_lay_out()
        return f"tensor {_told(more.name)} once more"

    def tensors_swapped(self) -> str | None:
        if len(self.model.weights) < 2:
            return None
        left, right = self.rng.sample(self.model.weights, 2)
        if self.rng.random() < 0.5:
            left.name, right.name = right.name, left.name
        else:
            left.offset, right.offset = right.offset, left.offset
        return f"tensors {_told(left.name)} and {_told(right.name)} swapped"

    def tensor_moved(self) -> str | None:
        weight = self.weight()
        if weight is None:
            return None
        old, weight.offset = weight.offset, self.rng.choice([self.edge(weight.offset), 0, weight.offset - 32])
        return f"tensor {_told(weight.name)} at {old} -> {weight.offset}"

    def maybe_lay_out(self) -> None:
        if self.rng.random() < 0.75:
            self.model.lay_out()


def gguf_mutant(rng: random.Random, base: Model, *, raw: bool = True) -> Mutant:
    """One mutant of `base`, changed in one to three places; not `raw`: only in what it says."""
    model = base.copy()
    mutator = GgufMutator(rng, model)
    places = rng.choice([1, 1, 1, 2, 2, 3])
    below = sum(rng.random() < 0.5 for _ in range(places)) if raw else 0
    changes = [mutator.change() for _ in range(places - below)]
    pieces = model.pieces()
    length: int | None = None
    for _ in range(below):
        did, cut = _break(rng, pieces)
        changes.append(did)
        length = cut if length is None else length
    header = b"".join(part for _, part in pieces)
    header += b"\0" * (-len(header) % 32)
    whole = len(header) + model.data_bytes
    return Mutant(header, whole if length is None else max(0, min(length, whole)), tuple(changes), base.data)


def _break(rng: random.Random, pieces: list[tuple[str, bytes]]) -> tuple[str, int | None]:
    """Change one piece of a header, whatever the others say; and where the file ends, if that is the change."""
    # The few counts and types would be met seldom among a thousand tokens, so the role is drawn first.
    roles = sorted({role for role, _ in pieces})
    role = rng.choice(roles)
    spot = rng.choice([index for index, (name, _) in enumerate(pieces) if name == role])
    part = pieces[spot][1]
    what = rng.choice(["edge", "edge", "edge", "bit", "cut", "gone", "twice", "swapped", "random"])
    if what == "edge" and len(part) in (1, 2, 4, 8):
        new = rng.choice([*EDGES, int.from_bytes(part, "little") + rng.choice([-1, 1])]) % (1 << 8 * len(part))
        pieces[spot] = role, new.to_bytes(len(part), "little")
        return f"{role} -> {new}", None
    if what == "cut":
        return f"ends at its {role}", sum(len(one) for _, one in pieces[:spot]) + rng.choice([-1, 0, 1, len(part) // 2])
    if what == "gone":
        pieces[spot] = role, b""
    elif what == "twice":
        pieces[spot] = role, part * 2
    elif what == "swapped" and spot:
        pieces[spot], pieces[spot - 1] = pieces[spot - 1], pieces[spot]
    elif what == "bit" and part:
        flipped = bytearray(part)
        flipped[rng.randrange(len(part))] ^= 1 << rng.randrange(8)
        pieces[spot] = role, bytes(flipped)
    else:
        pieces[spot] = role, rng.randbytes(len(part))
    return f"{role}: {what}", None


def _told(raw: bytes) -> str:
    return repr(raw[:60].decode("utf-8", "backslashreplace"))[1:-1]
