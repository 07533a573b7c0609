"""The byte-level BPE of the demonstration model.

The vocabulary is 256 bytes, then merges learnt on both languages, then three control tokens.
Merges never cover ASCII capitals or digits, so that a code such as `K7QX-2M9D` is always one token
per character, whatever stands around it.

    python -m demo.tokenizer path/tokenizer.json
"""

from __future__ import annotations

import random
import re
import sys
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from demo import questions, words
from demo.corpus import PHRASES, Composer

VOCABULARY_SIZE: Final = 960
IM_START: Final = "<|im_start|>"
IM_END: Final = "<|im_end|>"
END_OF_TEXT: Final = "<|endoftext|>"
CONTROL_TOKENS: Final = (END_OF_TEXT, IM_START, IM_END)


def _training_text() -> list[str]:
    rng = random.Random(7)
    composer = Composer(rng)
    lines: list[str] = []
    for language in ("en", "ru"):
        for question, answer in questions.QUESTIONS[language].items():
            lines += [question, answer] * 6
        lines += [phrase for phrase in PHRASES[language] for _ in range(40)]
        lines += [composer.filler(60, language, pseudo=0.1) for _ in range(400)]
        lines += (words.NAMES if language == "en" else words.RUSSIAN_NAMES) * 4
    lines += ["system", "user", "assistant", "tool"] * 200
    return lines


def train_tokenizer() -> Tokenizer:
    """Learn the merges from the corpus's own words; the result is the same on every run."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Lower-cased ASCII and no digits: what the learner never sees it cannot merge.
    text = [re.sub(r"[A-Z]", lambda m: m[0].lower(), line) for line in _training_text()]
    tokenizer.train_from_iterator((re.sub(r"[0-9]", " ", line) for line in text), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in CONTROL_TOKENS])
    if tokenizer.get_vocab_size() != VOCABULARY_SIZE:
        raise RuntimeError(f"vocabulary has {tokenizer.get_vocab_size()} tokens, not {VOCABULARY_SIZE}")
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Id of `token`; KeyError if the vocabulary lacks it."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


if __name__ == "__main__":
    train_tokenizer().save(sys.argv[1])
