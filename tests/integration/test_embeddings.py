"""Chat, embeddings and a reranker behind one URL: real engines, the official client."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest

from serving.engines.runtime import socket_in
from tests.llamacpp.encoders.texts import DOCUMENTS, QUERIES, SENTENCES, TEXTS
from tests.llamacpp.encoders.weights import ENCODERS, POSITIONS, write_gguf
from tests.support.harness import SOURCE, Gateway, gateway, wait_until

DEMO = SOURCE / "serving" / "models" / "demo" / "demo-q8_0.gguf"
EMBEDDER, RANKER = ENCODERS["xlmr-mean"], ENCODERS["xlmr-rank"]
RECORDED = json.loads((SOURCE / "tests/llamacpp/encoders/transformers.json").read_text())


def argv_of(model: Path, socket: Path, alias: str, *more: str) -> list[str]:
    """An engine as the planner would start it."""
    argv = [sys.executable, "-m", "serving.llamacpp", "--model", str(model), "--uds", str(socket), "--alias", alias]
    return [*argv, "--ctx", str(POSITIONS), "--threads", "2", *more]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The demo model as `m`, an embedder as `e`, a reranker as `r`."""
    directory = tmp_path_factory.mktemp("g")
    run = directory / "run"
    others = [
        {
            "model": alias,
            "tasks": [task],
            "socket": str(socket_in(run, alias)),
            "argv": argv_of(write_gguf(encoder, directory), socket_in(run, alias), alias, "--task", task),
        }
        for alias, task, encoder in (("e", "embed", EMBEDDER), ("r", "rerank", RANKER))
    ]
    environment = {"PYTHONPATH": str(SOURCE), "OMP_WAIT_POLICY": "passive", "GGML_NO_BACKTRACE": "1"}
    argv = argv_of(DEMO, socket_in(run, "engine"), "m", "--parallel", "2")
    with gateway(directory, argv=argv, others=others, env=environment) as running:
        yield running


@pytest.fixture
def client(served: Gateway) -> Iterator[openai.OpenAI]:
    host, port = served.address
    with openai.OpenAI(base_url=f"http://{host}:{port}/v1", api_key="none", max_retries=0) as client:
        yield client


def embed(served: Gateway, given: object, **fields: object) -> np.ndarray:
    """The vectors of one request."""
    answer = served.post("/v1/embeddings", {"model": "e", "input": given, **fields})
    assert answer.status == 200, answer.body
    return np.array([entry["embedding"] for entry in answer.json["data"]])


def test_the_official_client_gets_what_transformers_computes(client: openai.OpenAI) -> None:
    """As base64, which it asks for by itself, and as numbers: the same vectors of length 1, in order, with usage."""
    by_itself = client.embeddings.create(model="e", input=list(TEXTS))
    as_numbers = client.embeddings.create(model="e", input=list(TEXTS), encoding_format="float")
    found = np.array([entry.embedding for entry in by_itself.data])
    assert np.array_equal(found, np.array([entry.embedding for entry in as_numbers.data]).astype("f4").astype("f8"))
    assert [entry.index for entry in by_itself.data] == list(range(len(TEXTS)))
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert (found * np.array(RECORDED["xlmr-mean"]["embeddings"])).sum(axis=1).min() >= 0.999
    tokens = sum(map(len, RECORDED["xlmr-mean"]["tokens"]))
    assert (by_itself.usage.prompt_tokens, by_itself.usage.total_tokens) == (tokens, tokens)


def test_base64_is_the_bytes_of_the_numbers(served: Gateway) -> None:
    """Little-endian 32-bit floats."""
    (numbers,) = embed(served, "a text")
    answer = served.post("/v1/embeddings", {"model": "e", "input": "a text", "encoding_format": "base64"})
    data = base64.b64decode(answer.json["data"][0]["embedding"])
    assert np.array_equal(np.frombuffer(data, "<f4"), numbers.astype("f4"))


