"""Anthropic's Messages API: an OpenAI chat in its words.

Source: the request types of Anthropic's own Python client (2.x), which speaks API version 2026-10-21. That version has
taken `temperature`, `top_p` and `top_k` out of the API; a destination that is set to 2023-06-01 sends them, for the
older models that still take them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from serving.egress.vendors.anthropic_answers import MessageStream, message_of, refusal_of
from serving.egress.vendors.calls import (
    CHAT,
    Answered,
    OutCall,
    StreamTranslator,
    Vendor,
    VendorRequest,
    broken,
    credential,
    failed,
    post,
)
from serving.egress.vendors.conversation import Conversation, Turn, conversation
from serving.egress.vendors.events import read_object
from serving.egress.vendors.fields import Fields, unsupported
from serving.egress.vendors.offers import chosen_name, function_of, labelled
from serving.egress.vendors.refusals import error_of
from serving.openai import serialise

_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_TOOL: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_EFFORT: Final = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Anthropic(Vendor):
    """Anthropic's own API."""

    prefix: str = "/v1"
    version: Literal["2026-10-21", "2023-06-01"] = "2026-10-21"
    """What `anthropic-version` says."""
    max_tokens: int = 8192
    """Longest answer in tokens where the client names none: the API wants one."""
    thinking: bool = False
    """Ask the model to think, and for a summary of what it thought; models that cannot refuse it."""
    inference_geo: str | None = None
    """Where the vendor is told to compute, such as `us`; the workspace's own setting where there is none."""

    def request(self, call: OutCall) -> VendorRequest:
        """As `Vendor.request`."""
        body = self._body(call)
        headers = (("anthropic-version", self.version),)
        return post(f"{self.prefix}/messages", serialise(body), stream=call.stream, headers=headers)

    def auth(self, secret: str) -> tuple[tuple[str, str], ...]:
        """As `Vendor.auth`; in the header that the client of the same version uses."""
        key = credential(self.name, secret)
        return (("x-api-key", key),) if self.version == "2023-06-01" else (("authorization", f"Bearer {key}"),)

    def answer(self, call: OutCall, status: int, headers: Mapping[str, str], body: bytes) -> Answered:
        """As `Vendor.answer`."""
        value = read_object(body)
        if status != 200:
            return failed(error_of(self.name, status, refusal_of(value, headers)))
        if value is None or value.get("type") != "message":
            return failed(broken(self.name, "sent what is no answer"))
        whole, usage = message_of(call, value)
        return Answered(200, whole, usage)

    def stream(self, call: OutCall) -> StreamTranslator:
        """As `Vendor.stream`."""
        return MessageStream(self.name, call)

    def _body(self, call: OutCall) -> dict[str, object]:
        fields = Fields(self.name, call.body)
        if call.route != CHAT:
            fields.refuse("model", f"it is not asked at `{call.route}`")
        fields.take("model")
        longest = fields.longest()
        talk = conversation(self.name, fields.array("messages"))
        body: dict[str, object] = {
            "model": call.model,
            "max_tokens": self.max_tokens if longest is None else longest,
        }
        if talk.system:
            body["system"] = _blocks(self.name, talk.system, "messages.0.content")
        body["messages"] = _messages(self.name, talk)
        self._tools(fields, body)
        self._sampling(fields, body)
        self._output(fields, body)
        if self.thinking and "thinking" not in body:
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
        if self.inference_geo is not None:
            body["inference_geo"] = self.inference_geo
        if call.stream:
            body["stream"] = True
        fields.take("stream")
        options = Fields(self.name, fields.mapping("stream_options") or {}, "stream_options")
        options.take("include_usage")
        options.end()
        fields.end()
        return body

    def _sampling(self, fields: Fields, body: dict[str, object]) -> None:
        stops = fields.strings("stop")
        if any(not stop.strip() for stop in stops):
            fields.refuse("stop", "it takes no string of blanks")
        if stops:
            body["stop_sequences"] = stops
        if self.version == "2023-06-01":
            temperature, top_p, top_k = fields.number("temperature"), fields.number("top_p"), fields.integer("top_k")
            if temperature is not None and not 0 <= temperature <= 1:
                fields.refuse("temperature", "it takes 0 to 1")
            given = {"temperature": temperature, "top_p": top_p, "top_k": top_k if top_k and top_k > 0 else None}
            body |= {name: value for name, value in given.items() if value is not None}
        else:
            why = "its API has no such field any more"
            fields.neutral("temperature", 1, why=why)
            fields.neutral("top_p", 1, why=why)
            fields.neutral("top_k", 0, -1, why=why)
        for name in ("frequency_penalty", "presence_penalty", "min_p", "min_tokens", "top_logprobs"):
            fields.neutral(name, 0)
        fields.neutral("repetition_penalty", 1)
        fields.neutral("seed")
        fields.neutral("logit_bias", {})
        fields.neutral("stop_token_ids", [])
        fields.neutral("ignore_eos", False)  # noqa: FBT003 - a value that a field may have
        fields.neutral("logprobs", False)  # noqa: FBT003
        fields.neutral("n", 1, why="it gives one answer")

    def _output(self, fields: Fields, body: dict[str, object]) -> None:
        config: dict[str, object] = {}
        effort = fields.text("reasoning_effort")
        if effort == "none":
            body["thinking"] = {"type": "disabled"}
        elif effort is not None:
            if effort not in _EFFORT:
                fields.refuse("reasoning_effort", f"it takes {', '.join(_EFFORT)}")
            config["effort"] = effort
        wanted = Fields(self.name, fields.mapping("response_format") or {"type": "text"}, "response_format")
        kind = wanted.text("type")
        if kind == "json_schema":
            config["format"] = {"type": "json_schema", "schema": self._schema(wanted)}
        elif kind != "text":
            wanted.refuse("type", "it takes a schema, not JSON in general", "send the `json_schema` of what is wanted")
        wanted.end()
        if config:
            body["output_config"] = config

    def _schema(self, wanted: Fields) -> dict[str, object]:
        given = Fields(self.name, wanted.mapping("json_schema") or {}, wanted.at("json_schema"))
        name, described, schema = given.text("name"), given.text("description"), given.mapping("schema")
        given.flag("strict")  # it always is
        given.end()
        if not schema:
            given.refuse("schema", "it takes no format without a schema")
        return labelled(given, schema, name, described)

    def _tools(self, fields: Fields, body: dict[str, object]) -> None:
        tools = [self._tool(tool, f"tools.{index}") for index, tool in enumerate(fields.array("tools"))]
        choice, parallel = fields.take("tool_choice"), fields.flag("parallel_tool_calls")
        if not tools:
            if choice not in (None, "auto", "none"):
                fields.refuse("tool_choice", "there are no `tools`")
            return
        body["tools"] = tools
        chosen = _choice(self.name, choice)
        if parallel is False and chosen["type"] != "none":
            chosen["disable_parallel_tool_use"] = True
        if chosen != {"type": "auto"}:
            body["tool_choice"] = chosen

    def _tool(self, tool: object, path: str) -> dict[str, object]:
        function = function_of(self.name, tool, path)
        schema = dict(function.mapping("parameters") or {"type": "object", "properties": {}})
        if schema.setdefault("type", "object") != "object":
            function.refuse("parameters", "a tool's arguments are an object")
        made: dict[str, object] = {"name": _matching(self.name, _TOOL, function.text("name"), function.at("name"))}
        described = function.text("description")
        if described is not None:
            made["description"] = described
        made["input_schema"] = schema
        if function.flag("strict"):
            made["strict"] = True
        function.end()
        return made


