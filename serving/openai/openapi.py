"""The OpenAPI description of the routes that reach an engine, derived from the rules that check them."""

from __future__ import annotations

from serving.openai.chat import chat_schema
from serving.openai.completion import completion_schema
from serving.openai.embeddings import embeddings_schema
from serving.openai.limits import DEFAULT_LIMITS, LLAMACPP, Limits, Serves
from serving.openai.rerank import rerank_schema
from serving.openai.rules import JsonSchema
from serving.openai.tokens import detokenize_schema, tokenize_schema

_TEXT: JsonSchema = {"type": "string"}
_COUNT: JsonSchema = {"type": "integer", "minimum": 0}
_TEXT_OR_NULL: JsonSchema = {"type": ["string", "null"]}

ERROR: JsonSchema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT},
        }
    },
}
"""Every error body."""

_USAGE: JsonSchema = {
    "type": "object",
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "properties": {
        "prompt_tokens": _COUNT,
        "completion_tokens": _COUNT,
        "total_tokens": _COUNT,
        "prompt_tokens_details": {"type": "object", "properties": {"cached_tokens": _COUNT}},
    },
}


_INPUT_USAGE: JsonSchema = {
    "type": "object",
    "required": ["prompt_tokens", "total_tokens"],
    "properties": {"prompt_tokens": _COUNT, "total_tokens": _COUNT},
}


def paths(limits: Limits = DEFAULT_LIMITS, serves: Serves = LLAMACPP) -> dict[str, JsonSchema]:
    """The `paths` of the document."""
    message: JsonSchema = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"const": "assistant"},
            "content": _TEXT_OR_NULL,
            "refusal": _TEXT_OR_NULL,
            "tool_calls": {"type": "array", "items": {"type": "object"}},
        },
    }
    return {
        "/v1/chat/completions": _post(
            "Answer a conversation",
            chat_schema(limits, serves).describe(),
            _generated("chat.completion", {"message": message}),
            streams=True,
        ),
        "/v1/completions": _post(
            "Continue a text",
            completion_schema(limits, serves).describe(),
            _generated("text_completion", {"text": _TEXT}),
            streams=True,
        ),
        "/v1/embeddings": _post(
            "The embeddings of some texts",
            embeddings_schema(limits).describe(),
            _object(
                object={"const": "list"},
                data=_list_of(
                    object={"const": "embedding"},
                    index=_COUNT,
                    embedding={"anyOf": [{"type": "array", "items": {"type": "number"}}, _TEXT]},
                ),
                model=_TEXT,
                usage=_INPUT_USAGE,
            ),
        ),
        "/v1/rerank": _post(
            "Documents in the order in which they answer a query",
            rerank_schema(limits).describe(),
            _object(
                id=_TEXT,
                model=_TEXT,
                usage=_INPUT_USAGE,
                results=_list_of(index=_COUNT, relevance_score={"type": "number"}),
            ),
        ),
        "/tokenize": _post(
            "The tokens of a text or of a conversation",
            tokenize_schema(limits, serves).describe(),
            _object(count=_COUNT, max_model_len=_COUNT, tokens={"type": "array", "items": _COUNT}),
        ),
        "/detokenize": _post("The text of some tokens", detokenize_schema(limits).describe(), _object(prompt=_TEXT)),
    }


def _object(**properties: JsonSchema) -> JsonSchema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list_of(**properties: JsonSchema) -> JsonSchema:
    return {"type": "array", "items": _object(**properties)}


def _generated(kind: str, choice: dict[str, JsonSchema]) -> JsonSchema:
    logprobs: JsonSchema = {"type": ["object", "null"]}
    reason: JsonSchema = {"enum": ["stop", "length", "tool_calls", "content_filter", None]}
    return _object(
        id=_TEXT,
        object={"const": kind},
        created=_COUNT,
        model=_TEXT,
        choices={"type": "array", "items": _object(index=_COUNT, finish_reason=reason, logprobs=logprobs, **choice)},
        usage=_USAGE,
    )


def _post(summary: str, body: JsonSchema, answer: JsonSchema, *, streams: bool = False) -> JsonSchema:
    good: JsonSchema = {"application/json": {"schema": answer}}
    if streams:
        good["text/event-stream"] = {"schema": _TEXT}
    error: JsonSchema = {"content": {"application/json": {"schema": ERROR}}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {"description": "The answer; events where `stream` is true", "content": good},
                "400": {"description": "The request is malformed, or asks for what is not served", **error},
                "404": {"description": "No such model", **error},
                "408": {"description": "The body took too long", **error},
                "413": {"description": "The body is too large", **error},
                "500": {"description": "Our own bug", **error},
                "503": {
                    "description": "Not now; Retry-After says when",
                    "headers": {"Retry-After": {"schema": _COUNT}},
                    **error,
                },
            },
        }
    }