def test_text_and_its_tokens_are_the_same_input(served: Gateway) -> None:
    """Token ids, alone and in lists, go to the model as they are; `/tokenize` says which ones a text has."""
    tokens = served.post("/tokenize", {"model": "e", "prompt": SENTENCES[4]}).json["tokens"]
    assert tokens == RECORDED["xlmr-mean"]["tokens"][4]
    text = embed(served, SENTENCES[4])
    assert np.allclose(embed(served, tokens), text)
    assert np.allclose(embed(served, [tokens, tokens[:5]])[0], text, atol=1e-3)


def test_documents_come_back_in_the_order_that_transformers_gives_them(served: Gateway) -> None:
    """Scores within 0.001, the best first, with their documents and the number of tokens; `top_n` of them."""
    for number, query in enumerate(QUERIES):
        asked = {"model": "r", "query": query, "documents": [{"text": text} for text in DOCUMENTS]}
        answer = served.post("/v1/rerank", asked).json
        theirs = RECORDED["xlmr-rank"]["scores"][number]
        scores = {result["index"]: result["relevance_score"] for result in answer["results"]}
        assert all(abs(scores[index] - score) < 1e-3 for index, score in enumerate(theirs))
        found = [result["relevance_score"] for result in answer["results"]]
        assert found == sorted(found, reverse=True)
        assert all(result["document"]["text"] == DOCUMENTS[result["index"]] for result in answer["results"])
        tokens = sum(map(len, RECORDED["xlmr-rank"]["tokens"][number]))
        assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        few = served.post("/v1/rerank", {**asked, "top_n": 3, "return_documents": False}).json["results"]
        assert [result["index"] for result in few] == [result["index"] for result in answer["results"][:3]]
        assert all("document" not in result for result in few)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/rerank", {"query": "x", "documents": ["y"]}),
    ],
)
@pytest.mark.parametrize("model", ["m", "e", "r"])
def test_a_model_is_asked_for_what_it_is_for(served: Gateway, path: str, body: dict, model: str) -> None:
    """Anything else is one 400 that names the model, what it serves, and the models that would do."""
    right = {"/v1/embeddings": "e", "/v1/rerank": "r"}.get(path, "m")
    answer = served.post(path, {"model": model, **body})
    if model == right:
        assert answer.status == 200
        return
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unsupported_feature", "model")
    assert f"`{model}` serves" in answer.error["message"]
    assert f"`{right}`" in answer.error["message"]


