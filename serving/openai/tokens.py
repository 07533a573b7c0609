"""POST /tokenize and /detokenize, in vLLM's shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from serving.errors import InvalidRequest
from serving.openai.fields import TOKEN_ID_ARRAY, check_token_ids
from serving.openai.limits import DEFAULT_LIMITS, LLAMACPP, Limits, Serves
from serving.openai.messages import Message, message_of, message_rule, tool_rule
from serving.openai.rules import Array, Closed, Custom, Field, Flag, Refused, Text


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """Text or a chat whose tokens are asked for: exactly one of `prompt` and `messages` is set."""

    model: str | None
    """None is the one model that is served."""
    prompt: str | None
    messages: tuple[Message, ...]
    tools: tuple[dict[str, object], ...]
    add_special_tokens: bool
    """For `prompt`: True where absent. A chat's template writes its own, so there it is False where absent."""
    add_generation_prompt: bool
    body: dict[str, object]

    def __repr__(self) -> str:
        return f"TokenizeRequest(model={self.model!r}, messages={len(self.messages)})"


@dataclass(frozen=True, slots=True)
class DetokenizeRequest:
    """Token ids whose text is asked for."""

    model: str | None
    tokens: tuple[int, ...]
    body: dict[str, object]

    def __repr__(self) -> str:
        return f"DetokenizeRequest(model={self.model!r}, tokens={len(self.tokens)})"


@lru_cache(maxsize=16)
def tokenize_schema(limits: Limits = DEFAULT_LIMITS, serves: Serves = LLAMACPP) -> Closed:
    """The fields of /tokenize."""
    return Closed(
        {
            "model": Field(Text(limits.name_chars, min_chars=1), "May be left out where one model is served."),
            "prompt": Field(Text(), "Either this or `messages`."),
            "messages": Field(Array(message_rule(limits, serves), limits.messages, 1)),
            "tools": Field(Array(tool_rule(limits), limits.tools)),
            "add_special_tokens": Field(Flag()),
            "add_generation_prompt": Field(Flag(), "True where absent."),
            "return_token_strs": Field(Refused("only ids are returned", (False,), Flag())),
            "continue_final_message": Field(Refused("the last message is always closed", (False,), Flag())),
        },
        limits.unknown_fields == "ignore",
        _finish_tokenize,
    )


@lru_cache(maxsize=16)
def detokenize_schema(limits: Limits = DEFAULT_LIMITS) -> Closed:
    """The fields of /detokenize."""
    return Closed(
        {
            "model": Field(Text(limits.name_chars, min_chars=1), "May be left out where one model is served."),
            "tokens": Field(Custom(check_token_ids, TOKEN_ID_ARRAY), required=True),
        },
        limits.unknown_fields == "ignore",
    )


def parse_tokenize(
    body: dict[str, object], limits: Limits = DEFAULT_LIMITS, *, serves: Serves = LLAMACPP
) -> TokenizeRequest:
    """The typed view of a parsed body. Raises InvalidRequest or UnsupportedFeature with the field at fault."""
    checked = tokenize_schema(limits, serves).check_object(body, "")
    messages = cast("list[dict[str, object]]", checked.get("messages", ()))
    return TokenizeRequest(
        model=cast("str | None", checked.get("model")),
        prompt=cast("str | None", checked.get("prompt")),
        messages=tuple(map(message_of, messages)),
        tools=tuple(cast("list[dict[str, object]]", checked.get("tools", ()))),
        add_special_tokens=cast("bool", checked.get("add_special_tokens", not messages)),
        add_generation_prompt=checked.get("add_generation_prompt") is not False,
        body=checked,
    )


def parse_detokenize(body: dict[str, object], limits: Limits = DEFAULT_LIMITS) -> DetokenizeRequest:
    """The typed view of a parsed body. Raises InvalidRequest with the field at fault."""
    checked = detokenize_schema(limits).check_object(body, "")
    return DetokenizeRequest(
        model=cast("str | None", checked.get("model")),
        tokens=tuple(cast("list[int]", checked["tokens"])),
        body=checked,
    )


def _finish_tokenize(checked: dict[str, object], _path: str) -> None:
    if ("prompt" in checked) == ("messages" in checked):
        raise InvalidRequest("exactly one of `prompt` and `messages` is needed", param="prompt")
    if "prompt" in checked:
        for name in ("tools", "add_generation_prompt"):
            if name in checked:
                raise InvalidRequest(f"`{name}` is only accepted with `messages`", param=name)
