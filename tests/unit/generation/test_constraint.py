"""What is chosen under a grammar is allowed by it, and comes as often as it should."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.generation.compiler import Vocabulary, schema_grammar
from serving.generation.constraint import Constraint, matcher_of, tokenizer_of
from serving.generation.sampling import Sampler
from serving.openai.fields import Sampling

WORDS = [
    '{"',
    '":',
    '",',
    '"}',
    "true",
    "false",
    "null",
    "ab",
    "ba",
    "aa",
    '": ',
    ", ",
    "12",
    "-1",
    "0.",
    "a",
    "",
    "ab",
]
PIECES = [bytes([byte]) for byte in range(256)] + [word.encode() for word in WORDS] + [b"<|call|>", b"<|end|>", b"</s>"]
N = len(PIECES)
ENDS = [N - 2, N - 1]
VOCABULARY = Vocabulary(PIECES, [N - 3, N - 2], ENDS)
TOKENIZER = tokenizer_of(VOCABULARY)
"""Every byte, words that overlap, one token twice, one without text, two control tokens, two ends."""


@pytest.fixture(autouse=True)
def _as_on_the_engine_thread() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


def constraint(grammar: str) -> Constraint:
    matcher = matcher_of(TOKENIZER, grammar)
    assert not matcher.is_error(), matcher.get_error()
    return Constraint(matcher, VOCABULARY, "response_format")


def answer(grammar: str, options: Sampling, seed: int, most: int = 600) -> tuple[bytes, bool]:
    """What comes of random logits, and whether the grammar came to its end."""
    rng = np.random.default_rng(seed)
    held, sampler, text = constraint(grammar), Sampler(options, [], ENDS, N), b""
    for _ in range(most):
        raw = rng.standard_normal(N).astype(np.float32) * 3
        raw[ENDS] += 3
        token = held.choose(sampler, raw.copy(), raw)
        if token in ENDS:
            return text, True
        text += PIECES[token]
        if held.is_complete:
            return text, True
    return text, False


VALUES = st.deferred(lambda: LEAVES | ARRAYS | OBJECTS | st.builds(lambda a, b: {"anyOf": [a, b]}, LEAVES, ARRAYS))
LEAVES = (
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "string", "pattern": "^[ab]{1,5}(x|y)$"}])
    | st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 6))
    | st.builds(
        lambda a, n: {"type": "integer", "minimum": a, "maximum": a + n}, st.integers(-99, 99), st.integers(0, 500)
    )
    | st.builds(
        lambda values: {"enum": values}, st.lists(st.text(max_size=5) | st.integers(-9, 9), min_size=1, max_size=4)
    )
)
ARRAYS = st.builds(
    lambda items, least, more: {"type": "array", "items": items, "minItems": least, "maxItems": least + more},
    VALUES, st.integers(0, 2), st.integers(0, 2),
)  # fmt: skip
OBJECTS = st.builds(
    lambda properties, optional: {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    },
    st.dictionaries(st.sampled_from(["a", "b", "ab", "\u0436", '"']), VALUES, max_size=3),
    st.sets(st.sampled_from(["a", "ab"])),
)


@given(
    VALUES,
    st.integers(0, 2**31),
    st.sampled_from([{}, {"top_p": 0.9}, {"top_k": 3}, {"temperature": 0.0}, {"min_p": 0.2}]),
)
@settings(max_examples=150, deadline=None)
def test_answers_are_valid_by_their_schema(schema: dict, seed: int, options: dict) -> None:
    """Whatever the model would rather say; only the length may cut them off."""
    text, is_whole = answer(schema_grammar(schema), Sampling(seed=seed, **options), seed)
    if is_whole:
        assert jsonschema_rs.is_valid(schema, json.loads(text)), text
    else:
        assert len(text) > 100, "it ran out of length"


@given(VALUES, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_mask_is_what_is_accepted(schema: dict, seed: int) -> None:
    """At every place the tokens in the mask are exactly those that would be taken, one by one."""
    held = constraint(schema_grammar(schema))
    rng = np.random.default_rng(seed)
    for _ in range(30):
        allowed = held._allowed()
        taken = [held._matcher.validate_tokens([token]) == 1 for token in range(N)]
        assert allowed.tolist() == taken
        token = int(rng.choice(np.flatnonzero(allowed)))
        assert held._accepts(token)
        if held.is_complete or token in ENDS:
            break


def distribution(options: Sampling, logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """By the book: the allowed tokens, then min_p, top_k and top_p of them."""
    p = np.where(allowed, np.exp((logits.astype(np.float64) - logits.max()) / options.temperature), 0)
    p /= p.sum()
    if options.min_p:
        p[p < options.min_p * p.max()] = 0
    for most in [options.top_k] if options.top_k else []:
        p[np.argsort(-p, kind="stable")[most:]] = 0
    if options.top_p < 1:
        order = np.argsort(-p, kind="stable")
        mass = np.cumsum(p[order]) / p.sum()
        p[order[int(np.searchsorted(mass, options.top_p, side="left")) + 1 :]] = 0
    return p / p.sum()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize(
    "options",
    [
        Sampling(seed=1),
        Sampling(seed=2, temperature=0.3),
        Sampling(seed=3, top_p=0.7),
        Sampling(seed=4, top_k=6),
        Sampling(seed=5, min_p=0.1),
        Sampling(seed=6, top_k=20, top_p=0.8, min_p=0.01, temperature=1.3),
    ],
    ids=str,
)
def test_frequencies_match_the_restricted_distribution(options: Sampling, share: float) -> None:
    """However much of the model's mass the grammar allows: a chi-squared statistic within six standard deviations."""
    rng = np.random.default_rng(7)
    logits = (rng.standard_normal(N) * 1.5).astype(np.float32)
    matcher = matcher_of(TOKENIZER, 'start: /[a-f]/ | "ab" | "aa"')
    allowed = Constraint(matcher, VOCABULARY, "p")._allowed()
    weight = np.exp(logits.astype(np.float64))
    logits[~allowed] += np.float32(np.log(weight[allowed].sum() / weight[~allowed].sum() * (1 - share) / share))
    count = 12_000
    sampler = Sampler(options, [], ENDS, N)
    found = Counter(
        Constraint(matcher.deep_copy(), VOCABULARY, "p").choose(sampler, logits.copy(), logits) for _ in range(count)
    )
    expected = distribution(options, logits, allowed) * count
    assert all(expected[token] > 0 for token in found)
    common = np.flatnonzero(expected >= 5)
    seen = np.array([found.get(int(token), 0) for token in common], dtype=float)
    statistic = float(((seen - expected[common]) ** 2 / expected[common]).sum())
    freedom = max(len(common) - 1, 1)
    assert statistic < freedom + 6 * np.sqrt(2 * freedom)


