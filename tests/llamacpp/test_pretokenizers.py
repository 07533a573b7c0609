"""Hostile text through every pre-tokenizer type that llama.cpp knows, in a process that must not die of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import zoo

from serving.errors import InvalidRequest
from serving.generation import thread as text_thread
from serving.generation.template import Piece
from serving.llamacpp import tokenizer
from serving.llamacpp.binding import LoadError, Model
from serving.llamacpp.tokenizer import refuse_long_runs

SIZE = 1_000_000
LIMIT_S = 60.0
"""For one text of `SIZE` bytes; most take well under a second."""
CASES = 12
REPOSITORY = Path(__file__).parents[2]

GROUPS = (
    ("default",),
    (
        "llama3",
        "llama-v3",
        "llama-bpe",
        "falcon3",
        "falcon-h1",
        "pixtral",
        "midm-2.0",
        "lfm2",
        "jina-v5-nano",
        "dbrx",
        "smaug-bpe",
    ),
    ("jais-2",),
    ("deepseek-llm",),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
    ("spark2_5",),
    ("youtu",),
    ("deepseek-coder",),
    ("falcon",),
    ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"),
    (
        "gpt-2",
        "phi-2",
        "jina-es",
        "jina-de",
        "gigachat",
        "jina-v2-es",
        "jina-v2-de",
        "a.x-4.0",
        "mellum",
        "modern-bert",
        "jina-v1-en",
        "jina-v2-code",
        "roberta-bpe",
        "exaone4",
        "mpt",
        "olmo",
        "jais",
        "trillion",
        "granite-docling",
    ),
    ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open"),
    ("qwen35",),
    ("poro-chat", "bloom", "gpt3-finnish"),
    ("chatglm-bpe", "glm4", "glm5"),
    ("viking",),
    ("tekken",),
    ("chameleon",),
    ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"),
    ("granite-embed-multi-97m",),
    ("tiny_aya", "cohere2moe"),
    ("kimi-k2",),
    ("superbpe",),
    ("bailingmoe", "bailingmoe2", "llada-moe"),
    ("seed-coder",),
    ("ufakzeka",),
    ("grok-2",),
    ("afmoe",),
    ("laguna",),
    ("exaone-moe",),
    ("gemma4", "granite-embed-multi-311m"),
    ("sarvam-moe",),
    ("minicpm5",),
    ("whitespace",),
)
"""Type names as llama.cpp 0.3.36 reads them from a file; those of one line have the same regular expressions."""

SAMPLE = ("deepseek-coder", "jais-2", "superbpe")
"""One that falls back to the recursive expression, and the two whose expressions are quadratic."""
EVERY = os.environ.get("SERVING_TEST_SLOW") == "1"
TYPES = [name for group in GROUPS for name in group] if EVERY else SAMPLE


@pytest.mark.timeout(CASES * LIMIT_S)
@pytest.mark.parametrize("pre", TYPES)
def test_hostile_text_kills_no_process(pre: str, tmp_path: Path) -> None:
    """A megabyte of one letter, of blanks, digits, emoji or noise ends as tokens or as a refusal, in bounded time."""
    result = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("tokenize_child.py")),
            str(zoo.write_vocabulary(tmp_path, pre, "whitespace" if pre == "whitespace" else "gpt2")),
            str(SIZE),
            str(LIMIT_S),
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "GGML_NO_BACKTRACE": "1"},
        capture_output=True,
        text=True,
        timeout=CASES * LIMIT_S,
        check=False,
    )
    assert result.returncode == 0, f"died after {result.stdout.splitlines()[-1:]}: {result.stderr[-500:]}"
    seconds = {name: float(took) for name, took, _ in (line.split() for line in result.stdout.splitlines())}
    assert len(seconds) == CASES
    assert max(seconds.values()) < LIMIT_S, seconds


def test_every_type_is_listed_once() -> None:
    """The list has no name twice, and the sample is part of it."""
    names = [name for group in GROUPS for name in group]
    assert len(names) == len(set(names))
    assert set(SAMPLE) <= set(names)


@pytest.mark.parametrize(
    ("pre", "text"), [("jais-2", " \n" * 5001), ("superbpe", "7" * 129), ("superbpe", "a" + "٣" * 300)]
)
def test_what_would_take_minutes_is_refused(pre: str, text: str) -> None:
    """A run that a quadratic expression would crawl through is a 400 that says what is too long."""
    with pytest.raises(InvalidRequest, match="in a row"):
        refuse_long_runs(text, pre)


@pytest.mark.parametrize(
    ("pre", "text"), [("jais-2", " " * 10_000 + "a" + " " * 10_000), ("superbpe", "7" * 128), ("gpt-2", " " * 20_000)]
)
def test_other_text_is_left_alone(pre: str, text: str) -> None:
    """Runs up to the limit pass, and other types have none."""
    refuse_long_runs(text, pre)


def test_a_type_that_would_abort_is_refused_at_load(tmp_path: Path) -> None:
    """A file whose pre-tokenizer type makes llama.cpp abort at the first space is not loaded."""
    with pytest.raises(LoadError, match="whitespace"):
        Model(zoo.write_vocabulary(tmp_path, "whitespace"), vocab_only=True)


async def test_a_text_that_could_overflow_the_stack_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the text thread's stack has no room for never reaches the recursive expression, however small the stack."""
    monkeypatch.setattr(text_thread, "_STACK_BYTES", 16 << 20)
    model = Model(zoo.write_vocabulary(tmp_path, "tekken"), vocab_only=True)
    model.longest_piece = 16  # what a vocabulary without pieces does not know
    thread = text_thread.TextThread()

    async def count(letters: int) -> int:
        pieces = [Piece("a" * letters, is_plain=True)]
        return len(await thread.run(lambda: tokenizer.tokenize(model, pieces, 1 << 20, add_special=False), LIMIT_S))

    assert await count(32_768) == 8192
    with pytest.raises(InvalidRequest, match="32768 bytes"):
        await count(32_769)
    model.close()
