"""The HTTP side of the engine: OpenAI's protocol and our annex to it (docs/engine-protocol.md), as a plain ASGI app.

One coroutine per request. It has the prompt rendered and tokenised, hands the request to the engine thread, and writes
the head and the end of the answer; what is between them the engine thread writes where it can (`line.py`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from serving.errors import EngineUnavailable, InvalidRequest, ModelNotFound, Overloaded
from serving.fairness import may_enter
from serving.generation.compiler import Grammar, Grammars
from serving.generation.parsers import AnswerParser
from serving.generation.prompt import check_tokens, render, room_for_answer
from serving.generation.sampling import for_choice
from serving.generation.template import ChatTemplate, Piece
from serving.generation.thread import PREPARE_TIMEOUT_S, TextThread
from serving.llamacpp import metrics
from serving.llamacpp.answers import Body, StreamedAnswer, failure, whole_answer
from serving.llamacpp.binding import Model
from serving.llamacpp.engine import Engine, Request, Update
from serving.llamacpp.line import Collected, Line
from serving.llamacpp.reading import Reading
from serving.llamacpp.tokenizer import tokenize
from serving.openai import (
    ChatRequest,
    Limits,
    TokenizeRequest,
    parse_chat,
    parse_completion,
    parse_detokenize,
    parse_tokenize,
    responses,
    serialise,
)
from serving.openai.answer import Answer, watch
from serving.openai.asgi import SSE_HEADERS, Receive, Scope, Send, Server, header, read_body, respond
from serving.openai.limits import LLAMACPP, Serves

if TYPE_CHECKING:
    from serving.generation.constraint import Constraint

KEEP_ALIVE_S = 15.0
STALLED_S = 30.0
"""An engine thread that has work and was not heard of for so long is not ready, which gets it restarted."""


@dataclass(slots=True)
class Loading:
    """How far the model is, as `/ready` tells it."""

    stage: str = "weights"
    progress: float = 0.0


@dataclass(frozen=True, slots=True)
class Service:
    """A loaded model, ready to answer."""

    alias: str
    model: Model
    engine: Engine
    text: TextThread
    template: ChatTemplate | None
    grammars: Grammars
    reading: Reading
    context: int
    """Tokens that one sequence may hold."""
    parallel: int
    max_queue: int
    facts: dict[str, object]
    """What `/ready` says of it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is computed, and how what comes of it is held and read."""

    tokens: list[int]
    grammar: Grammar | None
    readers: Sequence[AnswerParser | None]
    """One for each choice; None where text is content."""


class App(Server):
    """The ASGI application. `service` is None until the model is loaded."""

    def __init__(self, limits: Limits, serves: Serves = LLAMACPP) -> None:
        super().__init__(
            limits,
            {
                "/v1/chat/completions": {"POST": self._chat},
                "/v1/completions": {"POST": self._completion},
                "/v1/models": {"GET": self._models},
                "/tokenize": {"POST": self._tokenize},
                "/detokenize": {"POST": self._detokenize},
                "/health": {"GET": self._health},
                "/ready": {"GET": self._ready},
                "/metrics": {"GET": self._metrics},
            },
        )
        self.loading = Loading()
        self.service: Service | None = None
        self._serves = serves
        self._outstanding: Counter[str | None] = Counter()
        """Answers that run or wait, by account."""

    # --- generating ------------------------------------------------------------------------------------------------

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_chat(await read_body(scope, receive, self.limits), self.limits, serves=self._serves)
        service = self._service(body.model)

        def prepare() -> Prompt:
            pieces = conversation(service, body)
            tokens = tokenize(service.model, pieces, service.context, add_special=False)
            starts = service.reading.opens_reasoning(pieces)
            readers = [service.reading.reader(body, starts_in_reasoning=starts) for _ in range(body.n)]
            return Prompt(tokens, service.reading.grammar(body, starts_in_reasoning=starts), readers)

        await self._generate(service, body, prepare, scope, receive, send)

    async def _completion(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_completion(await read_body(scope, receive, self.limits), self.limits, serves=self._serves)
        service = self._service(body.model)
        prompt = body.prompt

        def prepare() -> Prompt:
            plain: list[AnswerParser | None] = [None] * body.n
            if isinstance(prompt, str):
                pieces = [Piece(prompt, is_plain=False)]
                return Prompt(tokenize(service.model, pieces, service.context, add_special=True), None, plain)
            room_for_answer(service.context, len(prompt), body.sampling)  # before each of them is looked at
            check_tokens(prompt, service.model.n_vocab, "prompt")
            return Prompt(list(prompt), None, plain)

        await self._generate(service, body, prepare, scope, receive, send)

    async def _generate(
        self,
        service: Service,
        body: Body,
        prepare: Callable[[], Prompt],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        check_tokens([token for token, _ in body.sampling.logit_bias], service.model.n_vocab, "logit_bias")
        most = service.parallel + service.max_queue
        if body.n > most:
            raise InvalidRequest(f"`n` is {body.n}; {most} answers may run or wait here at a time", param="n")
        account, taken = header(scope, b"x-account"), self._outstanding.total()
        if not may_enter(account, self._outstanding[account], taken, most, body.n):
            raise Overloaded(f"{taken} answers are running or waiting, no more fit", retry_after_s=2)

        def to_choice(index: int) -> Callable[[Update], None]:
            return lambda update: answer.put((index, update))

        # From here on it counts, and is dropped when its client leaves: preparing a long prompt takes a while, too.
        answer: Answer[tuple[int, Update]] = Answer()
        domain = header(scope, b"x-cache-domain") or ""
        self._outstanding[account] += body.n
        watcher = asyncio.create_task(watch(receive, answer))
        requests: list[Request] = []
        finished = False
        try:
            prepared = await answer.unless_gone(prepare_all(service, body, prepare, domain))
            if prepared is None:
                return
            prompt, constraints = prepared
            tokens = prompt.tokens
            max_tokens = room_for_answer(service.context, len(tokens), body.sampling)
            requests += [
                Request(
                    tokens=tokens.copy(),
                    root=("", domain),
                    sampling=for_choice(body.sampling, index),
                    max_tokens=max_tokens,
                    on_update=to_choice(index),
                    logprobs=body.logprobs,
                    constraint=constraint,
                    shown=service.reading.shown,
                    account=account,
                )
                for index, constraint in enumerate(constraints)
            ]
            if body.stream:
                transport = scope.get("extensions", {}).get("serving.transport")
                finished = await self._stream(service, body, requests, prompt.readers, answer, send, transport)
            else:
                finished = await self._whole(service, body, requests, prompt.readers, answer, send)
        finally:
            self._outstanding[account] -= body.n
            self._outstanding = +self._outstanding
            watcher.cancel()
            scope["client_left"] = answer.gone
            if not finished:
                for request in requests:
                    service.engine.cancel(request)

    async def _stream(
        self,
        service: Service,
        body: Body,
        requests: list[Request],
        readers: Sequence[AnswerParser | None],
        answer: Answer[tuple[int, Update]],
        send: Send,
        transport: asyncio.Transport | None,
    ) -> bool:
        """Write the answer as it grows. True: it came to its end."""
        out = StreamedAnswer(body, service.model, service.alias, len(requests[0].tokens), readers)
        line = None
        if transport is not None and body.n == 1 and body.logprobs is None and readers[0] is None:
            line = Line(transport, out.choices[0].chunks.text)
            requests[0].pass_on = line.pass_on
        for request in requests:
            service.engine.submit(request)
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        has_begun = False
        while not out.is_over:
            updates = await answer.next(None if has_begun else KEEP_ALIVE_S)
            if answer.gone:
                return False
            if not updates:
                await send({"type": "http.response.body", "body": responses.KEEP_ALIVE, "more_body": True})
                continue
            has_begun = True
            if line is not None:
                line.resume()
            data = out.take(updates)
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": not out.is_over})
            if line is not None and not out.is_over:
                line.handled(len(updates))
        return not out.failed

    async def _whole(
        self,
        service: Service,
        body: Body,
        requests: list[Request],
        readers: Sequence[AnswerParser | None],
        answer: Answer[tuple[int, Update]],
        send: Send,
    ) -> bool:
        """Write the answer once it is there. True: it came to its end."""
        prompt_length = len(requests[0].tokens)
        collected = [Collected() for _ in requests]
        for request, each in zip(requests, collected, strict=True):
            request.pass_on = each.pass_on
            service.engine.submit(request)
        last: dict[int, Update] = {}
        while len(last) < body.n:
            last.update(await answer.next())
            if answer.gone:
                return False
            for update in last.values():
                if update.finish == "error":
                    raise failure(update)
        whole = whole_answer(body, service.model, service.alias, collected, last, readers, prompt_length)
        await respond(send, 200, whole)
        return True

    # --- the small routes ------------------------------------------------------------------------------------------

    async def _tokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_tokenize(await read_body(scope, receive, self.limits), self.limits)
        service = self._service(body.model)

        def job() -> list[int]:
            pieces = conversation(service, body) if body.prompt is None else [Piece(body.prompt, is_plain=False)]
            return tokenize(service.model, pieces, service.context, add_special=body.add_special_tokens)

        tokens = await service.text.run(job, PREPARE_TIMEOUT_S)
        await respond(send, 200, responses.tokenized(tokens, max_model_len=service.context))

    async def _detokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_detokenize(await read_body(scope, receive, self.limits), self.limits)
        service = self._service(body.model)
        if len(body.tokens) > service.context:
            raise InvalidRequest(
                f"{len(body.tokens)} tokens are more than a context of {service.context}", param="tokens"
            )
        check_tokens(body.tokens, service.model.n_vocab, "tokens")
        text = await service.text.run(
            lambda: b"".join(map(service.model.special_piece, body.tokens)).decode("utf-8", "replace"),
            PREPARE_TIMEOUT_S,
        )
        await respond(send, 200, responses.detokenized(text))

    async def _models(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        service = self._service(None)
        card = responses.model_card(service.alias, created=0, max_model_len=service.context)
        await respond(send, 200, responses.model_list([card]))

    async def _health(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, 200, b'{"status":"ok"}')

    async def _ready(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        if self.service is None:
            await respond(send, 503, serialise({"status": "loading", **asdict(self.loading)}))
        elif self.service.engine.silent_s() > STALLED_S:
            # Not answered at all: to whoever watches, a thread that hangs and a process that hangs are the same.
            await asyncio.sleep(STALLED_S)
            await respond(send, 503, serialise({"status": "stalled"}))
        else:
            await respond(send, 200, serialise({"status": "ready", **self.service.facts}))

    async def _metrics(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        text = metrics.render(self._service(None).engine.counters)
        await respond(send, 200, text.encode(), content_type=b"text/plain; version=0.0.4; charset=utf-8")

    # --- what they share -------------------------------------------------------------------------------------------

    def _service(self, model: str | None) -> Service:
        if self.service is None:
            raise EngineUnavailable("the model is still loading", retry_after_s=2)
        if model is not None and model != self.service.alias:
            raise ModelNotFound(f"`{model}` is not served here", param="model", hint=f"use `{self.service.alias}`")
        return self.service


async def prepare_all(
    service: Service, body: Body, prepare: Callable[[], Prompt], domain: str
) -> tuple[Prompt, Sequence[Constraint | None]]:
    """The prompt, and for each choice the grammar that it follows, at its beginning."""
    prompt = await service.text.run(prepare, PREPARE_TIMEOUT_S)
    if prompt.grammar is None:
        return prompt, [None] * body.n
    return prompt, await service.grammars.compile(prompt.grammar, body.n, domain)


def conversation(service: Service, body: ChatRequest | TokenizeRequest) -> list[Piece]:
    """The prompt that the messages make."""
    return render(service.template, body, context=service.context, longest_piece=service.model.longest_piece)
