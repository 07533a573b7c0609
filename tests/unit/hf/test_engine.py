"""The engine's thread with a model whose logits are written down: what ends an answer, and what its client sees."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from serving.errors import BadFile
from serving.generation.sampling import Row
from serving.hf.engine import CHUNK, Engine, Request, Update
from serving.hf.proof import takes_chunks
from serving.openai import Sampling

LETTERS = "abcdefgh"
END = len(LETTERS)
GREEDY = Sampling(temperature=0.0)


class Counting:
    """A model that answers each token with the next letter, and whose state is all that it was given."""

    n_vocab = END + 1
    dtype = "float32"

    def __init__(self, on_compute: Callable[[Sequence[int]], None] = lambda _: None) -> None:
        self.calls: list[list[int]] = []
        self.on_compute = on_compute

    def begin(self) -> Counting:
        return self

    def compute(self, tokens: Sequence[int]) -> Row:
        self.calls.append(list(tokens))
        self.on_compute(tokens)
        row = np.zeros(self.n_vocab, dtype=np.float32)
        row[(tokens[-1] + 1) % self.n_vocab] = 9.0
        return row


def decode(tokens: Sequence[int]) -> str:
    return "".join(LETTERS[token] if token < END else "<end>" for token in tokens)


def start(model: Counting, *, chunks: bool = True) -> tuple[Engine, queue.SimpleQueue[tuple[Request, Update]]]:
    told: queue.SimpleQueue[tuple[Request, Update]] = queue.SimpleQueue()
    engine = Engine(
        model,
        ends=frozenset({END}),
        control=frozenset({END}),
        decode=decode,
        takes_chunks=chunks,
        post=lambda request, update: told.put((request, update)),
        on_fatal=lambda error: told.put((error, Update("", 0, "error"))),  # type: ignore[arg-type]
        fatal=(SystemError,),
    )
    engine.start()
    return engine, told


def ask(sampling: Sampling, *, most: int) -> str:
    """The answer's text, its reason and its length."""
    engine, told = start(Counting())
    engine.submit(Request([0], sampling, most, lambda _: None))
    text = ""
    while True:
        _, update = told.get(timeout=10)
        text += update.text
        if update.finish is not None:
            return f"{text} {update.finish} {update.generated}"


@pytest.mark.parametrize(
    ("sampling", "most", "expected"),
    [
        (GREEDY, 20, "bcdefgh stop 8"),
        (GREEDY, 3, "bcd length 3"),
        (Sampling(temperature=0.0, stop=("de",)), 20, "bc stop 4"),
        (Sampling(temperature=0.0, stop=("dx",)), 3, "bcd length 3"),
        (Sampling(temperature=0.0, stop_token_ids=(4,)), 20, "bcd stop 4"),
        (Sampling(temperature=0.0, stop=("b",), min_tokens=2), 20, "bcdefgh stop 8"),
        (Sampling(temperature=0.0, ignore_eos=True, logit_bias=((END, 50.0),)), 4, "bcde length 4"),
        (Sampling(temperature=0.0, logit_bias=((3, -100.0), (5, 5.0))), 20, "bcfgh stop 6"),
    ],
)
def test_an_answer_ends_for_the_reason_it_says(sampling: Sampling, most: int, expected: str) -> None:
    """End token, length, stop string, stop token, and what keeps each of them off."""
    assert ask(sampling, most=most) == expected


def test_a_prompt_is_computed_in_pieces_of_one_size() -> None:
    """So that a client that leaves is noticed, and equal prompts round alike; where the model cannot, at once."""
    prompt = [place % END for place in range(2 * CHUNK + 5)]
    for chunks, sizes in ((True, [CHUNK, CHUNK, 5]), (False, [len(prompt)])):
        model = Counting()
        engine, told = start(model, chunks=chunks)
        engine.submit(Request(prompt, GREEDY, 1, lambda _: None))
        told.get(timeout=10)
        assert [len(call) for call in model.calls] == sizes


