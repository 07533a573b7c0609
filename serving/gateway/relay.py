"""What the gateway reads of an answer that it passes on as bytes: the usage at its tail, and how it ended.

No chunk is parsed that need not be. Inside a JSON string a quote is always escaped, so the bytes `"usage"` can only be
a key: looking for them is enough to leave every other chunk untouched.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final, TypeGuard

from serving.gateway.upstream import SIZE, EngineBroke
from serving.gateway.upstream_errors import error_of_event
from serving.openai.responses import error_event

_CHUNK: Final = re.compile(rb"(%b)\r\ndata: " % SIZE.pattern)
"""The size of a chunk, and the beginning of an event in it that is no comment."""
_HELD_BYTES: Final = 1 << 20
"""Longest single event. An engine that sends more without an end is broken."""


_MOST_TOKENS: Final = 1 << 32
"""Of one request; what says more does not count."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The tokens a request is charged with."""

    prompt: int
    cached: int
    output: int
    is_estimated: bool
    """No usage came; the output was counted in events and the prompt guessed from its bytes."""


NO_TOKENS: Final = Settled(0, 0, 0, is_estimated=False)
"""Of a request for which no model ran."""


def settled_from(usage: object) -> Settled | None:
    """The counts of a `usage` object; None where it is none."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    if not _is_count(prompt) or not _is_count(output):
        return None
    return Settled(prompt, cached if _is_count(cached) else 0, output, is_estimated=False)


def estimate(request_bytes: int, events: int) -> Settled:
    """What is charged where the engine did not say: one token per event, and one per four bytes of the request."""
    return Settled(request_bytes // 4, 0, events, is_estimated=True)


def usage_of_body(body: bytes) -> Settled | None:
    """The usage in a whole answer, found from its end without parsing the rest."""
    at = body.rfind(b'"usage"')
    if at < 0:
        return None
    start = body.find(b"{", at)
    if start < 0:
        return None
    try:
        value, _ = _DECODER.raw_decode(body[start : start + 4096].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return settled_from(value)


_DECODER: Final = json.JSONDecoder()


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS


class EventStream:
    """Follows a stream of server-sent events that is relayed; `feed` gives back what goes to the client now."""

    __slots__ = ("_held", "_withhold", "error_code", "events", "has_error", "is_done", "usage")

    def __init__(self, *, withhold_usage: bool) -> None:
        self._withhold = withhold_usage
        self._held = b""
        self.events = 0
        """Events relayed so far, comments left out."""
        self.usage: Settled | None = None
        self.is_done = False
        """`data: [DONE]` was seen."""
        self.has_error = False
        """The engine ended its stream with an error event."""
        self.error_code: str | None = None

    def feed(self, data: bytes) -> bytes:
        """Whole events, ready to be sent on; part of one is kept until the rest is there. Raises EngineBroke."""
        if self._held:
            data = self._held + data
            self._held = b""
        if not data.endswith(b"\n\n"):
            end = _end_of_last_event(data)
            self._held = data[end:]
            if len(self._held) > _HELD_BYTES:
                raise EngineBroke(f"the engine sent an event longer than {_HELD_BYTES} bytes")
            data = data[:end]
        if b'"usage"' not in data and b"[DONE]" not in data and b'"error"' not in data:
            self.events += _count(data)
            return data
        return b"".join(map(self._pass, _split(data)))

    @property
    def is_between_events(self) -> bool:
        """Nothing is held back: what comes next begins an event."""
        return not self._held

    def close(self) -> bytes:
        """What was held back at the end of the stream."""
        held, self._held = self._held, b""
        return held

    def _pass(self, event: bytes) -> bytes:
        """What goes to the client in the place of one event."""
        payload = event.strip()
        if payload.startswith(b"data:"):
            payload = payload[5:].strip()
            if payload == b"[DONE]":
                # An engine that ends a broken stream so would make the client take it for whole.
                self.is_done = True
                return b"" if self.has_error else event
            if b'"usage"' in payload or b'"error"' in payload:
                return self._read(payload, event)
        self.events += _count(event)
        return event

    def _read(self, payload: bytes, event: bytes) -> bytes:
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            return event
        if not isinstance(value, dict):
            return event
        error = value.get("error")
        if error is not None:
            self.has_error = True
            ours = error_of_event(error)
            self.error_code = ours.code
            return error_event(ours)
        settled = settled_from(value.get("usage"))
        if settled is not None:
            self.usage = settled
            if value.get("choices") == []:
                return b"" if self._withhold else event
        self.events += 1
        return event


def framed_events(data: bytes) -> int:
    """Events in `data` where it is whole chunks of HTTP's chunked coding, each of whole events that need no reading.

    0 for anything else. Such bytes can go to the client as the engine framed them. Strict about the framing, which the
    client will read: sizes are plain hexadecimal, and nothing comes beside them.
    """
    if b'"usage"' in data or b"[DONE]" in data or b'"error"' in data:
        return 0
    at, end = 0, len(data)
    while at < end:
        head = _CHUNK.match(data, at)
        if head is None:
            return 0
        at = head.end(1) + int(head[1], 16) + 4
        if data[at - 4 : at] != b"\n\n\r\n":
            return 0
    return data.count(b"\n\n")


def unframed(data: bytes) -> bytes:
    """What stands in the chunks of `data`, of which `framed_events` has found some."""
    parts, at = [], 0
    while at < len(data):
        begin = data.index(b"\r\n", at) + 2
        end = begin + int(data[at : begin - 2], 16)
        at = end + 2
        parts.append(data[begin:end])
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _end_of_last_event(data: bytes) -> int:
    line_feeds = data.rfind(b"\n\n")
    with_returns = data.rfind(b"\n\r\n")
    return max(line_feeds + 2 if line_feeds >= 0 else 0, with_returns + 3 if with_returns >= 0 else 0)


def _count(data: bytes) -> int:
    """Events in whole events, without comments."""
    count = data.count(b"\n\n") or data.count(b"\n\r\n")
    return count if not data.startswith(b":") else data.count(b"\ndata:")


def _split(data: bytes) -> list[bytes]:
    separator = b"\n\n" if b"\n\n" in data else b"\r\n\r\n"
    parts = data.split(separator)
    last = parts.pop()
    events = [part + separator for part in parts]
    if last:
        events.append(last)
    return events
