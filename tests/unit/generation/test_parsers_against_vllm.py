"""Our parse of the corpus against vLLM's own, as recorded by tests/support/record_vllm_parsers.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.generation.parsers import Answer, AnswerParser, fold
from tests.support.model_outputs import OUTPUTS, TOOLS
from tests.support.vllm_differences import DIFFERENCES

RECORD = json.loads((Path(__file__).parent / "recorded/vllm_parsers.json").read_text())["parsers"]
CASES = [pytest.param(group, label, id=f"{group}-{label}") for group, texts in OUTPUTS.items() for label in texts]


def shaped(content: str, reasoning: str, calls: list[tuple[str, str]]) -> tuple[object, ...]:
    """What is compared: meaning, not layout. White space around text and inside JSON does not count."""
    return content.strip(), reasoning.strip(), [(name, meant(arguments)) for name, arguments in calls]


def meant(arguments: str) -> object:
    try:
        value = json.loads(arguments)
    except ValueError:
        return "no JSON:", arguments
    return value if isinstance(value, dict) else ("no object:", arguments)


def theirs(recorded: dict[str, Any]) -> tuple[object, ...]:
    if "raises" in recorded:
        return ("raises", recorded["raises"])
    return shaped(recorded["content"], recorded["reasoning"], [tuple(call) for call in recorded["calls"]])


def ours(group: str, pieces: list[str]) -> Answer:
    record = RECORD[group]
    parser = AnswerParser(record["tool_parser"], record["reasoning_parser"], tools=TOOLS)
    return fold([delta for piece in pieces for delta in parser.push(piece)] + parser.finish())


@pytest.mark.parametrize(("group", "label"), CASES)
def test_we_read_what_vllm_reads(group: str, label: str) -> None:
    """Whole and streamed, but for the differences that are listed with their reasons, which are differences."""
    case = RECORD[group]["cases"][label]
    assert case["text"] == OUTPUTS[group][label], "the record is not of this corpus: make it again"
    assert case.get("differs") == DIFFERENCES[group].get(label)
    answer = ours(group, list(case["text"]))
    found = shaped(answer.content, answer.reasoning, [(call.name, call.arguments) for call in answer.tool_calls])
    agrees = all(theirs(case[how]) == found for how in ("whole", "streamed"))
    assert agrees == ("differs" not in case)


@pytest.mark.parametrize("group", OUTPUTS)
def test_no_text_of_the_corpus_is_lost(group: str) -> None:
    """Every word that a model wrote is in the content, the reasoning or a call."""
    for text in OUTPUTS[group].values():
        answer = ours(group, [text])
        said = f"{answer.content} {answer.reasoning} {answer.tool_calls}"
        if not answer.tool_calls and "reasoning" not in group:
            assert answer.content == text
        assert all(word in said for word in ("Done.", "Let me see.", "Hm.", "oops", "Hello") if word in text)


def test_the_corpus_is_worth_its_name() -> None:
    """Enough texts for each of the main parsers, and no reason for a text that is not there."""
    assert all(
        len(OUTPUTS[group]) >= 25 for group in ("hermes", "llama3_json", "mistral", "qwen3_coder", "mistral v11")
    )
    assert all(labels.keys() <= OUTPUTS[group].keys() for group, labels in DIFFERENCES.items())
