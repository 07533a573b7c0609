"""Bodies and stream events in OpenAI's shapes, built for a small cost per token.

In a stream all but the new text is the same in every chunk, so it is serialised once and only the text is encoded per
token. Text must be free of lone surrogates, which decoded UTF-8 always is.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Final, Literal

from serving.openai.strict import serialise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serving.errors import ServingError
    from serving.openai.messages import ToolCall

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Logprobs = dict[str, object]

DONE: Final = b"data: [DONE]\n\n"
"""The last event of a stream that ended well; one that broke ends with `error_event` instead."""
KEEP_ALIVE: Final = b": waiting\n\n"
"""An SSE comment: no event to any client, and traffic to every time-out on the way."""

_MARK: Final = "\x00text\x00"
_MARK_JSON: Final = encode_basestring(_MARK)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a request used. `cached_tokens` of the prompt were not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int | None = None
    """Those of the answer that the model said to itself; None where nobody counted them."""
    cache_write_tokens: int = 0
    """Those of the prompt that were put into a cache whose filling is charged for; a destination elsewhere has such."""

    def as_body(self) -> dict[str, object]:
        """The `usage` object."""
        details = {"cached_tokens": self.cached_tokens}
        if self.cache_write_tokens:
            details["cache_write_tokens"] = self.cache_write_tokens
        body: dict[str, object] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": details,
        }
        if self.reasoning_tokens is not None:
            body["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return body


@dataclass(frozen=True, slots=True)
class Choice:
    """One whole answer to a request; its place among the others is its `index`."""

    text: str
    finish_reason: FinishReason
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str | None = None
    """What the model said to itself first; None where it is not told apart from the answer."""
    logprobs: Logprobs | None = None
    """In the shape of its route (`serving.openai.logprobs`); None where they were not asked for."""


def new_id(prefix: Literal["chatcmpl", "cmpl", "call"]) -> str:
    """A fresh id such as `chatcmpl-…`; unguessable."""
    return f"{prefix}-{secrets.token_hex(16)}"


def event(value: object) -> bytes:
    """`value` as one server-sent event."""
    return b"data: " + serialise(value) + b"\n\n"


def error_event(error: ServingError) -> bytes:
    """The last event of a stream that broke; no `[DONE]` follows."""
    return event(error.for_client())


class _Stream:
    """What chat and text streams share: chunks as a fixed prefix, the text as JSON, a fixed suffix."""

    __slots__ = ("_head", "_prefix", "_suffix")

    def __init__(self, head: dict[str, object], choice: dict[str, object]) -> None:
        self._head = head
        prefix, _, suffix = event({**head, "choices": [choice]}).decode().partition(_MARK_JSON)
        self._prefix = prefix.encode()
        self._suffix = suffix.encode()

    def start(self) -> bytes:
        """What comes before the first text: nothing, where the protocol has nothing to say."""
        return b""

    def text(self, text: str) -> bytes:
        """A chunk with more text of the answer."""
        return self._prefix + encode_basestring(text).encode() + self._suffix

    def usage(self, usage: Usage) -> bytes:
        """The chunk that ends a stream whose client asked for usage: no choices, only the counts."""
        return event({**self._head, "choices": [], "usage": usage.as_body()})


class ChatStream(_Stream):
    """The chunks of one streamed chat completion: `start`, `text` …, `finish`, perhaps `usage`, then DONE."""

    __slots__ = ("_index",)

    def __init__(self, response_id: str, model: str, created: int, *, index: int = 0) -> None:
        head = {"id": response_id, "object": "chat.completion.chunk", "created": created, "model": model}
        super().__init__(head, {"index": index, "delta": {"content": _MARK}, "logprobs": None, "finish_reason": None})
        self._index = index

    def start(self) -> bytes:
        """The first chunk, which says that the assistant speaks."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def reasoning(self, text: str) -> bytes:
        """A chunk with more of what the model says to itself, under vLLM's name for it."""
        return self._chunk({"reasoning": text})

    def call_start(self, index: int, call_id: str, name: str) -> bytes:
        """The chunk that begins the tool call `index`; its arguments follow."""
        function = {"name": name, "arguments": ""}
        return self._chunk({"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]})

    def call_arguments(self, index: int, text: str) -> bytes:
        """A chunk with more of the arguments of the tool call `index`."""
        return self._chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]})

    def likely(self, text: str, logprobs: Logprobs) -> bytes:
        """As `text`, with the log-probabilities of the tokens that made it."""
        return self._chunk({"content": text}, None, logprobs)

    def finish(self, reason: FinishReason, logprobs: Logprobs | None = None) -> bytes:
        """The chunk that says why the answer ended; `logprobs` of tokens that gave no text."""
        return self._chunk({}, reason, logprobs)

    def _chunk(
        self, delta: dict[str, object], reason: FinishReason | None = None, logprobs: Logprobs | None = None
    ) -> bytes:
        choice = {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event({**self._head, "choices": [choice]})


class CompletionStream(_Stream):
    """The chunks of one streamed completion: `text` …, `finish`, perhaps `usage`, then DONE."""

    __slots__ = ("_index",)

    def __init__(self, response_id: str, model: str, created: int, *, index: int = 0) -> None:
        head = {"id": response_id, "object": "text_completion", "created": created, "model": model}
        super().__init__(head, {"index": index, "text": _MARK, "logprobs": None, "finish_reason": None})
        self._index = index

    def likely(self, text: str, logprobs: Logprobs) -> bytes:
        """As `text`, with the log-probabilities of the tokens that made it."""
        return self._chunk(text, None, logprobs)

    def finish(self, reason: FinishReason, logprobs: Logprobs | None = None) -> bytes:
        """The chunk that says why the answer ended; `logprobs` of tokens that gave no text."""
        return self._chunk("", reason, logprobs)

    def _chunk(self, text: str, reason: FinishReason | None, logprobs: Logprobs | None) -> bytes:
        choice = {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return event({**self._head, "choices": [choice]})


def chat_completion(
    *, response_id: str, model: str, created: int, choices: Sequence[Choice], usage: Usage | None
) -> bytes:
    """The body of a chat completion that is not streamed; `created` in seconds since the epoch.

    `usage` is None where nobody knows it.
    """
    bodies = []
    for index, choice in enumerate(choices):
        # an answer that was cut while it thought has no content, as one of calls alone has none
        content = choice.text or None if choice.tool_calls or choice.reasoning else choice.text
        message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
        if choice.reasoning is not None:
            message["reasoning"] = choice.reasoning
        if choice.tool_calls:
            message["tool_calls"] = [_call_body(call) for call in choice.tool_calls]
        bodies.append(
            {"index": index, "message": message, "logprobs": choice.logprobs, "finish_reason": choice.finish_reason}
        )
    return _whole(response_id, "chat.completion", model, created, bodies, usage)


def completion(*, response_id: str, model: str, created: int, choices: Sequence[Choice], usage: Usage) -> bytes:
    """The body of a completion that is not streamed; `created` in seconds since the epoch."""
    bodies = [
        {"index": index, "text": choice.text, "logprobs": choice.logprobs, "finish_reason": choice.finish_reason}
        for index, choice in enumerate(choices)
    ]
    return _whole(response_id, "text_completion", model, created, bodies, usage)


def _whole(
    response_id: str, kind: str, model: str, created: int, choices: Sequence[Mapping[str, object]], usage: Usage | None
) -> bytes:
    head = {"id": response_id, "object": kind, "created": created, "model": model}
    return serialise({**head, "choices": choices, "usage": None if usage is None else usage.as_body()})


def model_card(
    name: str, *, created: int, max_model_len: int | None = None, dummy: bool = False, parent: str | None = None
) -> dict[str, object]:
    """One entry of /v1/models; `max_model_len` in tokens, None where it is not known yet.

    A model with synthetic weights (`dummy`) says so; an adapter names the model that it changes, its `parent`.
    """
    noise = {"dummy_weights": True, "note": "synthetic weights: every answer is noise"} if dummy else {}
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "perimeter",
        "max_model_len": max_model_len,
        **({"parent": parent} if parent is not None else {}),
        **noise,
    }


def model_list(cards: Sequence[dict[str, object]]) -> bytes:
    """The body of /v1/models."""
    return serialise({"object": "list", "data": list(cards)})


def tokenized(tokens: Sequence[int], *, max_model_len: int) -> bytes:
    """The body that answers /tokenize."""
    return serialise({"count": len(tokens), "max_model_len": max_model_len, "tokens": list(tokens)})


def detokenized(text: str) -> bytes:
    """The body that answers /detokenize."""
    return serialise({"prompt": text})


def error_body(error: ServingError) -> bytes:
    """The body of any error, in OpenAI's shape."""
    return serialise(error.for_client())


def _call_body(call: ToolCall) -> dict[str, object]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
