"""What the next step computes. Pure: frozen state in, frozen step out; no clock, no llama.cpp.

There is no prefill phase and no decode phase of the engine: a sequence has tokens, and a number of them computed.

    |<-- shared ------->|<-- computed here -->|<------ to compute ------>|
    0                 ready                computed                   tokens

A sequence with one token to compute is *decoding*; one with more is *prefilling*. A step computes prompt chunks up to
a time budget (an equal part for each account, oldest request first), then one token of every decoding sequence, in
separate calls: mixing them was measured to save nothing.

Who waits: a request starts in its turn (`serving.fairness`; of one account in order of arrival), unless a running one
is about to compute a longer part of its prompt than is there already; then it waits for that and lets others pass. In
the unified layout it also waits for cells.
Who yields: when cells run out, cached prefixes first (least recently used), then the youngest running request, which
keeps its tokens and is computed again later. The oldest is never preempted, so there is always progress.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

MIN_SHARED = 16
"""Tokens below which a shared prefix is not worth waiting for or copying."""
MIN_CHUNK = 16
"""Prompt tokens that a step computes at least, however slow the model."""


@dataclass(frozen=True, slots=True)
class Config:
    """The engine's fixed figures, in tokens and seconds."""

    layout: Literal["unified", "streams"]
    parallel: int
    """Sequences computed at the same time, at most."""
    capacity: int
    """Cells in all (unified); ignored in streams, where each sequence has its own region."""
    batch: int
    """Tokens in one call, at most."""
    step_s: float = 0.25
    """Time that prompt chunks of one step may take."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request without a sequence, in the order in which they should start."""

    request: int
    tokens: int
    ready: int
    """Longest prefix of it that is computed and can be had now."""
    pending: int
    """Longest prefix of it that a request before it, running or about to start, will have computed; 0 if none."""
    cuts: tuple[int, ...] = ()
    """Lengths at which its own chunks must end, once it runs."""
    account: str | None = None
    """Whom it is counted to."""


@dataclass(frozen=True, slots=True)
class Running:
    """A request with a sequence, in order of arrival."""

    request: int
    tokens: int
    computed: int
    cuts: tuple[int, ...] = ()
    """Lengths at which its chunks must end, ascending: others wait for exactly that prefix."""
    account: str | None = None
    """Whom it is counted to."""

    @property
    def is_decoding(self) -> bool:
        return self.tokens - self.computed == 1


