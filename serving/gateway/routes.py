"""The routes that reach an engine: the allow-list. Nothing else of an engine can be reached through the gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from serving.openai import Limits, chat_schema, completion_schema, detokenize_schema, tokenize_schema
from serving.openai.fields import wants_usage
from serving.openai.limits import Serves


@dataclass(frozen=True, slots=True)
class Call:
    """A checked request in the terms that the pipeline needs, whatever its route."""

    stream: bool
    include_usage: bool
    """The client itself wants the usage chunk."""
    body: dict[str, object]
    """The checked fields; what the engine receives is made from this and from nothing else."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route to an engine."""

    name: str
    """As metrics and logs call it."""
    path: str
    check: Callable[[dict[str, object], Limits, Serves], Call]
    needs_tokenize: bool = False


# The views that an engine reads are not built here: the gateway needs the checked fields alone.


def _chat(body: dict[str, object], limits: Limits, serves: Serves) -> Call:
    return _generation(chat_schema(limits, serves).check_object(body, ""))


def _completion(body: dict[str, object], limits: Limits, serves: Serves) -> Call:
    return _generation(completion_schema(limits, serves).check_object(body, ""))


def _generation(checked: dict[str, object]) -> Call:
    return Call(checked.get("stream") is True, wants_usage(checked), checked)


def _tokenize(body: dict[str, object], limits: Limits, serves: Serves) -> Call:
    return _about_tokens(tokenize_schema(limits, serves).check_object(body, ""))


def _detokenize(body: dict[str, object], limits: Limits, _serves: Serves) -> Call:
    return _about_tokens(detokenize_schema(limits).check_object(body, ""))


def _about_tokens(checked: dict[str, object]) -> Call:
    return Call(stream=False, include_usage=False, body=checked)


ROUTES: Final = (
    Route("chat.completions", "/v1/chat/completions", _chat),
    Route("completions", "/v1/completions", _completion),
    Route("tokenize", "/tokenize", _tokenize, needs_tokenize=True),
    Route("detokenize", "/detokenize", _detokenize, needs_tokenize=True),
)
