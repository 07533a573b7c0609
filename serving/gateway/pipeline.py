"""One request, top to bottom.

    authenticate → parse the body, once → resolve the model → reserve a place → decide where it may go → audit the
    intent → lease the engine → relay → settle usage → audit the outcome → count

Every request ends in exactly one of completed, refused, failed, cancelled; its place and its connection to the engine
are given back exactly once, whatever raised and whenever the client left (tests/properties/test_outcomes.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from serving.errors import (
    CapacityError,
    ContextLengthExceeded,
    EngineUnavailable,
    InternalError,
    ModelNotFound,
    Overloaded,
    RequestError,
    RequestTimeout,
    RequestTooLarge,
    ServingError,
    ShuttingDown,
    Unauthenticated,
    UnsupportedFeature,
)
from serving.gateway import pooling, too_long
from serving.gateway.answers import Answer, Message, Receive, Scope, Send, must_close
from serving.gateway.elsewhere import Elsewhere, Errand
from serving.gateway.exchange import ClientGone, Exchange, Principal
from serving.gateway.guard import Guard
from serving.gateway.inside import Inside
from serving.gateway.outside import PATHS, Outside, Tried
from serving.gateway.passage import Passage, Silence
from serving.gateway.relay import NO_TOKENS, Settled, estimate, usage_of_body
from serving.gateway.upstream import EngineBroke
from serving.gateway.upstream_errors import error_of_engine
from serving.openai import parse_body, responses, serialise
from serving.openai.strict import check_headers
from serving.telemetry import logs
from serving.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from serving.engines.spec import EngineSpec, Texts
    from serving.gateway.config import GatewayConfig
    from serving.gateway.engine import Engine
    from serving.gateway.routes import Call, Route
    from serving.gateway.upstream import Upstream
    from serving.pooling import Task

log = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_PROCESS: Final = secrets.token_hex(8)
_numbers: Final = itertools.count()
"""With the process's own part, ids that no other request has: randomness for each would be a system call for each."""
_KEY: Final = re.compile(r"pk_[A-Za-z0-9]{12}_")
_ANSWER_BYTES: Final = 256 << 20
"""Longest answer that is not streamed; above it the engine is broken."""
_ERROR_BYTES: Final = 1 << 20


