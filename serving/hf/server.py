"""The HTTP side of the engine: OpenAI's protocol and our annex to it (docs/engine-protocol.md), as a plain ASGI app."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
)
from serving.generation.prompt import check_tokens, render, room_for_answer
from serving.generation.template import ChatTemplate, Piece
from serving.generation.thread import PREPARE_TIMEOUT_S, TextThread
from serving.hf import metrics
from serving.hf.engine import Engine, Request, Update
from serving.openai import (
    ChatRequest,
    CompletionRequest,
    Limits,
    Serves,
    TokenizeRequest,
    Usage,
    parse_chat,
    parse_completion,
    parse_detokenize,
    parse_tokenize,
    responses,
    serialise,
)
from serving.openai.answer import Answer, watch
from serving.openai.asgi import SSE_HEADERS, Receive, Scope, Send, Server, read_body, respond
from serving.openai.process import resident_bytes

KEEP_ALIVE_S = 15.0
SERVES = Serves()
"""None of the optional parts: an oracle answers plainly."""


class Tokenizer(Protocol):
    """What the server needs of `binding.Tokenizer`."""

    longest_piece: int

    def tokenize(self, text: str, *, add_special: bool, is_plain: bool) -> list[int]:
        """Token ids of a text."""

    def text_of(self, tokens: Sequence[int]) -> str:
        """Text of tokens, control tokens spelled out."""


@dataclass(slots=True)
class Loading:
    """How far the model is, as `/ready` tells it."""

    stage: str = "libraries"
    weight_bytes: int = 0
    bytes_before: int = 0

    def begin_weights(self, size: int) -> None:
        """From now on weights of so many bytes are loaded."""
        self.weight_bytes, self.bytes_before = size, sum(resident_bytes().values())
        self.stage = "weights"

    def told(self) -> dict[str, object]:
        """The body of a `/ready` that is not.

        The library does not say how far it is, so that is judged by what the process holds.
        """
        progress = 0.0 if self.stage == "libraries" else 1.0
        if self.stage == "weights":
            held = sum(resident_bytes().values()) - self.bytes_before
            progress = min(1.0, max(0.0, held / self.weight_bytes))
        return {"status": "loading", "stage": self.stage, "progress": round(progress, 3)}


@dataclass(frozen=True, slots=True)
class Service:
    """A loaded model, ready to answer."""

    alias: str
    engine: Engine
    text: TextThread
    tokenizer: Tokenizer
    template: ChatTemplate | None
    n_vocab: int
    context: int
    """Tokens that prompt and answer may have together."""
    max_queue: int
    facts: dict[str, object]
    """What `/ready` says of it."""


class App(Server):
    """The ASGI application. `service` is None until the model is loaded."""

    def __init__(self, limits: Limits) -> None:
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
        self._outstanding = 0

    # --- generating ------------------------------------------------------------------------------------------------

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_chat(await read_body(scope, receive, self.limits), self.limits, serves=SERVES)
        service = self._service(body.model)
        await self._generate(
            service,
            body,
            lambda: tokenize(service, conversation(service, body), add_special=False),
            scope,
            receive,
            send,
        )

    async def _completion(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_completion(await read_body(scope, receive, self.limits), self.limits, serves=SERVES)
        service = self._service(body.model)
        prompt = body.prompt

        def prepare() -> list[int]:
            if isinstance(prompt, str):
                return tokenize(service, [Piece(prompt, is_plain=False)], add_special=True)
            room_for_answer(service.context, len(prompt), body.sampling)  # before each of them is looked at
            check_tokens(prompt, service.n_vocab, "prompt")
            return list(prompt)

        await self._generate(service, body, prepare, scope, receive, send)

    async def _generate(
        self,
        service: Service,
        body: ChatRequest | CompletionRequest,
        prepare: Callable[[], list[int]],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        check_tokens([token for token, _ in body.sampling.logit_bias], service.n_vocab, "logit_bias")
        if self._outstanding >= 1 + service.max_queue:
            raise Overloaded(f"{self._outstanding} requests are running or waiting, no more fit", retry_after_s=2)
        answer: Answer[Update] = Answer()
        self._outstanding += 1
        watcher = asyncio.create_task(watch(receive, answer))
        request: Request | None = None
        try:
            tokens = await answer.unless_gone(service.text.run(prepare, PREPARE_TIMEOUT_S))
            if tokens is None:
                return
            request = Request(
                tokens=tokens,
                sampling=body.sampling,
                max_tokens=room_for_answer(service.context, len(tokens), body.sampling),
                on_update=answer.put,
            )
            service.engine.submit(request)
            await (self._stream if body.stream else self._whole)(service, body, request, answer, send)
        finally:
            self._outstanding -= 1
            watcher.cancel()
            scope["client_left"] = answer.gone
            if request is not None:
                request.is_gone = True  # or has its whole answer

    async def _stream(
        self,
        service: Service,
        body: ChatRequest | CompletionRequest,
        request: Request,
        answer: Answer[Update],
        send: Send,
    ) -> None:
        """Write the answer as it grows."""
        is_chat = isinstance(body, ChatRequest)
        kind = responses.ChatStream if is_chat else responses.CompletionStream
        chunks = kind(responses.new_id("chatcmpl" if is_chat else "cmpl"), service.alias, int(time.time()))
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        has_begun = False
        while True:
            updates = await answer.next(None if has_begun else KEEP_ALIVE_S)
            if answer.gone:
                return
            if not updates:
                await send({"type": "http.response.body", "body": responses.KEEP_ALIVE, "more_body": True})
                continue
            parts = [] if has_begun else [chunks.start()]
            has_begun = True
            parts += [chunks.text(update.text) for update in updates if update.text]
            last = updates[-1]
            parts += closing(chunks, body, last, len(request.tokens))
            data = b"".join(parts)
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": last.finish is None})
            if last.finish is not None:
                return

    async def _whole(
        self,
        service: Service,
        body: ChatRequest | CompletionRequest,
        request: Request,
        answer: Answer[Update],
        send: Send,
    ) -> None:
        """Write the answer once it is there."""
        updates: list[Update] = []
        while not updates or updates[-1].finish is None:
            updates += await answer.next()
            if answer.gone:
                return
        last = updates[-1]
        if last.finish is None or last.finish == "error":
            raise InternalError("the engine failed on this answer")
        is_chat = isinstance(body, ChatRequest)
        build = responses.chat_completion if is_chat else responses.completion
        payload = build(
            response_id=responses.new_id("chatcmpl" if is_chat else "cmpl"),
            model=service.alias,
            created=int(time.time()),
            choices=[responses.Choice("".join(update.text for update in updates), last.finish)],
            usage=Usage(len(request.tokens), last.generated),
        )
        await respond(send, 200, payload)

    # --- the small routes ------------------------------------------------------------------------------------------

    async def _tokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_tokenize(await read_body(scope, receive, self.limits), self.limits, serves=SERVES)
        service = self._service(body.model)

        def job() -> list[int]:
            pieces = conversation(service, body) if body.prompt is None else [Piece(body.prompt, is_plain=False)]
            return tokenize(service, pieces, add_special=body.add_special_tokens)

        tokens = await service.text.run(job, PREPARE_TIMEOUT_S)
        await respond(send, 200, responses.tokenized(tokens, max_model_len=service.context))

    async def _detokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_detokenize(await read_body(scope, receive, self.limits), self.limits)
        service = self._service(body.model)
        if len(body.tokens) > service.context:
            raise InvalidRequest(
                f"{len(body.tokens)} tokens are more than a context of {service.context}", param="tokens"
            )
        check_tokens(body.tokens, service.n_vocab, "tokens")
        text = await service.text.run(lambda: service.tokenizer.text_of(body.tokens), PREPARE_TIMEOUT_S)
        await respond(send, 200, responses.detokenized(text))

    async def _models(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        service = self._service(None)
        card = responses.model_card(service.alias, created=0, max_model_len=service.context)
        await respond(send, 200, responses.model_list([card]))

    async def _health(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, 200, b'{"status":"ok"}')

    async def _ready(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        if self.service is None:
            await respond(send, 503, serialise(self.loading.told()))
        elif self.service.engine.is_stalled:
            # Not answered at all: to whoever watches, a thread that hangs and a process that hangs are the same.
            await asyncio.Event().wait()
        else:
            await respond(send, 200, serialise({"status": "ready", **self.service.facts}))

    async def _metrics(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        text = metrics.render(self._service(None).engine.counters)
        await respond(send, 200, text.encode(), content_type=b"text/plain; version=0.0.4; charset=utf-8")

    def _service(self, model: str | None) -> Service:
        if self.service is None:
            raise EngineUnavailable("the model is still loading", retry_after_s=2)
        if model is not None and model != self.service.alias:
            raise ModelNotFound(f"`{model}` is not served here", param="model", hint=f"use `{self.service.alias}`")
        return self.service


def conversation(service: Service, body: ChatRequest | TokenizeRequest) -> list[Piece]:
    """The prompt that the messages make."""
    return render(service.template, body, context=service.context, longest_piece=service.tokenizer.longest_piece)


def tokenize(service: Service, pieces: Sequence[Piece], *, add_special: bool) -> list[int]:
    """Tokens of a prompt. Raises ContextLengthExceeded for text that cannot fit the context however it splits."""
    size = sum(len(piece.text.encode()) for piece in pieces)
    if size > service.context * service.tokenizer.longest_piece:
        raise ContextLengthExceeded(
            f"the prompt has {size} bytes, which is more than {service.context} tokens of context can hold",
            hint="shorten the prompt, or serve the model with a larger context",
        )
    tokens: list[int] = []
    for index, piece in enumerate(pieces):
        tokens += service.tokenizer.tokenize(
            piece.text, add_special=add_special and index == 0, is_plain=piece.is_plain
        )
    return tokens


def closing(
    chunks: responses.ChatStream | responses.CompletionStream,
    body: ChatRequest | CompletionRequest,
    last: Update,
    prompt_length: int,
) -> Iterator[bytes]:
    """What follows the last text of a stream; nothing while it goes on."""
    if last.finish is None:
        return
    if last.finish == "error":
        yield responses.error_event(InternalError("the engine failed on this answer"))
        return
    yield chunks.finish(last.finish)
    if body.include_usage:
        yield chunks.usage(Usage(prompt_length, last.generated))
    yield responses.DONE
