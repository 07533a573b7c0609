"""The thread that owns a pooling context: texts of many requests go through the model together.

As in `engine`: messages come through an inbox, and what one pass brought leaves as one list per wake-up of the event
loop. A pass takes one text of each request in turn, so that a request with a thousand texts does not hold up one with a
single text, and stays near `USEFUL_PASS` tokens, since in a pass every token is compared with every other.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from serving.llamacpp.binding_pooling import PoolingContext
from serving.llamacpp.engine import Counters

log = logging.getLogger("serving.llamacpp")

Vector = npt.NDArray[np.float32]

USEFUL_PASS: Final = 512
"""Tokens of several texts in one pass; more are not computed faster, and cost attention between texts for nothing."""
_WARM_UP_TOKENS: Final = 32


@dataclass(slots=True, eq=False)
class Job:
    """The texts of one request. After `submit` it belongs to the pooling thread."""

    texts: Sequence[Sequence[int]]
    on_done: Callable[[list[Vector]], None]
    """Called on the event loop with a vector for each text, in their order."""
    taken: int = 0
    """Texts that a pass has taken up."""
    vectors: list[Vector] = field(default_factory=list)


def plan_pass(jobs: Sequence[Sequence[int]], tokens: int, texts: int) -> list[int]:
    """Which texts go into the next pass: an index of `jobs` for each of them, in order.

    `jobs` are the lengths of each request's texts that are still to be computed, oldest request first; each request
    gives one text in turn. The first text is always taken, however long; others as long as they fit into `tokens` and
    are `texts` at most. A request's texts are taken in their order.
    """
    chosen: list[int] = []
    used = 0
    taken = [0] * len(jobs)
    waiting = [job for job in range(len(jobs)) if jobs[job]]
    while waiting and len(chosen) < texts:
        still = []
        for job in waiting:
            length = jobs[job][taken[job]]
            if len(chosen) >= texts or (chosen and used + length > tokens):
                continue
            chosen.append(job)
            used += length
            taken[job] += 1
            if taken[job] < len(jobs[job]):
                still.append(job)
        waiting = still
    return chosen


class PoolingEngine:
    """Batches over one pooling context. `submit` and `cancel` may be called from any thread."""

    def __init__(
        self,
        context: PoolingContext,
        *,
        post: Callable[[list[tuple[Job, list[Vector]]]], None],
        on_fatal: Callable[[BaseException], None],
        core: int | None = None,
    ) -> None:
        self._context = context
        self._pass_tokens = min(context.tokens, USEFUL_PASS)
        self._post = post
        self._on_fatal = on_fatal
        self._core = core
        self._inbox: queue.SimpleQueue[tuple[str, Job | None]] = queue.SimpleQueue()
        self._jobs: list[Job] = []
        """Requests with texts left, the one whose turn it is first."""
        self.counters = Counters()
        self._beat = time.monotonic()
        context.on_progress = self._is_alive
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # --- from any thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Warm up, then serve."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand the texts of a request over; the answer comes through `on_done`."""
        self._inbox.put(("submit", job))

    def cancel(self, job: Job) -> None:
        """Nobody waits for this answer any more: texts that no pass has taken up are dropped."""
        self._inbox.put(("cancel", job))

    def stop(self) -> None:
        """End the thread after the current pass; requests still there get no answer."""
        self._inbox.put(("stop", None))
        self._thread.join()

    def silent_s(self) -> float:
        """Seconds since the thread last showed a sign of life, while it has work."""
        return time.monotonic() - self._beat if self.counters.running or self.counters.waiting else 0.0

    # --- the pooling thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._core is not None:
                os.sched_setaffinity(threading.get_native_id(), {self._core})
            for _ in range(2):  # touches every weight once
                self._context.pool([range(min(_WARM_UP_TOKENS, self._context.tokens, self._context.model.n_vocab))])
            while self._receive():
                self._step()
        except BaseException as error:  # noqa: BLE001 - whatever it was, the process cannot go on without this thread
            self._on_fatal(error)

    def _is_alive(self) -> None:
        self._beat = time.monotonic()

    def _receive(self) -> bool:
        """Take in all messages; sleep for one if there is nothing to do. False: stop."""
        self._is_alive()
        while True:
            self.counters.running = 0
            self.counters.waiting = len(self._jobs)
            if self._jobs and self._inbox.empty():
                return True
            kind, job = self._inbox.get()
            if job is None:
                return False
            if kind == "submit":
                self._jobs.append(job)
                self.counters.prompt_tokens += sum(map(len, job.texts))
            elif job in self._jobs:
                self._jobs.remove(job)
                self.counters.cancelled += 1

    def _step(self) -> None:
        """One pass, and the answers that it completed."""
        most = self._context.options.n_seq_max
        lengths = [[len(text) for text in job.texts[job.taken : job.taken + most]] for job in self._jobs[:most]]
        chosen = [self._jobs[index] for index in plan_pass(lengths, self._pass_tokens, most)]
        texts = []
        for job in chosen:
            texts.append(job.texts[job.taken])
            job.taken += 1
        taking_part = list(dict.fromkeys(chosen))
        self.counters.steps += 1
        self.counters.running, self.counters.waiting = len(taking_part), len(self._jobs) - len(taking_part)
        began = time.perf_counter()
        vectors = self._context.pool(texts)
        took = time.perf_counter() - began
        count = sum(map(len, texts))
        self.counters.prefill_s += took
        self.counters.computed_prompt_tokens += count
        self.counters.prefill_rate += 0.3 * (count / took - self.counters.prefill_rate)
        for job, vector in zip(chosen, vectors, strict=True):
            job.vectors.append(vector)
        done = [job for job in taking_part if job.taken == len(job.texts)]
        # Those that had a text in this pass go behind those that wait.
        others = [job for job in self._jobs if job not in taking_part]
        self._jobs = others + [job for job in taking_part if job not in done]
        if done:
            self._post([(job, job.vectors) for job in done])