class Pipeline:
    """Serves the routes that reach an engine."""

    def __init__(
        self,
        config: GatewayConfig,
        engines: Mapping[str, Engine],
        metrics: Metrics,
        guard: Guard | None = None,
        outside: Outside | None = None,
    ) -> None:
        """`outside`: the way to the process that may send requests out, or to servers inside; without one none is."""
        self._guard = guard or Guard()
        # what a server elsewhere computes for several callers together nobody here can keep apart
        may_share = config.share_prefixes
        self.inside = Inside(outside, config.most_in_flight) if outside is not None and may_share else None
        """Models that servers inside have, whether engines here serve them or not."""
        self._elsewhere = (
            None if outside is None else Elsewhere(outside, self.inside, self._guard, metrics, self._relay)
        )
        self._config = config
        self._engines = engines
        self._names = names_of(engines)
        self._metrics = metrics
        self._running: set[Exchange] = set()
        self._account_key = secrets.token_bytes(16)
        self._held = 0
        self._idle = asyncio.Event()
        self.is_draining = False
        """Nothing new is taken."""

    @property
    def running(self) -> int:
        """Requests that have not ended."""
        return len(self._running)

    def is_taken_here(self, model: str) -> bool:
        """Whether an engine here can take requests of that model now."""
        engine = self._names.get(model)
        if engine is None:
            return False
        try:
            engine.supervisor.check_ready()
        except EngineUnavailable:
            return False
        return True

    async def wait_idle(self) -> None:
        """Return once nothing runs."""
        while self._running:
            self._idle.clear()
            await self._idle.wait()

    def abort_all(self) -> None:
        """End what still runs, telling each client why."""
        for exchange in list(self._running):
            exchange.interrupt(ShuttingDown("the server stopped before the answer was done"))

    def cut(self, key_id: str) -> None:
        """End what runs for a key that has ended, or with a token that has: its subject may have others."""
        for exchange in list(self._running):
            principal = exchange.principal
            if principal.key is not None and principal.key.key_id == key_id and self._guard.has_ended(principal):
                exchange.interrupt(Unauthenticated("the API key has been revoked, or has expired"))

    async def serve(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and account for it. Raises nothing but a cancellation from outside."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        exchange = Exchange(route.name, request_id_of(headers))
        token = logs.request_id.set(exchange.request_id)
        exchange.body_has_come = not must_close(scope)
        answer = Answer(scope, send, exchange.request_id)
        self._running.add(exchange)
        gone: list[asyncio.Task[None]] = []
        try:
            await self._answer(exchange, route, scope, headers, receive, answer, gone)
        except asyncio.CancelledError:
            reason = exchange.take_reason()
            if reason is None:
                exchange.end("cancelled", ClientGone.code)
                raise
            await self._fail(exchange, answer, reason)
        except ServingError as error:
            await self._fail(exchange, answer, error)
        except ConnectionError:
            await self._fail(exchange, answer, ClientGone("the client's connection broke"))
        except Exception:
            log.exception("request failed")
            await self._fail(exchange, answer, InternalError("the server failed; its log has the request id"))
        finally:
            for watcher in gone:
                watcher.cancel()
            self._running.discard(exchange)
            self._held -= exchange.bytes_in
            self._idle.set()
            exchange.status = answer.status
            self._guard.close(exchange, self._count(exchange))
            if exchange.on_end is not None:
                exchange.on_end()
            logs.request_id.reset(token)

    def turned_away(self, route: Route, error: ServingError) -> None:
        """Count a request that has been answered with that error before it came here."""
        self._metrics.requests.labels(route.name, "", "refused", error.code).inc()
        self._metrics.request_seconds.observe((route.name, ""), 0.0)

    async def _answer(
        self,
        exchange: Exchange,
        route: Route,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        answer: Answer,
        gone: list[asyncio.Task[None]],
    ) -> None:
        """Have it answered. `gone` gets who watches whether its client leaves, from when on that matters."""
        call, engine = await self._admit(exchange, route, scope, headers, receive)
        self._guard.listen(exchange, answer)
        errand: Errand | None = None
        if self._elsewhere is not None:
            tried = Tried(local=engine.is_here, is_watched=self._guard.is_watched(exchange))
            errand = Errand(exchange, route, call, engine, headers, answer, tried)
            if tried.is_watched or not tried.local:
                self._guard.check_room(exchange)  # who has used up all is not looked at either
                gone.append(asyncio.create_task(_watch(receive, exchange)))
                if await self._elsewhere.serve(errand):
                    return
        answer.extra += self._guard.reserve(exchange, call, engine)
        await self._guard.intend(exchange, call, engine)
        if not gone:
            gone.append(asyncio.create_task(_watch(receive, exchange)))
        try:
            head = self._headers_for(exchange, engine)
            await self._relay(exchange, route, call, engine.spec, engine.upstream, head, answer)
        except (EngineUnavailable, InternalError) as error:
            if self._elsewhere is None or errand is None or not await self._elsewhere.serve_after(errand, error):
                raise

    # The way in.

    async def _admit(
        self, exchange: Exchange, route: Route, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive
    ) -> tuple[Call, Engine]:
        if self.is_draining:
            raise ShuttingDown("the server is stopping", retry_after_s=5)
        exchange.principal = self._guard.admit(scope, "inference")
        exchange.is_known = True
        if not self._config.share_prefixes:
            exchange.principal = exchange.principal._replace(cache_domain=secrets.token_hex(16))
        check_headers(_text(headers, b"content-type"), _text(headers, b"content-encoding"))
        raw = await self._read(exchange, headers, receive)
        exchange.body_is_read = True
        exchange.fingerprint = self._guard.fingerprint(raw)
        exchange.recording = self._guard.record(exchange, raw)
        body = parse_body(raw, self._config.limits)
        name = body.get("model")
        engine = (
            await self._resolve(name, exchange.principal)
            if isinstance(name, str)
            else next(iter(self._engines.values()))
        )
        call = route.check(body, self._config.limits, engine.spec.capabilities.serves)
        if not isinstance(name, str):  # the route lets it out
            engine = await self._resolve(None, exchange.principal)
        exchange.model = name if isinstance(name, str) else engine.spec.model
        exchange.stream = call.stream
        if route.needs_tokenize and not engine.spec.capabilities.tokenize:
            raise UnsupportedFeature(f"`{engine.spec.model}` runs on an engine that does not serve `{route.path}`")
        check_task(route, engine, self._engines)
        engine = await self._ready_one(engine, route, exchange.model)
        exchange.reservation = engine.admission.reserve(self._account_of(exchange.principal))
        return call, engine

    async def _read(self, exchange: Exchange, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        most = self._config.limits.body_bytes
        declared = headers.get(b"content-length")
        if declared is not None and int(declared) > most:
            raise RequestTooLarge(f"the body has {int(declared)} bytes, at most {most} are accepted")
        message = await _receive_within(receive, self._config.body_timeout_s)
        parts: list[bytes] = [message["body"]]
        size = len(parts[0])
        self._hold(exchange, size)
        deadline = time.monotonic() + self._config.body_timeout_s
        while message["more_body"]:
            if size > most:
                raise RequestTooLarge(f"the body has more than the {most} bytes that are accepted")
            message = await _receive_within(receive, deadline - time.monotonic())
            parts.append(message["body"])
            size += len(message["body"])
            self._hold(exchange, len(message["body"]))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _hold(self, exchange: Exchange, count: int) -> None:
        """Count what is held in memory for all requests together. Raises Overloaded where that is too much."""
        if self._held + count > self._config.held_bytes:
            raise Overloaded("the bodies of the requests that are running take all the memory that is for them")
        self._held += count
        exchange.bytes_in += count

    async def _resolve(self, model: str | None, principal: Principal) -> Engine:
        if model is None and len(self._engines) == 1:
            return next(iter(self._engines.values()))
        engine = self._names.get(model or "")
        if engine is not None:
            return engine
        others = {} if self.inside is None else await self.inside.engines()
        if model is not None and model in others:
            return others[model]
        key = principal.key
        names = dict.fromkeys((*self._names, *others))
        raise model_not_found(model, [name for name in names if key is None or key.may_use(name)])

    async def _ready_one(self, engine: Engine, route: Route, model: str) -> Engine:
        """The engine here, or, where it cannot take requests now, a server inside that has the model.

        Raises EngineUnavailable.
        """
        try:
            engine.supervisor.check_ready()
        except EngineUnavailable as error:
            if self.inside is None or route.path not in PATHS:
                raise
            try:
                other = await self.inside.find(model)
            except EngineUnavailable:
                raise error from None
            if other is None:
                raise
            return other
        return engine

    def _account_of(self, principal: Principal) -> str | None:
        """Whom a request is counted to where places are shared out: an engine can tell accounts apart, and no more."""
        if principal.key is None:
            return None
        return hashlib.blake2s(principal.key.account.encode(), key=self._account_key, digest_size=8).hexdigest()

    # To the engine and back.

    async def _relay(
        self,
        exchange: Exchange,
        route: Route,
        call: Call,
        spec: EngineSpec,
        upstream: Upstream,
        head: str,
        answer: Answer,
    ) -> None:
        body = self._body_for(exchange, route, call, spec)
        silence = Silence(exchange, self._config, stream=call.stream)
        texts = spec.capabilities.texts
        exchange.is_sent = True
        try:
            exchange.response = response = await upstream.request("POST", route.path, head, body)
            if response.status != 200:
                exchange.is_refused = True
                refusal = await response.read_all(_ERROR_BYTES)
                if spec.key is not None:  # a server elsewhere may say back all that it was shown
                    refusal = refusal.replace(spec.key.encode(), b"...")
                error: ServingError = error_of_engine(response.status, response.header(b"retry-after"), refusal)
                if texts and isinstance(error, ContextLengthExceeded):
                    error = await self._too_long(exchange, route, call, upstream, head, texts)
                raise error
            if call.stream:
                await self._relay_events(exchange, call, answer, silence)
                return
            if not response.header(b"content-type").startswith(b"application/json"):
                raise EngineBroke("the engine did not answer with JSON")
            whole = await response.read_all(_ANSWER_BYTES)
        finally:
            silence.close()
        if texts and route.path == pooling.RERANK:
            whole = await asyncio.to_thread(pooling.answer_for, call.body, whole, exchange.model, self._config.limits)
        exchange.settled = usage_of_body(whole) if call.runs_model else NO_TOKENS
        exchange.end("completed")
        await answer.whole(200, whole)

    async def _too_long(
        self, exchange: Exchange, route: Route, call: Call, upstream: Upstream, headers: str, texts: Texts
    ) -> ContextLengthExceeded:
        """The refusal by the text that is too long, which an engine without the annex does not say."""

        async def count(text: str, special: bool) -> int:  # noqa: FBT001 - its caller's signature
            body = serialise({"model": exchange.model, "prompt": text, "add_special_tokens": special})
            exchange.response = told = await upstream.request("POST", "/tokenize", headers, body)
            return pooling.count_of(await told.read_all(_ANSWER_BYTES))

        find = too_long.document_too_long if route.path == pooling.RERANK else too_long.input_too_long
        return await find(call.body, texts, exchange.model, self._config.limits, count)

    async def _relay_events(self, exchange: Exchange, call: Call, answer: Answer, silence: Silence) -> None:
        response = exchange.response
        if response is None or not response.header(b"content-type").startswith(b"text/event-stream"):
            raise EngineBroke("the engine did not answer with a stream of events")
        passage = Passage(exchange, answer, silence, withhold_usage=not call.include_usage)
        stream = passage.stream
        await answer.start_events()
        try:
            await response.pump(passage.take, passage.straight)
        finally:
            exchange.events = stream.events
            exchange.settled = stream.usage
        tail = stream.close()
        if stream.has_error:
            exchange.end("failed", known_code(stream.error_code))
        else:
            exchange.end("completed")
            if not stream.is_done:
                tail += responses.DONE
        await answer.end_events(tail)

    def _body_for(self, exchange: Exchange, route: Route, call: Call, spec: EngineSpec) -> bytes:
        body = call.body
        if (texts := spec.capabilities.texts) is not None:
            body = pooling.body_for(route.path, body, texts, spec.model, self._config.limits)
        if call.stream:
            body = {**body, "stream_options": {"include_usage": True}}
        if spec.capabilities.cache_domain == "body":
            body = {**body, "cache_salt": exchange.principal.cache_domain}
        if spec.capabilities.priority and route.task == "generate" and exchange.reservation is not None:
            body = {**body, "priority": exchange.reservation.turn}
        return serialise(body)

    def _headers_for(self, exchange: Exchange, engine: Engine) -> str:
        head = f"content-type: application/json\r\nx-request-id: {exchange.request_id}\r\n"
        if engine.spec.capabilities.cache_domain == "header":
            domain = exchange.principal.cache_domain
            # an owner may have letters that a header may not; no two domains become one
            written = domain if domain.isascii() and "%" not in domain else quote(domain)
            head += f"x-cache-domain: {written}\r\n"
            if exchange.reservation is not None and exchange.reservation.account is not None:
                head += f"x-account: {exchange.reservation.account}\r\n"
        if engine.spec.key is not None:
            head += f"authorization: Bearer {engine.spec.key}\r\n"
        return head

    # The way out.

    async def _fail(self, exchange: Exchange, answer: Answer, error: ServingError) -> None:
        """End the exchange with an error, and tell the client if it is still there."""
        if isinstance(error, ClientGone):
            exchange.end("cancelled", error.code)
            return
        was_running = exchange.reason is not None or isinstance(error, EngineBroke) or answer.status
        is_refusal = isinstance(error, RequestError | CapacityError) and not was_running
        exchange.end("refused" if is_refusal else "failed", error.code)
        # Should the client leave now, the outcome stands.
        with contextlib.suppress(ConnectionError):
            has_come = exchange.body_has_come and not self.is_draining
            await answer.error(error, close=not (exchange.body_is_read or has_come))

    def _count(self, exchange: Exchange) -> Settled | None:
        """Count how it ended; the tokens it is charged with, where they are known or can be guessed."""
        metrics = self._metrics
        now = time.monotonic()
        outcome = exchange.outcome or "failed"
        labels = (exchange.route, exchange.model)
        metrics.requests.labels(exchange.route, exchange.model, outcome, exchange.code).inc()
        metrics.request_seconds.observe(labels, now - exchange.started_at)
        if exchange.first_event_at is not None:
            metrics.ttft_seconds.observe(labels, exchange.first_event_at - exchange.started_at)
        if exchange.gaps is not None:
            metrics.itl_seconds.add(labels, exchange.gaps)
        settled = exchange.settled
        if settled is None and exchange.events:
            settled = estimate(exchange.bytes_in, exchange.events)
        if settled is not None:
            metrics.settle(
                exchange.model, settled.prompt, settled.cached, settled.output, is_estimated=settled.is_estimated
            )
        # Who is nobody cannot fill a disk with lines either: the metrics count, and the audit log by source and minute.
        level = logging.INFO if exchange.is_known else logging.DEBUG
        if log.isEnabledFor(level):
            log.log(
                level,
                "request",
                extra=logs.facts(
                    request_id=exchange.request_id,
                    route=exchange.route,
                    model=exchange.model or None,
                    outcome=outcome,
                    code=exchange.code or None,
                    status=exchange.status or None,
                    seconds=round(now - exchange.started_at, 4),
                    stream=exchange.stream,
                    prompt_tokens=settled.prompt if settled else None,
                    output_tokens=settled.output if settled else None,
                    is_estimate=True if settled and settled.is_estimated else None,
                ),
            )
        return settled


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The client's request id where it is one that may be logged and sent on as it stands, else a fresh one.

    A key that a client puts there by mistake is none.
    """
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    may_stand = _REQUEST_ID.fullmatch(given) and not _KEY.search(given)
    return given if may_stand else f"req-{_PROCESS}{next(_numbers):08x}"


def names_of(engines: Mapping[str, Engine]) -> dict[str, Engine]:
    """What a request may name: each model, then its adapters, and the engine that serves it."""
    return {name: engine for model, engine in engines.items() for name in (model, *engine.spec.adapters)}


def model_not_found(model: str | None, engines: Iterable[str]) -> ModelNotFound:
    """The error for a model that is not served, naming those that are."""
    served = ", ".join(f"`{name}`" for name in engines)
    if model is None:
        return ModelNotFound("`model` is missing, and more than one is served", param="model", hint=f"served: {served}")
    shown = model if len(model) <= 64 else model[:64] + "…"
    return ModelNotFound(f"the model `{shown}` is not served here", param="model", hint=f"served: {served}")


_SERVES: Final[dict[Task, str]] = {"generate": "answers", "embed": "embeddings", "rerank": "scores of documents"}


def check_task(route: Route, engine: Engine, engines: Mapping[str, Engine]) -> None:
    """Refuse a route that the model is not for, naming those that it serves. Raises UnsupportedFeature."""
    tasks = engine.spec.capabilities.tasks
    if route.task is None or route.task in tasks:
        return
    serves = " and ".join(_SERVES[task] for task in sorted(tasks))
    others = ", ".join(f"`{name}`" for name, other in engines.items() if route.task in other.spec.capabilities.tasks)
    raise UnsupportedFeature(
        f"`{engine.spec.model}` serves {serves}, not `{route.path}`",
        param="model",
        hint=f"models for this route: {others}" if others else "no model for this route is served here",
    )


def known_code(code: object) -> str:
    """`code` where it is one of ours, so that an engine cannot grow the set of metric labels."""
    return code if isinstance(code, str) and code in _CODES else "engine_error"


def _codes(kind: type[ServingError]) -> set[str]:
    return {kind.code}.union(*(_codes(child) for child in kind.__subclasses__()))


_CODES: Final = frozenset(_codes(ServingError))


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


async def _receive_within(receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            message = await receive()
    except TimeoutError:
        raise RequestTimeout("the body did not arrive in time", hint="see limits.body_timeout_s") from None
    if message["type"] == "http.disconnect":
        raise ClientGone("the client closed its connection")
    return message


async def _watch(receive: Receive, exchange: Exchange) -> None:
    """Wait for the client to leave; what it sends after its body is of no interest."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.interrupt(ClientGone("the client closed its connection"))
