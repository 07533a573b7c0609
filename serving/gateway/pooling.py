"""Embeddings and scores from an engine that does not implement our annex: asked and answered as ours are. Pure.

vLLM knows no documents as objects, always sends them back, refuses `dimensions` even where they are the model's own,
and does not say which text is too long. What is checked here is checked as `serving.llamacpp.pooling_server` does.
"""

from __future__ import annotations

import json
from typing import Any, Final

from serving.engines.spec import Texts
from serving.errors import UnsupportedFeature
from serving.gateway.upstream import EngineBroke
from serving.openai import Limits, parse_embeddings, parse_rerank, rerank_body
from serving.openai.texts import check_dimensions, check_ids, too_long

EMBEDDINGS: Final = "/v1/embeddings"
RERANK: Final = "/v1/rerank"
TOKENIZE: Final = "/tokenize"


def body_for(path: str, body: dict[str, object], texts: Texts, model: str, limits: Limits) -> dict[str, object]:
    """What such an engine is sent for a checked body. Raises RequestError for what it would take, or refuse, otherwise.

    Token ids are looked at here, so that errors name the input; texts are tokenised by the engine alone.
    """
    if path == TOKENIZE and "messages" in body:
        raise UnsupportedFeature(f"`{model}` holds no conversations", param="messages", hint="use `prompt`")
    if path == EMBEDDINGS:
        request = parse_embeddings(body, limits)
        check_dimensions(request, texts.width, model)
        for index, given in enumerate(request.inputs):
            if not isinstance(given, str):
                _check_tokens(given, index, texts, model)
        return {name: value for name, value in body.items() if name != "dimensions"}
    if path == RERANK:
        asked = parse_rerank(body, limits)
        return {"model": body["model"], "query": asked.query, "documents": list(asked.documents)}
    return body


def _check_tokens(given: tuple[int, ...], index: int, texts: Texts, model: str) -> None:
    param = f"input.{index}"
    if len(given) > texts.context:
        raise too_long(f"input {index} has {len(given)} tokens", texts.context, model, param)
    if texts.vocabulary is not None:
        check_ids(given, texts.vocabulary, param)


def answer_for(body: dict[str, object], answer: bytes, model: str, limits: Limits) -> bytes:
    """The engine's scores in our shape; `body` is the client's, checked. Raises EngineBroke where a score is missing.

    May take tens of milliseconds for thousands of documents. Embeddings need no such thing and pass as they came.
    """
    asked = parse_rerank(body, limits)
    try:
        told: dict[str, Any] = json.loads(answer)
        scores = {int(result["index"]): float(result["relevance_score"]) for result in told["results"]}
        ordered = [scores[index] for index in range(len(asked.documents))]
        used = int(told["usage"]["prompt_tokens"])
    except (ValueError, RecursionError, KeyError, TypeError):
        raise EngineBroke("the engine did not answer with a score for each document") from None
    return rerank_body(asked, model=model, scores=ordered, prompt_tokens=used)


def count_of(answer: bytes) -> int:
    """The tokens that an engine's `/tokenize` counted. Raises EngineBroke where it did not."""
    try:
        count = json.loads(answer)["count"]
    except (ValueError, RecursionError, KeyError, TypeError):
        count = None
    if not isinstance(count, int):
        raise EngineBroke("the engine did not count the tokens of a text")
    return count
