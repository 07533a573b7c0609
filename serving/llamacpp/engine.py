"""The engine thread: it alone owns the llama context. Observe, schedule, execute, commit; once per step.

The event loop and this thread exchange plain messages: requests and cancellations come through an inbox, answers leave
as one list per wake-up. Nothing here knows HTTP.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidRequest, ServingError
from serving.fairness import order_fairly
from serving.generation.logprobs import log_probability
from serving.generation.sampling import Row, Sampler
from serving.generation.text import TextStream
from serving.llamacpp.binding import Context, Model
from serving.llamacpp.prefix import NO_MATCH, Match, PrefixTree, Root, common_length
from serving.llamacpp.scheduler import (
    MIN_SHARED,
    Cached,
    Chunk,
    Config,
    Running,
    State,
    Waiting,
    choose_stream,
    evict_order,
    plan_moves,
    schedule,
)
from serving.openai.fields import Sampling
from serving.openai.logprobs import TokenLogprob

if TYPE_CHECKING:
    from serving.generation.constraint import Constraint

log = logging.getLogger("serving.llamacpp")

FinishReason = Literal["stop", "length", "error"]

_SNAPSHOT_BASE = 1 << 16
"""Holder ids from here on are snapshots in host memory, below are llama.cpp's sequence ids."""
_WARM_UP_TOKENS = 32
_WORTH_MOVING = 8
"""Tokens that a request must still be allowed to produce for moving its stream to pay."""


class Update(NamedTuple):
    """What one step brought for one request."""

    text: str
    generated: int
    """Tokens generated so far, an end token included."""
    cached: int
    """Prompt tokens that were not computed because another request of the same cache domain had."""
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    """Where asked for: of every token since the last update that had text; those that were held back come with it."""
    error: ServingError | None = None
    """Of an answer that failed, where its client can be told why."""


@dataclass(slots=True, eq=False)
class Request:
    """One answer to produce. After `submit` it belongs to the engine thread."""

    tokens: list[int]
    """The prompt; generated tokens are appended."""
    root: Root
    sampling: Sampling
    max_tokens: int
    on_update: Callable[[Update], None]
    """Called on the event loop."""
    pass_on: Callable[[Update], Update | None] | None = None
    """Called on the engine's thread with each update first; what it gives back goes to the event loop."""
    logprobs: int | None = None
    """How many likeliest tokens to report beside each chosen one; None for no log-probabilities at all."""
    constraint: Constraint | None = None
    """The grammar that the answer follows; its own, at its beginning."""
    shown: Mapping[int, bytes] = field(default_factory=dict)
    """Control tokens that are text to whoever reads the answer, and that text."""
    account: str | None = None
    """Whom it is counted to where places are shared out."""
    id: int = 0
    prompt_length: int = 0
    seq: int = -1
    computed: int = 0
    cached: int = 0
    generated: int = 0
    cuts: set[int] = field(default_factory=set)
    text: TextStream = field(default_factory=TextStream)
    sampler: Sampler | None = None
    unsent: list[TokenLogprob] = field(default_factory=list)
    """Log-probabilities of tokens whose text is held back."""
    was_started: bool = False