@pytest.mark.parametrize("at", [1, 4])
def test_a_client_that_left_is_not_computed_for(at: int) -> None:
    """Within one chunk of its prompt, or one token of its answer; and the next one is served."""
    request = Request([0] * (3 * CHUNK), GREEDY, 20, lambda _: None)
    calls = 0

    def leave(_tokens: Sequence[int]) -> None:
        nonlocal calls
        calls += 1
        request.is_gone = request.is_gone or calls == at

    model = Counting(leave)
    engine, told = start(model)
    engine.submit(request)
    after = Request([5], GREEDY, 20, lambda _: None)
    engine.submit(after)
    seen = []
    while not seen or seen[-1][1].finish is None:
        seen.append(told.get(timeout=10))
    assert [update.text for owner, update in seen if owner is after] == ["g", "h", ""]
    assert model.calls[at] == [5], "nothing more was computed for the one that left"
    assert engine.counters.cancelled == 1


def test_a_fault_in_one_answer_is_its_own() -> None:
    """No memory for one cache does not end the engine."""
    broken = True

    def fail(_tokens: Sequence[int]) -> None:
        nonlocal broken
        if broken:
            broken = False
            raise MemoryError

    engine, told = start(Counting(fail))
    for _ in range(2):
        engine.submit(Request([6], GREEDY, 9, lambda _: None))
    finishes = []
    while len(finishes) < 2:
        _, update = told.get(timeout=10)
        finishes += [update.finish] if update.finish else []
    assert finishes == ["error", "stop"]


def test_a_lost_device_ends_the_engine() -> None:
    """What was computed on it before says nothing about what would be computed after."""

    def fail(_tokens: Sequence[int]) -> None:
        raise SystemError

    engine, told = start(Counting(fail))
    engine.submit(Request([6], GREEDY, 9, lambda _: None))
    assert isinstance(told.get(timeout=10)[0], SystemError)


class Stateful:
    """Logits of everything given so far; `forgets` says which calls begin anew."""

    n_vocab = 64

    def __init__(self, forgets: Callable[[Sequence[int]], bool], *, dtype: str = "float32", noise: float = 0.0) -> None:
        self.forgets = forgets
        self.dtype = dtype
        self.noise = noise

    def begin(self) -> Stateful:
        return Run(self.forgets, dtype=self.dtype, noise=self.noise)


class Run(Stateful):
    seen: tuple[int, ...] = ()

    def compute(self, tokens: Sequence[int]) -> Row:
        self.seen = tuple(tokens) if self.forgets(tokens) else (*self.seen, *tokens)
        row = np.random.default_rng(self.seen).normal(size=self.n_vocab).astype(np.float32)
        row[len(tokens) % self.n_vocab] += np.float32(self.noise)
        return row


def test_a_model_that_keeps_its_state_takes_chunks() -> None:
    """Up to rounding, and more of it in 16 bits."""
    assert takes_chunks(Stateful(lambda _: False))
    assert takes_chunks(Stateful(lambda _: False, noise=0.2, dtype="bfloat16"))
    with pytest.raises(BadFile, match="float32"):
        takes_chunks(Stateful(lambda _: False, noise=0.2))


def test_a_model_whose_chunks_begin_anew_gets_its_prompt_at_once() -> None:
    """Single tokens go on from the state, chunks do not: so do recurrent layers in several architectures."""
    assert not takes_chunks(Stateful(lambda tokens: len(tokens) > 1))


def test_a_model_that_loses_its_state_is_refused() -> None:
    """It would answer, and wrongly."""
    with pytest.raises(BadFile, match="cache"):
        takes_chunks(Stateful(lambda _: True))


def test_a_model_that_computes_no_numbers_is_refused() -> None:
    """As some do in float16."""
    with pytest.raises(BadFile, match="float16"):
        takes_chunks(Stateful(lambda _: False, dtype="float16", noise=float("nan")))
