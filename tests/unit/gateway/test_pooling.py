"""What an engine without the annex is sent for embeddings and scores, and which text it found too long."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.spec import Texts
from serving.gateway.pooling import answer_for, body_for, count_of
from serving.gateway.too_long import document_too_long, input_too_long
from serving.gateway.upstream import EngineBroke
from serving.openai import DEFAULT_LIMITS

TEXTS = Texts(context=16, width=8, vocabulary=100)


async def letters(text: str, special: bool) -> int:
    """A tokenizer of one token a letter, which puts two around a text."""
    return len(text) + 2 * special


def told(body: dict[str, Any], *, rerank: bool) -> tuple[str | None, str]:
    """The field that is named, and the message."""
    find = document_too_long if rerank else input_too_long
    error = asyncio.run(find({"model": "m", **body}, TEXTS, "m", DEFAULT_LIMITS, letters))
    return error.param, error.message


def test_documents_go_as_texts_and_come_back_as_they_were() -> None:
    """What only we know of is answered by us: objects, `top_n`, texts left out; equal scores keep their order."""
    body: dict[str, object] = {"model": "m", "query": "q", "documents": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}
    sent = body_for("/v1/rerank", {**body, "top_n": 2}, TEXTS, "m", DEFAULT_LIMITS)
    assert sent == {"model": "m", "query": "q", "documents": ["a", "b", "c"]}
    scores = [
        {"index": 2, "relevance_score": 0.5},
        {"index": 0, "relevance_score": 0.5},
        {"index": 1, "relevance_score": 1},
    ]
    answer = json.dumps({"results": scores, "usage": {"prompt_tokens": 9}}).encode()
    asked = {**body, "top_n": 2, "return_documents": False}
    found = json.loads(answer_for(asked, answer, "m", DEFAULT_LIMITS))
    assert found["results"] == [{"index": 1, "relevance_score": 1.0}, {"index": 0, "relevance_score": 0.5}]
    assert found["usage"] == {"prompt_tokens": 9, "total_tokens": 9}


@given(st.binary(max_size=40) | st.sampled_from([b"{}", b'{"results":[]}', b'{"results":[{"index":0}],"usage":{}}']))
def test_an_answer_that_is_none_is_the_engines_failure(answer: bytes) -> None:
    """Whatever came: a 503 for the client, no exception of another kind."""
    body: dict[str, object] = {"model": "m", "query": "q", "documents": ["a"]}
    with pytest.raises(EngineBroke):
        answer_for(body, answer, "m", DEFAULT_LIMITS)
    with pytest.raises(EngineBroke):
        count_of(answer)


def test_the_first_input_that_is_too_long_is_named() -> None:
    """With its tokens and the limit, special ones included."""
    param, message = told({"input": ["a" * 14, "b" * 15, "c" * 99]}, rerank=False)
    assert param == "input.1"
    assert "17 tokens; `m` takes 16" in message


def test_the_query_or_the_document_is_named() -> None:
    """A pair has three special tokens at least; where the fourth decides, the longest document is meant."""
    assert told({"query": "q" * 14, "documents": ["a"]}, rerank=True)[0] == "query"
    assert told({"query": "q", "documents": ["a", "b" * 13, "c" * 50]}, rerank=True)[0] == "documents.1"
    param, message = told({"query": "q", "documents": ["a", "b" * 12, "c"]}, rerank=True)
    assert param == "documents.1"
    assert "17 tokens" in message


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=8))
def test_a_text_that_is_named_is_too_long(texts: list[str]) -> None:
    """And no earlier one is; where none is, none is named."""
    long = [len(text) + 2 > TEXTS.context for text in texts]
    param, _ = told({"input": texts}, rerank=False)
    assert param == (f"input.{long.index(True)}" if any(long) else "input")
