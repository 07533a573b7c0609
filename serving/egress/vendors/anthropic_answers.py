"""What Anthropic's Messages API answers, whole and as events, in OpenAI's shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from serving.egress.vendors.calls import OutCall, StreamTranslator
from serving.egress.vendors.events import EVENT_CONTAINERS, Event, count, part, parts, read_object, text
from serving.egress.vendors.refusals import Refusal, error_in_stream, wait_of
from serving.openai import ToolCall, Usage, responses, serialise
from serving.openai.responses import ChatStream, Choice, FinishReason

_REASONS: Final[dict[str, FinishReason]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""`stop_reason` → `finish_reason`; every other one is `stop`."""
_TOO_LONG: Final = re.compile(r"prompt is too long|exceed(?:s|ed)? (?:the )?context")
"""How it says that a request does not fit the context; it has no code for that."""


def message_of(call: OutCall, message: Mapping[str, object]) -> tuple[bytes, Usage | None]:
    """A chat completion for a whole message, and its usage."""
    said, thought = [], []
    calls: list[ToolCall] = []
    for block in parts(message, "content"):
        kind = block.get("type")
        if kind == "text":
            said.append(text(block, "text"))
        elif kind == "thinking":
            thought.append(text(block, "thinking"))
        elif kind == "tool_use":
            arguments = serialise(part(block, "input")).decode("utf-8")
            calls.append(ToolCall(text(block, "id"), text(block, "name"), arguments))
    usage = usage_of(message.get("usage"))
    choice = Choice(
        "".join(said),
        _REASONS.get(text(message, "stop_reason"), "stop"),
        calls,
        "".join(thought) or None,
    )
    whole = responses.chat_completion(
        response_id=text(message, "id") or f"chatcmpl-{call.id}",
        model=text(message, "model") or call.model,
        created=call.created,
        choices=[choice],
        usage=usage,
    )
    return whole, usage


def usage_of(usage: object, before: Usage | None = None) -> Usage | None:
    """The counts of a `usage` object; those that it leaves out are as `before`, since events tell them cumulatively.

    None where they are not to be had. OpenAI's `prompt_tokens` are all of the prompt; Anthropic counts what was read
    from and written to a cache apart.
    """
    if not isinstance(usage, dict):
        return before
    fresh = count(usage, "input_tokens")
    read, written = count(usage, "cache_read_input_tokens"), count(usage, "cache_creation_input_tokens")
    output, thought = count(usage, "output_tokens"), count(part(usage, "output_tokens_details"), "thinking_tokens")
    is_odd = any(name in usage and each is None for name, each in (("input_tokens", fresh), ("output_tokens", output)))
    if is_odd or (before is None and (fresh is None or output is None)):
        return None  # a count that is none is not read as zero: what was reserved stands
    known = before or Usage(0, 0)
    if read is None:
        read = known.cached_tokens
    if written is None:
        written = known.cache_write_tokens
    if fresh is None:
        fresh = known.prompt_tokens - known.cached_tokens - known.cache_write_tokens
    return Usage(
        fresh + read + written,
        known.completion_tokens if output is None else output,
        read,
        known.reasoning_tokens if thought is None else thought,
        written,
    )


def refusal_of(value: object, headers: Mapping[str, str]) -> Refusal:
    """What an error body says, as far as it is of use."""
    error = part(value, "error")
    code = text(part(error, "details"), "error_code") or text(error, "type")
    return Refusal(
        code=code if code == "enforced_spend_limit_reached" else text(error, "type"),
        is_too_long=_TOO_LONG.search(text(error, "message")) is not None,
        wait_s=wait_of(headers),
    )


class MessageStream(StreamTranslator):
    """Events of one streamed message → chunks of one streamed chat completion."""

    __slots__ = ("_blocks", "_call", "_calls", "_chunks", "_reason")

    def __init__(self, destination: str, call: OutCall) -> None:
        super().__init__(destination)
        self._call = call
        self._chunks: ChatStream | None = None
        self._blocks: dict[int, _ToolUse] = {}
        """The tool calls that are being told, by the number of their block."""
        self._calls = 0
        self._reason: FinishReason | None = None

    def _translate(self, event: Event, out: list[bytes]) -> None:
        value = read_object(event.data, EVENT_CONTAINERS)
        if value is None:
            raise self.broken("sent an event that is not JSON")
        kind = text(value, "type")
        if kind == "error":
            raise error_in_stream(self._destination, refusal_of(value, {}))
        if kind == "message_start":
            self._start(part(value, "message"), out)
        elif kind.startswith("content_block_") or kind in {"message_delta", "message_stop"}:
            if self._chunks is None:
                raise self.broken("began its answer in the middle")
            self._go_on(kind, value, self._chunks, out)
        # pings, and kinds of event that are new: the API's rules ask clients to pass them by

    def _start(self, message: dict[str, object], out: list[bytes]) -> None:
        if self._chunks is not None:
            raise self.broken("began its answer twice")
        response_id = text(message, "id") or f"chatcmpl-{self._call.id}"
        self._chunks = ChatStream(response_id, text(message, "model") or self._call.model, self._call.created)
        self.usage = usage_of(message.get("usage"))
        out.append(self._chunks.start())

    def _go_on(self, kind: str, value: dict[str, object], chunks: ChatStream, out: list[bytes]) -> None:
        index = count(value, "index") or 0
        if kind == "content_block_start":
            block = part(value, "content_block")
            if block.get("type") == "tool_use":
                self._blocks[index] = _ToolUse(self._calls, part(block, "input"))
                out.append(chunks.call_start(self._calls, text(block, "id"), text(block, "name")))
                self._calls += 1
            else:  # empty as a rule, and nothing is lost where it is not
                self._more(block, index, chunks, out)
        elif kind == "content_block_delta":
            self._more(part(value, "delta"), index, chunks, out)
        elif kind == "content_block_stop":
            tool = self._blocks.pop(index, None)
            if tool is not None and not tool.has_begun:
                out.append(chunks.call_arguments(tool.place, serialise(tool.start).decode("utf-8")))
        elif kind == "message_delta":
            self.usage = usage_of(value.get("usage"), self.usage)
            told = text(part(value, "delta"), "stop_reason")
            if told:
                self._reason = _REASONS.get(told, "stop")
        elif kind == "message_stop":
            self._stop(chunks, out)

    def _stop(self, chunks: ChatStream, out: list[bytes]) -> None:
        if self._reason is None:
            raise self.broken("ended its answer without a reason")
        out.append(chunks.finish(self._reason))
        if self._call.include_usage and self.usage is not None:
            out.append(chunks.usage(self.usage))
        self._done(out)

    def _more(self, delta: dict[str, object], index: int, chunks: ChatStream, out: list[bytes]) -> None:
        said, thought, written = text(delta, "text"), text(delta, "thinking"), text(delta, "partial_json")
        if said:
            out.append(chunks.text(said))
        if thought:
            out.append(chunks.reasoning(thought))
        tool = self._blocks.get(index)
        if written and tool is not None:
            tool.has_begun = True
            out.append(chunks.call_arguments(tool.place, written))


class _ToolUse:
    """A tool call that is being told."""

    __slots__ = ("has_begun", "place", "start")

    def __init__(self, place: int, start: dict[str, object]) -> None:
        self.place = place
        self.start = start
        """Its arguments, as far as they came with its beginning."""
        self.has_begun = False
        """Some of its arguments came as a delta."""
