"""What the Gemini API answers, whole and as events, in OpenAI's shape.

A stream has no event for its end: it is whole when every candidate has said why it ended, and is closed then.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping
from typing import Final

from serving.egress.vendors.calls import Answered, OutCall, StreamTranslator, broken
from serving.egress.vendors.events import EVENT_CONTAINERS, Event, count, part, parts, read_object, text
from serving.egress.vendors.refusals import CODES, Refusal, error_in_stream, wait_of, whole_seconds
from serving.errors import ServingError
from serving.openai import ToolCall, Usage, embeddings_body, responses, serialise
from serving.openai.responses import ChatStream, Choice, FinishReason

_REASONS: Final[dict[str, FinishReason]] = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
_FILTERED: Final = frozenset({
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "IMAGE_SAFETY", "MODEL_ARMOR",
    "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION",
})  # fmt: skip
_FAILED: Final = frozenset({
    "OTHER", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
})  # fmt: skip
"""The answer is of no use: it is an error, and no answer that ended well."""
_TOO_LONG: Final = re.compile(r"input token count .{0,40}exceeds|exceeds the maximum number of tokens")
"""How it says that a request does not fit the context; it has no code for that."""
_DELAY: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
_BYTES_PER_TOKEN: Final = 4
"""The rule of thumb by which tokens are guessed where nobody counted them."""


def completion_of(destination: str, call: OutCall, value: Mapping[str, object]) -> Answered:
    """A chat completion for a whole answer. Raises ServingError where it is none."""
    blocked = bool(text(part(value, "promptFeedback"), "blockReason"))
    candidates = parts(value, "candidates")
    if not candidates and not blocked:
        raise broken(destination, "sent what is no answer")
    choices = [_choice(destination, call, candidate, index) for index, candidate in enumerate(candidates)]
    usage = usage_of(value.get("usageMetadata"))
    whole = responses.chat_completion(
        response_id=_id(value, call),
        model=text(value, "modelVersion") or call.model,
        created=call.created,
        choices=choices or [Choice("", "content_filter")],
        usage=usage,
    )
    return Answered(200, whole, usage)


def _choice(destination: str, call: OutCall, candidate: dict[str, object], index: int) -> Choice:
    said, thought = [], []
    calls: list[ToolCall] = []
    for item in parts(part(candidate, "content"), "parts"):
        if "functionCall" in item:
            made = part(item, "functionCall")
            call_id = text(made, "id") or _call_id(call, index, len(calls))
            calls.append(ToolCall(call_id, text(made, "name"), _arguments(made)))
        elif item.get("thought") is True:
            thought.append(text(item, "text"))
        else:
            said.append(text(item, "text"))
    reason = _reason(destination, text(candidate, "finishReason") or "STOP", has_calls=bool(calls))
    return Choice("".join(said), reason, calls, "".join(thought) or None)


def _reason(destination: str, told: str, *, has_calls: bool) -> FinishReason:
    if told in _FAILED:
        raise broken(destination, f"ended its answer with `{told}`")
    if told in _FILTERED:
        return "content_filter"
    reason = _REASONS.get(told, "stop")
    return "tool_calls" if has_calls and reason == "stop" else reason


def _id(value: Mapping[str, object], call: OutCall) -> str:
    return text(value, "responseId") or f"chatcmpl-{call.id}"


def _call_id(call: OutCall, index: int, place: int) -> str:
    """The name of a call that has none of its own; the same whether it is streamed or not."""
    return f"call-{call.id}-{index}-{place}"


def _arguments(made: dict[str, object]) -> str:
    return serialise(part(made, "args")).decode("utf-8")


def usage_of(usage: object) -> Usage | None:
    """The counts of `usageMetadata`. What the model thought is part of the output, as OpenAI counts."""
    prompt, said = count(usage, "promptTokenCount"), count(usage, "candidatesTokenCount")
    if prompt is None or (said is None and isinstance(usage, dict) and "candidatesTokenCount" in usage):
        return None  # a count that is none is not read as zero: what was reserved stands
    thought = count(usage, "thoughtsTokenCount")
    return Usage(
        prompt + (count(usage, "toolUsePromptTokenCount") or 0),
        (said or 0) + (thought or 0),
        count(usage, "cachedContentTokenCount") or 0,
        thought,
    )


def embeddings_of(destination: str, call: OutCall, value: Mapping[str, object]) -> Answered:
    """The embeddings of the texts, in their order. Raises ServingError where there are fewer or they are no numbers."""
    given = call.body.get("input")
    texts = [given] if isinstance(given, str) else given
    vectors = [item.get("values") for item in parts(value, "embeddings")]
    if not isinstance(texts, list) or len(vectors) != len(texts):
        raise broken(destination, "sent what is no answer")
    as_text = call.body.get("encoding_format") == "base64"
    found = [_vector(destination, vector, as_text=as_text) for vector in vectors]
    told = count(value.get("usageMetadata"), "promptTokenCount")
    guessed = sum(len(str(one).encode("utf-8")) for one in texts) // _BYTES_PER_TOKEN
    prompt = guessed if told is None else told
    body = embeddings_body(model=call.model, embeddings=found, prompt_tokens=prompt)
    return Answered(200, body, Usage(prompt, 0), is_estimated=told is None)


def _vector(destination: str, vector: object, *, as_text: bool) -> list[float] | str:
    if not isinstance(vector, list) or not all(type(number) in {int, float} for number in vector):
        raise broken(destination, "sent what is no answer")
    if not as_text:
        return vector
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
    except (OverflowError, struct.error):
        raise broken(destination, "sent what is no answer") from None


def refusal_of(value: object, headers: Mapping[str, str]) -> Refusal:
    """What an error body says, as far as it is of use."""
    error = part(value, "error")
    code, wait_s = text(error, "status"), wait_of(headers)
    for detail in parts(error, "details"):
        if detail.get("reason") == "API_KEY_INVALID":
            code = "API_KEY_INVALID"
        delay = _DELAY.fullmatch(text(detail, "retryDelay"))
        if delay is not None and wait_s is None:
            wait_s = whole_seconds(float(delay[1]))
    return Refusal(code=code, is_too_long=_TOO_LONG.search(text(error, "message")) is not None, wait_s=wait_s)


class ContentStream(StreamTranslator):
    """Events of one streamed answer → chunks of one streamed chat completion."""

    __slots__ = ("_call", "_calls", "_ended_ones", "_id", "_is_blocked", "_model", "_streams")

    def __init__(self, destination: str, call: OutCall) -> None:
        super().__init__(destination)
        self._call = call
        self._id = ""
        self._model = ""
        self._streams: dict[int, ChatStream] = {}
        self._calls: dict[int, int] = {}
        """Calls so far, by candidate."""
        self._ended_ones: set[int] = set()
        self._is_blocked = False

    def _translate(self, event: Event, out: list[bytes]) -> None:
        value = read_object(event.data, EVENT_CONTAINERS)
        if value is None:
            raise self.broken("sent an event that is not JSON")
        if "error" in value:
            raise _error_of_event(self._destination, value)
        self._id = self._id or _id(value, self._call)
        self._model = self._model or text(value, "modelVersion") or self._call.model
        self.usage = usage_of(value.get("usageMetadata")) or self.usage
        if text(part(value, "promptFeedback"), "blockReason"):
            self._is_blocked = True
        for position, candidate in enumerate(parts(value, "candidates")):
            index = count(candidate, "index")
            self._candidate(candidate, position if index is None else index, out)

    def _candidate(self, candidate: dict[str, object], index: int, out: list[bytes]) -> None:
        if index >= self._call.choices:
            raise self.broken("sent an answer that nobody asked for")
        if index in self._ended_ones:
            return
        chunks = self._stream(index, out)
        for item in parts(part(candidate, "content"), "parts"):
            said = text(item, "text")
            if "functionCall" in item:
                self._made_call(part(item, "functionCall"), index, chunks, out)
            elif said and item.get("thought") is True:
                out.append(chunks.reasoning(said))
            elif said:
                out.append(chunks.text(said))
        told = text(candidate, "finishReason")
        if told and told != "FINISH_REASON_UNSPECIFIED":
            reason = _reason(self._destination, told, has_calls=bool(self._calls.get(index)))
            out.append(chunks.finish(reason))
            self._ended_ones.add(index)

    def _stream(self, index: int, out: list[bytes]) -> ChatStream:
        chunks = self._streams.get(index)
        if chunks is None:
            chunks = ChatStream(self._id, self._model, self._call.created, index=index)
            self._streams[index] = chunks
            out.append(chunks.start())
        return chunks

    def _made_call(self, made: dict[str, object], index: int, chunks: ChatStream, out: list[bytes]) -> None:
        place = self._calls.get(index, 0)
        self._calls[index] = place + 1
        call_id = text(made, "id") or _call_id(self._call, index, place)
        out.append(chunks.call_start(place, call_id, text(made, "name")))
        out.append(chunks.call_arguments(place, _arguments(made)))

    def _ended(self, out: list[bytes]) -> None:
        if self._is_blocked and not self._streams:
            out.append(self._stream(0, out).finish("content_filter"))
        elif len(self._ended_ones) < self._call.choices:
            return
        if self._call.include_usage and self.usage is not None:
            out.append(self._streams[0].usage(self.usage))
        self._done(out)


def _error_of_event(destination: str, value: dict[str, object]) -> ServingError:
    told = refusal_of(value, {})
    return error_in_stream(destination, told if told.code in CODES else Refusal())
