"""From a timetable to requests that only have to be sent: their prompts written, their bodies made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from serving.bench.counting import Counting
from serving.bench.prompts import Writer
from serving.bench.scenario import Scenario, Wanted
from serving.bench.work import Conversation, Rag, Schema, Tools, form_of

_AT_ONCE: Final = 8
"""Prompts that are written at a time: the server's tokenizer answers them one after the other."""
_RECOUNTED: Final = 16
"""Measured answers whose text is kept to be counted again."""
Route = Literal["chat", "completions"]
Check = Literal["length", "end", "object", "call"]
"""What makes an answer whole: its length, its own end, a JSON object, or a tool call."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question that carries all that was said before it."""

    model: str
    questions: tuple[str, ...]
    """The earlier ones, and this."""
    output_tokens: int | None

    def body(self, answers: Sequence[str]) -> bytes:
        """With the real answers to the earlier ones."""
        messages = [{"role": "user", "content": self.questions[0]}]
        for answer, question in zip(answers, self.questions[1:], strict=True):
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": question}]
        return body_of(self.model, {"messages": messages}, self.output_tokens, forces_length=True)


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, and what the timetable says of it."""

    wanted: Wanted
    body: bytes | Turn
    """A turn of a conversation is made from the answers before it."""
    check: Check = "length"
    prompt_tokens: int | None = None
    """That it was written to have, where somebody counted."""
    required: tuple[str, ...] = ()
    """Keys of the object that is asked for."""
    keeps_text: bool = False
    route: Route = "chat"


@dataclass(frozen=True, slots=True)
class Job:
    """Requests that follow from each other; most often one."""

    requests: tuple[Request, ...]
    pause_s: float = 0.0
    """Between an answer and the next request."""

    @property
    def due(self) -> float | None:
        """When its first is."""
        return self.requests[0].wanted.due


def body_of(model: str, asked: Mapping[str, Any], output_tokens: int | None, *, forces_length: bool) -> bytes:
    """A streamed request; `forces_length` has it answered with exactly so many tokens, where `ignore_eos` is known."""
    bounds: dict[str, object] = {} if output_tokens is None else {"max_tokens": output_tokens}
    if forces_length:
        bounds["ignore_eos"] = True
    told = {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps({"model": model, **asked, **bounds, **told}).encode()


async def prepare(
    scenario: Scenario,
    wanted: Sequence[Wanted],
    model: str,
    counting: Counting,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> tuple[list[Job], bool]:
    """All requests, and whether every prompt has exactly the tokens that were wanted. Raises EngineBroke."""
    author = _Author(scenario, model, counting)
    await author.begin()
    done, gate = 0, asyncio.Semaphore(_AT_ONCE)

    async def make(turns: Sequence[Wanted]) -> Job:
        nonlocal done
        async with gate:
            job = await author.job(turns)
        done += len(turns)
        on_progress(done, len(wanted))
        return job

    groups = [wanted[at : at + scenario.turns] for at in range(0, len(wanted), scenario.turns)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(make(turns)) for turns in groups]
    return [task.result() for task in tasks], author.is_exact


class _Author:
    """Writes one scenario's requests."""

    def __init__(self, scenario: Scenario, model: str, counting: Counting) -> None:
        self._scenario = scenario
        self._model = model
        self._count = counting.prompt
        self._work = scenario.work
        self._start = "", 0
        """What all prompts begin with, and its tokens."""
        self._passages: list[tuple[str, int]] = []
        self._counts = counting.is_exact
        self.is_exact = counting.is_exact

    async def begin(self) -> None:
        """Write what several share."""
        shared = self._scenario.shared_prefix
        if isinstance(self._work, Rag):
            shared = max(shared, self._work.instructions)
        self._start = "", await self._count("")
        if shared:
            self._start = await self._writer("shared").text(self._start, shared, self._count)
        if isinstance(self._work, Rag):
            empty = self._start[1] if not self._start[0] else await self._count("")
            for number in range(self._work.passages):
                writer = self._writer(f"passage {number}")
                text, tokens = await writer.text(("", empty), empty + self._work.passage, self._count)
                self._passages.append((text, tokens - empty))

    async def job(self, turns: Sequence[Wanted]) -> Job:
        """One or several requests that follow from each other."""
        if isinstance(self._work, Conversation):
            return await self._conversation(self._work, turns)
        (wanted,) = turns
        if wanted.line is not None:
            return Job((self._own(wanted, wanted.line.asked),))
        return Job((await self._written(wanted),))

    async def _written(self, wanted: Wanted) -> Request:
        text, tokens = await self._text(wanted)
        is_chat = self._scenario.route == "chat"
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": text}]} if is_chat else {"prompt": text}
        if isinstance(self._work, Schema | Tools):
            asked |= form_of(self._work)
            check: Check = "object" if isinstance(self._work, Schema) else "call"
            required = tuple(self._work.form.get("required", ())) if isinstance(self._work, Schema) else ()
            body = self._body(asked, wanted.output_tokens, forces_length=False)
            # what the form adds to the prompt is the server's affair, so how long it gets is not known
            return Request(wanted, body, check, None, required, keeps_text=True)
        body = self._body(asked, wanted.output_tokens, forces_length=True)
        keeps = 0 <= wanted.number - self._scenario.warm_up < _RECOUNTED
        return Request(wanted, body, "length", tokens, keeps_text=keeps, route=self._scenario.route)

    async def _text(self, wanted: Wanted) -> tuple[str, int | None]:
        """A prompt, and its tokens where they were counted and not guessed."""
        assert wanted.prompt_tokens is not None  # noqa: S101 - only a user's own request has none
        writer = self._writer(str(wanted.number))
        start = self._start
        if isinstance(self._work, Rag):
            start = await self._gathered(writer, self._work, wanted.prompt_tokens)
        text, tokens = await writer.text(start, wanted.prompt_tokens, self._count)
        self.is_exact = self.is_exact and tokens == wanted.prompt_tokens
        return text, tokens if self._counts else None

    async def _gathered(self, writer: Writer, work: Rag, tokens: int) -> tuple[str, int]:
        """The instructions and as many passages as leave room for the question."""
        text, held = self._start
        for number in writer.draw(len(self._passages), len(self._passages)):
            passage, size = self._passages[number]
            if held + size + work.question > tokens:
                break
            text, held = f"{text}\n\n{passage}", held + size
        text += "\n\n"
        return text, await self._count(text)

    async def _conversation(self, work: Conversation, turns: Sequence[Wanted]) -> Job:
        requests, questions = [], []
        empty = await self._count("")
        for at, wanted in enumerate(turns):
            assert wanted.prompt_tokens is not None  # noqa: S101 - its scenario has lengths
            writer = self._writer(str(wanted.number))
            start = self._start if at == 0 else ("", empty)
            text, tokens = await writer.text(start, wanted.prompt_tokens, self._count)
            self.is_exact = self.is_exact and tokens == wanted.prompt_tokens
            questions.append(text)
            turn = Turn(self._model, tuple(questions), wanted.output_tokens)
            made = turn if at else turn.body(())
            last = at == len(turns) - 1
            told = tokens if at == 0 and self._counts else None
            requests.append(Request(wanted, made, prompt_tokens=told, keeps_text=not last))
        return Job(tuple(requests), work.think_s)

    def _own(self, wanted: Wanted, asked: Mapping[str, Any]) -> Request:
        """A user's own request, on the route that it is made for; as long as it says, or as the model likes."""
        is_told = wanted.output_tokens is not None and "max_tokens" not in asked
        body = self._body(asked, wanted.output_tokens if is_told else None, forces_length=is_told)
        route: Route = "chat" if "messages" in asked else "completions"
        return Request(wanted, body, "length" if is_told else "end", route=route)

    def _body(self, asked: Mapping[str, Any], output_tokens: int | None, *, forces_length: bool) -> bytes:
        return body_of(self._model, asked, output_tokens, forces_length=forces_length)

    def _writer(self, what: str) -> Writer:
        return Writer(f"{self._scenario.seed}/{what}")