@dataclass(slots=True)
class Counters:
    """Totals since the start, written by the engine thread only; anyone may read them."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_prompt_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    decode_calls: int = 0
    decode_s: float = 0.0
    prefill_s: float = 0.0
    sample_s: float = 0.0
    evictions: int = 0
    preemptions: int = 0
    moves: int = 0
    snapshots: int = 0
    cancelled: int = 0
    running: int = 0
    waiting: int = 0
    kv_used: int = 0
    kv_capacity: int = 0
    snapshot_bytes: int = 0
    prefill_rate: float = 0.0


class Engine:
    """Continuous batching over one context. `submit` and `cancel` may be called from any thread.

    `core` binds the engine thread, which computes too: libgomp binds only the threads that it makes itself.
    """

    def __init__(
        self,
        model: Model,
        context: Context,
        config: Config,
        *,
        context_length: int,
        snapshot_bytes: int,
        post: Callable[[list[tuple[Request, Update]]], None],
        on_fatal: Callable[[BaseException], None],
        core: int | None = None,
    ) -> None:
        self._model = model
        self._context = context
        self._config = config
        self._context_length = context_length
        self._snapshot_limit = snapshot_bytes if config.layout == "streams" else 0
        self._post = post
        self._on_fatal = on_fatal
        self._core = core
        self._inbox: queue.SimpleQueue[tuple[str, Request | None]] = queue.SimpleQueue()
        self._waiting: list[Request] = []
        self._running: list[Request] = []
        self._tree = PrefixTree()
        self._idle: dict[int, int] = {}
        """Sequence ids that hold a prefix nobody uses now, and the step in which they were last used."""
        self._snapshots: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()
        self._next_snapshot = _SNAPSHOT_BASE
        self._next_id = 0
        self._turns: dict[str | None, int] = {}
        """When each account last had a request started, counted in starts.

        Once nobody waits, those that run nothing are forgotten.
        """
        self._starts = 0
        self._outbox: list[tuple[Request, Update]] = []
        self._ends = sorted(model.ends_generation)
        self.counters = Counters(kv_capacity=context.n_ctx)
        self._beat = time.monotonic()
        self._changes = 0
        """How often the running requests have changed."""
        self._moved_at = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # --- from any thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Warm up, then serve."""
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Hand a request over; its first update comes through `on_update`."""
        self._inbox.put(("submit", request))

    def cancel(self, request: Request) -> None:
        """Nobody waits for this answer any more: its cells are free within one step. No update follows."""
        self._inbox.put(("cancel", request))

    def stop(self) -> None:
        """End the thread after the current step; requests still there get no more updates."""
        self._inbox.put(("stop", None))
        self._thread.join()

    def silent_s(self) -> float:
        """Seconds since the thread last looked for messages, while it has work; a step takes a fraction of one."""
        return time.monotonic() - self._beat if self.counters.running or self.counters.waiting else 0.0

    # --- the engine thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._core is not None:
                os.sched_setaffinity(threading.get_native_id(), {self._core})
            np.seterr(all="ignore")  # for this thread; the sampler looks at its sums
            self._warm_up()
            while self._receive():
                self._step()
        except BaseException as error:  # noqa: BLE001 - whatever it was, the process cannot go on without this thread
            self._on_fatal(error)

    def _warm_up(self) -> None:
        """Touch every weight once and learn how fast prompts are computed."""
        count = min(_WARM_UP_TOKENS, self._context.n_batch)
        tokens = [token % self._model.n_vocab for token in range(count)]
        for _ in range(2):
            began = time.perf_counter()
            self._context.prefill(0, tokens, 0, wants_logits=True)
            self.counters.prefill_rate = count / (time.perf_counter() - began)
            self._context.drop(0)

    def _receive(self) -> bool:
        """Take in all messages; sleep for one if there is nothing to do. False: stop."""
        self._beat = time.monotonic()
        while True:
            self.counters.running, self.counters.waiting = len(self._running), len(self._waiting)
            self.counters.kv_used = self._tree.cells
            is_idle = not self._waiting and not self._running
            if not is_idle and self._inbox.empty():
                return True
            kind, request = self._inbox.get()
            if request is None:
                return False
            if kind == "submit":
                self._next_id += 1
                request.id = self._next_id
                request.prompt_length = len(request.tokens)
                request.text = TextStream(request.sampling.stop)
                self._waiting.append(request)
            elif request in self._waiting:
                self._waiting.remove(request)
                self.counters.cancelled += 1
            elif request in self._running:
                self._retire(request)
                self.counters.cancelled += 1

    def _step(self) -> None:
        self.counters.steps += 1
        if self._only_decodes():
            self._decode(list(self._running))
            self._flush()
            return
        step = schedule(self._observe(), self._config)
        by_id = {request.id: request for request in (*self._waiting, *self._running)}
        for number in step.preempt:
            self._preempt(by_id[number])
        for number in step.admit:
            self._admit(by_id[number])
        for chunk in step.prefill:
            if by_id[chunk.request].seq >= 0:
                self._prefill(by_id[chunk.request], chunk)
        self._flush()
        decoding = [by_id[number] for number in step.decode if by_id[number].seq >= 0]
        if decoding:
            self._decode(decoding)
        self._flush()

    def _only_decodes(self) -> bool:
        """Whether the schedule is plain: nobody can be admitted, everyone decodes, and there are cells for it.

        Most steps are of this kind. Right after a decode nothing of Python is in any cache, so what the full decision
        reads and builds costs several times what it does when measured alone.
        """
        running = self._running
        if not running or (self._waiting and len(running) < self._config.parallel):
            return False
        if self._config.layout == "unified" and self._config.capacity - self._tree.cells < len(running):
            return False
        return all(len(request.tokens) - request.computed == 1 for request in running)

    def _observe(self) -> State:
        # first the waiting ones: what they wait for sets where the chunks of those before them must end
        waiting = self._observe_waiting()
        running = tuple(
            Running(request.id, len(request.tokens), request.computed, tuple(sorted(request.cuts)), request.account)
            for request in self._running
        )
        free = evictable = 0
        if self._config.layout == "unified":
            free = self._config.capacity - self._tree.cells
            evictable = self._tree.cells - self._tree.cells_of([request.seq for request in self._running])
        return State(waiting, running, free, evictable, self.counters.prefill_rate)

    def _observe_waiting(self) -> tuple[Waiting, ...]:
        places = self._config.parallel - len(self._running)
        if places <= 0:
            return ()
        leaders = [(other, other.computed) for other in self._running if other.computed < other.prompt_length]
        running = len(leaders)
        seen = []
        holds = Counter(request.account for request in self._running)
        order = order_fairly([request.account for request in self._waiting], holds, self._turns)
        for request in [self._waiting[place] for place in order]:
            ready = self._match(request).length
            pending, leader = 0, None
            for other, start in leaders:
                if other.root != request.root:
                    continue
                shared = min(
                    common_length(request.tokens, other.tokens[: other.prompt_length]), len(request.tokens) - 1
                )
                if shared > start and shared > pending:
                    pending, leader = shared, other
            if leader is not None and pending >= ready + MIN_SHARED:
                leader.cuts.add(pending)
            elif len(leaders) < running + places:
                leaders.append((request, ready))  # it may start in this very step, and later ones may wait for it
            seen.append((request, ready, pending))
        return tuple(
            Waiting(request.id, len(request.tokens), ready, pending, tuple(sorted(request.cuts)), request.account)
            for request, ready, pending in seen
        )

    def _match(self, request: Request) -> Match:
        """The longest usable prefix; the last token is always computed, for its logits."""
        limit = len(request.tokens) - 1
        match = NO_MATCH
        if self._context.shares_partially:
            match = self._tree.match(request.root, request.tokens, limit)
            holders = tuple(holder for holder in match.holders if self._can_cut(holder, match.length))
            match = Match(match.length, holders) if holders else NO_MATCH
        if not match.length:
            match = self._tree.match_whole(request.root, request.tokens, limit)
        return match if match.length >= MIN_SHARED else NO_MATCH

    def _can_cut(self, holder: int, length: int) -> bool:
        """Whether a holder's path can be had at this length; with a sliding window not all of them can."""
        if self._model.n_swa == 0 or self._tree.length(holder) == length:
            return True
        if self._config.layout == "streams" and holder not in self._idle:
            return False  # it would be copied through a saved state, and that holds the window at its end only
        return self._context.keeps(holder, length)

    # --- admission and memory --------------------------------------------------------------------------------------

    def _admit(self, request: Request) -> None:
        self._waiting.remove(request)
        self._starts += 1
        self._turns[request.account] = self._starts
        match = self._match(request)
        if self._config.layout == "unified":
            request.seq = self._free_sequence(match.holders[:1])
            match = self._match(request)  # where every id was taken, what it matched may have had to go
            if match.length:
                source = match.holders[0]
                self._touch(source)
                self._context.share(source, request.seq, match.length)
                self._tree.fork(request.seq, source, match.length)
            else:
                self._tree.add(request.seq, request.root)
        else:
            match = self._take_stream(request, match)
        request.computed = match.length
        if not request.was_started:
            request.was_started = True
            request.cached = match.length
            self.counters.prompt_tokens += request.prompt_length
            self.counters.cached_tokens += match.length
            request.sampler = Sampler(request.sampling, request.tokens, self._ends, self._model.n_vocab)
        self._changes += 1
        self._running.append(request)
        self._running.sort(key=lambda entry: entry.id)
        if not self._waiting:
            holds = {entry.account for entry in self._running}
            self._turns = {account: turn for account, turn in self._turns.items() if account in holds}

    def _free_sequence(self, wanted: Sequence[int]) -> int:
        """An unused sequence id; `wanted` are the last to be evicted for it."""
        used = {request.seq for request in self._running} | self._idle.keys()
        if len(used) >= self._context.options.n_seq_max:
            self._evict_one(keep=wanted)
            used = {request.seq for request in self._running} | self._idle.keys()
        return next(seq for seq in range(self._context.options.n_seq_max) if seq not in used)

    def _take_stream(self, request: Request, match: Match) -> Match:
        """Give the request a stream that holds its prefix; returns what it really has."""
        busy = {entry.seq for entry in self._running}
        free = [seq for seq in range(self._config.parallel) if seq not in busy]
        cached = [Cached(seq, used, self._tree.length(seq), covered=False) for seq, used in self._idle.items()]
        seq = request.seq = choose_stream(free, cached, match.length, match.holders)
        self._idle.pop(seq, None)
        if seq in match.holders:
            had = self._tree.length(seq)
            if self._context.drop(seq, match.length):
                self._tree.trim(seq, match.length)
                if match.length < had:
                    self._snapshot(seq)
                return match
            self._context.drop(seq)
            self._tree.release(seq)
            self._tree.add(seq, request.root)
            return NO_MATCH
        if match.length and self._copy(match, seq):
            return match
        if seq in self._tree:
            self._tree.release(seq)
        self._context.drop(seq)
        self._tree.add(seq, request.root)
        return NO_MATCH

    def _copy(self, match: Match, seq: int) -> bool:
        """Bring a computed prefix into another stream, through host memory; cost in proportion to its source."""
        source = min(match.holders, key=self._tree.length)
        if source in self._snapshots:
            self._snapshots.move_to_end(source)
            state = self._snapshots[source]
        else:
            self._touch(source)
            state = self._context.save(source)
        if not self._context.restore(state, seq):
            return False
        longer = self._tree.length(source) > match.length
        if longer and not (self._context.drop(seq, match.length) and self._context.keeps(seq, match.length)):
            return False
        if seq in self._tree:
            self._tree.release(seq)
        self._tree.fork(seq, source, match.length)
        if longer:
            self._snapshot(seq)  # a prefix that two requests had in common will be wanted again, without its tail
        return True

    def _snapshot(self, seq: int) -> None:
        """Keep what a stream holds now in host memory, as a prefix to restore from."""
        length = self._tree.length(seq)
        if not self._snapshot_limit or length < MIN_SHARED:
            return
        state = self._context.save(seq)
        if state.nbytes > self._snapshot_limit:
            return
        while self._snapshots and self.counters.snapshot_bytes + state.nbytes > self._snapshot_limit:
            oldest, old = self._snapshots.popitem(last=False)
            self._tree.release(oldest)
            self.counters.snapshot_bytes -= old.nbytes
            self.counters.evictions += 1
        holder, self._next_snapshot = self._next_snapshot, self._next_snapshot + 1
        self._tree.fork(holder, seq, length)
        self._snapshots[holder] = state
        self.counters.snapshot_bytes += state.nbytes
        self.counters.snapshots += 1

    def _touch(self, seq: int) -> None:
        if seq in self._idle:
            self._idle[seq] = self.counters.steps

    def _evict_one(self, keep: Sequence[int] = ()) -> bool:
        """Give up one cached prefix, one of `keep` only if there is no other. False: there is none."""
        order = evict_order(
            Cached(seq, used, self._tree.length(seq), self._tree.is_covered(seq)) for seq, used in self._idle.items()
        )
        if not order:
            return False
        self._forget(next((holder for holder in order if holder not in keep), order[0]))
        self.counters.evictions += 1
        return True

    def _forget(self, seq: int) -> None:
        self._idle.pop(seq, None)
        self._context.drop(seq)
        self._tree.release(seq)

    def _make_room(self, cells: int) -> bool:
        """Evict cached prefixes until so many cells are free (unified; streams always have theirs)."""
        if self._config.layout == "streams":
            return True
        while self._config.capacity - self._tree.cells < cells:
            if not self._evict_one():
                return False
        return True

    def _preempt(self, request: Request) -> None:
        """Take a running request's cells; it keeps its tokens and waits to be computed again."""
        self._changes += 1
        self._running.remove(request)
        self._forget(request.seq)
        request.seq, request.computed = -1, 0
        request.cuts.clear()
        self._waiting.insert(0, request)
        self._waiting.sort(key=lambda entry: entry.id)
        self.counters.preemptions += 1

    def _retire(self, request: Request) -> None:
        """A request is over; what it computed stays as a prefix."""
        self._running.remove(request)
        self._changes += 1
        seq, request.seq = request.seq, -1
        if self._tree.length(seq) < MIN_SHARED or (self._config.layout == "unified" and self._tree.is_covered(seq)):
            self._forget(seq)
        else:
            self._idle[seq] = self.counters.steps

    # --- computing -------------------------------------------------------------------------------------------------

    def _prefill(self, request: Request, chunk: Chunk) -> None:
        start = request.computed
        tokens = request.tokens[start : start + chunk.count]
        is_last = start + chunk.count == len(request.tokens)
        if not self._make_room(chunk.count):
            return
        began = time.perf_counter()
        status = self._context.prefill(request.seq, tokens, start, wants_logits=is_last)
        took = time.perf_counter() - began
        if status != 0:
            self._no_cells(request)
            return
        if len(tokens) >= MIN_SHARED:
            self.counters.prefill_rate += 0.3 * (len(tokens) / took - self.counters.prefill_rate)
        self.counters.prefill_s += took
        self.counters.computed_prompt_tokens += len(tokens)
        request.computed += len(tokens)
        self._tree.extend(request.seq, tokens)
        if request.computed in request.cuts:
            request.cuts.discard(request.computed)
            self._snapshot(request.seq)
        if is_last:
            self._sample([request])

    def _decode(self, requests: list[Request]) -> None:
        if self._moved_at != self._changes and self._config.layout == "streams" and not self._waiting:
            self._moved_at = self._changes
            self._compact()
        requests.sort(key=lambda request: request.seq)
        if not self._make_room(len(requests)):
            return
        began = time.perf_counter()
        status = self._context.decode(
            [request.seq for request in requests],
            [request.tokens[-1] for request in requests],
            [request.computed for request in requests],
        )
        self.counters.decode_s += time.perf_counter() - began
        self.counters.decode_calls += 1
        if status != 0:
            self._no_cells(max(requests, key=lambda request: request.id))
            return
        for request in requests:
            self.counters.computed_prompt_tokens += request.computed < request.prompt_length
            request.computed += 1
            self._tree.extend(request.seq, request.tokens[-1:])
        self._sample(requests)

    def _no_cells(self, request: Request) -> None:
        """llama.cpp found no room although the count said so: give something up and let the next step try again."""
        if not self._evict_one():
            self._preempt(self._running[-1] if self._config.layout == "unified" else request)

    def _compact(self) -> None:
        """Move streams into holes below them, so that llama.cpp computes them all in one call."""
        busy = {request.seq for request in self._running}
        if max(busy) < len(busy):
            return
        free = [seq for seq in range(self._config.parallel) if seq not in busy]
        by_seq = {request.seq: request for request in self._running}
        for source, target in plan_moves(sorted(busy), free):
            request = by_seq[source]
            if request.max_tokens - request.generated < _WORTH_MOVING:
                continue
            self._idle.pop(target, None)
            if target in self._tree:
                self._tree.release(target)
            if not self._context.restore(self._context.save(source), target):
                return
            self._tree.rename(source, target)
            self._context.drop(source)
            request.seq = target
            self.counters.moves += 1

    def _sample(self, requests: Sequence[Request]) -> None:
        """One token for each request, whose logits are the rows of the last call in this order."""
        began = time.perf_counter()
        logits = self._context.logits(len(requests))
        for row, request in enumerate(requests):
            assert request.sampler is not None  # noqa: S101 - set on admission
            try:
                if request.logprobs is None and request.constraint is None:
                    token = request.sampler.sample(logits[row])
                else:
                    token = self._choose(request, request.sampler, logits[row])
            except InvalidRequest as error:
                self._fail(request, error)
            except Exception:
                # a fault in choosing is this request's alone; the thread serves all the others
                log.exception("choosing a token failed")
                self._fail(request)
            else:
                self._commit(request, token)
        self.counters.sample_s += time.perf_counter() - began

    def _choose(self, request: Request, sampler: Sampler, row: Row) -> int:
        """A token for a request that asks for more than a token; those that do not never come here."""
        raw = row.copy()  # sampling changes the row
        constraint = request.constraint
        token = sampler.sample(row) if constraint is None else constraint.choose(sampler, row, raw)
        if request.logprobs is not None:
            request.unsent.append(log_probability(raw, token, request.logprobs))
        return token

    def _fail(self, request: Request, error: ServingError | None = None) -> None:
        self._retire(request)
        self._outbox.append((request, Update("", request.generated, request.cached, "error", error=error)))

    def _commit(self, request: Request, token: int) -> None:
        request.tokens.append(token)
        request.generated += 1
        self.counters.generated_tokens += 1
        sampling = request.sampling
        may_end = request.generated > sampling.min_tokens
        finish: FinishReason | None = None
        text = ""
        if may_end and (
            (token in self._model.ends_generation and not sampling.ignore_eos) or token in sampling.stop_token_ids
        ):
            finish = "stop"
            text = request.text.finish()
        else:
            text = request.text.push(self._model.pieces[token] or request.shown.get(token, b""), may_stop=may_end)
            if request.text.stopped:
                finish = "stop"
            elif request.constraint is not None and request.constraint.is_complete:
                finish = "stop"
                text += request.text.finish()
            elif request.generated >= request.max_tokens or len(request.tokens) >= self._context_length:
                finish = "length"
                text += request.text.finish()
                if request.text.stopped:
                    finish = "stop"
        if finish is not None:
            self._retire(request)
        update = Update(text, request.generated, request.cached, finish)
        if request.unsent and (text or finish is not None):
            update = update._replace(logprobs=tuple(request.unsent))
            request.unsent.clear()
        left = update if request.pass_on is None else request.pass_on(update)
        if left is not None:
            self._outbox.append((request, left))

    def _flush(self) -> None:
        if self._outbox:
            self._post(self._outbox)
            self._outbox = []
