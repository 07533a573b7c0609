"""The routes that reach an engine: the allow-list. Nothing else of an engine can be reached through the gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from serving.openai import (
    Limits,
    chat_schema,
    completion_schema,
    detokenize_schema,
    embeddings_schema,
    rerank_schema,
    tokenize_schema,
)
from serving.openai.fields import wants_usage
from serving.openai.limits import Serves
from serving.pooling import Task


@dataclass(frozen=True, slots=True)
class Call:
    """A checked request in the terms that the pipeline needs, whatever its route."""

    stream: bool
    include_usage: bool
    """The client itself wants the usage chunk."""
    body: dict[str, object]
    """The checked fields; what the engine receives is made from this and from nothing else."""
    runs_model: bool = True
    """False where the engine only looks texts up in its vocabulary: no tokens are used then."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route to an engine."""

    name: str
    """As metrics and logs call it."""
    path: str
    check: Callable[[dict[str, object], Limits, Serves], Call]
    needs_tokenize: bool = False
    task: Task | None = None
    """What the model must be for; None where it does not matter."""


# The views that an engine reads are not built here: the gateway needs the checked fields alone.


def _chat(body: dict[str, object], limits: Limits, serves: Serves) -> Call:
    return _generation(chat_schema(limits, serves).check_object(body, ""))


def _completion(body: dict[str, object], limits: Limits, serves: Serves) -> Call:
    return _generation(completion_schema(limits, serves).check_object(body, ""))


def _generation(checked: dict[str, object]) -> Call:
    return Call(checked.get("stream") is True, wants_usage(checked), checked)


def _embeddings(body: dict[str, object], limits: Limits, _serves: Serves) -> Call:
    return _whole(embeddings_schema(limits).check_object(body, ""))


def _rerank(body: dict[str, object], limits: Limits, _serves: Serves) -> Call:
    return _whole(rerank_schema(limits).check_object(body, ""))


def _tokenize(body: dict[str, object], limits: Limits, serves: Serves) -> Call:
    return _whole(tokenize_schema(limits, serves).check_object(body, ""), runs_model=False)


def _detokenize(body: dict[str, object], limits: Limits, _serves: Serves) -> Call:
    return _whole(detokenize_schema(limits).check_object(body, ""), runs_model=False)


def _whole(checked: dict[str, object], *, runs_model: bool = True) -> Call:
    """A call whose answer is never streamed."""
    return Call(stream=False, include_usage=False, body=checked, runs_model=runs_model)


ROUTES: Final = (
    Route("chat.completions", "/v1/chat/completions", _chat, task="generate"),
    Route("completions", "/v1/completions", _completion, task="generate"),
    Route("embeddings", "/v1/embeddings", _embeddings, task="embed"),
    Route("rerank", "/v1/rerank", _rerank, task="rerank"),
    Route("tokenize", "/tokenize", _tokenize, needs_tokenize=True),
    Route("detokenize", "/detokenize", _detokenize, needs_tokenize=True),
)
