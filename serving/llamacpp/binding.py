"""llama.cpp, as the engine needs it: a model, a context, batches. The only file that imports `llama_cpp`.

Two handles on the same library: calls that return at once (under 0.1 ms) keep the GIL, since releasing it costs more
than they do and invites a switch to another thread; loading, decoding, tokenising and copying state release it.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import llama_cpp
import numpy as np
import numpy.typing as npt

from serving.generation.compiler import Vocabulary

KvDtype = Literal["f16", "bf16", "f32", "q8_0"]
KvLayout = Literal["unified", "streams"]
LoadMode = Literal["mmap", "none"]
Pooling = Literal["none", "mean", "cls", "last", "rank"]
"""How the numbers of a text's tokens become those of the text; `rank` is a classifier's head."""

MAX_SEQUENCES = 256
"""LLAMA_MAX_SEQ: the most sequence ids that a context can have (llama-cparams.h)."""

_GGML_TYPES: dict[KvDtype, int] = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}
_POOLINGS: dict[Pooling, int] = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
_LOAD_MODES: dict[LoadMode, int] = {"none": 0, "mmap": 1}

_lib: Any = llama_cpp.llama_cpp._lib  # noqa: SLF001 - the loaded library itself; there is no public name for it
_quick: Any = ctypes.PyDLL(_lib._name)  # noqa: SLF001 - same library, GIL kept

_MEM, _CTX, _VOCAB = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p


def _prototype(lib: Any, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(lib, name)
    function.restype = result
    function.argtypes = arguments
    return function


def quick_call(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the library that returns at once, called with the GIL kept."""
    return _prototype(_quick, name, result, *arguments)


_seq_rm = _prototype(_quick, "llama_memory_seq_rm", ctypes.c_bool, _MEM, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32)
_seq_cp = _prototype(
    _quick, "llama_memory_seq_cp", None, _MEM, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32
)
_seq_pos_min = _prototype(_quick, "llama_memory_seq_pos_min", ctypes.c_int32, _MEM, ctypes.c_int32)
_seq_pos_max = _prototype(_quick, "llama_memory_seq_pos_max", ctypes.c_int32, _MEM, ctypes.c_int32)
_get_logits = _prototype(_quick, "llama_get_logits", ctypes.c_void_p, _CTX)
_piece = _prototype(
    _quick,
    "llama_token_to_piece",
    ctypes.c_int32,
    _VOCAB,
    ctypes.c_int32,
    ctypes.c_char_p,
    ctypes.c_int32,
    ctypes.c_int32,
    ctypes.c_bool,
)
_is_eog = _prototype(_quick, "llama_vocab_is_eog", ctypes.c_bool, _VOCAB, ctypes.c_int32)
_is_control = _prototype(_quick, "llama_vocab_is_control", ctypes.c_bool, _VOCAB, ctypes.c_int32)
_backends = _prototype(_quick, "ggml_backend_reg_count", ctypes.c_size_t)
_load_backends = _prototype(_lib, "ggml_backend_load_all_from_path", None, ctypes.c_char_p)


class DecodeError(RuntimeError):
    """`llama_decode` failed with a fatal status; the context can no longer be trusted."""


class LoadError(RuntimeError):
    """llama.cpp refused the file or could not get the memory; the text is its own last error line."""


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """How a context is laid out; all counts in tokens."""

    kv_layout: KvLayout
    n_ctx: int
    """Cells in all: `kv_tokens` when unified, sequences × context per sequence in streams."""
    n_seq_max: int
    """Sequence ids: in streams one for each request at a time; unified has more of them, to hold cached prefixes."""
    n_batch: int
    n_ubatch: int
    threads: int
    kv_dtype: KvDtype = "f16"
    swa_full: bool = False
    offload: bool = False
    """Whether layers of the model lie on a GPU, and their cache with them."""
    pooling: Pooling | None = None
    """Set, the context computes embeddings or scores of whole texts, and no logits are asked for."""


