"""OpenAI, Azure OpenAI, and whoever else speaks OpenAI's protocol: the request is passed on, field by known field.

Sources: the request types of OpenAI's own Python client (3.x), and for Azure its REST reference (deployment in the
path, `api-version` in the query, key in `api-key`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast
from urllib.parse import quote

from serving.egress.vendors.calls import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
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
from serving.egress.vendors.conversation import check_pairs, text_parts
from serving.egress.vendors.events import EVENT_CONTAINERS, Event, count, part, parts, read_object, text
from serving.egress.vendors.fields import Fields, only_own_sampling
from serving.egress.vendors.refusals import Refusal, error_in_stream, error_of, wait_of
from serving.openai import Usage, serialise
from serving.openai.rules import wrong_type

_SAMPLING: Final = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "n")
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    CHAT: (
        *_SAMPLING, "logprobs", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls",
        "response_format", "reasoning_effort",
    ),
    COMPLETIONS: (*_SAMPLING, "prompt", "logprobs"),
    EMBEDDINGS: ("input", "encoding_format", "dimensions"),
}  # fmt: skip
"""What is passed on as it came. The other fields each have a line of their own below."""
_EXTENSIONS: Final = ("top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos", "min_tokens")
_MOST_STOPS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAI(Vendor):
    """OpenAI's own API."""

    prefix: str = "/v1"
    """What stands before the route's path."""
    organization: str | None = None
    project: str | None = None
    store_nothing: bool = True
    """Say `store: false` with every chat, whatever the account's own setting is."""

    def request(self, call: OutCall) -> VendorRequest:
        """As `Vendor.request`."""
        body = self._body(call)
        return post(self._path(call), serialise(body), stream=call.stream, headers=self._headers())

    def auth(self, secret: str) -> tuple[tuple[str, str], ...]:
        """As `Vendor.auth`."""
        return (("authorization", f"Bearer {credential(self.name, secret)}"),)

    def answer(self, call: OutCall, status: int, headers: Mapping[str, str], body: bytes) -> Answered:
        """As `Vendor.answer`; the bytes of a good answer are the vendor's own, where its usage stands there once."""
        value = read_object(body)
        if status != 200:
            return failed(error_of(self.name, status, _refusal(part(value, "error"), headers)))
        if value is None or not isinstance(value.get("data" if call.route == EMBEDDINGS else "choices"), list):
            return failed(broken(self.name, "sent what is no answer"))
        usage = usage_of(value.get("usage"))
        if body.count(b"usage") != 1:  # who reads it from the end finds the same
            value["usage"] = value.pop("usage", None) if usage is not None else None
            body = serialise(value)
        return Answered(200, body, usage)

    def stream(self, call: OutCall) -> StreamTranslator:
        """As `Vendor.stream`."""
        return _Relayed(self.name, call)

    def _headers(self) -> tuple[tuple[str, str], ...]:
        named = (("openai-organization", self.organization), ("openai-project", self.project))
        return tuple((name, value) for name, value in named if value is not None)

    def _path(self, call: OutCall) -> str:
        return self.prefix + call.route.removeprefix("/v1")

    def _body(self, call: OutCall) -> dict[str, object]:
        passed = _FIELDS.get(call.route)
        fields = Fields(self.name, call.body)
        if passed is None:
            fields.refuse("model", f"it is not asked at `{call.route}`")
        fields.take("model")
        body: dict[str, object] = {"model": call.model}
        if call.route == CHAT:
            body["messages"] = self._messages(fields.array("messages"))
            if self.store_nothing:
                body["store"] = False
            if not call.body.get("tools"):  # said of no tools, it says nothing, and is refused there
                fields.take("parallel_tool_calls")
        self._extend(call, fields, body)
        if call.stream:  # always asked for: what is spent has to be known, whoever wants to see it
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        fields.take("stream")
        options = Fields(self.name, fields.mapping("stream_options") or {}, "stream_options")
        options.take("include_usage")
        options.end()
        return body | fields.end(passed)

    def _extend(self, call: OutCall, fields: Fields, body: dict[str, object]) -> None:
        """The fields that are not simply passed on."""
        only_own_sampling(fields)
        if call.route == EMBEDDINGS:
            return
        self._limit(call, fields, body)
        stops = fields.strings("stop")
        if len(stops) > _MOST_STOPS:
            fields.refuse("stop", f"it takes {_MOST_STOPS} strings at most")
        if stops:
            body["stop"] = stops
        bias = fields.mapping("logit_bias")
        if bias:
            given = cast("dict[str, float]", bias)
            if not all(float(value).is_integer() for value in given.values()):
                fields.refuse("logit_bias", "it takes whole numbers")
            body["logit_bias"] = {token: int(value) for token, value in given.items()}

    def _limit(self, call: OutCall, fields: Fields, body: dict[str, object]) -> None:
        longest = fields.longest()
        if longest is not None:
            body["max_completion_tokens" if call.route == CHAT else "max_tokens"] = longest

    def _messages(self, messages: list[object]) -> list[object]:
        check_pairs(messages)
        passed: list[object] = []
        for index, message in enumerate(messages):
            if not isinstance(message, dict):
                wrong_type(f"messages.{index}", message, "an object")
            text_parts(self.name, message.get("content"), f"messages.{index}.content")
            # an empty list of calls is no call, and is refused there
            passed.append({name: value for name, value in message.items() if name != "tool_calls" or value})
        return passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Azure(OpenAI):
    """Azure OpenAI. The resource, and with it the region, is the host; `OutCall.model` is the deployment."""

    prefix: str = "/openai"
    store_nothing: bool = False
    """Nothing is stored there unless it is asked for, and older versions do not know the word."""
    api_version: str = "2024-10-21"
    longest: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """How the deployment's model calls the longest answer; older ones know `max_tokens` only."""

    def auth(self, secret: str) -> tuple[tuple[str, str], ...]:
        """As `Vendor.auth`."""
        return (("api-key", credential(self.name, secret)),)

    def _path(self, call: OutCall) -> str:
        deployment = quote(call.model, safe="")
        rest = call.route.removeprefix("/v1")
        return f"{self.prefix}/deployments/{deployment}{rest}?api-version={quote(self.api_version, safe='')}"

    def _limit(self, call: OutCall, fields: Fields, body: dict[str, object]) -> None:
        longest = fields.longest()
        if longest is not None:
            body[self.longest if call.route == CHAT else "max_tokens"] = longest


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatible(OpenAI):
    """Any server that speaks OpenAI's protocol. What engines here understand beyond it is passed on as well."""

    store_nothing: bool = False

    def _extend(self, call: OutCall, fields: Fields, body: dict[str, object]) -> None:  # noqa: ARG002 - as above
        for name in (*_EXTENSIONS, "max_tokens", "max_completion_tokens", "stop", "logit_bias"):
            value = fields.take(name)
            if value is not None:
                body[name] = value


