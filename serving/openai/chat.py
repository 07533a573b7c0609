"""POST /v1/chat/completions: its closed schema, and the typed view of a request that passed it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from serving.errors import InvalidRequest, UnsupportedFeature
from serving.openai.fields import Sampling, finish_generation, generation_fields, sampling_of, wants_usage
from serving.openai.limits import DEFAULT_LIMITS, LLAMACPP, Limits, Serves
from serving.openai.messages import Message, message_of, message_rule, tool_choice_rule, tool_rule
from serving.openai.references import schema_rule
from serving.openai.rules import (
    AnyObject,
    Array,
    Closed,
    Custom,
    Discarded,
    Field,
    Flag,
    Integer,
    OneOf,
    Refused,
    Rule,
    Tagged,
    Text,
)

_METADATA_PAIRS: Final = 16
_METADATA_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completion that may be computed as it stands, but for what only the engine can check."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    tools: tuple[dict[str, object], ...]
    """As the client sent them, checked: what a chat template is given. Empty where `tool_choice` is none."""
    tool_choice: object
    """`auto`, `none`, `required`, or the object that names one; `none` where there are no tools."""
    parallel_tool_calls: bool
    stream: bool
    include_usage: bool
    """The client wants the usage chunk at the end of its stream."""
    n: int
    logprobs: int | None
    """How many likeliest tokens to report beside each chosen one; None for no log-probabilities at all."""
    response_format: dict[str, object] | None
    body: dict[str, object]
    """The checked fields as they go to an engine: nothing dropped or unknown is in it."""

    def __repr__(self) -> str:
        return f"ChatRequest(model={self.model!r}, messages={len(self.messages)}, stream={self.stream})"


@lru_cache(maxsize=16)
def chat_schema(limits: Limits = DEFAULT_LIMITS, serves: Serves = LLAMACPP) -> Closed:
    """Every field of OpenAI's published schema, and ours, with what is accepted here."""
    fields = generation_fields(limits, serves)
    fields |= {
        "messages": Field(Array(message_rule(limits, serves), limits.messages, 1), required=True),
        "max_completion_tokens": Field(fields["max_tokens"].rule, "Longest answer in tokens."),
        "tools": Field(Array(tool_rule(limits), limits.tools)),
        "tool_choice": Field(tool_choice_rule(limits)),
        "parallel_tool_calls": Field(Flag(), "False allows one call at most."),
        "response_format": Field(_response_format(limits, serves)),
        **_logprobs(limits, serves),
        # What means something to OpenAI's own service only.
        "metadata": Field(Discarded(_metadata()), "Accepted and dropped."),
        "safety_identifier": Field(Discarded(Text()), "Accepted and dropped."),
        "prompt_cache_key": Field(Discarded(Text()), "Accepted and dropped: prefixes are shared without being told."),
        "prompt_cache_options": Field(Discarded(AnyObject()), "Accepted and dropped."),
        "prompt_cache_retention": Field(
            Refused("prefixes are kept while there is room", ("in_memory", "in-memory"), Text())
        ),
        "service_tier": Field(Refused("there is one tier; leave it out", ("auto", "default"), Text())),
        "store": Field(Refused("answers are not stored; leave it out", (False,), Flag())),
        "modalities": Field(Refused("answers are text", (["text"],), Array(Text(), 8))),
        "verbosity": Field(Refused("ask for it in the prompt", ("medium",), OneOf(("low", "medium", "high")))),
        "reasoning_effort": Field(Refused("the model decides; leave it out", ("none",), Text())),
        "audio": Field(Refused("spoken answers are not served")),
        "prediction": Field(Refused("predicted outputs are not served; leave it out")),
        "web_search_options": Field(Refused("nothing is fetched from the web")),
        "moderation": Field(Refused("moderation is not served")),
        "functions": Field(Refused("send `tools`, which replaced it", ([],))),
        "function_call": Field(Refused("send `tool_choice`, which replaced it")),
    }

    def finish(checked: dict[str, object], path: str) -> None:
        finish_generation(checked, path)
        _finish_tools(checked, serves)
        if checked.get("top_logprobs") and checked.get("logprobs") is not True:
            raise InvalidRequest("`top_logprobs` is only accepted with `logprobs: true`", param="top_logprobs")

    return Closed(fields, limits.unknown_fields == "ignore", finish)


