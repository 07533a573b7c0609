"""The HTTP side of a run that embeds or ranks: OpenAI's and Jina's protocol, as a plain ASGI app."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from serving.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    UnsupportedFeature,
)
from serving.generation.template import Piece
from serving.generation.thread import PREPARE_TIMEOUT_S, TextThread
from serving.llamacpp import metrics
from serving.llamacpp.binding import Model
from serving.llamacpp.binding_pooling import Pairs
from serving.llamacpp.pooling import Job, PoolingEngine, Vector
from serving.llamacpp.server import STALLED_S, Loading
from serving.llamacpp.tokenizer import tokenize
from serving.llamacpp.word_pieces import WordPieces
from serving.openai import (
    Limits,
    embeddings_body,
    parse_detokenize,
    parse_embeddings,
    parse_rerank,
    parse_tokenize,
    rerank_body,
    responses,
    serialise,
)
from serving.openai.asgi import Receive, Scope, Send, Server, read_body, respond
from serving.openai.texts import UNCUT, check_dimensions, check_ids, too_long
from serving.pooling import Task

Prepare = Callable[[], list[list[int]]]


@dataclass(frozen=True, slots=True)
class PoolingService:
    """A loaded model, ready to embed or to rank."""

    alias: str
    task: Task
    model: Model
    engine: PoolingEngine
    text: TextThread
    words: WordPieces | None
    """The tokenizer where words are split as BERT does; None where llama.cpp's is used."""
    pairs: Pairs | None
    """How a query and a document are joined; None where the model embeds."""
    context: int
    """Tokens that one text may have, or a query and a document together."""
    width: int
    """Numbers in an embedding."""
    max_outstanding: int
    """Requests that run or wait, at most."""
    facts: dict[str, object]
    """What `/ready` says of it."""