class _Relayed(StreamTranslator):
    """Passes chunks on as they came, but for the usage that the client did not ask for, and errors."""

    __slots__ = ("_call", "_ended_ones")

    def __init__(self, destination: str, call: OutCall) -> None:
        super().__init__(destination)
        self._call = call
        self._ended_ones: set[int] = set()

    def _translate(self, event: Event, out: list[bytes]) -> None:
        if event.data.strip() == b"[DONE]":
            self._done(out)
            return
        value = read_object(event.data, EVENT_CONTAINERS)
        if value is None:
            raise self.broken("sent an event that is not JSON")
        if value.get("error") is not None:
            raise error_in_stream(self._destination, _refusal(part(value, "error"), {}))
        usage = usage_of(value.get("usage"))
        if usage is not None:
            self.usage = usage
        if not value.get("choices") and not (usage is not None and self._call.include_usage):
            return  # the usage alone, or Azure's judgement of the prompt, which comes as a chunk without choices
        self._ended_ones |= {
            count(choice, "index") or 0 for choice in parts(value, "choices") if choice.get("finish_reason")
        }
        out.append(b"data: " + (serialise(value) if b"\n" in event.data else event.data) + b"\n\n")

    def _ended(self, out: list[bytes]) -> None:
        # some servers leave out the last event, and every choice has said why it ended
        if len(self._ended_ones) >= self._call.choices:
            self._done(out)


def usage_of(usage: object) -> Usage | None:
    """The counts of a `usage` object; None where it is none."""
    prompt = count(usage, "prompt_tokens")
    if prompt is None:
        return None
    given, made = part(usage, "prompt_tokens_details"), part(usage, "completion_tokens_details")
    return Usage(
        prompt,
        count(usage, "completion_tokens") or 0,
        count(given, "cached_tokens") or 0,
        count(made, "reasoning_tokens"),
        count(given, "cache_write_tokens") or 0,
    )


def _refusal(error: Mapping[str, object], headers: Mapping[str, str]) -> Refusal:
    code = text(error, "code") or text(error, "type")
    head = text(error, "param").partition(".")[0].partition("[")[0]
    known = head in _FIELDS[CHAT] or head in _EXTENSIONS or head in {"messages", "stop", "logit_bias", "max_tokens"}
    return Refusal(
        code=code,
        is_too_long=code == "context_length_exceeded",
        field=head if known else None,
        wait_s=wait_of(headers),
    )
