"""What a stack is asked while it is watched: every kind of request, and those that name a URL. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

NOWHERE: Final = "http://192.0.2.1/perimeter-must-not-fetch-this"
"""Of the range that is kept for documentation (RFC 5737): nobody is there to be reached."""
_TOKENS: Final = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    what: str
    method: str
    path: str
    body: Any = field(default=None, repr=False)
    computes: bool = False
    """Its answer comes from an engine's model: at least one of these has to succeed."""


def requests_for(model: str) -> tuple[Asked, ...]:
    """Every kind of request there is; those that are not for such a model are refused, which is watched as well."""
    said = [{"role": "user", "content": "Who are you?"}]
    chat: dict[str, Any] = {"model": model, "messages": said, "max_tokens": _TOKENS}
    tool = {
        "type": "function",
        "function": {
            "name": "look_up",
            "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        },
    }
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    elsewhere = {**schema, "properties": {"name": {"$ref": f"{NOWHERE}.json"}}}
    picture = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": NOWHERE}}]
    sound = [{"type": "input_audio", "input_audio": {"data": NOWHERE, "format": "wav"}}]

    def formatted(wanted: object) -> dict[str, Any]:
        return {**chat, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": wanted}}}

    v1 = "/v1/chat/completions"
    return (
        Asked("list of models", "GET", "/v1/models"),
        Asked("metrics", "GET", "/metrics"),
        Asked("chat, whole", "POST", v1, chat, computes=True),
        Asked("chat, streamed", "POST", v1, {**chat, "stream": True}, computes=True),
        Asked("completion", "POST", "/v1/completions", {"model": model, "prompt": "a", "max_tokens": _TOKENS}, True),  # noqa: FBT003 - reads as the field
        Asked("tools", "POST", v1, {**chat, "tools": [tool]}),
        Asked("JSON schema", "POST", v1, formatted(schema)),
        Asked("JSON schema that names a URL", "POST", v1, formatted(elsewhere)),
        Asked("picture by its URL", "POST", v1, {**chat, "messages": [{"role": "user", "content": picture}]}),
        Asked("sound by its URL", "POST", v1, {**chat, "messages": [{"role": "user", "content": sound}]}),
        Asked("URL in the text", "POST", v1, {**chat, "messages": [{"role": "user", "content": NOWHERE}]}),
        Asked("URL as the model", "POST", v1, {**chat, "model": NOWHERE}),
        Asked("embeddings", "POST", "/v1/embeddings", {"model": model, "input": ["a", "b"]}, computes=True),
        Asked("rerank", "POST", "/v1/rerank", {"model": model, "query": "a", "documents": ["a", "b"]}, computes=True),
        Asked("tokens", "POST", "/tokenize", {"model": model, "prompt": "one two"}),
        Asked("the API's description", "GET", "/openapi.json"),
    )


def mistakes_for(model: str) -> tuple[Asked, ...]:
    """Requests that cannot be served."""
    path = "/v1/chat/completions"
    return (
        Asked("a body that is no JSON", "POST", path, b"{"),
        Asked("no messages", "POST", path, {"model": model, "messages": []}),
        Asked("a model that is not served", "POST", path, {"model": "nobody", "messages": []}),
        Asked("a prompt beyond the context", "POST", "/v1/completions", {"model": model, "prompt": "word " * 300_000}),
        Asked("a path that is not there", "GET", "/v1/nothing"),
    )
