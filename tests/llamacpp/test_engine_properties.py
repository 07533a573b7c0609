"""The real engine on a cache that is a model of llama.cpp's: any order of arrivals, steps and departures.

The stand-in keeps what llama.cpp keeps, cell by cell, and complains where llama.cpp would compute nonsense or abort:
positions with a gap, a cell of the wrong token, a partial copy between streams. Its next token is a hash of exactly
the tokens that a sequence's cells hold, so any mix-up shows as wrong text.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.llamacpp.engine import Engine, Request, Update
from serving.llamacpp.scheduler import Config
from serving.openai.fields import Sampling

N_VOCAB = 64
END = 0
PER_SEQUENCE = 160
ROOTS = (("", "one"), ("", "two"), ("adapter", "one"))
MODEL = SimpleNamespace(
    n_vocab=N_VOCAB,
    n_swa=0,
    ends_generation=frozenset({END}),
    pieces=[b"" if token == END else f"{token}.".encode() for token in range(N_VOCAB)],
)


def next_token(tokens: Sequence[int]) -> int:
    """What the stand-in's model says after exactly these tokens."""
    return zlib.crc32(bytes(tokens)) % N_VOCAB


@dataclass(eq=False)
class Cell:
    pos: int
    token: int
    seqs: set[int]


@dataclass
class Cells:
    """The memory of a context: per sequence its cells by position; unified sequences may share them."""

    unified: bool
    capacity: int
    sequences: int
    cuttable: bool
    faults: Any
    """Called where llama.cpp may refuse; true means that it does."""
    held: dict[int, list[Cell]] = field(default_factory=dict)
    rows: list[np.ndarray[Any, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held = {seq: [] for seq in range(self.sequences)}
        self.options = SimpleNamespace(n_seq_max=self.sequences)
        self.n_ctx = self.capacity
        self.shares_partially = self.cuttable

    def tokens(self, seq: int) -> list[int]:
        return [cell.token for cell in self.held[seq]]

    def distinct(self) -> int:
        return len({id(cell) for cells in self.held.values() for cell in cells})

    def prefill(self, seq: int, tokens: Sequence[int], start: int, *, wants_logits: bool) -> int:
        status = self._compute([(seq, token, start + index) for index, token in enumerate(tokens)])
        if status == 0:
            self.rows = [self._row(seq)] if wants_logits else []
        return status

    def decode(self, seqs: Sequence[int], tokens: Sequence[int], positions: Sequence[int]) -> int:
        assert all(left < right for left, right in itertools.pairwise(seqs)), "sequences must ascend"
        status = self._compute(list(zip(map(int, seqs), map(int, tokens), map(int, positions), strict=True)))
        if status == 0:
            self.rows = [self._row(int(seq)) for seq in seqs]
        return status

    def logits(self, rows: int) -> np.ndarray[Any, Any]:
        assert len(self.rows) == rows
        return np.stack(self.rows)

    def _row(self, seq: int) -> np.ndarray[Any, Any]:
        row = np.zeros(N_VOCAB, dtype=np.float32)
        row[next_token(self.tokens(seq))] = 1.0
        return row

    def _compute(self, batch: list[tuple[int, int, int]]) -> int:
        assert batch
        for seq, _, _ in batch:
            assert seq in self.held, f"there is no sequence {seq}"
        full = self.distinct() + len(batch) > self.capacity if self.unified else False
        if full or self.faults("full"):
            return 1
        for seq, token, pos in batch:
            assert pos == len(self.held[seq]), "llama.cpp wants consecutive positions"
            self.held[seq].append(Cell(pos, token, {seq}))
            assert self.unified or len(self.held[seq]) <= PER_SEQUENCE
        return 0

    def drop(self, seq: int, start: int = 0) -> bool:
        if 0 < start < len(self.held[seq]) and (not self.cuttable or self.faults("cut")):
            return False
        for cell in self.held[seq][start:]:
            cell.seqs.discard(seq)
        del self.held[seq][start:]
        return True

    def share(self, source: int, target: int, length: int) -> None:
        assert self.unified, "llama.cpp aborts"
        assert not self.held[target], "the target must be empty"
        assert 0 < length <= len(self.held[source])
        assert self.cuttable or length == len(self.held[source])
        self.held[target] = self.held[source][:length]
        for cell in self.held[target]:
            cell.seqs.add(target)

    def keeps(self, seq: int, length: int) -> bool:
        return length <= len(self.held[seq])

    def save(self, seq: int) -> np.ndarray[Any, Any]:
        return np.array(self.tokens(seq), dtype=np.uint8)

    def restore(self, state: np.ndarray[Any, Any], seq: int) -> bool:
        assert not self.unified
        self.drop(seq)
        if self.faults("restore"):
            return False
        self.held[seq] = [Cell(pos, int(token), {seq}) for pos, token in enumerate(state)]
        return True


@dataclass
class Answer:
    """What a request was told, and what it should have been."""

    request: Request
    expected: str
    finish: str
    text: str = ""
    ends: list[str] = field(default_factory=list)
    cancelled: bool = False

    def take(self, update: Update) -> None:
        assert not self.ends, "nothing follows the end"
        assert not self.cancelled, "nothing follows a cancellation"
        self.text += update.text
        if update.finish:
            self.ends.append(update.finish)


def expected_answer(prompt: list[int], most: int) -> tuple[str, str]:
    """The text and the finish reason when run alone."""
    tokens, text = list(prompt), ""
    for _ in range(most):
        tokens.append(next_token(tokens))
        if tokens[-1] == END:
            return text, "stop"
        text += f"{tokens[-1]}."
        if len(tokens) >= PER_SEQUENCE:
            break
    return text, "length"


PROMPTS = st.builds(
    lambda trunk, cut, tail: [*(1 + (7 * trunk + index * (trunk + 1)) % (N_VOCAB - 1) for index in range(cut)), *tail],
    trunk=st.integers(0, 2),
    cut=st.sampled_from([0, 5, 16, 17, 33, 48, 70, 100]),
    tail=st.lists(st.integers(1, N_VOCAB - 1), min_size=1, max_size=24),
)


class Life(RuleBasedStateMachine):
    """Requests come, are computed and go, in any order; memory is short."""

    @initialize(
        layout=st.sampled_from(["unified", "streams"]),
        cuttable=st.booleans(),
        parallel=st.integers(1, 4),
        spare=st.integers(0, 3),
        extra_cells=st.sampled_from([0, 0, 40, 200]),
        batch=st.sampled_from([4, 16, 64]),
        step_s=st.sampled_from([0.0, 1e9]),
        snapshot_bytes=st.sampled_from([0, 60, 1000]),
        refusals=st.lists(st.tuples(st.sampled_from(["full", "cut", "restore"]), st.integers(1, 30)), max_size=4),
    )
    def build(
        self,
        layout: Any,
        cuttable: bool,
        parallel: int,
        spare: int,
        extra_cells: int,
        batch: int,
        step_s: float,
        snapshot_bytes: int,
        refusals: list[tuple[str, int]],
    ) -> None:
        unified = layout == "unified"
        self.refusals, self.calls = set(refusals), dict.fromkeys(("full", "cut", "restore"), 0)
        self.cells = Cells(
            unified,
            PER_SEQUENCE + extra_cells if unified else parallel * PER_SEQUENCE,
            parallel + spare if unified else parallel,
            cuttable,
            self.refuses,
        )
        self.engine = Engine(
            MODEL,  # type: ignore[arg-type]
            self.cells,  # type: ignore[arg-type]
            Config(layout, parallel, self.cells.capacity, batch, step_s),
            context_length=PER_SEQUENCE,
            snapshot_bytes=snapshot_bytes,
            post=self.deliver,
            on_fatal=lambda error: None,
        )
        self.engine.counters.prefill_rate = 1000.0
        self.answers: list[Answer] = []
        self.of: dict[int, Answer] = {}
        preempt = self.engine._preempt

        def never_the_oldest(request: Request) -> None:
            if not any(kind == "full" for kind, _ in self.refusals):
                assert request.id != min(entry.id for entry in self.engine._running)
            preempt(request)

        self.engine._preempt = never_the_oldest  # type: ignore[method-assign]

    def refuses(self, kind: str) -> bool:
        self.calls[kind] += 1
        return (kind, self.calls[kind]) in self.refusals

    def deliver(self, batch: list[tuple[Request, Update]]) -> None:
        for request, update in batch:
            self.of[id(request)].take(update)

    @rule(prompt=PROMPTS, most=st.sampled_from([1, 2, 9, 30, 200]), root=st.sampled_from(ROOTS))
    def submit(self, prompt: list[int], most: int, root: tuple[str, str]) -> None:
        request = Request(list(prompt), root, Sampling(temperature=0.0), most, on_update=lambda _: None)
        answer = self.of[id(request)] = Answer(request, *expected_answer(prompt, most))
        self.answers.append(answer)
        self.engine.submit(request)

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def follow(self, data: st.DataObject) -> None:
        """A next turn: what was asked and answered so far, and more."""
        before = data.draw(st.sampled_from(self.answers)).request
        tail = data.draw(st.lists(st.integers(1, N_VOCAB - 1), min_size=1, max_size=10))
        self.submit([*before.tokens, *tail][: PER_SEQUENCE - 1], data.draw(st.sampled_from([1, 9])), before.root)

    @rule(count=st.sampled_from([1, 1, 2, 5, 20]))
    def step(self, count: int) -> None:
        for _ in range(count):
            if self.is_idle():
                return
            self.engine._receive()
            self.engine._step()
            self.check()

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        answer = data.draw(st.sampled_from(self.answers))
        self.engine.cancel(answer.request)
        self.engine._inbox.put(("stop", None))
        while self.engine._receive():
            pass
        answer.cancelled = not answer.ends
        assert answer.request not in self.engine._running
        assert answer.request not in self.engine._waiting
        assert self.engine.counters.running == len(self.engine._running)
        self.check()

    def is_idle(self) -> bool:
        engine = self.engine
        return engine._inbox.empty() and not engine._waiting and not engine._running

    def check(self) -> None:
        engine, cells, tree = self.engine, self.cells, self.engine._tree
        busy = {request.seq: request for request in engine._running}
        assert len(busy) == len(engine._running) <= engine._config.parallel
        assert not busy.keys() & engine._idle.keys()
        assert [request.id for request in engine._running] == sorted(request.id for request in engine._running)
        assert [request.id for request in engine._waiting] == sorted(request.id for request in engine._waiting)
        for seq in range(cells.sequences):
            if seq in busy or seq in engine._idle:
                assert tree.tokens(seq) == cells.tokens(seq)
                assert [cell.pos for cell in cells.held[seq]] == list(range(len(cells.held[seq])))
            else:
                assert seq not in tree
                assert not cells.held[seq], "cells that nobody knows of"
        for request in engine._running:
            assert cells.tokens(request.seq) == request.tokens[: request.computed]
            assert tree._root_of[request.seq] == request.root
        for holder, state in engine._snapshots.items():
            assert list(state) == tree.tokens(holder)
        assert engine.counters.snapshot_bytes == sum(state.nbytes for state in engine._snapshots.values())
        for cell in (cell for held in cells.held.values() for cell in held):
            assert len({tree._root_of[seq] for seq in cell.seqs}) == 1, "shared between two roots"
        if cells.unified:
            assert tree.cells == cells.distinct() <= cells.capacity

    @invariant()
    def nobody_gets_another_text(self) -> None:
        for answer in getattr(self, "answers", []):
            assert answer.expected.startswith(answer.text)
            if answer.ends:
                assert (answer.text, answer.ends) == (answer.expected, [answer.finish])

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        bound = 100 + 20 * sum(len(answer.request.tokens) + answer.request.max_tokens for answer in self.answers)
        for _ in range(bound):
            if self.is_idle():
                break
            self.step(1)
        assert self.is_idle(), "somebody starves"
        for answer in self.answers:
            assert answer.cancelled or (answer.text, answer.ends) == (answer.expected, [answer.finish])
        cold = sum(len(answer.request.tokens) for answer in self.answers)
        assert self.engine.counters.cached_tokens <= cold


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