@dataclass(frozen=True, slots=True)
class State:
    """All that the decision rests on."""

    waiting: tuple[Waiting, ...]
    running: tuple[Running, ...]
    free_cells: int
    evictable_cells: int
    """Cells that only cached prefixes hold."""
    prefill_rate: float
    """Prompt tokens per second, as measured."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` tokens of a request's prompt, from where it stands."""

    request: int
    count: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to do, in this order. A step that preempts computes nothing; the state is looked at again after it."""

    preempt: tuple[int, ...] = ()
    admit: tuple[int, ...] = ()
    prefill: tuple[Chunk, ...] = ()
    decode: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.preempt or self.admit or self.prefill or self.decode)


def schedule(state: State, config: Config) -> Step:
    """The next step. Empty only if nothing runs and nothing waits."""
    unified = config.layout == "unified"
    room = state.free_cells + state.evictable_cells if unified else 1 << 62
    decoding = tuple(entry.request for entry in state.running if entry.is_decoding)
    if unified and room < len(decoding):
        return Step(preempt=(state.running[-1].request,))
    room -= len(decoding)

    admit = _admit(state, config, room)
    by_request = {entry.request: entry for entry in state.waiting}
    prefilling = [entry for entry in state.running if not entry.is_decoding]
    starting = (by_request[request] for request in admit)
    prefilling += [Running(each.request, each.tokens, each.ready, each.cuts, each.account) for each in starting]
    budget = max(MIN_CHUNK, int(state.prefill_rate * config.step_s))
    parts = share_budget(prefilling, budget, config.batch)
    chunks: list[Chunk] = []
    for entry in prefilling:
        count = min(parts[entry.request], room)
        if count > 0:
            chunks.append(Chunk(entry.request, count))
            room -= count
    if unified and not chunks and not decoding and len(state.running) > 1:
        # several prompts, half computed, hold all the cells: the youngest gives way
        return Step(preempt=(state.running[-1].request,))
    return Step(admit=admit, prefill=tuple(chunks), decode=decoding)


def share_budget(prefilling: Sequence[Running], budget: int, batch: int) -> dict[int, int]:
    """Tokens of each request's prompt that a step computes, `budget` in all; requests oldest first.

    Each account has an equal part, for its oldest request first; what one does not use goes to the others, oldest
    first. Where equal parts would be smaller than MIN_CHUNK, the accounts with the oldest requests have theirs.
    """
    parts = dict.fromkeys((entry.request for entry in prefilling), 0)
    accounts = list(dict.fromkeys(entry.account for entry in prefilling))
    served = accounts[: max(1, budget // MIN_CHUNK)]
    quota = dict.fromkeys(served, budget // max(1, len(served)))
    for own in (True, False):
        for entry in prefilling:
            most = min(quota.get(entry.account, 0), budget) if own else budget
            more = min(_next_chunk(entry, batch) - parts[entry.request], most)
            parts[entry.request] += more
            budget -= more
            if own and more:
                quota[entry.account] -= more
    return parts


def _next_chunk(entry: Running, batch: int) -> int:
    """Tokens that one call can compute of it."""
    cut = next((at for at in entry.cuts if entry.computed < at), entry.tokens)
    return min(entry.tokens - entry.computed, batch, cut - entry.computed)


def _admit(state: State, config: Config, room: int) -> tuple[int, ...]:
    """Requests that get a sequence now."""
    admitted: list[int] = []
    # what those already running still need before they can answer
    room -= sum(entry.tokens - entry.computed for entry in state.running if not entry.is_decoding)
    for entry in state.waiting:
        if len(state.running) + len(admitted) >= config.parallel:
            break
        if entry.pending >= entry.ready + MIN_SHARED:
            continue
        needed = entry.tokens - entry.ready + 1
        nothing_runs = not state.running and not admitted
        if config.layout == "unified" and needed > room and not nothing_runs:
            break
        admitted.append(entry.request)
        room -= needed
    return tuple(admitted)


@dataclass(frozen=True, slots=True)
class Cached:
    """A sequence that no request uses and that still holds a computed prefix."""

    holder: int
    last_used: int
    length: int
    covered: bool
    """Whether another path contains all of it."""


def evict_order(cached: Iterable[Cached]) -> list[int]:
    """Holders in the order in which they should be given up: those that add nothing first, then least recently used."""
    return [entry.holder for entry in sorted(cached, key=lambda entry: (not entry.covered, entry.last_used))]


def choose_stream(free: Sequence[int], cached: Sequence[Cached], matched: int, sources: Iterable[int]) -> int:
    """The stream for a new request: one that already holds its prefix, else the lowest.

    llama.cpp computes streams together only while their ids follow each other without a gap, so low ids are worth
    more than old prefixes. A stream is taken over in place when at least half of what it holds is used; otherwise the
    prefix is copied and the rest stays for others.
    """
    lengths = {entry.holder: entry.length for entry in cached}
    in_place = [seq for seq in sources if seq in lengths and matched >= MIN_SHARED and 2 * matched >= lengths[seq]]
    return min(in_place) if in_place else min(free)


def plan_moves(busy: Sequence[int], free: Sequence[int]) -> list[tuple[int, int]]:
    """Moves (from, to) that bring busy streams together at the low ids, fewest first."""
    moves: list[tuple[int, int]] = []
    high, holes = sorted(busy, reverse=True), sorted(free)
    for source, hole in zip(high, holes, strict=False):
        if hole > source:
            break
        moves.append((source, hole))
    return moves
