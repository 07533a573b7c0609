"""What a prompt must be before a model works on it, and the conversation as its template writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from serving.errors import ContextLengthExceeded, InvalidRequest, UnsupportedFeature
from serving.generation.template import ChatTemplate, Piece
from serving.openai import ChatRequest, Sampling, TokenizeRequest

_MOST_CONTAINERS: Final = 65_536
"""Arrays and objects in the arguments of a conversation's tool calls; the template writes each of them out."""


def check_tokens(tokens: Sequence[int], n_vocab: int, param: str) -> None:
    """Raises InvalidRequest for an id that the vocabulary does not have."""
    for token in (min(tokens, default=0), max(tokens, default=0)):
        if not 0 <= token < n_vocab:
            raise InvalidRequest(f"token id {token} is not in the vocabulary (0 to {n_vocab - 1})", param=param)


def render(
    template: ChatTemplate | None, body: ChatRequest | TokenizeRequest, *, context: int, longest_piece: int
) -> list[Piece]:
    """The conversation as the model's own template writes it. `longest_piece` in bytes, `context` in tokens."""
    if template is None:
        raise UnsupportedFeature(
            "the model carries no chat template, so it cannot hold a conversation",
            param="messages",
            hint="use /v1/completions, or serve weights that come with a template",
        )
    size = sum(len(message.content or "") for message in body.messages)
    if size > context * longest_piece:  # before the template works through it
        raise ContextLengthExceeded(
            f"the messages have {size} characters, which is more than {context} tokens of context can hold",
            hint="shorten the conversation, or serve the model with a larger context",
        )
    arguments = [call.arguments for message in body.messages for call in message.tool_calls]
    if sum(text.count("[") + text.count("{") for text in arguments) > _MOST_CONTAINERS:
        raise InvalidRequest(f"the tool calls hold more than {_MOST_CONTAINERS} arrays and objects", param="messages")
    generation = body.add_generation_prompt if isinstance(body, TokenizeRequest) else True
    return template.render(
        [message.for_template() for message in body.messages], body.tools, add_generation_prompt=generation
    )


def room_for_answer(context: int, prompt: int, sampling: Sampling) -> int:
    """Tokens that the answer may have. Raises where prompt and answer do not fit; nothing is ever cut off."""
    wanted = sampling.max_tokens
    if prompt == 0:
        raise InvalidRequest("the prompt is empty", param="prompt")
    if prompt + max(wanted or 1, 1) > context:
        asked = f" and {wanted} more were asked for" if wanted else ""
        raise ContextLengthExceeded(
            f"the prompt has {prompt} tokens{asked}; the context holds {context}",
            param="max_tokens" if wanted and prompt < context else "messages",
            hint="shorten the prompt or lower max_tokens, or serve the model with a larger context",
        )
    return wanted if wanted is not None else context - prompt
