"""BERT's tokenizer: text into words, words into pieces of the vocabulary.

llama.cpp has one too, and it loses what the model was trained to see: where accents are stripped it keeps the first
letter of each Korean syllable and drops the vowel signs of Indic scripts. This one does what the `tokenizers` package
does (BertNormalizer, BertPreTokenizer, WordPiece), which is what models of this kind are trained and measured with.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from serving.llamacpp.binding import LoadError, Model

_LONGEST_WORD: Final = 100
"""Characters; a longer word is unknown as a whole."""
_DEFAULT_UNKNOWN: Final = 100
"""What llama.cpp takes where the file does not say."""
_CACHED_WORDS: Final = 1 << 16
_IDEOGRAPHS: Final = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
"""Characters that are words of their own."""


_CONTROLS: Final = frozenset({"Cc", "Cf", "Co", "Cs"})


class _Table(dict[int, str | None]):
    """What becomes of each character, worked out when it is first met; for `str.translate`."""

    def __init__(self, becomes: Callable[[str], str | None]) -> None:
        super().__init__()
        self._becomes = becomes

    def __missing__(self, code: int) -> str | None:
        result = self[code] = self._becomes(chr(code))
        return result


def _clean(character: str) -> str | None:
    if character in "\t\n\r":
        return " "
    if character in "\0\ufffd" or unicodedata.category(character) in _CONTROLS:
        return None
    if character.isspace():
        return " "
    code = ord(character)
    return f" {character} " if any(first <= code <= last for first, last in _IDEOGRAPHS) else character


def _without_accents(character: str) -> str | None:
    return None if unicodedata.category(character) == "Mn" else character


def _apart(character: str) -> str:
    is_punctuation = unicodedata.category(character)[0] == "P" or (character.isascii() and character in _ASCII)
    return f" {character} " if is_punctuation else character


_ASCII: Final = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
# Kept per process: they depend on no model, and a text in a new script is paid for once.
_CLEAN, _WITHOUT_ACCENTS, _APART = _Table(_clean), _Table(_without_accents), _Table(_apart)
# Each character by itself, as in `tokenizers`: Python's own `lower` looks at the end of words.
_LOWER: Final = _Table(str.lower)


class WordPieces:
    """The tokenizer of one model. Raises LoadError for a vocabulary that names no unknown, first or last token."""

    def __init__(self, model: Model) -> None:
        first, last = model.special_id("bos"), model.special_id("sep")
        unknown = int(model.metadata("tokenizer.ggml.unknown_token_id") or _DEFAULT_UNKNOWN)
        if min(first, last, unknown) < 0:
            raise LoadError("its vocabulary has no token to begin a text with, to end it, or for what it does not know")
        self._first, self._last, self._unknown = first, last, unknown
        self._lowercase = model.metadata("tokenizer.ggml.normalizer.lowercase") != "false"
        told = model.metadata("tokenizer.ggml.normalizer.strip_accents")
        self._strips = self._lowercase if told is None else told == "true"
        # Pieces that begin a word carry a space before it; the others go on with one.
        self._starts: dict[str, int] = {}
        self._goes_on: dict[str, int] = {}
        for token, piece in enumerate(model.pieces):
            text = piece.decode("utf-8", "replace")
            if text[:1] == " ":
                self._starts.setdefault(text[1:], token)
            elif text:
                self._goes_on.setdefault(text, token)
        self._longest = max(map(len, (*self._starts, *self._goes_on)), default=1)
        self._pieces = lru_cache(maxsize=_CACHED_WORDS)(self._split)

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids of a text, in which nothing stands for a control token."""
        tokens: list[int] = []
        for word in self._words(text):
            tokens += self._pieces(word)
        return [self._first, *tokens, self._last] if add_special else tokens

    def _words(self, text: str) -> list[str]:
        text = text.translate(_CLEAN)
        if self._strips:
            text = unicodedata.normalize("NFD", text).translate(_WITHOUT_ACCENTS)
        if self._lowercase:
            text = text.translate(_LOWER)
        return text.translate(_APART).split()

    def _split(self, word: str) -> tuple[int, ...]:
        """The longest piece that begins the word, then the longest that goes on with it, to its end."""
        if len(word) > _LONGEST_WORD:
            return (self._unknown,)
        found: list[int] = []
        known, at = self._starts, 0
        while at < len(word):
            for end in range(min(len(word), at + self._longest), at, -1):
                token = known.get(word[at:end])
                if token is not None:
                    break
            else:
                return (self._unknown,)
            found.append(token)
            known, at = self._goes_on, end
        return tuple(found)
