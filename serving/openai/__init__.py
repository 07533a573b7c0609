"""OpenAI's HTTP schema: the one place that knows it, for the gateway and for engine servers alike.

`parse_body` turns a client's bytes into one value that every strict reader would read the same way; `parse_chat` and
its siblings check that value against a route's closed schema and give a frozen, typed view; `serialise` is the only
way back to bytes; `responses` builds what is answered.
"""

from serving.openai import responses
from serving.openai.chat import ChatRequest, chat_schema, parse_chat
from serving.openai.completion import CompletionRequest, completion_schema, parse_completion
from serving.openai.embeddings import EmbeddingsRequest, embeddings_body, embeddings_schema, parse_embeddings
from serving.openai.fields import Sampling
from serving.openai.limits import DEFAULT_LIMITS, LLAMACPP, Limits, Serves
from serving.openai.messages import Message, ToolCall
from serving.openai.rerank import RerankRequest, parse_rerank, rerank_body, rerank_schema
from serving.openai.responses import Usage
from serving.openai.strict import parse_body, serialise
from serving.openai.tokens import (
    DetokenizeRequest,
    TokenizeRequest,
    detokenize_schema,
    parse_detokenize,
    parse_tokenize,
    tokenize_schema,
)

__all__ = [
    "DEFAULT_LIMITS",
    "LLAMACPP",
    "ChatRequest",
    "CompletionRequest",
    "DetokenizeRequest",
    "EmbeddingsRequest",
    "Limits",
    "Message",
    "RerankRequest",
    "Sampling",
    "Serves",
    "TokenizeRequest",
    "ToolCall",
    "Usage",
    "chat_schema",
    "completion_schema",
    "detokenize_schema",
    "embeddings_body",
    "embeddings_schema",
    "parse_body",
    "parse_chat",
    "parse_completion",
    "parse_detokenize",
    "parse_embeddings",
    "parse_rerank",
    "parse_tokenize",
    "rerank_body",
    "rerank_schema",
    "responses",
    "serialise",
    "tokenize_schema",
]
