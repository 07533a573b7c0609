"""Text of tokens, one at a time, is the text of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, Fuse, Sequence, Strip
from tokenizers.decoders import Replace as ReplaceInText
from tokenizers.models import BPE

from serving.hf.detokenise import Detokeniser

DEMO = Path(__file__).parents[3] / "serving" / "models" / "demo" / "hf" / "tokenizer.json"
BYTE_LEVEL = Tokenizer.from_file(str(DEMO))


def metaspace() -> Tokenizer:
    """As SentencePiece models are converted: `▁` is a blank, and bytes stand for what has no piece."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁he", "llo", "▁wor", "ld", "h", "e", "▁he▁"]
    tokenizer = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.decoder = Sequence([ReplaceInText("▁", " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)])
    return tokenizer


METASPACE = metaspace()


def told(tokenizer: Tokenizer, prompt: list[int], tokens: list[int]) -> str:
    words = Detokeniser(lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False), prompt)
    return "".join([*(words.push(token) for token in tokens), words.finish()])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.text(max_size=10))
def test_no_character_of_whole_text_is_lost_or_added(text: str, before: str) -> None:
    """Characters of several tokens included, whatever the prompt was."""
    prompt = BYTE_LEVEL.encode(before.encode("utf-8", "replace").decode()).ids
    tokens = BYTE_LEVEL.encode(text, add_special_tokens=False).ids
    assert told(BYTE_LEVEL, prompt, tokens) == BYTE_LEVEL.decode(tokens, skip_special_tokens=False)


@given(st.lists(st.integers(0, METASPACE.get_vocab_size() - 1), max_size=40))
def test_pieces_after_a_prompt_keep_their_blanks(tokens: list[int]) -> None:
    """A blank at the front is dropped only where the whole sequence begins; bytes that make no character are marked."""
    prompt = [METASPACE.token_to_id("h")]
    told_text = told(METASPACE, prompt, tokens)
    whole = METASPACE.decode([*prompt, *tokens], skip_special_tokens=False)[1:]
    if "\ufffd" not in whole:
        assert told_text == whole
    else:  # one byte that is no character takes its neighbours, told or not, along
        assert "\ufffd" in told_text


def test_a_character_is_told_once_it_is_whole() -> None:
    """Three of its four bytes are not told as something else."""
    tokens = [METASPACE.token_to_id(f"<0x{byte:02X}>") for byte in "😀".encode()]
    words = Detokeniser(lambda ids: METASPACE.decode(list(ids), skip_special_tokens=False), [0])
    assert [words.push(token) for token in tokens] == ["", "", "", "😀"]


def test_bytes_that_never_make_a_character_do_not_wait_for_ever() -> None:
    """They are told, marked, after a while and at the end."""
    tokens = [METASPACE.token_to_id("<0xFF>")] * 40
    words = Detokeniser(lambda ids: METASPACE.decode(list(ids), skip_special_tokens=False), [])
    parts = [words.push(token) for token in tokens]
    assert any(parts)
    assert "".join([*parts, words.finish()]) == "\ufffd" * 40


@pytest.mark.parametrize("prompt", [[], [1, 2, 3], list(range(50))])
def test_nothing_generated_is_no_text(prompt: list[int]) -> None:
    """The prompt is never part of the answer."""
    assert told(BYTE_LEVEL, prompt, []) == ""
