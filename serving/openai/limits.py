"""How much one request may ask for, and which optional features the engine behind serves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one request body. Frozen and hashable: the schema of a route is built once per value."""

    body_bytes: int = 8 << 20
    """Longest body read from a client, in bytes."""
    depth: int = 64
    """Deepest nesting of arrays and objects."""
    containers: int = 65_536
    """Arrays and objects in one body. Each costs the parser far more than its two bytes."""
    messages: int = 4096
    parts: int = 1024
    """Content parts in one message."""
    tools: int = 128
    tool_calls: int = 128
    """Tool calls in one assistant message."""
    stop: int = 16
    """Stop strings; OpenAI itself takes 4."""
    stop_chars: int = 512
    """Characters in one stop string."""
    stop_token_ids: int = 256
    logit_bias: int = 1024
    """Entries of `logit_bias`."""
    n: int = 8
    """Largest `n` and `best_of`, where the engine serves more than one choice at all."""
    top_logprobs: int = 20
    inputs: int = 2048
    """Texts to embed, or documents to rank; OpenAI's own bound."""
    name_chars: int = 256
    """Characters in a model, participant or tool-call name or id."""
    unknown_fields: Literal["refuse", "ignore"] = "refuse"
    """A field that OpenAI's schema does not know: a 400 that names it, or dropped before anything reads it."""


@dataclass(frozen=True, slots=True)
class Serves:
    """The optional parts of OpenAI's schema that the engine serves; what is False is refused by name."""

    choices: bool = False
    """`n` above 1."""
    logprobs: bool = False
    structured_output: bool = False
    """`response_format` json_object and json_schema."""
    tools: bool = False
    """Tools that may be called: it knows the form in which the model writes its calls, so that it can tell them from
    text, and force them."""
    images: bool = False
    audio: bool = False


DEFAULT_LIMITS = Limits()
"""What holds where nothing else was configured."""
LLAMACPP = Serves(choices=True, logprobs=True, structured_output=True)
"""What the llama.cpp engine serves of any model."""


def serves_of(tool_parser: str | None) -> Serves:
    """What it serves of a model whose calls are in the form that `tool_parser` names."""
    return replace(LLAMACPP, tools=tool_parser is not None)
