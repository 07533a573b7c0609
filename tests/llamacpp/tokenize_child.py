"""Tokenises hostile text with one vocabulary, as the engine would, and prints a line after each: name, s, tokens.

Run as a process of its own by test_pretokenizers.py: what is tested is that it does not die.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

from serving.generation.thread import TextThread
from serving.llamacpp import binding
from serving.llamacpp.tokenizer import refuse_long_runs

SCRIPTS = ("aZ", "яЖ", "漢字かな", "한글", "عر", "हिन्दी", "09٣", " \n\t\r", "!?.,'’", "😀👩‍🚀🏽", "\u200b\u0301\x00")


def hostile_texts(size: int) -> dict[str, str]:
    """About `size` bytes each."""
    noise = random.Random(1)
    mixed = "".join(
        letter * noise.choice([1, 1, 1, 2, 5, 50])
        for letter in (noise.choice(noise.choice(SCRIPTS)) for _ in range(size // 20))
    )
    return {
        "letter": "a" * size,
        "capital": "A" * size,
        "spaces": " " * size,
        "emoji": "😀" * (size // 4),
        "digits": "7" * size,
        "newlines": "\n" * size,
        "punctuation": "!" * size,
        "cyrillic": "я" * (size // 2),
        "han": "漢" * (size // 3),
        "mixed": mixed,
        "numbers": ("7" * 128 + "a") * (size // 129),
        "gaps": (" " * 10_000 + "a") * (size // 10_001),
    }


async def main(path: Path, size: int, limit_s: float) -> None:
    binding.start_backend()
    model = binding.Model(path, vocab_only=True)
    thread = TextThread()
    for name, text in hostile_texts(size).items():
        began = time.perf_counter()

        def job(text: str = text) -> list[int]:
            refuse_long_runs(text, model.pre_tokenizer)
            return model.tokenize(text.encode(), add_special=False, parse_special=False)

        try:
            tokens = await thread.run(job, limit_s)
            outcome = str(len(tokens))
        except Exception as error:  # noqa: BLE001 - an error is an answer; only a dead process is not
            outcome = type(error).__name__
        print(name, f"{time.perf_counter() - began:.2f}", outcome, flush=True)  # noqa: T201 - read by the test


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
