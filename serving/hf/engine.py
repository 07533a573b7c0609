"""The engine's thread: one request after another, one token after another.

The event loop hands requests over and may say that a client has gone; updates come back to it one by one. Chunks have a
fixed size, so that the same prompt is always computed in the same pieces and rounds alike.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from serving.generation.sampling import Row, Sampler
from serving.generation.text import TextStream
from serving.hf.detokenise import Detokeniser
from serving.openai import Sampling

log = logging.getLogger("serving.hf")

CHUNK = 64
"""Prompt tokens computed at once: a client that leaves is noticed after so many."""
_STALLED_S = 30.0
_STALLED_STEPS = 8.0
"""A step that takes so many times the slowest one before it, and as long as that, counts as hung."""


class Run(Protocol):
    """One sequence and its cache (`binding.Run`)."""

    def compute(self, tokens: Sequence[int]) -> Row:
        """Logits after these tokens, which follow those computed before."""


class Model(Protocol):
    """What the engine needs of `binding.Model`."""

    n_vocab: int

    @property
    def dtype(self) -> str:
        """What it computes in."""

    def begin(self) -> Run:
        """An empty sequence."""


class Update(NamedTuple):
    """What one token brought."""

    text: str
    generated: int
    """Tokens generated so far, an end token included."""
    finish: Literal["stop", "length", "error"] | None = None


@dataclass(slots=True, eq=False)
class Request:
    """One answer to produce."""

    tokens: list[int]
    sampling: Sampling
    max_tokens: int
    on_update: Callable[[Update], None]
    """Called on the event loop."""
    is_gone: bool = False
    """Nobody waits for it any more. The event loop writes it, the engine's thread reads it between two steps."""


@dataclass(slots=True)
class Counters:
    """Totals since the start, written by the engine's thread; `waiting` is the queue's length."""

    prompt_tokens: int = 0
    computed_prompt_tokens: int = 0
    generated_tokens: int = 0
    decode_s: float = 0.0
    prefill_s: float = 0.0
    cancelled: int = 0
    running: int = 0
    waiting: int = 0


class Engine:
    """One model, one request at a time, in order of arrival. `submit` may be called from any thread."""

    def __init__(
        self,
        model: Model,
        *,
        ends: frozenset[int],
        control: frozenset[int],
        decode: Callable[[Sequence[int]], str],
        takes_chunks: bool,
        post: Callable[[Request, Update], None],
        on_fatal: Callable[[BaseException], None],
        fatal: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._model = model
        self._ends = ends
        self._control = control
        self._decode = decode
        self._takes_chunks = takes_chunks
        self._post = post
        self._on_fatal = on_fatal
        self._fatal = fatal
        self._inbox: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._counters = Counters()
        self._step_began: float | None = None
        self._slowest_s = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Serve what is and will be submitted."""
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Hand a request over; its updates come through `on_update`."""
        self._inbox.put(request)

    @property
    def counters(self) -> Counters:
        """As they are now."""
        self._counters.waiting = self._inbox.qsize()
        return self._counters

    @property
    def is_stalled(self) -> bool:
        """Whether a step takes so long that it will not come back. A slow machine's steps are slow from the first."""
        began = self._step_began
        return began is not None and time.monotonic() - began > max(_STALLED_S, _STALLED_STEPS * self._slowest_s)

    # --- the engine's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            np.seterr(all="ignore")  # for this thread; the sampler looks at its sums
            while True:
                request = self._inbox.get()
                self._counters.running = 1
                self._serve(request)
                self._counters.running = 0
        except BaseException as error:  # noqa: BLE001 - whatever it was, the process cannot go on without this thread
            self._on_fatal(error)

    def _serve(self, request: Request) -> None:
        generated = 0
        try:
            for update in self._answer(request):
                generated = update.generated
                self._post(request, update)
                if update.finish is not None:
                    return
            self._counters.cancelled += 1
        except self._fatal:
            raise
        except Exception:  # no memory for the cache, say: this request's alone
            log.exception("an answer failed")
            self._post(request, Update("", generated, "error"))

    def _answer(self, request: Request) -> Iterator[Update]:
        """The updates of one answer; they end early where its client leaves."""
        if request.is_gone:
            return
        prompt, sampling = request.tokens, request.sampling
        self._counters.prompt_tokens += len(prompt)
        run = self._model.begin()
        row = None
        size = CHUNK if self._takes_chunks else len(prompt)
        for start in range(0, len(prompt), size):
            if request.is_gone:
                return
            chunk = prompt[start : start + size]
            row = self._compute(run, chunk)
            self._counters.computed_prompt_tokens += len(chunk)
        assert row is not None  # noqa: S101 - the server refuses empty prompts
        sampler = Sampler(sampling, prompt, sorted(self._ends), self._model.n_vocab)
        words, text = Detokeniser(self._decode, prompt), TextStream(sampling.stop)
        for generated in range(1, request.max_tokens + 1):
            token = sampler.sample(row)
            self._counters.generated_tokens += 1
            update = self._judge(request, token, generated, words, text)
            yield update
            if update.finish is not None or request.is_gone:
                return
            row = self._compute(run, [token])

    def _judge(self, request: Request, token: int, generated: int, words: Detokeniser, text: TextStream) -> Update:
        """What the token brings, and whether the answer ends with it."""
        sampling = request.sampling
        may_end = generated > sampling.min_tokens
        is_end = token in self._ends and not sampling.ignore_eos
        if may_end and (is_end or token in sampling.stop_token_ids):
            rest = text.push(words.finish().encode()) + text.finish()
            return Update(rest, generated, "stop")
        new = "" if token in self._control else words.push(token)
        out = text.push(new.encode(), may_stop=may_end)
        if text.stopped:
            return Update(out, generated, "stop")
        if generated < request.max_tokens:
            return Update(out, generated)
        out += text.push(words.finish().encode()) + text.finish()
        return Update(out, generated, "stop" if text.stopped else "length")

    def _compute(self, run: Run, tokens: Sequence[int]) -> Row:
        self._step_began = began = time.monotonic()
        row = run.compute(tokens)
        took = time.monotonic() - began
        self._step_began = None
        self._slowest_s = max(self._slowest_s, took)
        if len(tokens) > 1:
            self._counters.prefill_s += took
        else:
            self._counters.decode_s += took
        return row
