"""Embeddings and reranking: the same numbers, shapes and refusals, whichever engine computes them.

The weights are made from a seed in both formats; what Transformers computes with them is recorded beside them.
"""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest

from tests.conformance.conftest import Target
from tests.llamacpp.encoders.texts import DOCUMENTS, QUERIES, SENTENCES, TEXTS
from tests.llamacpp.encoders.weights import ENCODERS, POSITIONS

RECORDED = json.loads((Path(__file__).parents[1] / "llamacpp/encoders/transformers.json").read_text())
WIDTH = ENCODERS["xlmr-mean"].width
LONG = "word " * POSITIONS

pytestmark = pytest.mark.timeout(600)


def post(target: Target, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of a POST."""
    answer = httpx2.post(target.url + path, json=body, timeout=120)
    return answer.status_code, answer.json()


def rerank(target: Target, **body: Any) -> dict[str, Any]:
    """The answer to a request for scores."""
    status, answer = post(target, "/v1/rerank", {"model": target.ranker, **body})
    assert status == 200, answer
    return answer


@pytest.mark.feature("embeddings")
def test_embeddings_are_those_of_transformers(pooled: Target) -> None:
    """A cosine of at least 0.999 for each of more than fifty texts, length 1, in order, with a usage that adds up."""
    assert len(TEXTS) >= 50
    answer = pooled.client.embeddings.create(model=pooled.model, input=list(TEXTS), encoding_format="float")
    assert (answer.object, answer.model) == ("list", pooled.model)
    assert [(entry.object, entry.index) for entry in answer.data] == [("embedding", at) for at in range(len(TEXTS))]
    found = np.array([entry.embedding for entry in answer.data])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert (found * np.array(RECORDED["xlmr-mean"]["embeddings"])).sum(axis=1).min() >= 0.999
    tokens = sum(map(len, RECORDED["xlmr-mean"]["tokens"]))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)


@pytest.mark.feature("embeddings: base64")
def test_base64_is_the_bytes_of_the_numbers(pooled: Target) -> None:
    """Little-endian 32-bit floats; the official client asks for them by itself."""
    asked = {"model": pooled.model, "input": "a text", "encoding_format": "base64"}
    _, answer = post(pooled, "/v1/embeddings", asked)
    found = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")
    _, plain = post(pooled, "/v1/embeddings", {**asked, "encoding_format": "float"})
    assert np.array_equal(found, np.array(plain["data"][0]["embedding"]).astype("<f4"))
    by_itself = pooled.client.embeddings.create(model=pooled.model, input="a text").data[0].embedding
    assert np.allclose(by_itself, found)


@pytest.mark.feature("embeddings: token ids as input")
def test_text_and_its_tokens_are_the_same_input(pooled: Target) -> None:
    """Alone and in lists; `/tokenize` says which ones a text has."""
    _, told = post(pooled, "/tokenize", {"model": pooled.model, "prompt": SENTENCES[4]})
    tokens = told["tokens"]
    assert tokens == RECORDED["xlmr-mean"]["tokens"][4]
    assert told["max_model_len"] == POSITIONS
    embed = pooled.client.embeddings.create
    text = embed(model=pooled.model, input=SENTENCES[4]).data[0].embedding
    for given in (tokens, [tokens, tokens[:5]]):
        assert np.allclose(embed(model=pooled.model, input=given).data[0].embedding, text, atol=1e-3)


@pytest.mark.feature("embeddings: dimensions")
def test_the_models_own_length_may_be_named(pooled: Target) -> None:
    """Another one is one 400 that says what the model has."""
    embed = pooled.client.embeddings.create
    assert len(embed(model=pooled.model, input="a", dimensions=WIDTH).data[0].embedding) == WIDTH
    with pytest.raises(openai.BadRequestError) as caught:
        embed(model=pooled.model, input="a", dimensions=12)
    assert (caught.value.code, caught.value.param) == ("unsupported_feature", "dimensions")
    assert str(WIDTH) in caught.value.message


@pytest.mark.feature("rerank")
def test_documents_come_back_in_the_order_that_transformers_gives_them(pooled: Target) -> None:
    """Scores within 0.001, the best first, with their documents and the number of tokens."""
    for number, query in enumerate(QUERIES):
        answer = rerank(pooled, query=query, documents=[{"text": text} for text in DOCUMENTS])
        assert set(answer) == {"id", "model", "usage", "results"}
        assert answer["model"] == pooled.ranker
        found = [result["relevance_score"] for result in answer["results"]]
        assert found == sorted(found, reverse=True)
        theirs = RECORDED["xlmr-rank"]["scores"][number]
        assert len(answer["results"]) == len(theirs)
        assert all(abs(result["relevance_score"] - theirs[result["index"]]) < 1e-3 for result in answer["results"])
        assert all(
            result["document"] == {"text": DOCUMENTS[result["index"]]} and len(result) == 3
            for result in answer["results"]
        )
        tokens = sum(map(len, RECORDED["xlmr-rank"]["tokens"][number]))
        assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.feature("rerank: top_n, return_documents")
def test_so_many_of_the_best_with_or_without_their_texts(pooled: Target) -> None:
    """`top_n` 0 and what exceeds the documents are all; texts as they are or in objects."""
    documents = list(DOCUMENTS[:6])
    whole = [result["index"] for result in rerank(pooled, query=QUERIES[0], documents=documents)["results"]]
    few = rerank(pooled, query=QUERIES[0], documents=documents, top_n=3, return_documents=False)["results"]
    assert [result["index"] for result in few] == whole[:3]
    assert all(set(result) == {"index", "relevance_score"} for result in few)
    for number in (0, 100):
        found = rerank(pooled, query=QUERIES[0], documents=documents, top_n=number)["results"]
        assert [result["index"] for result in found] == whole


@pytest.mark.feature("rerank: equal documents")
def test_equal_documents_keep_their_order(pooled: Target) -> None:
    """Those with the same score come back as they were given."""
    found = rerank(pooled, query="a", documents=["b", "c", "b", "", "b"])["results"]
    places = [result["index"] for result in found if result["document"]["text"] == "b"]
    scores = {result["relevance_score"] for result in found if result["document"]["text"] == "b"}
    assert len(scores) > 1 or places == [0, 2, 4]


@pytest.mark.feature("embeddings, rerank: overflow is a 400")
def test_what_is_too_long_is_refused_by_name_and_nothing_is_cut(pooled: Target) -> None:
    """The field, the limit, and which of several; by text and by token ids."""
    for given, param in (
        (LONG, "input.0"),
        (["a", LONG, LONG], "input.1"),
        ([[5], [5] * 300], "input.1"),
        (["x" * 100_000], "input.0"),
    ):
        status, answer = post(pooled, "/v1/embeddings", {"model": pooled.model, "input": given})
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert answer["error"]["param"] == param
        assert str(POSITIONS) in answer["error"]["message"]
    status, _ = post(pooled, "/v1/embeddings", {"model": pooled.model, "input": [[5] * POSITIONS]})
    assert status == 200
    for query, documents, param in (("a", ["a", "", LONG], "documents.2"), (LONG, ["a"], "query")):
        asked = {"model": pooled.ranker, "query": query, "documents": documents}
        status, answer = post(pooled, "/v1/rerank", asked)
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert answer["error"]["param"] == param
        assert str(POSITIONS) in answer["error"]["message"]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/embeddings", {"input": ""}, "input"),
    ("/v1/embeddings", {"input": ["a", ""]}, "input.1"),
    ("/v1/embeddings", {"input": [[5, 10_000_000]]}, "input.0"),
    ("/v1/embeddings", {"input": [-1]}, "input"),
    ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ("/v1/embeddings", {"input": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ("/v1/embeddings", {"input": "a", "cache_salt": "mine"}, "cache_salt"),
    ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
    ("/v1/rerank", {"query": "a", "documents": [{"title": "a"}]}, "documents.0.title"),
    ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": -1}, "top_n"),
    ("/v1/rerank", {"query": "a", "documents": ["a"], "max_tokens_per_doc": 5}, "max_tokens_per_doc"),
    ("/v1/rerank", {"query": "a", "documents": ["a"], "instruction": "x"}, "instruction"),
    ("/tokenize", {"messages": [{"role": "user", "content": "x"}]}, "messages"),
]


@pytest.mark.feature("embeddings, rerank: wrong parameters are a 400")
@pytest.mark.parametrize(("path", "body", "param"), BAD, ids=lambda value: str(value)[:50])
def test_a_wrong_parameter_is_named(pooled: Target, path: str, body: dict[str, Any], param: str) -> None:
    """One 400 that says which."""
    model = pooled.ranker if path == "/v1/rerank" else pooled.model
    status, answer = post(pooled, path, {"model": model, **body})
    assert (status, answer["error"]["param"]) == (400, param), answer


@pytest.mark.feature("a model is asked for what it is for")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/rerank", {"query": "x", "documents": ["y"]}),
    ],
)
def test_a_route_that_a_model_is_not_for_is_refused(pooled: Target, path: str, body: dict[str, Any]) -> None:
    """Whatever the engine itself would do with it."""
    served = {"/v1/embeddings": pooled.model, "/v1/rerank": pooled.ranker}.get(path)
    for model in (pooled.model, pooled.ranker):
        status, answer = post(pooled, path, {"model": model, **body})
        if model == served:
            assert status == 200
        else:
            assert (status, answer["error"]["code"]) == (400, "unsupported_feature")


@pytest.mark.feature("embeddings: many at once")
def test_many_at_once_get_what_each_would_alone(pooled: Target) -> None:
    """Requests of mixed lengths at the same time: as one by one, but for roundings."""
    asked = [list(TEXTS[start : start + 1 + start % 4]) for start in range(24)]

    def embed(texts: list[str]) -> np.ndarray:
        answer = pooled.client.embeddings.create(model=pooled.model, input=texts)
        return np.array([entry.embedding for entry in answer.data])

    alone = [embed(texts) for texts in asked]
    with ThreadPoolExecutor(24) as pool:
        together = list(pool.map(embed, asked))
    for one, other in zip(alone, together, strict=True):
        assert (one * other).sum(axis=1).min() >= 0.9999