_log_lines: list[str] = []
_LOG_KEPT = 50


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_errors(level: int, text: bytes, _data: object) -> None:
    """Keep warnings and errors (levels 3 and 4), the rest is thrown away.

    A module-level object on purpose: a callback that is collected crashes the process on the next log line.
    """
    if level in (3, 4):
        _log_lines.append(text.decode("utf-8", "replace").strip())
        del _log_lines[:-_LOG_KEPT]


def start_backend() -> None:
    """Initialise llama.cpp once per process, with its log reduced to what explains a failure.

    A portable build (decision 0035) has its part for the CPU in files beside it, and the best of them is chosen here.
    Raises LoadError where none fits the processor.
    """
    llama_cpp.llama_log_set(_keep_errors, ctypes.c_void_p())
    if not _backends():
        # Left to itself llama.cpp looks beside the interpreter and in the working directory, which may be anybody's.
        directory = Path(_lib._name).parent  # noqa: SLF001
        _load_backends(os.fsencode(directory))
        if not _backends():
            raise LoadError(f"no library in `{directory}` is for this processor")
    llama_cpp.llama_backend_init()


def last_errors() -> list[str]:
    """llama.cpp's last warnings and errors, oldest first."""
    return list(_log_lines)


def library_version() -> str:
    """Version of the binding, which pins the llama.cpp source it was built from."""
    return str(llama_cpp.__version__)


def system_info() -> str:
    """What the library was compiled with, in llama.cpp's words: `CPU : AVX2 = 1 | …`."""
    return str(llama_cpp.llama_print_system_info().decode("utf-8", "replace")).strip()


def cpu_variant() -> str | None:
    """Which part for the CPU a portable build has loaded, such as `haswell`; None where there is but one."""
    found = re.search(r"/libggml-cpu-([\w.]+)\.so$", Path("/proc/self/maps").read_text(encoding="utf-8"), re.MULTILINE)
    return found and found[1]


def supports() -> dict[str, bool]:
    """What this build can do: `supports_gpu_offload`, `supports_mmap`, `supports_mlock`."""
    names = ("supports_gpu_offload", "supports_mmap", "supports_mlock")
    return {name: bool(getattr(llama_cpp, f"llama_{name}")()) for name in names}


