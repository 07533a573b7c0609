"""Transformers and llama.cpp make the same of the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.generate import LlamaCpp, render
from demo.judge import Case, held_out_cases

if TYPE_CHECKING:
    from demo.generate import HuggingFace

pytestmark = pytest.mark.transformers


@pytest.fixture(scope="module")
def reference(shipped: Path) -> HuggingFace:
    """The checkpoint in Transformers."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from demo.generate import HuggingFace

    return HuggingFace(shipped / "hf")


@pytest.fixture(scope="module")
def cases(f16: LlamaCpp) -> list[Case]:
    """Two held-out prompts of every kind."""
    return list(held_out_cases(lambda text: len(f16.tokenize(text, parse_special=False)), 2, seed=5))


def test_both_render_and_tokenize_a_conversation_alike(
    reference: HuggingFace, f16: LlamaCpp, cases: list[Case]
) -> None:
    """The chat template in the GGUF and the one beside the checkpoint are the same."""
    for case in cases:
        prompt = render(f16.template, case.messages, case.tools)
        assert prompt == reference.tokenizer.apply_chat_template(
            list(case.messages),
            tools=list(case.tools) or None,
            add_generation_prompt=True,
            tokenize=False,
        )
        ids = reference.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert ids == f16.tokenize(prompt, parse_special=True)


def test_both_continue_greedily_with_the_same_text(reference: HuggingFace, f16: LlamaCpp, cases: list[Case]) -> None:
    """F16 in llama.cpp and float32 arithmetic on the bfloat16 weights in Transformers.

    Where a token was chosen with a low probability roundings may choose another: those replies
    are left out.
    """
    compared = 0
    for case in cases[::3]:
        ours = f16.reply(case.messages, case.tools)
        if ours.least_probability > 0.6:
            assert ours.text == reference.reply(case.messages, case.tools).text
            compared += 1
    assert compared >= 20
