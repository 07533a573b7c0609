"""What was in a sensitive text is found again, whatever is done to its form; and what was not, is not."""

from __future__ import annotations

import string
import time
import unicodedata
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.policy.taint import RUN, SHORTEST, SURE, Fingerprinter, normalised

KEY = bytes(range(32))
HERE, ELSEWHERE = Fingerprinter(KEY, "here"), Fingerprinter(KEY, "elsewhere")
LETTERS = "abcdefghijklmnopqrstuvwxyzабвгдежзийклмнопрстуфхцчшщъыьэюяёäöüß0123456789"
BETWEEN = " \t\n.,;:!?-–—_*#>«»\"'()\u00a0\u00ad\u200b"
WORDS = st.lists(st.text(LETTERS, min_size=1, max_size=12), min_size=SURE, max_size=120)


def is_found(text: str, among: str, by: Fingerprinter = HERE) -> bool:
    return bool(np.isin(by.seek([among]), HERE.keep([text])).any())


def written_otherwise(text: str, random: Random) -> str:
    """Other white space, punctuation, case and composition; the same to a reader."""
    found = []
    for letter in text:
        if letter in BETWEEN:
            found.append("".join(random.choices(BETWEEN, k=random.randint(0, 3))))
            continue
        other = letter.upper() if random.random() < 0.5 else letter
        found.append(unicodedata.normalize(random.choice(["NFC", "NFD"]), other))
        if random.random() < 0.1:
            found.append(random.choice(BETWEEN))
    return "".join(found)


@given(WORDS, st.data())
@settings(max_examples=1000)
def test_any_run_that_is_long_enough_is_found(words: list[str], data: st.DataObject) -> None:
    """Wherever it begins in the text that was kept, however it is written, and whatever stands around it."""
    text = " ".join(words)
    places = [place for place, letter in enumerate(text) if letter != " "]
    start = data.draw(st.sampled_from(places))
    end = start
    while end < len(text) and len(normalised(text[start:end])) < SURE:
        end += 1
    assume(len(normalised(text[start:end])) >= SURE)
    part = written_otherwise(text[start:end], Random(data.draw(st.integers())))
    around = data.draw(st.tuples(st.text(max_size=200), st.text(max_size=200)))
    assert is_found(text, around[0] + part + around[1])
    assert not is_found(text, around[0] + part + around[1], ELSEWHERE)


@given(WORDS, st.integers())
@settings(max_examples=300)
def test_a_run_is_found_that_is_spread_over_messages(words: list[str], seed: int) -> None:
    """Cut at any places, in the same order."""
    text, random, parts = " ".join(words), Random(seed), list[str]()
    rest = text
    while rest:
        size = random.randint(1, 20)
        parts.append(rest[:size])
        rest = rest[size:]
    assert np.isin(HERE.seek(parts), HERE.keep([text])).any()


@given(st.text(LETTERS + " ", min_size=SHORTEST, max_size=SURE), st.text(max_size=100), st.text(max_size=100))
@settings(max_examples=500)
def test_a_short_text_is_found_as_a_whole(text: str, before: str, after: str) -> None:
    """Of 32 characters and more within another one; a shorter one where it is a message again."""
    size = len(normalised(text))
    if size >= RUN:
        assert is_found(text, before + text + after)
    elif size >= SHORTEST:
        assert is_found(text, text.upper() + "!")
        assert np.isin(HERE.seek([before, text, after]), HERE.keep([text])).any()
    else:
        assert not len(HERE.keep([text]))


@given(st.text(), st.text())
def test_what_is_normalised_in_parts_is_normalised_as_a_whole(one: str, other: str) -> None:
    """On this it rests that a part of a text is found in it."""
    assert normalised(one + other).tolist() == [*normalised(one).tolist(), *normalised(other).tolist()]


@given(st.integers())
@settings(max_examples=200)
def test_texts_that_share_nothing_are_told_apart(seed: int) -> None:
    """Random words of one language, thousands of them, have no run in common."""
    random = Random(seed)
    words = ["".join(random.choices(string.ascii_lowercase, k=random.randint(2, 9))) for _ in range(400)]
    one, other = (" ".join(random.choices(words, k=600)) for _ in range(2))
    assert not is_found(one, other)


def test_a_text_of_the_sites_list_taints_nothing() -> None:
    """Neither by itself nor as the beginning of a message; what follows it in that message does."""
    prompt = "You are the assistant of a hospital. Answer briefly, in the language of the question, and invent nothing."
    secret = "The patient of room twelve was moved to the isolation ward on Monday after the second test came back."
    by = Fingerprinter(KEY, "here", [prompt])
    kept = by.keep([prompt, f"{prompt}\n\n{secret}"])
    assert len(kept)
    assert not np.isin(by.seek([prompt, "What are your opening hours?"]), kept).any()
    assert np.isin(by.seek([secret]), kept).any()
    assert len(HERE.keep([prompt]))


def test_the_guarantee_is_the_one_that_is_documented() -> None:
    """docs/routing.md says these numbers."""
    assert (SURE, RUN, SHORTEST) == (60, 32, 16)


def test_a_fingerprint_says_nothing_without_the_key() -> None:
    """Another key, or another domain, and there is nothing in common."""
    text = "the same text in both of them, and long enough to have several fingerprints of its own " * 3
    kept = HERE.keep([text])
    assert len(kept) > 5
    assert not np.isin(Fingerprinter(bytes(32), "here").keep([text]), kept).any()
    assert not np.isin(ELSEWHERE.keep([text]), kept).any()


@pytest.mark.parametrize(
    "text",
    [
        "a" + "\u0301\u0316" * 100_000,
        "\u0345" * 200_000,
        "\uff9e\uff9f" * 100_000,
        "\ufdfa" * 50_000,
        "{[" * 100_000,
        "ё" * 200_000,
        "\ud800" * 200_000,
    ],
    ids=["marks", "iota", "voiced", "ligatures", "brackets", "letters", "surrogates"],
)
def test_no_text_takes_long(text: str) -> None:
    """Two hundred thousand of the worst characters: a bound that anything worse than linear is far beyond."""
    HERE.seek(["é"])
    began = time.process_time()
    HERE.seek([text])
    assert time.process_time() - began < 2
