"""llama.cpp for whole texts: a context that gives one vector, or one score, for each of the texts in a batch.

An encoder has to see a text in one pass (llama.cpp ends the process otherwise), so a pass is as long as the longest
text that is served. A decoder that pools the last token reads a long text piece by piece, as for a prompt.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from serving.llamacpp.binding import (
    Context,
    ContextOptions,
    DecodeError,
    LoadError,
    Model,
    Pooling,
    quick_call,
)

_get_vector = quick_call("llama_get_embeddings_seq", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
_clear_memory = quick_call("llama_memory_clear", None, ctypes.c_void_p, ctypes.c_bool)
_width_of = quick_call("llama_model_n_embd_out", ctypes.c_int32, ctypes.c_void_p)
_classes_of = quick_call("llama_model_n_cls_out", ctypes.c_uint32, ctypes.c_void_p)
_set_abort = quick_call("llama_set_abort_callback", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_Abort = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)

CHUNK = 512
"""Tokens of one pass of a decoder. Each of them is an output row of the vocabulary's size, asked for or not."""


class _BufferType(ctypes.Structure):
    """`ggml_backend_buffer_type` (ggml-backend-impl.h), as far as it is read here."""

    _fields_ = (("get_name", ctypes.c_void_p), ("alloc_buffer", ctypes.c_void_p))


class _Buffer(ctypes.Structure):
    """`ggml_backend_buffer` of the same place."""

    _fields_ = (
        ("functions", ctypes.c_void_p * 9),
        ("clear", ctypes.c_void_p),
        ("reset", ctypes.c_void_p),
        ("buffer_type", ctypes.c_void_p),
        ("base", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
    )


_Alloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Clear = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint8)
_madvise = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_kept: list[object] = []
"""Callbacks that the library holds: one that is collected ends the process."""


