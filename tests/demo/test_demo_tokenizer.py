"""The tokenizer in the GGUF files and the one in `tokenizer.json` are the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from demo.corpus import CODE_ALPHABET, Composer
from demo.generate import LlamaCpp

_POOLS = (
    "abc XYZ 019 ,.'\"!?-_/<>|{}",
    "абвёЖЯ ъэ",
    "  \t\n\r\u00a0\u2003\u3000\u0085\u2028\u200b",
    "'s 't 're 've 'm 'll 'd 'S",
    "".join(map(chr, range(1, 0x20))),
    "😀👩‍💻🇷🇺👍🏽❤️",
    "日本語한국어ไทยहिन्दीعربي",
    "0123456789٠١٢²½Ⅷ①",
    "\u0301\u0308\u200d\ufe0f\ufeff",
)


def _fuzzed(rng: random.Random) -> str:
    length = rng.randint(1, 40)
    if rng.random() < 0.1:
        points = (rng.choice((rng.randrange(0x3000), rng.randrange(0x110000))) for _ in range(length))
        return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
    pools = rng.choices(_POOLS, k=rng.randint(1, 4))
    return "".join(rng.choice(rng.choice(pools)) for _ in range(length))


def test_llama_cpp_and_tokenizers_give_the_same_ids_for_10_000_fuzzed_strings(f16: LlamaCpp, shipped: Path) -> None:
    """Emoji, Cyrillic, control characters, spaces, digits; each string comes back whole."""
    tokenizers = pytest.importorskip("tokenizers")
    reference = tokenizers.Tokenizer.from_file(str(shipped / "hf" / "tokenizer.json"))
    rng = random.Random(11)
    strings = [_fuzzed(rng) for _ in range(10_000)]
    expected = reference.encode_batch(strings, add_special_tokens=False)
    for text, encoding in zip(strings, expected, strict=True):
        ids = f16.tokenize(text, parse_special=False)
        assert ids == encoding.ids, ascii(text)
        assert b"".join(map(f16.piece, ids)) == text.encode(), ascii(text)


def test_a_code_is_one_token_per_character_wherever_it_stands(f16: LlamaCpp) -> None:
    """No merge covers a capital or a digit."""
    composer = Composer(random.Random(3))
    single = {f16.tokenize(c, parse_special=False)[0]: c for c in CODE_ALPHABET + "-"}
    assert len(single) == len(CODE_ALPHABET) + 1
    for around in ("{}", "is {}.", "({},", "\n{}\n", "a{}z", "код {}?"):
        code = composer.code()
        ids = f16.tokenize(around.format(code), parse_special=False)
        assert code in "".join(single.get(i, " ") for i in ids)


def test_control_tokens_in_a_message_can_stay_plain_text(f16: LlamaCpp, shipped: Path) -> None:
    """With parsing off a control token's text is letters; with parsing on it is one id."""
    tokenizers = pytest.importorskip("tokenizers")
    reference = tokenizers.Tokenizer.from_file(str(shipped / "hf" / "tokenizer.json"))
    for text in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        assert len(f16.tokenize(text, parse_special=True)) == 1
        assert f16.tokenize(text, parse_special=True) == reference.encode(text).ids
        plain = f16.tokenize(text, parse_special=False)
        assert len(plain) > 1
        assert b"".join(map(f16.piece, plain)).decode() == text
        reference.encode_special_tokens = True
        assert reference.encode(text).ids == plain
        reference.encode_special_tokens = False
