"""Reads one stream of events as it arrives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from serving.gateway.upstream import EngineBroke, Upstream

PATHS: Final = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
"""Of the routes that are asked."""
_EVENT_BYTES: Final = 1 << 20
_ANSWER_BYTES: Final = 64 << 20
_ERROR_CHARS: Final = 160


class Answer:
    """What has come of one answer. Text is kept only where it is wanted, and never leaves this process."""

    __slots__ = ("_keeps", "_rest", "_said", "_tools", "arrivals", "error", "finish", "is_done", "usage")

    def __init__(self, *, keeps_text: bool = False) -> None:
        self._rest = b""
        self._keeps = keeps_text
        self._said: list[str] = []
        self._tools: list[str] = []
        self.arrivals: list[float] = []
        self.usage: Mapping[str, Any] = {}
        self.finish: str | None = None
        """The server's word for why it ended."""
        self.is_done = False
        self.error = ""

    def feed(self, data: bytes, now: float) -> None:
        """Bytes that arrived at `now`."""
        data = self._rest + data
        *events, self._rest = data.replace(b"\r\n", b"\n").split(b"\n\n")
        if len(self._rest) > _EVENT_BYTES:
            raise EngineBroke(f"an event is longer than {_EVENT_BYTES} bytes")
        for event in events:
            for line in event.split(b"\n"):
                if line.startswith(b"data:"):
                    self._read(line[5:].strip(), now)

    def _read(self, payload: bytes, now: float) -> None:
        if payload == b"[DONE]":
            self.is_done = True
            return
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            self.error = self.error or "an event is not JSON"
            return
        if not isinstance(value, dict):
            self.error = self.error or "an event is not an object"
            return
        if value.get("error"):
            self.error = self.error or words_of(value["error"])
        if isinstance(value.get("usage"), dict):
            self.usage = value["usage"]
        choices = value.get("choices")
        carries = False
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                carries = self._take(choice) or carries
        if carries:
            self.arrivals.append(now)

    def _take(self, choice: dict[str, Any]) -> bool:
        """Whether there is output in it: text, reasoning, a part of a tool call; a role alone is none."""
        if choice.get("finish_reason"):
            self.finish = str(choice["finish_reason"])
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            text = choice.get("text")
            if self._keeps and isinstance(text, str):
                self._said.append(text)
            return bool(text)
        if self._keeps:
            self._keep(delta)
        return any(delta.get(name) for name in ("content", "reasoning", "reasoning_content", "tool_calls", "refusal"))

    def _keep(self, delta: dict[str, Any]) -> None:
        if isinstance(delta.get("content"), str):
            self._said.append(delta["content"])
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                self._tools.append(function["arguments"])

    @property
    def text(self) -> str:
        """What it said, where that is kept."""
        return "".join(self._said)

    @property
    def arguments(self) -> str:
        """Arguments of its tool call, likewise."""
        return "".join(self._tools)

    def count(self, name: str) -> int | None:
        """A count of the server's `usage`."""
        value = self.usage.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def cached(self) -> int | None:
        """Prompt tokens that the server had already computed, where it says so."""
        details = self.usage.get("prompt_tokens_details")
        value = details.get("cached_tokens") if isinstance(details, dict) else None
        return value if isinstance(value, int) else None


async def whole_answer(
    upstream: Upstream, method: str, path: str, head: str, body: bytes, timeout_s: float
) -> tuple[int, bytes]:
    """The status and the body of an answer that is not streamed. Raises EngineBroke, also where it takes too long."""
    try:
        async with asyncio.timeout(timeout_s):
            response = await upstream.request(method, path, head, body)
            try:
                return response.status, await response.read_all(_ANSWER_BYTES)
            finally:
                response.close()
    except TimeoutError:
        raise EngineBroke(f"no answer to {path} within {timeout_s:g} s") from None


def words_of(error: object) -> str:
    """What an error says of itself, in one short line."""
    told = error.get("code") or error.get("message") if isinstance(error, dict) else error
    return " ".join(str(told).split())[:_ERROR_CHARS]