def parse_chat(body: dict[str, object], limits: Limits = DEFAULT_LIMITS, *, serves: Serves = LLAMACPP) -> ChatRequest:
    """The typed view of a parsed body. Raises InvalidRequest or UnsupportedFeature with the field at fault."""
    checked = chat_schema(limits, serves).check_object(body, "")
    tools = tuple(cast("list[dict[str, object]]", checked.get("tools", ())))
    choice = checked.get("tool_choice", "auto") if tools else "none"
    logprobs = cast("int", checked.get("top_logprobs", 0)) if checked.get("logprobs") is True else None
    return ChatRequest(
        model=cast("str", checked["model"]),
        messages=tuple(map(message_of, cast("list[dict[str, object]]", checked["messages"]))),
        sampling=sampling_of(checked),
        tools=() if choice == "none" else tools,
        tool_choice=choice,
        parallel_tool_calls=checked.get("parallel_tool_calls") is not False,
        stream=checked.get("stream") is True,
        include_usage=wants_usage(checked),
        n=cast("int", checked.get("n", 1)),
        logprobs=logprobs,
        response_format=cast("dict[str, object] | None", checked.get("response_format")),
        body=checked,
    )


def _finish_tools(checked: dict[str, object], serves: Serves) -> None:
    tools = checked.get("tools")
    if not tools:
        checked.pop("tools", None)
        if checked.pop("tool_choice", "auto") not in ("auto", "none"):
            raise InvalidRequest("`tool_choice` names a tool, and there are no `tools`", param="tool_choice")
    elif not serves.tools and checked.get("tool_choice") != "none":
        # Answered all the same, the calls would come as text, and the client wait for calls.
        raise UnsupportedFeature(
            "`tools` are not served here: the engine does not know the form in which this model writes its calls",
            param="tools",
            hint="`tool_parser` in the model's catalogue entry names it for llama.cpp and vLLM",
        )


def _logprobs(limits: Limits, serves: Serves) -> dict[str, Field]:
    most = Integer(0, limits.top_logprobs)
    if serves.logprobs:
        return {"logprobs": Field(Flag()), "top_logprobs": Field(most)}
    hint = "log-probabilities are not served by this engine"
    return {
        "logprobs": Field(Refused(hint, (False,), Flag())),
        "top_logprobs": Field(Refused(hint, (0,), most)),
    }


def _response_format(limits: Limits, serves: Serves) -> Rule:
    ignore = limits.unknown_fields == "ignore"
    hint = "answers cannot be constrained by this engine yet; ask for the format in the prompt"
    text = Closed({"type": Field(OneOf(("text",)), required=True)}, ignore)
    if not serves.structured_output:
        return Refused(hint, ({"type": "text"},), Tagged("type", {
            "text": text, "json_object": AnyObject(), "json_schema": AnyObject(),
        }))  # fmt: skip
    schema = Closed(
        {
            "name": Field(Text(64, pattern="[a-zA-Z0-9_-]{1,64}"), required=True),
            "description": Field(Text()),
            "schema": Field(schema_rule()),
            "strict": Field(Flag()),
        },
        ignore,
    )
    return Tagged(
        "type",
        {
            "text": text,
            "json_object": Closed({"type": Field(OneOf(("json_object",)), required=True)}, ignore),
            "json_schema": Closed(
                {"type": Field(OneOf(("json_schema",)), required=True), "json_schema": Field(schema, required=True)},
                ignore,
            ),
        },
    )


def _metadata() -> Rule:
    value = Text(_METADATA_CHARS)

    def check(metadata: object, path: str) -> object:
        AnyObject().check(metadata, path)
        pairs = cast("dict[str, object]", metadata)
        if len(pairs) > _METADATA_PAIRS:
            raise InvalidRequest(f"`{path}` has {len(pairs)} pairs, at most {_METADATA_PAIRS} fit", param=path)
        for item in pairs.values():
            value.check(item, path)
        return metadata

    return Custom(
        check,
        {"type": "object", "additionalProperties": value.describe(), "maxProperties": _METADATA_PAIRS},
    )