def test_a_token_that_was_rejected_never_was() -> None:
    """Penalties and `min_tokens` count what was used."""
    options = Sampling(temperature=0, presence_penalty=1.5, min_tokens=2)
    logits = np.full(N, -9, dtype=np.float32)
    logits[[ord("z"), ord("a"), ord("b")]] = 3, 2, 1
    held, sampler = constraint("start: /[ab]+/"), Sampler(options, [], ENDS, N)
    assert [held.choose(sampler, logits.copy(), logits) for _ in range(2)] == [ord("a"), ord("b")]
    assert sampler._count == {ord("a"): 1, ord("b"): 1}
    assert sampler._generated == 2


def test_an_answer_ends_where_the_grammar_does() -> None:
    """An end token comes only where the grammar accepts; where nothing may follow, no token is needed for it."""
    logits = np.zeros(N, dtype=np.float32)
    logits[ENDS] = 50
    held, sampler = constraint('start: "xyz"'), Sampler(Sampling(seed=1), [], ENDS, N)
    text = b""
    while not held.is_complete:
        text += PIECES[held.choose(sampler, logits.copy(), logits)]
    assert text == b"xyz"


@pytest.mark.parametrize("options", [{"ignore_eos": True}, {"min_tokens": 50}], ids=str)
def test_what_has_been_said_is_said(options: dict) -> None:
    """Where only the end is left, options that forbid it do not keep the answer from ending."""
    logits = np.zeros(N, dtype=np.float32)
    held, sampler = constraint('start: /a{3}/ ("b")?'), Sampler(Sampling(seed=1, **options), [], ENDS, N)
    chosen = [held.choose(sampler, logits.copy(), logits) for _ in range(3)]
    while not held.is_complete:
        chosen.append(held.choose(sampler, logits.copy(), logits))
    assert b"".join(PIECES[token] for token in chosen if token not in ENDS) == b"aaab"


@pytest.mark.parametrize("penalty", [5e-324, 10.0])
def test_no_penalty_lets_anything_through(penalty: float) -> None:
    """Also those that make an infinity of a logit, or nothing of an infinity."""
    text, _ = answer("start: /[a-c]{40}/", Sampling(seed=3, repetition_penalty=penalty, frequency_penalty=2), 5)
    assert len(text) == 40
    assert set(text) <= set(b"abc")


def test_a_control_token_is_no_text() -> None:
    """A grammar of text cannot make one, however likely; one that names it can."""
    logits = np.zeros(N, dtype=np.float32)
    logits[N - 3] = 50
    for grammar, wanted in (("start: /(.|\\n)/", False), ('start: <|call|> | "a"', True)):
        held, sampler = constraint(grammar), Sampler(Sampling(seed=1), [], ENDS, N)
        assert (held.choose(sampler, logits.copy(), logits) == N - 3) is wanted
