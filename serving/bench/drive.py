"""Sends a timetable to a server and notes when what came back. One event loop, no thread, nothing parsed twice.

An arrival is noted in the callback that received it, before anything reads it: what this process does with an event
later is no part of the server's time. What it does *to* the server's time, by being late itself, is watched (`Watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from serving.bench.samples import Outcome, Sample
from serving.bench.scenario import Closed, Scenario, Wanted
from serving.engines.spec import Origin
from serving.gateway.upstream import EngineBroke, Upstream

_TICK_S: Final = 0.01
_ERROR_BYTES: Final = 1 << 16
_EVENT_BYTES: Final = 1 << 20
_ERROR_CHARS: Final = 160


@dataclass(frozen=True, slots=True)
class Target:
    """The server under test."""

    origin: Origin
    model: str
    key: str | None = None
    timeout_s: float = 600.0
    """For one request, from sending to its end."""

    @property
    def head(self) -> str:
        """Header lines that every request carries."""
        return "" if self.key is None else f"authorization: Bearer {self.key}\r\n"


@dataclass(slots=True)
class Watch:
    """How well this process itself kept up."""

    lags: list[float] = field(default_factory=list)
    """Seconds by which the event loop woke up later than asked, one for each tick."""
    cpu_s: float = 0.0
    wall_s: float = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            wanted = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self.lags.append(loop.time() - wanted)


class Answer:
    """Reads one stream of events as it arrives."""

    __slots__ = ("_rest", "arrivals", "error", "is_done", "usage")

    def __init__(self) -> None:
        self._rest = b""
        self.arrivals: list[float] = []
        self.usage: Mapping[str, Any] = {}
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
            self.error = self.error or _words_of(value["error"])
        if isinstance(value.get("usage"), dict):
            self.usage = value["usage"]
        if any(map(_carries_output, _listed(value.get("choices")))):
            self.arrivals.append(now)

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


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _carries_output(choice: object) -> bool:
    """Text, reasoning, or a part of a tool call; an opening event with a role alone carries none."""
    if not isinstance(choice, dict):
        return False
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return bool(choice.get("text"))
    return any(delta.get(name) for name in ("content", "reasoning", "reasoning_content", "tool_calls", "refusal"))


def _words_of(error: object) -> str:
    """What an error says of itself, in one short line."""
    told = error.get("code") or error.get("message") if isinstance(error, dict) else error
    return " ".join(str(told).split())[:_ERROR_CHARS]


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, and what the timetable says of it."""

    wanted: Wanted
    body: bytes


def body_of(scenario: Scenario, model: str, text: str, output_tokens: int) -> bytes:
    """A streamed request that is answered with exactly so many tokens, by servers that know `ignore_eos`."""
    asked: dict[str, object] = {"model": model}
    asked |= {"messages": [{"role": "user", "content": text}]} if scenario.route == "chat" else {"prompt": text}
    return json.dumps(
        {
            **asked,
            "max_tokens": output_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()


class Driver:
    """Drives one load, and keeps the samples of the requests that have ended, also where it is cut off."""

    def __init__(self, target: Target, route: str, on_sample: Callable[[Sample], None] = lambda _: None) -> None:
        self._target = target
        self._path = "/v1/chat/completions" if route == "chat" else "/v1/completions"
        self._upstream = Upstream(target.origin)
        self._on_sample = on_sample
        self._began = 0.0
        self.samples: dict[int, Sample] = {}
        """By the number of the request."""
        self.watch = Watch()

    async def run(self, requests: Sequence[Request], scenario: Scenario) -> None:
        """Send them all, as the scenario's load has it."""
        self._began, cpu = time.perf_counter(), time.process_time()
        watching = asyncio.create_task(self.watch.run())
        try:
            if isinstance(scenario.load, Closed):
                left = iter(requests)
                await asyncio.gather(*(self._client(left) for _ in range(scenario.load.clients)))
            else:
                await self._on_time(requests)
        finally:
            watching.cancel()
            self.watch.cpu_s = time.process_time() - cpu
            self.watch.wall_s = time.perf_counter() - self._began
            self._upstream.close()

    async def _client(self, left: Iterator[Request]) -> None:
        for request in left:
            await self._ask(request, self._now())

    async def _on_time(self, requests: Sequence[Request]) -> None:
        async with asyncio.TaskGroup() as group:
            for request in requests:
                due = request.wanted.due or 0.0
                if (early := due - self._now()) > 0:
                    await asyncio.sleep(early)
                group.create_task(self._ask(request, due))

    def _now(self) -> float:
        return time.perf_counter() - self._began

    async def _ask(self, request: Request, due: float) -> None:
        """Send one request; whatever comes of it is a sample."""
        answer, sent = Answer(), self._now()
        outcome: Outcome = "failed"
        error = ""

        def take(data: bytes) -> None:
            answer.feed(data, self._now())

        head = f"content-type: application/json\r\naccept: text/event-stream\r\n{self._target.head}"
        response = None
        try:
            async with asyncio.timeout(self._target.timeout_s):
                response = await self._upstream.request("POST", self._path, head, request.body)
                if response.status != 200:
                    error = f"status {response.status}"
                    with contextlib.suppress(ValueError, RecursionError, AttributeError):
                        told = json.loads(await response.read_all(_ERROR_BYTES))
                        error = f"{error}: {_words_of(told.get('error'))}"
                else:
                    await response.pump(take)
                    outcome, error = _judge(answer, request.wanted)
        except TimeoutError:
            error = f"no end within {self._target.timeout_s:g} s"
        except EngineBroke as broke:
            outcome, error = ("truncated" if answer.arrivals else "failed"), broke.message
        finally:
            if response is not None:
                response.close()
        sample = Sample(
            due=due,
            sent=sent,
            arrivals=tuple(answer.arrivals),
            ended=self._now(),
            outcome=outcome,
            prompt_tokens=answer.count("prompt_tokens"),
            cached_tokens=answer.cached,
            output_tokens=answer.count("completion_tokens"),
            error=error,
        )
        self.samples[request.wanted.number] = sample
        self._on_sample(sample)


def _judge(answer: Answer, wanted: Wanted) -> tuple[Outcome, str]:
    """How a stream ended that its server ended itself."""
    if answer.error:
        return ("truncated" if answer.arrivals else "failed"), answer.error
    if not answer.is_done:
        return ("truncated" if answer.arrivals else "failed"), "the stream ended without [DONE]"
    output = answer.count("completion_tokens")
    if output is None:
        return "completed", "no usage"
    if output < wanted.output_tokens:
        return "short", f"{output} of {wanted.output_tokens} tokens"
    return "completed", ""