class PoolingApp(Server):
    """The ASGI application. `service` is None until the model is loaded."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(
            limits,
            {
                "/v1/embeddings": {"POST": self._embeddings},
                "/v1/rerank": {"POST": self._rerank},
                "/v1/models": {"GET": self._models},
                "/tokenize": {"POST": self._tokenize},
                "/detokenize": {"POST": self._detokenize},
                "/health": {"GET": self._health},
                "/ready": {"GET": self._ready},
                "/metrics": {"GET": self._metrics},
            },
        )
        self.loading = Loading()
        self.service: PoolingService | None = None
        self._outstanding = 0

    # --- computing -------------------------------------------------------------------------------------------------

    async def _embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_embeddings(await read_body(scope, receive, self.limits), self.limits)
        service = self._service(body.model)
        check_task(service, "embed")
        check_dimensions(body, service.width, service.alias)

        def prepare() -> list[list[int]]:
            return [tokens_of(service, index, one) for index, one in enumerate(body.inputs)]

        done = await self._compute(service, prepare, scope, receive)
        if done is None:
            return
        job, vectors = done

        def build() -> bytes:
            whole = map(normalised, vectors)
            return embeddings_body(
                model=service.alias,
                embeddings=(in_base64(vector) for vector in whole) if body.base64 else (v.tolist() for v in whole),
                prompt_tokens=sum(map(len, job.texts)),
            )

        await respond(send, 200, await asyncio.to_thread(build))

    async def _rerank(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_rerank(await read_body(scope, receive, self.limits), self.limits)
        service = self._service(body.model)
        check_task(service, "rerank")

        def prepare() -> list[list[int]]:
            return pairs_of(service, body.query, body.documents)

        done = await self._compute(service, prepare, scope, receive)
        if done is not None:
            job, vectors = done
            scores = [sigmoid(float(vector[0])) for vector in vectors]
            tokens = sum(map(len, job.texts))
            await respond(send, 200, rerank_body(body, model=service.alias, scores=scores, prompt_tokens=tokens))

    async def _compute(
        self, service: PoolingService, prepare: Prepare, scope: Scope, receive: Receive
    ) -> tuple[Job, list[Vector]] | None:
        """The texts as tokens and a vector for each; None where the client left meanwhile."""
        if self._outstanding >= service.max_outstanding:
            raise Overloaded(f"{self._outstanding} requests are running or waiting, no more fit", retry_after_s=2)
        self._outstanding += 1
        answer: asyncio.Future[list[Vector]] = asyncio.get_running_loop().create_future()
        job: Job | None = None
        gone = asyncio.create_task(until_gone(receive))
        preparing = asyncio.create_task(service.text.run(prepare, PREPARE_TIMEOUT_S))
        # An error that nobody is there to be told of is looked at, or asyncio would log it with the text's traceback.
        preparing.add_done_callback(lambda task: None if task.cancelled() else task.exception())
        try:
            await asyncio.wait({gone, preparing}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return None
            job = Job(preparing.result(), lambda vectors: None if answer.done() else answer.set_result(vectors))
            service.engine.submit(job)
            gone.add_done_callback(lambda _: answer.cancel())
            await asyncio.wait({answer})
            return None if answer.cancelled() else (job, answer.result())
        finally:
            self._outstanding -= 1
            scope["client_left"] = gone.done()
            gone.cancel()
            preparing.cancel()
            if job is not None and (answer.cancelled() or not answer.done()):
                answer.cancel()
                service.engine.cancel(job)

    # --- the small routes ------------------------------------------------------------------------------------------

    async def _tokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_tokenize(await read_body(scope, receive, self.limits), self.limits)
        service = self._service(body.model)
        if body.prompt is None:
            raise UnsupportedFeature(f"`{service.alias}` holds no conversations", param="messages", hint="use `prompt`")
        text, special = body.prompt, body.add_special_tokens
        tokens = await service.text.run(
            lambda: text_tokens(service, text, "the prompt", "prompt", add_special=special), PREPARE_TIMEOUT_S
        )
        await respond(send, 200, responses.tokenized(tokens, max_model_len=service.context))

    async def _detokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = parse_detokenize(await read_body(scope, receive, self.limits), self.limits)
        service = self._service(body.model)
        if len(body.tokens) > service.context:
            raise InvalidRequest(
                f"{len(body.tokens)} tokens are more than a context of {service.context}", param="tokens"
            )
        check_ids(body.tokens, service.model.n_vocab, "tokens")
        text = b"".join(map(service.model.special_piece, body.tokens)).decode("utf-8", "replace")
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
            await asyncio.sleep(STALLED_S)  # as in `server`: to whoever watches, it does not answer
            await respond(send, 503, serialise({"status": "stalled"}))
        else:
            await respond(send, 200, serialise({"status": "ready", **self.service.facts}))

    async def _metrics(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        text = metrics.render(self._service(None).engine.counters)
        await respond(send, 200, text.encode(), content_type=b"text/plain; version=0.0.4; charset=utf-8")

    def _service(self, model: str | None) -> PoolingService:
        if self.service is None:
            raise EngineUnavailable("the model is still loading", retry_after_s=2)
        if model is not None and model != self.service.alias:
            raise ModelNotFound(f"`{model}` is not served here", param="model", hint=f"use `{self.service.alias}`")
        return self.service


def check_task(service: PoolingService, task: Task) -> None:
    """Raises UnsupportedFeature for a route that this run is not for."""
    if service.task != task:
        what = {"embed": "embeddings", "rerank": "scores of documents"}[service.task]
        raise UnsupportedFeature(f"`{service.alias}` serves {what}", param="model")


def tokens_of(service: PoolingService, index: int, given: str | Sequence[int]) -> list[int]:
    """The tokens of one input. Raises ContextLengthExceeded, InvalidRequest; never cuts."""
    param = f"input.{index}"
    if isinstance(given, str):
        tokens = text_tokens(service, given, f"input {index}", param, add_special=True)
    else:
        check_length(service, len(given), f"input {index}", param)
        check_ids(given, service.model.n_vocab, param)
        tokens = list(given)
    if not tokens:
        raise InvalidRequest(f"input {index} has no tokens", param=param)
    check_length(service, len(tokens), f"input {index}", param)
    return tokens


def pairs_of(service: PoolingService, query: str, documents: Sequence[str]) -> list[list[int]]:
    """The tokens of the query with each document. Raises ContextLengthExceeded, InvalidRequest; never cuts."""
    if service.pairs is None:
        raise UnsupportedFeature(f"`{service.alias}` ranks nothing", param="model")
    asked = text_tokens(service, query, "the query", "query", add_special=False)
    check_length(service, len(service.pairs.join(asked, [])), "the query", "query")
    found = []
    for index, document in enumerate(documents):
        name, param = f"document {index}", f"documents.{index}"
        tokens = service.pairs.join(asked, text_tokens(service, document, name, param, add_special=False))
        check_length(service, len(tokens), f"{name} with the query", param)
        found.append(tokens)
    return found


def text_tokens(service: PoolingService, text: str, name: str, param: str, *, add_special: bool) -> list[int]:
    """The tokens of a text, in which nothing stands for a control token. Errors name it."""
    try:
        if service.words is not None:
            return service.words.tokenize(text, add_special=add_special)
        return tokenize(service.model, [Piece(text, is_plain=True)], service.context, add_special=add_special)
    except ContextLengthExceeded:
        raise ContextLengthExceeded(
            f"{name} has {len(text.encode())} bytes, more than {service.context} tokens can hold",
            param=param,
            hint=UNCUT,
        ) from None


def check_length(service: PoolingService, tokens: int, name: str, param: str) -> None:
    """Raises ContextLengthExceeded for a text that the model cannot see as a whole."""
    if tokens > service.context:
        raise too_long(f"{name} has {tokens} tokens", service.context, service.alias, param)


def normalised(vector: Vector) -> Vector:
    """The vector at length 1; one of zeros stays what it is."""
    length = float((vector.astype("f8") ** 2).sum()) ** 0.5
    return vector / length if length else vector


def in_base64(vector: Vector) -> str:
    """Little-endian 32-bit floats in base64, as OpenAI's clients read them."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def sigmoid(logit: float) -> float:
    """A classifier's number as a score from 0 to 1."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


async def until_gone(receive: Receive) -> None:
    """Return when the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