def _clear(buffer: int, value: int) -> None:
    """Zeros by giving the pages back, which the kernel hands out again as zeros when they are touched."""
    it = _Buffer.from_address(buffer)
    base, end = it.base or 0, (it.base or 0) + it.size
    first, last = -(-base // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if value or last <= first or _madvise(first, last - first, mmap.MADV_DONTNEED):
        ctypes.memset(base, value, it.size)
        return
    ctypes.memset(base, 0, first - base)
    ctypes.memset(last, 0, end - last)


_clear_callback = _Clear(_clear)


def leave_untouched() -> None:
    """Have llama.cpp zero its buffers in main memory without making them resident; once per process.

    Its output buffer has a row of logits for each token of a pass, also where no model computes logits, and is zeroed
    as a whole: for a vocabulary of 250,000 a MiB for each token, 8 GiB for a text of 8,192 (llama-context.cpp,
    output_reserve). Nothing of it is ever read, so it need not be there. A library whose structures are not those
    that are known here is left as it is.
    """
    if _kept:
        return
    the_type = quick_call("ggml_backend_cpu_buffer_type", ctypes.c_void_p)()
    made = _BufferType.from_address(the_type)
    original = _Alloc(made.alloc_buffer)
    probe = original(the_type, mmap.PAGESIZE)
    it = _Buffer.from_address(probe)
    base_of = quick_call("ggml_backend_buffer_get_base", ctypes.c_void_p, ctypes.c_void_p)
    is_known = (it.buffer_type, it.size, it.base) == (the_type, mmap.PAGESIZE, base_of(probe)) and it.clear
    quick_call("ggml_backend_buffer_free", None, ctypes.c_void_p)(probe)
    if not is_known:
        return

    def allocate(buffer_type: int, size: int) -> int | None:
        buffer: int | None = original(buffer_type, size)
        if buffer and size >= 1 << 20:
            _Buffer.from_address(buffer).clear = ctypes.cast(_clear_callback, ctypes.c_void_p).value
        return buffer

    callback = _Alloc(allocate)
    _kept.extend((original, callback))
    made.alloc_buffer = ctypes.cast(callback, ctypes.c_void_p).value


class PoolingContext(Context):
    """One vector for each text of a batch. Used by one thread only."""

    def __init__(
        self, model: Model, pooling: Pooling, *, is_encoder: bool, longest: int, sequences: int, threads: int
    ) -> None:
        """`longest` is the longest text in tokens, `sequences` the most texts in one pass. Raises LoadError."""
        leave_untouched()
        self.in_pieces = not is_encoder and pooling == "last"
        """Whether a text may take several passes."""
        tokens = min(longest, CHUNK) if self.in_pieces else longest
        _check_room(tokens * model.n_vocab * 4)
        options = ContextOptions(
            kv_layout="unified",
            n_ctx=longest,
            n_seq_max=sequences,
            n_batch=tokens,
            n_ubatch=tokens,
            threads=threads,
            pooling=pooling,
        )
        super().__init__(model, options)
        if is_encoder != (not self.memory):
            raise LoadError("llama.cpp keeps a cache for it" if self.memory else "llama.cpp keeps no cache for it")
        self.tokens = tokens
        """Tokens of one pass, at most."""
        self.width = int(_classes_of(model.pointer) if pooling == "rank" else _width_of(model.pointer))
        """Numbers for each text."""
        self._flag[:] = 1
        self.on_progress: Callable[[], None] | None = None
        """Called many times in a pass, on its thread: a text of thousands of tokens takes a while."""

        def progress(_data: object) -> bool:
            if self.on_progress is not None:
                self.on_progress()
            return False

        self._progress = _Abort(progress)
        _set_abort(self.pointer, ctypes.cast(self._progress, ctypes.c_void_p), None)
        self._positions = np.arange(longest, dtype=np.int32)

    def pool(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """The vectors, shape (texts, width), in order. Raises DecodeError.

        Together the texts have `tokens` tokens at most; a single one may have more where `in_pieces`.
        """
        if self.memory:
            _clear_memory(self.memory, False)  # noqa: FBT003 - the C function's signature
        if len(texts) == 1 and len(texts[0]) > self.tokens:
            for start in range(0, len(texts[0]), self.tokens):
                self._compute([texts[0][start : start + self.tokens]], start)
        else:
            self._compute(texts, 0)
        found = np.empty((len(texts), self.width), dtype=np.float32)
        for row in range(len(texts)):
            address = _get_vector(self.pointer, row)
            if not address:
                raise DecodeError(f"llama.cpp gave no vector for text {row} of {len(texts)}")
            found[row] = np.ctypeslib.as_array((ctypes.c_float * self.width).from_address(address))
        return found

    def _compute(self, texts: Sequence[Sequence[int]], start: int) -> None:
        at = 0
        for row, tokens in enumerate(texts):
            end = at + len(tokens)
            self._token[at:end] = tokens
            self._pos[at:end] = self._positions[start : start + len(tokens)]
            self._seq[at:end] = row
            at = end
        status = self._decode(at)
        if status:
            raise DecodeError(f"llama.cpp found no room for {at} tokens in {len(texts)} texts")


class Pairs:
    """How a vocabulary joins a query and a document, as its own tokenizer does it.

    `[CLS] q [SEP] d [SEP]` where words are split as BERT does, `<s> q </s></s> d </s>` in the RoBERTa family.
    Raises LoadError for a vocabulary without these tokens.
    """

    def __init__(self, model: Model) -> None:
        is_bert = model.metadata("tokenizer.ggml.model") == "bert"
        first, end = model.special_id("bos"), model.special_id("sep" if is_bert else "eos")
        if first < 0 or end < 0:
            raise LoadError("its vocabulary has no tokens to begin and to end a pair of texts with")
        self._first, self._end = [first], [end]
        self._between = [end] if is_bert else [end, end]

    def join(self, query: Sequence[int], document: Sequence[int]) -> list[int]:
        """The tokens of a pair."""
        return [*self._first, *query, *self._between, *document, *self._end]


def _check_room(size: int) -> None:
    """Whether the kernel would promise so many bytes; none of them are touched. Raises LoadError."""
    try:
        mmap.mmap(-1, size).close()
    except OSError as error:
        raise LoadError(
            f"llama.cpp reserves {size} bytes of address space for outputs, and the kernel refuses: {error.strerror}"
        ) from error
