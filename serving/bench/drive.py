"""Sends prepared requests to a server and notes when what came back. One event loop, no thread, nothing parsed twice.

An arrival is noted in the callback that received it, before anything reads it: what this process does with an event
later is no part of the server's time. What it does *to* the server's time, by being late itself, is watched (`Watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from serving.bench.answer import PATHS, Answer, words_of
from serving.bench.prepare import Job, Request
from serving.bench.samples import Outcome, Sample
from serving.bench.watch import Kept, Watch, precedence
from serving.bench.work import is_of_form
from serving.engines.spec import Origin
from serving.gateway.upstream import EngineBroke, Upstream

_ERROR_BYTES: Final = 1 << 16
OnFirst = Callable[[float], None]
"""Called with each TTFT, in seconds, as the first token comes."""


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


class Driver:
    """Drives one load, and keeps the samples of the requests that have ended, also where it is cut off."""

    def __init__(
        self,
        target: Target,
        on_sample: Callable[[int, Sample], None] = lambda _number, _sample: None,
        on_first: OnFirst = lambda _: None,
    ) -> None:
        self._target = target
        self._upstream = Upstream(target.origin)
        self._on_sample = on_sample
        self._on_first = on_first
        self._began = 0.0
        self.samples: dict[int, Sample] = {}
        """By the number of the request."""
        self.texts: dict[int, str] = {}
        """Answers that are to be counted again, likewise."""
        self.kept = Kept()

    async def run(self, jobs: Sequence[Job], clients: int | None, begin: float | None = None) -> None:
        """Send them all: by so many clients, each when it is free, or each when it is due where `clients` is None.

        `begin` is the moment of `time.perf_counter` from which times count, for several processes to share.
        """
        self._began = time.perf_counter() if begin is None else begin
        if (early := -self._now()) > 0:
            await asyncio.sleep(early)
        watch = Watch()
        try:
            with precedence():
                async with watch:
                    await self._all(jobs, clients)
        finally:
            self.kept = watch.kept
            self._upstream.close()

    async def _all(self, jobs: Sequence[Job], clients: int | None) -> None:
        if clients is None:
            await self._on_time(jobs)
            return
        left = iter(jobs)
        await asyncio.gather(*(self._client(left) for _ in range(clients)))

    async def _client(self, left: Iterator[Job]) -> None:
        for job in left:
            await self._do(job, self._now())

    async def _on_time(self, jobs: Sequence[Job]) -> None:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                due = job.due or 0.0
                if (early := due - self._now()) > 0:
                    await asyncio.sleep(early)
                group.create_task(self._do(job, due))

    def _now(self) -> float:
        return time.perf_counter() - self._began

    async def _do(self, job: Job, due: float) -> None:
        """One request after the other; what follows from a failure has failed as well."""
        answers: list[str] = []
        for at, request in enumerate(job.requests):
            if at:
                await asyncio.sleep(job.pause_s)
                due = self._now()
            body = request.body if isinstance(request.body, bytes) else request.body.body(answers)
            answer = await self._ask(request, body, due)
            if answer is None:
                for later in job.requests[at + 1 :]:
                    now = self._now()
                    self._keep(later, Sample(now, now, (), now, "failed", error="a turn before it failed"))
                return
            answers.append(answer.text)

    def _keep(self, request: Request, sample: Sample) -> None:
        self.samples[request.wanted.number] = sample
        self._on_sample(request.wanted.number, sample)

    async def _ask(self, request: Request, body: bytes, due: float) -> Answer | None:
        """Send one request; whatever comes of it is a sample. None where nothing can follow from it."""
        answer, sent = Answer(keeps_text=request.keeps_text), self._now()
        outcome: Outcome = "failed"
        error = ""

        def note_sent() -> None:
            nonlocal sent
            sent = self._now()

        def take(data: bytes) -> None:
            now, had = self._now(), bool(answer.arrivals)
            answer.feed(data, now)
            if not had and answer.arrivals:
                self._on_first(now - sent)

        head = f"content-type: application/json\r\naccept: text/event-stream\r\n{self._target.head}"
        response = None
        try:
            async with asyncio.timeout(self._target.timeout_s):
                response = await self._upstream.request("POST", PATHS[request.route], head, body, note_sent)
                if response.status != 200:
                    error = f"status {response.status}"
                    with contextlib.suppress(ValueError, RecursionError, AttributeError):
                        told = json.loads(await response.read_all(_ERROR_BYTES))
                        error = f"{error}: {words_of(told.get('error'))}"
                else:
                    await response.pump(take)
                    outcome, error = judge(answer, request)
        except TimeoutError:
            outcome, error = (
                ("truncated" if answer.arrivals else "failed"),
                f"no end within {self._target.timeout_s:g} s",
            )
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
            written_tokens=request.prompt_tokens,
        )
        self._keep(request, sample)
        if request.keeps_text and outcome == "completed":
            self.texts[request.wanted.number] = answer.text
        return answer if outcome in ("completed", "short") else None


def judge(answer: Answer, request: Request) -> tuple[Outcome, str]:
    """How a stream ended that its server ended itself, and what is wrong with it."""
    broken = answer.error or ("" if answer.is_done else "the stream ended without [DONE]")
    if broken:
        return ("truncated" if answer.arrivals else "failed"), broken
    output, wanted = answer.count("completion_tokens"), request.wanted.output_tokens
    match request.check:
        case "length" if output is not None and wanted is not None and output < wanted:
            return "short", f"{output} of {wanted} tokens"
        case "object" | "call" if answer.finish == "length":
            return "short", "its length ran out before its form was whole"
        case "object" if not is_of_form(answer.text, request.required):
            return "failed", "it is not of the form that was asked for"
        case "call" if not is_of_form(answer.arguments):
            return "failed", "it is no tool call with arguments"
    return "completed", ""