def test_what_is_too_long_is_named_and_nothing_is_cut(served: Gateway) -> None:
    """The index, its tokens and the limit; by text, by token ids, and for a query with a document."""
    long = "word " * POSITIONS
    for given in (["a", long], [[5], [5] * 300]):
        refused = served.post("/v1/embeddings", {"model": "e", "input": given})
        assert (refused.status, refused.error["code"]) == (400, "context_length_exceeded")
        assert refused.error["param"] == "input.1"
        assert str(POSITIONS) in refused.error["message"]
    assert "300" in refused.error["message"]
    assert len(embed(served, [[5] * POSITIONS])) == 1
    refused = served.post("/v1/rerank", {"model": "r", "query": "a", "documents": ["a", "", long]})
    assert (refused.status, refused.error["param"]) == (400, "documents.2")
    refused = served.post("/v1/rerank", {"model": "r", "query": long, "documents": ["a"]})
    assert (refused.status, refused.error["param"]) == (400, "query")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input.1"),
        ({"input": [[5], []]}, "input.1"),
        ({"input": ["a", [5]]}, "input.1"),
        ({"input": [[5], "a"]}, "input.1"),
        ({"input": [-1]}, "input"),
        ({"input": [5, -(2**31)]}, "input"),
        ({"input": [2**40]}, "input"),
        ({"input": [True]}, "input.0"),
        ({"input": [[5, 10_000_000]]}, "input.0"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": "a", "dimensions": 12}, "dimensions"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "stream": True}, "stream"),
        ({}, "input"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bodies_that_are_refused(served: Gateway, fields: dict, param: str) -> None:
    """A 400 that names the field, and the same engine afterwards."""
    answer = served.post("/v1/embeddings", {"model": "e", **fields})
    assert (answer.status, answer.error["param"]) == (400, param)
    assert len(embed(served, "a", dimensions=EMBEDDER.width)) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": "", "documents": ["a"]}, "query"),
        ({"query": "a", "documents": []}, "documents"),
        ({"query": "a", "documents": ["a", 5]}, "documents.1"),
        ({"query": "a", "documents": [{"title": "a"}]}, "documents.0.title"),
        ({"query": "a", "documents": ["a"], "top_n": -1}, "top_n"),
        ({"query": "a", "documents": ["a"], "top_n": 2**31}, "top_n"),
        ({"query": "a", "documents": ["a"] * 2049}, "documents"),
        ({"query": "a", "documents": ["a"], "max_tokens_per_doc": 5}, "max_tokens_per_doc"),
        ({"query": ["a"], "documents": ["a"]}, "query"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_rankings_that_are_refused(served: Gateway, fields: dict, param: str) -> None:
    """A 400 that names the field."""
    answer = served.post("/v1/rerank", {"model": "r", **fields})
    assert (answer.status, answer.error["param"]) == (400, param)


@pytest.mark.parametrize(
    "text",
    ["\0", "\u200b\u200d\ufeff", "<s></s><mask>", "\U0001f642" * 60, "\u0301" * 100, "\u2028\u2029\x85 \t\r\n", "￿﷐"],
    ids=ascii,
)
def test_odd_texts_get_numbers_and_end_nothing(served: Gateway, text: str) -> None:
    """Control characters, nothing but spaces, unknown letters, control tokens written out: a vector of length 1."""
    vectors = embed(served, [text, "a"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert served.post("/v1/rerank", {"model": "r", "query": text, "documents": [text, ""]}).status == 200


def test_many_at_once_get_what_each_would_alone(served: Gateway) -> None:
    """32 requests of mixed lengths at the same time: as one by one, but for roundings."""
    asked = [list(TEXTS[start : start + 1 + start % 4]) for start in range(32)]
    alone = [embed(served, texts) for texts in asked]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda texts: embed(served, texts), asked))
    for one, other in zip(alone, together, strict=True):
        assert (one * other).sum(axis=1).min() >= 0.99999
    wait_until(served.is_idle, "no place is lost")


def test_usage_is_settled(served: Gateway) -> None:
    """The tokens of embeddings and rankings are counted for their models, and nothing is estimated."""
    for model, path, body in (
        ("e", "/v1/embeddings", {"input": ["a", "b c"]}),
        ("r", "/v1/rerank", {"query": "a", "documents": ["b"]}),
    ):
        metric = f'perimeter_tokens_total{{kind="prompt",model="{model}"}}'
        before = served.metric(metric)
        used = served.post(path, {"model": model, **body}).json["usage"]["prompt_tokens"]
        assert served.metric(metric) - before == used > 0
    assert served.metric("perimeter_usage_estimated_total") == 0


def test_texts_of_a_client_that_left_are_dropped(served: Gateway) -> None:
    """Ten requests of two thousand texts each, abandoned: the next one does not wait for them."""
    cancelled = served.metric('perimeter_engine_cancelled_total{model="e"')
    body = json.dumps({"model": "e", "input": [TEXTS[-1]] * 2000}).encode()
    clients = [served.client() for _ in range(10)]
    for client in clients:
        client.post("/v1/embeddings", body)
    wait_until(lambda: served.metric('perimeter_engine_waiting{model="e"') > 0, "some wait", 30)
    for client in clients:
        client.close()
    wait_until(served.is_idle, "all are dropped", 20)
    assert served.metric('perimeter_engine_cancelled_total{model="e"') > cancelled
    assert len(embed(served, "a")) == 1