class Model:
    """A loaded GGUF. Read-only after loading, so its vocabulary may be used from any thread."""

    def __init__(
        self,
        path: Path,
        *,
        load_mode: LoadMode = "mmap",
        vocab_only: bool = False,
        gpu_layers: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        parameters = llama_cpp.llama_model_default_params()
        set_field(parameters, "n_gpu_layers", gpu_layers)
        set_field(parameters, "load_mode", _LOAD_MODES[load_mode])
        set_field(parameters, "vocab_only", vocab_only)

        @llama_cpp.llama_progress_callback  # type: ignore[untyped-decorator]
        def progress(fraction: float, _data: object) -> bool:
            if on_progress is not None:
                on_progress(fraction)
            return True

        set_field(parameters, "progress_callback", progress)
        pointer = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
        if not pointer:
            raise LoadError("; ".join(line for line in _log_lines[-6:]) or "llama.cpp gave no reason")
        self.pointer = pointer
        self.vocab = llama_cpp.llama_model_get_vocab(pointer)
        self.n_vocab = int(llama_cpp.llama_vocab_n_tokens(self.vocab))
        self.n_ctx_train = int(llama_cpp.llama_model_n_ctx_train(pointer))
        self.n_swa = int(llama_cpp.llama_model_n_swa(pointer))
        self.is_recurrent = bool(llama_cpp.llama_model_is_recurrent(pointer))
        self.is_hybrid = bool(llama_cpp.llama_model_is_hybrid(pointer))
        self.has_encoder = bool(llama_cpp.llama_model_has_encoder(pointer))
        self.has_decoder = bool(llama_cpp.llama_model_has_decoder(pointer))
        self.n_params = int(llama_cpp.llama_model_n_params(pointer))
        self.size_bytes = int(llama_cpp.llama_model_size(pointer))
        self.pre_tokenizer = self.metadata("tokenizer.ggml.pre") or ""
        if self.pre_tokenizer == "whitespace" and self.metadata("tokenizer.ggml.model") != "whitespace":
            # llama.cpp would end the process at the first space of the first prompt
            llama_cpp.llama_model_free(pointer)
            raise LoadError("pre-tokenizer type `whitespace` needs a tokenizer model of the same name")
        self.pieces = [] if vocab_only else [self._piece(token, special=False) for token in range(self.n_vocab)]
        self.ends_generation = frozenset(token for token in range(self.n_vocab) if _is_eog(self.vocab, token))
        self.longest_piece = max((len(piece) for piece in self.pieces), default=1)

    def tokenize(self, text: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of UTF-8 text. `parse_special` reads control tokens such as `<|im_start|>` in the text as such."""
        room = len(text) + 8
        while True:
            buffer = (ctypes.c_int32 * room)()
            count = llama_cpp.llama_tokenize(self.vocab, text, len(text), buffer, room, add_special, parse_special)
            if count >= 0:
                return list(buffer[:count])
            if count == -(2**31):
                raise OverflowError("the text has more tokens than a 32-bit count can hold")
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes of a token as plain text would show it; control tokens are empty."""
        return self.pieces[token]

    def control_texts(self) -> list[str]:
        """The texts of control tokens, such as `<|im_start|>`: what a client's content must not be able to say."""
        texts = []
        for token in range(self.n_vocab):
            if _is_control(self.vocab, token):
                text = self._piece(token, special=True).decode("utf-8", "replace")
                if text:
                    texts.append(text)
        return texts

    def vocabulary(self) -> Vocabulary:
        """The tokens as a grammar sees them. What `pieces` leaves empty is written out, and no text spells it."""
        control = [token for token, piece in enumerate(self.pieces) if not piece and self.special_piece(token)]
        pieces = [piece or self.special_piece(token) for token, piece in enumerate(self.pieces)]
        return Vocabulary(pieces, control, sorted(self.ends_generation))

    def special_piece(self, token: int) -> bytes:
        """The bytes of a token, control tokens written out."""
        return self._piece(token, special=True)

    def _piece(self, token: int, *, special: bool) -> bytes:
        room = 128
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = _piece(self.vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def metadata(self, key: str) -> str | None:
        """A scalar of the GGUF header as text, None where it is absent."""
        buffer = ctypes.create_string_buffer(1 << 20)
        count = llama_cpp.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return None if count < 0 else buffer.raw[:count].decode("utf-8", "replace")

    def chat_template(self) -> str | None:
        """The Jinja source that the file carries, None where it carries none."""
        source = llama_cpp.llama_model_chat_template(self.pointer, None)
        return None if source is None else source.decode("utf-8", "replace")

    def special_id(self, which: Literal["bos", "eos", "sep"]) -> int:
        """The id of a special token, below 0 where the vocabulary has none."""
        return int(getattr(llama_cpp, f"llama_vocab_{which}")(self.vocab))

    def special_text(self, which: Literal["bos", "eos"]) -> str:
        """The text of the BOS or EOS token, empty where the vocabulary has none."""
        function = llama_cpp.llama_vocab_bos if which == "bos" else llama_cpp.llama_vocab_eos
        token = function(self.vocab)
        return "" if token < 0 else self.special_piece(token).decode("utf-8", "replace")

    @property
    def adds_bos(self) -> bool:
        """Whether the vocabulary wants BOS before a plain prompt."""
        return bool(llama_cpp.llama_vocab_get_add_bos(self.vocab))

    @property
    def shares_partially(self) -> bool:
        """Whether any prefix of a computed sequence can be kept (plain attention over the whole context).

        Recurrent state exists only at the length it was computed to, and a reduced sliding window has forgotten the
        cells before it; both can be restored only at exactly the length that was saved.
        """
        return not (self.is_recurrent or self.is_hybrid or self.n_swa > 0)

    def close(self) -> None:
        llama_cpp.llama_model_free(self.pointer)


class Context:
    """The KV cache and compute buffers of one model. Used by one thread only, the engine's."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
        self.model = model
        self.options = options
        parameters = llama_cpp.llama_context_default_params()
        for name, value in {
            "n_ctx": options.n_ctx,
            "n_batch": options.n_batch,
            "n_ubatch": min(options.n_ubatch, options.n_batch),
            "n_seq_max": options.n_seq_max,
            # Only the last token of a prompt and one token per sequence ever need logits; the default reserves
            # a row for every token of a batch, which is 64 MiB at 32k and 256 MiB at 128k of vocabulary.
            # llama.cpp asserts that it is not below n_seq_max.
            # Where texts are pooled every token is an output, as it is where this is 0.
            "n_outputs_max": options.n_seq_max if options.pooling is None else 0,
            "n_threads": options.threads,
            "n_threads_batch": options.threads,
            "type_k": _GGML_TYPES[options.kv_dtype],
            "type_v": _GGML_TYPES[options.kv_dtype],
            "offload_kqv": options.offload,
            "op_offload": options.offload,
            "no_perf": True,
            "swa_full": options.swa_full,
            "kv_unified": options.kv_layout == "unified",
            "embeddings": options.pooling is not None,
            **({} if options.pooling is None else {"pooling_type": _POOLINGS[options.pooling]}),
        }.items():
            set_field(parameters, name, value)
        pointer = llama_cpp.llama_init_from_model(model.pointer, parameters)
        if not pointer:
            raise LoadError("; ".join(_log_lines[-6:]) or "llama.cpp could not make a context")
        self.pointer = pointer
        self.memory = llama_cpp.llama_get_memory(pointer)
        self.n_ctx = int(llama_cpp.llama_n_ctx(pointer))
        self.n_ctx_seq = int(llama_cpp.llama_n_ctx_seq(pointer))
        self.n_batch = int(llama_cpp.llama_n_batch(pointer))
        """Tokens of one call at most: no more than asked for, and no more than the cells asked for."""
        self._batch = llama_cpp.llama_batch_init(options.n_batch, 0, 1)
        self.shares_partially = model.shares_partially or (
            options.swa_full and not model.is_recurrent and not model.is_hybrid
        )
        n = options.n_batch
        self._token = np.ctypeslib.as_array(self._batch.token, shape=(n,))
        self._pos = np.ctypeslib.as_array(self._batch.pos, shape=(n,))
        self._flag = np.ctypeslib.as_array(self._batch.logits, shape=(n,))
        np.ctypeslib.as_array(self._batch.n_seq_id, shape=(n,))[:] = 1
        # Every token belongs to one sequence: point the batch's array of arrays into one flat array, once.
        self._seq = np.zeros(n, dtype=np.int32)
        base = self._seq.ctypes.data
        pointers = ctypes.cast(self._batch.seq_id, ctypes.POINTER(ctypes.c_void_p))
        self._own_seq_pointers = [pointers[i] for i in range(n)]
        self._decoded: list[int] = []
        """The sequences that the batch is filled in for, where the last call was `decode`."""
        self._views: dict[tuple[int, int], npt.NDArray[np.float32]] = {}
        for i in range(n):
            pointers[i] = base + 4 * i

    def prefill(self, seq: int, tokens: Sequence[int], start: int, *, wants_logits: bool) -> int:
        """Compute `tokens` of one sequence at positions `start …`; logits of the last one if wanted.

        Returns llama_decode's status: 0 done, 1 no room in the cache (nothing changed). Raises DecodeError else.
        """
        n = len(tokens)
        self._decoded = []
        self._token[:n] = tokens
        self._pos[:n] = np.arange(start, start + n, dtype=np.int32)
        self._seq[:n] = seq
        self._flag[:n] = 0
        self._flag[n - 1] = wants_logits
        return self._decode(n)

    def decode(self, seqs: list[int], tokens: Sequence[int], positions: Sequence[int]) -> int:
        """Compute one token of each sequence; `seqs` ascend. Status as in `prefill`.

        Row i of `logits` is then the i-th sequence's.
        """
        n = len(seqs)
        if seqs != self._decoded:  # from step to step they mostly are the same
            self._seq[:n] = seqs
            self._flag[:n] = 1
            self._decoded = seqs
        for row in range(n):
            self._token[row] = tokens[row]
            self._pos[row] = positions[row]
        return self._decode(n)

    def _decode(self, n: int) -> int:
        self._batch.n_tokens = n
        status = int(_lib.llama_decode(self.pointer, self._batch))
        if status not in (0, 1):
            raise DecodeError(f"llama_decode returned {status}: {'; '.join(_log_lines[-6:])}")
        return status

    def logits(self, rows: int) -> npt.NDArray[np.float32]:
        """Logits of the last call, shape (rows, n_vocab): a view that the next call overwrites; may be written to."""
        key = (_get_logits(self.pointer), rows)
        view = self._views.get(key)
        if view is None:  # llama.cpp moves its buffer only to make it larger
            buffer = (ctypes.c_float * (rows * self.model.n_vocab)).from_address(key[0])
            view = self._views[key] = np.ctypeslib.as_array(buffer).reshape(rows, self.model.n_vocab)
        return view

    def drop(self, seq: int, start: int = 0) -> bool:
        """Forget a sequence from position `start` on. False: this memory cannot be cut there, nothing changed."""
        return bool(_seq_rm(self.memory, seq, start, -1))

    def share(self, source: int, target: int, length: int) -> None:
        """Let `target` refer to the first `length` cells of `source` (unified layout only; streams abort on it)."""
        _seq_cp(self.memory, source, target, 0, length)

    def length(self, seq: int) -> int:
        """Positions of a sequence that are in the cache, as llama.cpp has it."""
        return int(_seq_pos_max(self.memory, seq)) + 1

    def keeps(self, seq: int, length: int) -> bool:
        """Whether a sequence cut to `length` tokens would still have every cell that its next token looks at.

        Not a matter of course with a sliding window, even when a cache of full size is kept for it (`swa_full`):
        llama.cpp takes cells outside a sequence's present window for new tokens of any sequence while others are
        still free, and a saved state leaves them out. They go from the oldest on: the first position left tells.
        """
        if self.model.n_swa == 0:
            return True
        return 0 <= int(_seq_pos_min(self.memory, seq)) <= max(0, length - self.model.n_swa)

    def save(self, seq: int) -> npt.NDArray[np.uint8]:
        """The whole state of a sequence; bytes in proportion to its length."""
        size = int(llama_cpp.llama_state_seq_get_size(self.pointer, seq))
        state = np.empty(size, dtype=np.uint8)
        got = int(
            llama_cpp.llama_state_seq_get_data(
                self.pointer, state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)), size, seq
            )
        )
        return state[:got]

    def restore(self, state: npt.NDArray[np.uint8], seq: int) -> bool:
        """Replace a sequence by a saved state. False: it did not fit; the sequence is then empty."""
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        self.drop(seq)  # llama.cpp leaves what was there when the saved state has no tokens
        if llama_cpp.llama_state_seq_set_data(self.pointer, pointer, state.size, seq) > 0:
            return True
        self.drop(seq)
        return False

    def close(self) -> None:
        pointers = ctypes.cast(self._batch.seq_id, ctypes.POINTER(ctypes.c_void_p))
        for i, own in enumerate(self._own_seq_pointers):
            pointers[i] = own  # llama_batch_free frees what llama_batch_init allocated
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self.pointer)


def set_field(structure: Any, name: str, value: object) -> None:
    """Set a field of a ctypes structure that has it.

    Plain assignment accepts any name and ignores it (`use_mmap` was replaced by `load_mode` and kept working in
    appearance), so a field that is not there is an error here.
    """
    if name not in {field[0] for field in structure._fields_}:
        raise AttributeError(f"{type(structure).__name__} has no field {name!r}")
    setattr(structure, name, value)
