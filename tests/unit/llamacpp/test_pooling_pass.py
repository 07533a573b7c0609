"""Which texts share a pass, and how words are split: against the `tokenizers` package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from serving.llamacpp.binding import LoadError
from serving.llamacpp.pooling import plan_pass
from serving.llamacpp.word_pieces import WordPieces
from tests.llamacpp.encoders.vocabularies import HERE

LENGTHS = st.lists(st.lists(st.integers(1, 600), max_size=12), max_size=12)


@given(LENGTHS, st.integers(1, 1000), st.integers(1, 64))
def test_a_pass_is_within_its_bounds_and_never_empty(jobs: list[list[int]], tokens: int, texts: int) -> None:
    """Tokens and texts at most as many as allowed, but for a single text that is longer; the oldest request is in."""
    chosen = plan_pass(jobs, tokens, texts)
    waiting = [index for index, lengths in enumerate(jobs) if lengths]
    assert bool(chosen) == bool(waiting)
    if chosen:
        assert chosen[0] == waiting[0]
    assert len(chosen) <= texts
    taken = {job: jobs[job][: chosen.count(job)] for job in chosen}
    assert all(chosen.count(job) <= len(jobs[job]) for job in chosen)
    assert sum(map(sum, taken.values())) <= tokens or len(chosen) == 1


@given(LENGTHS, st.integers(1, 64))
def test_requests_take_turns(jobs: list[list[int]], texts: int) -> None:
    """With room for all tokens, no request gives two texts more than another that has them."""
    chosen = plan_pass(jobs, 1 << 30, texts)
    for job, lengths in enumerate(jobs):
        for other in range(len(jobs)):
            assert chosen.count(other) <= chosen.count(job) + 1 or chosen.count(job) == len(lengths)


class Vocabulary:
    """What WordPieces reads of a loaded model."""

    def __init__(self, pieces: list[str], metadata: dict[str, str] | None = None) -> None:
        self.pieces = [piece.encode() for piece in pieces]
        self.metadata: Callable[[str], str | None] = {"tokenizer.ggml.unknown_token_id": "1", **(metadata or {})}.get

    def special_id(self, which: str) -> int:
        return {"bos": 2, "sep": 3}.get(which, -1)


def made(*, lowercase: bool) -> tuple[WordPieces, Tokenizer]:
    """Ours and theirs, over the same vocabulary."""
    source: dict[str, Any] = json.loads((HERE / "wordpiece.json").read_text())
    source["normalizer"]["lowercase"] = lowercase
    ids = source["model"]["vocab"]
    texts = sorted(ids, key=ids.__getitem__)
    pieces = [
        "" if text.startswith("[") and len(text) > 1 else text[2:] if text.startswith("##") else f" {text}"
        for text in texts
    ]
    told = {"tokenizer.ggml.normalizer.lowercase": str(lowercase).lower()}
    return WordPieces(
        Vocabulary(pieces, told),
    ), Tokenizer.from_str(json.dumps(source))  # type: ignore[arg-type]


OLD = st.characters(exclude_categories=["Cs", "Cn"], max_codepoint=0x1FFF)
"""Scripts that the package's tables of Unicode know."""
NEWER = set("\u061d\u07fd\u09fd\u0a76\u0c77\u0c84\u166d\u1734") | {
    chr(code)
    for code in (*range(0x0890, 0x0903), *range(0x1AB0, 0x1B00), *range(0x1B7D, 0x1B80), *range(0x1DF0, 0x1E00))
}
"""Marks and signs that were added, or put into another class, after the tables it was made with."""


@pytest.mark.parametrize("lowercase", [True, False])
@settings(deadline=None)
@given(text=st.text(OLD, max_size=60))
def test_words_are_split_as_the_tokenizers_package_does(lowercase: bool, text: str) -> None:
    """Any text, with and without accents and capitals; special tokens around it."""
    text = "".join(character for character in text if character not in NEWER)
    ours, theirs = made(lowercase=lowercase)
    assert ours.tokenize(text, add_special=True) == theirs.encode(text).ids
    assert ours.tokenize(text, add_special=False) == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    "text",
    ["계좌 이체 한도를", "कितना है", "ΣΑΣ Σ", "İstanbul", "x" * 100, "x" * 101, "[MASK [SEP", "Zürich\u0301", "轉帳"],
)
def test_words_that_are_easily_got_wrong(text: str) -> None:
    """Syllables that fall apart, signs that stay, letters by themselves, words that are too long."""
    ours, theirs = made(lowercase=True)
    assert ours.tokenize(text, add_special=True) == theirs.encode(text).ids


def test_a_text_cannot_say_a_control_token() -> None:
    """`[SEP]` is a bracket, letters and a bracket: whoever writes a document does not end it."""
    ours, _ = made(lowercase=True)
    assert not {0, 2, 3, 4} & set(ours.tokenize("[CLS] [SEP] [PAD] [MASK]", add_special=False))


def test_a_vocabulary_without_ends_is_refused() -> None:
    """No token to begin a text with."""

    class Without(Vocabulary):
        def special_id(self, which: str) -> int:
            return -1

    with pytest.raises(LoadError):
        WordPieces(Without([" a"]))  # type: ignore[arg-type]


def test_the_kept_vocabularies_are_those_of_the_script() -> None:
    """Both files are there and small."""
    assert all((Path(HERE) / f"{name}.json").stat().st_size < 200_000 for name in ("wordpiece", "unigram"))
