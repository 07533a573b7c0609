"""The application of the egress process: judge a request, send one out, remember an answer, explain.

For the gateway it is an engine like any other: OpenAI's protocol over a Unix socket. Where nothing may leave it answers
403 `stays_inside` with the decision, and the gateway serves the request inside. What goes to a server inside goes by
the same way, and its answer is remembered here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from dataclasses import dataclass, replace
from itertools import count
from typing import Final
from urllib.parse import urlsplit

from serving.audit import Audit
from serving.audit.records import Intent, Outcome, Routed
from serving.egress.asking import ASKED, HEADER, Ask, read_ask
from serving.egress.credentials import Credentials
from serving.egress.following import Following
from serving.egress.judge import ROUTES, Judge, Judged
from serving.egress.outbound import UNREACHED, Arrived, Outbound
from serving.egress.texts import texts_of_answer
from serving.egress.vendors import Anthropic, Azure, Compatible, Gemini, OpenAI, OutCall, Vendor, VendorRequest
from serving.egress.watch import Watch, closed
from serving.errors import (
    DestinationUnavailable,
    FileMissing,
    InvalidRequest,
    Overloaded,
    ServingError,
    StartError,
    StaysInside,
)
from serving.openai import Usage, responses, serialise
from serving.openai.asgi import SSE_HEADERS, Handler, Receive, Scope, Send, Server, header, read_body, respond
from serving.openai.limits import Limits
from serving.policy.decide import Decision
from serving.policy.explain import explain, explain_text
from serving.policy.model import LOCAL, Destination
from serving.policy.replay import recorded
from serving.telemetry.logs import facts

log = logging.getLogger(__name__)
_REMEMBERED_BYTES: Final = 64 << 20
_PAUSE_S: Final = 0.25
"""Before a request is sent again; twice as long each time."""
_MOST_PAUSE_S: Final = 2.0
"""Who is asked to come back later than this serves the request inside instead."""


@dataclass(frozen=True, slots=True)
class _Sending:
    """A request that has been decided to leave, or to go to a server inside."""

    ask: Ask
    call: OutCall
    to: Destination
    vendor: Vendor
    request: VendorRequest
    judged: Judged

    @property
    def leaves(self) -> bool:
        """It is sent outside, not to a server inside."""
        return self.to.zone == "cloud"


class Egress:
    """What the process does; `application` is how it is asked."""

    def __init__(
        self, judge: Judge, outbound: Outbound, credentials: Credentials, audit: Audit, limits: Limits
    ) -> None:
        self._judge = judge
        self._outbound = outbound
        self._credentials = credentials
        self._audit = audit
        self._limits = limits
        self._following = Following(judge)

    def application(self) -> Server:
        """The ASGI application."""
        routes: dict[str, dict[str, Handler]] = {path: {"POST": self._send} for path in ROUTES}
        routes |= {
            "/judge": {"POST": self._judged},
            "/remember": {"POST": self._remember},
            "/explain": {"POST": self._explain},
            "/ready": {"GET": self._ready},
        }
        return Server(self._limits, routes)

    async def _ready(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        judge = self._judge
        told = {
            "status": "ready",
            "open": judge.is_open,
            "policy": judge.policy.digest,
            "inside": list(judge.models_inside),
        }
        await respond(send, 200, serialise(told))

    async def _explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Where a request would go, and why: nothing is sent, and nothing remembered."""
        path, body, ask = await self._asked(scope, receive)
        judged = await self._judge.judge(path, body, ask)
        given = judged.decision, judged.finding
        await respond(send, 200, json.dumps({"explained": explain(*given), "text": explain_text(*given)}).encode())

    async def _judged(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the gateway is to do with a request; one that is not clean is remembered, with the answer to come.

        An answer that comes from a server inside goes through this process, which remembers it by itself.
        """
        path, body, ask = await self._asked(scope, receive)
        judged = await self._judge.judge(path, body, ask)
        decision = judged.decision
        remote = self._judge.policy.destination(decision.destination)
        answer = None
        if self._judge.is_sensitive(judged):
            if decision.destination == LOCAL:
                asked = header(scope, ASKED.encode()) or ""
                answer = await self._judge.await_answer(ask.domain, judged.doubt, asked)
            if self._judge.keeps_texts(judged):
                await self._judge.remember(body, ask.domain)
        self._record(ask, judged)
        told = {
            "destination": decision.destination,
            "zone": decision.zone,
            "rule": decision.rule,
            "verdict": judged.finding.verdict.value,
            "reasons": [f"{each.rule}: {each.why}" for each in decision.reasons],
            "prices": None if remote is None else remote.prices,
            "remote_model": decision.remote_model,
            "policy": decision.policy,
            "answer": None if answer is None else str(answer),
            "turned_away": decision.is_turned_away,
        }
        await respond(send, 200, json.dumps(told).encode())

    async def _remember(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer that was given inside to a request that `judge` has remembered; or that none was given."""
        ask = read_ask(header(scope, HEADER.encode()))
        if asked := header(scope, ASKED.encode()):
            await self._judge.never_began(ask.domain, asked)
            await respond(send, 200, b"{}")
            return
        number = header(scope, b"x-egress-answer") or ""
        if not number.isascii() or not number.isdecimal():
            raise InvalidRequest("the header `x-egress-answer` is missing")
        raw = await _raw(receive)
        texts = None if raw is None else await asyncio.to_thread(texts_of_answer, raw)
        await self._judge.remember_answer(texts, ask.domain, int(number))
        await respond(send, 200, b"{}")

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a request out, and again where a destination did not take it and the policy says so: decided anew."""
        path, body, ask = await self._asked(scope, receive)
        for tried in count():
            sending = await self._decided(path, body, ask)
            try:
                await self._try(path, sending, receive, send)
            except ServingError as error:
                pause = _pause(error, sending.to, tried)
                if pause is None:
                    raise
            else:
                return
            async with Watch(self._judge, receive, leaves=sending.leaves):  # who leaves meanwhile is not sent for
                await asyncio.sleep(pause)

    async def _try(self, path: str, sending: _Sending, receive: Receive, send: Send) -> None:
        credential = self._credential(sending)
        number = await self._intend(path, sending)
        outcome = Outcome(intent=number, request=sending.ask.request, outcome="failed")
        began = time.monotonic()
        try:
            async with contextlib.AsyncExitStack() as stack:
                if not sending.leaves:
                    asked = sending.judged, sending.call.body, sending.ask.domain
                    send = await stack.enter_async_context(self._following.follow(*asked, send))
                await self._exchange(sending, credential, receive, send, outcome)
        except ServingError as error:
            outcome.code = error.code
            raise
        except asyncio.CancelledError:
            outcome.outcome = "cancelled"
            raise
        finally:
            outcome.duration_us = int((time.monotonic() - began) * 1e6)
            self._audit.outcome(outcome)

    def _credential(self, sending: _Sending) -> tuple[tuple[str, str], ...]:
        """The headers that let this site in. Raises DestinationUnavailable: what is wrong is for the operator.

        A server inside may let everybody in.
        """
        try:
            return sending.vendor.auth(self._credentials.of(sending.to.name))
        except StartError as error:
            if isinstance(error, FileMissing) and not sending.leaves:
                return ()
            log.error("a destination cannot be used", extra=facts(reason=error.message))  # noqa: TRY400
            raise DestinationUnavailable(f"this site has no credential for `{sending.to.name}`") from None

    async def _asked(self, scope: Scope, receive: Receive) -> tuple[str, dict[str, object], Ask]:
        ask = read_ask(header(scope, HEADER.encode()))
        path = header(scope, b"x-egress-path") or scope["path"]
        return path, await read_body(scope, receive, self._limits), ask

    async def _decided(self, path: str, body: dict[str, object], ask: Ask) -> _Sending:
        """The bytes that leave, once it is decided on exactly those that they may. Raises StaysInside, RequestError."""
        to = self._judge.policy.destination(ask.destination or "")
        if to is None:
            raise StaysInside("the gateway named no destination", rule="destination")
        remote = to.remote_name(str(body.get("model")))
        if remote is None:
            raise StaysInside(f"`{to.name}` does not serve this model", rule="destination")
        vendor = vendor_of(to)
        call = OutCall(path, body, remote, ask.request, int(time.time()))
        request = vendor.request(call)
        judged = await self._judge.judge(path, body, ask, json.loads(request.body))
        decision = judged.decision
        if self._judge.policy.destination(to.name) != to:
            raise StaysInside("the policy has changed meanwhile", rule="switch")
        # which zone it is of is the policy's to say, and nobody else's
        is_taken = decision.leaves if to.zone == "cloud" else decision.zone == "perimeter"
        if not is_taken or decision.destination != to.name:
            self._record(ask, judged)
            if self._judge.keeps_texts(judged):
                await self._judge.remember(body, ask.domain)
            raise _inside(decision)
        return _Sending(ask, call, to, vendor, request, judged)

    def _record(self, ask: Ask, judged: Judged) -> None:
        """What was decided, by which facts. Nobody waits for the disk; for the intent of what leaves somebody does."""
        decision = judged.decision
        self._audit.event(
            Routed(
                request=ask.request,
                principal=ask.principal,
                key=ask.key,
                destination=decision.destination,
                rule=decision.rule,
                policy=decision.policy,
                facts=recorded(judged.facts, self._judge.policy),
            )
        )

    async def _intend(self, path: str, sending: _Sending) -> int | None:
        """Have it on the disk that these bytes leave. Raises Unwritable."""
        ask = sending.ask
        return await self._audit.intent(
            Intent(
                request=ask.request,
                route=ROUTES[path],
                principal=ask.principal,
                key=ask.key,
                model=str(sending.call.body.get("model")),
                engine=sending.to.vendor,
                destination=sending.to.name,
                reasons=(sending.judged.decision.rule, f"policy:{sending.judged.decision.policy}"),
                prompt=self._audit.fingerprints.of("prompt", sending.request.body),
                stream=sending.call.stream,
            )
        )

    async def _exchange(
        self,
        sending: _Sending,
        credential: tuple[tuple[str, str], ...],
        receive: Receive,
        send: Send,
        outcome: Outcome,
    ) -> None:
        is_well: bool | None = None
        status = 0
        self._judge.began(sending.to)
        try:
            async with (
                Watch(self._judge, receive, leaves=sending.leaves) as watch,
                self._outbound.send(
                    sending.to, sending.request, credential, lambda: self._check(sending), stream=sending.call.stream
                ) as arrived,
            ):
                status = arrived.status
                if sending.call.stream and status == 200:
                    is_well = await self._stream(sending, arrived, send, outcome, watch)
                else:
                    is_well = await self._whole(sending, arrived, send, outcome)
        except _Told as told:
            # a refusal of this request, or a bad answer to it, says nothing of other requests
            is_well = None if status < 500 else False
            raise told.error from None
        except DestinationUnavailable:
            is_well = False
            raise
        except StaysInside as error:
            if error.rule == UNREACHED and not sending.leaves:  # the next one is asked sooner
                is_well = False
            raise
        finally:
            self._judge.ended(sending.to, is_well=is_well)

    async def _whole(self, sending: _Sending, arrived: Arrived, send: Send, outcome: Outcome) -> bool:
        told = sending.call, arrived.status, arrived.headers, await arrived.whole()
        answered = await asyncio.to_thread(sending.vendor.answer, *told)  # it may be long
        if answered.error is not None:
            if isinstance(answered.error, DestinationUnavailable | Overloaded):
                raise _Told(answered.error)
            outcome.code, outcome.outcome = answered.error.code, "refused"
            outcome.status = answered.error.http_status
            await _refuse(send, answered.error)
            return arrived.status < 500
        _count(outcome, answered.usage, 200)
        await respond(send, 200, answered.body)
        return True

    async def _stream(  # noqa: C901 - the ways in which a stream can end
        self, sending: _Sending, arrived: Arrived, send: Send, outcome: Outcome, watch: Watch
    ) -> bool | None:
        translator = sending.vendor.stream(sending.call)
        try:
            async for piece in arrived.pieces():
                self._check_open(sending)
                fed = translator.feed(piece)
                if translator.error is not None and not outcome.status:  # the client can still be answered from inside
                    raise _Told(translator.error if len(fed) <= 1 else _cut(sending))
                if events := b"".join(fed):
                    self._judge.answers(sending.to)
                    await _begin_stream(send, outcome)
                    await send({"type": "http.response.body", "body": events, "more_body": True})
                if translator.is_complete:
                    break
            last = b"".join(translator.close())
            if translator.error is not None and not outcome.status:
                raise _Told(translator.error)
            await _begin_stream(send, outcome)
        except (ServingError, asyncio.CancelledError) as failure:
            error = failure if isinstance(failure, ServingError) else watch.take_reason()
            if error is None:
                raise
            if not outcome.status:
                raise error from None
            _count(outcome, translator.usage, 200)
            outcome.code, outcome.outcome = error.code, "failed"
            await send({"type": "http.response.body", "body": responses.error_event(error)})
            return None if isinstance(error, StaysInside) else False
        _count(outcome, translator.usage, 200)
        if translator.error is not None:
            outcome.code, outcome.outcome = translator.error.code, "failed"
        elif not translator.is_complete:
            outcome.outcome = "failed"
        await send({"type": "http.response.body", "body": last})
        return translator.is_complete

    def _check(self, sending: _Sending) -> None:
        """Before the first byte: the policy is the one that was decided by. Raises StaysInside."""
        self._check_open(sending)
        if self._judge.is_drilled(sending.to):
            raise StaysInside(f"the destination `{sending.to.name}` is out of order for a drill", rule=UNREACHED)
        if self._judge.policy.digest != sending.judged.decision.policy:
            raise StaysInside("the policy has changed meanwhile", rule="switch")

    def _check_open(self, sending: _Sending) -> None:
        """Raises StaysInside where it would leave, and the kill switch has been thrown."""
        if sending.leaves and not self._judge.is_open:
            raise closed()


class _Told(Exception):
    """The destination itself said that it does not answer this request."""

    def __init__(self, error: ServingError) -> None:
        super().__init__(error.message)
        self.error = error


def _cut(sending: _Sending) -> DestinationUnavailable:
    """It had begun to answer, and may charge for that: such a request is not sent again."""
    return DestinationUnavailable(f"the destination `{sending.to.name}` broke off its answer")


def _pause(error: ServingError, to: Destination, tried: int) -> float | None:
    """Seconds until the request may be sent again; None: it is not.

    Only what was not taken is: nothing of it was read, or the destination said that it takes no more. What may have
    been taken may also be charged for, and the budget holds it once.
    """
    untaken = isinstance(error, Overloaded) or (isinstance(error, StaysInside) and error.rule == UNREACHED)
    asked = error.retry_after_s or 0 if isinstance(error, Overloaded) else 0
    if not untaken or tried >= to.retries or asked > _MOST_PAUSE_S:
        return None
    return max(float(asked), _PAUSE_S * (1 << tried))


def vendor_of(to: Destination) -> Vendor:
    """The connector of a destination."""
    prefix = urlsplit(to.url).path.rstrip("/") or "/v1"
    match to.vendor:
        case "openai":
            return OpenAI(name=to.name, prefix=prefix)
        case "azure-openai":
            azure = Azure(name=to.name)
            return azure if to.api_version is None else replace(azure, api_version=to.api_version)
        case "anthropic":
            return Anthropic(name=to.name)
        case "gemini":
            return Gemini(name=to.name)
        case _:
            return Compatible(name=to.name, prefix=prefix)


def _inside(decision: Decision) -> StaysInside:
    why = decision.reasons[0].why if decision.reasons else "the policy does not let it leave"
    return StaysInside(why, rule=decision.rule)


def _count(outcome: Outcome, usage: Usage | None, status: int) -> None:
    outcome.outcome, outcome.status = "completed", status
    if usage is not None:
        outcome.prompt_tokens, outcome.output_tokens = usage.prompt_tokens, usage.completion_tokens
        outcome.cached_tokens, outcome.reasoning_tokens = usage.cached_tokens, usage.reasoning_tokens


async def _refuse(send: Send, error: ServingError) -> None:
    await respond(send, error.http_status, responses.error_body(error))


async def _begin_stream(send: Send, outcome: Outcome) -> None:
    if not outcome.status:
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        outcome.status = 200


async def _raw(receive: Receive) -> bytes | None:
    """An answer that is to be remembered; None where it is too long for that. Raises InvalidRequest."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the request broke off")
        size += len(message.get("body", b""))
        if size <= _REMEMBERED_BYTES:
            parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts) if size <= _REMEMBERED_BYTES else None