def _choice(destination: str, choice: object) -> dict[str, object]:
    if choice is None or choice == "auto":
        return {"type": "auto"}
    if choice == "none":
        return {"type": "none"}
    if choice == "required":
        return {"type": "any"}
    return {"type": "tool", "name": chosen_name(destination, choice)}


def _messages(destination: str, talk: Conversation) -> list[dict[str, object]]:
    messages: list[dict[str, object]] = []
    for index, turn in enumerate(talk.turns):
        if turn.role == "system":
            before = talk.turns[index - 1].role if index else "system"
            after = talk.turns[index + 1].role if index + 1 < len(talk.turns) else "assistant"
            if before != "user" or after != "assistant":
                unsupported(destination, f"{turn.path}.role", "it takes instructions first, or right behind the user's")
        messages.append({"role": turn.role, "content": _content(destination, turn)})
    return messages


def _content(destination: str, turn: Turn) -> list[dict[str, object]]:
    content: list[dict[str, object]] = []
    for result in turn.results:
        block: dict[str, object] = {"type": "tool_result", "tool_use_id": result.call.id}
        texts = [text for text in result.texts if text.strip()]
        if texts:
            block["content"] = [{"type": "text", "text": text} for text in texts]
        content.append(block)
    if turn.texts:
        content += _blocks(destination, turn.texts, f"{turn.path}.content")
    for call in turn.calls:
        call_id = _matching(destination, _ID, call.id, f"{call.path}.id")
        name = _matching(destination, _TOOL, call.name, f"{call.path}.function.name")
        content.append({"type": "tool_use", "id": call_id, "name": name, "input": call.arguments})
    return content


def _blocks(destination: str, texts: list[str] | tuple[str, ...], path: str) -> list[dict[str, object]]:
    if any(not text.strip() for text in texts):
        unsupported(destination, path, "it takes no text of blanks")
    return [{"type": "text", "text": text} for text in texts]


def _matching(destination: str, pattern: re.Pattern[str], value: str | None, path: str) -> str:
    if value is None or pattern.fullmatch(value) is None:
        unsupported(destination, path, f"it must match `{pattern.pattern}`")
    return value
