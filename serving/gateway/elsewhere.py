"""Requests that somebody else answers: a destination outside, or a server named as inside.

Which of them the egress process says, and finds out again by itself before it sends. What was tried in vain is told to
it, so that it names another; what fails outside is served inside.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from serving.egress.heard import Heard
from serving.errors import (
    CapacityError,
    DestinationUnavailable,
    EngineUnavailable,
    InternalError,
    ModelNotFound,
    RateLimited,
    RequestError,
    ServingError,
    StaysInside,
    UnsupportedByDestination,
    Unwritable,
)
from serving.gateway.outside import PATHS, Tried
from serving.policy.facts import ROUTE_HEADER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from serving.engines.spec import EngineSpec
    from serving.gateway.answers import Answer
    from serving.gateway.engine import Engine
    from serving.gateway.exchange import Exchange
    from serving.gateway.guard import Guard
    from serving.gateway.inside import Inside
    from serving.gateway.outside import Outside, Way
    from serving.gateway.routes import Call, Route
    from serving.gateway.upstream import Upstream
    from serving.telemetry.metrics import Metrics

    Relay = Callable[[Exchange, Route, Call, EngineSpec, Upstream, str, Answer], Awaitable[None]]
    """Sends a request on, and its answer back."""


@dataclass(slots=True)
class Errand:
    """One request, and what has been tried of it."""

    exchange: Exchange
    route: Route
    call: Call
    engine: Engine
    headers: Mapping[bytes, bytes]
    answer: Answer
    tried: Tried
    way: Way | None = None
    """What was said of it last."""
    rule: str = ""
    """Why it stays inside, where that is another reason than the policy's: the code of what failed outside."""


class Elsewhere:
    """Takes requests there, and brings back their answers."""

    def __init__(self, outside: Outside, inside: Inside | None, guard: Guard, metrics: Metrics, relay: Relay) -> None:
        """`inside`: None where no server inside may be asked."""
        self._outside = outside
        self._inside = inside
        self._guard = guard
        self._metrics = metrics
        self._relay = relay

    async def serve(self, errand: Errand) -> bool:
        """Whether somebody else has answered; where not, the engine here is to.

        Raises where no engine here can, and nobody else did.
        """
        return await self._go(errand, None)

    async def serve_after(self, errand: Errand, failure: ServingError) -> bool:
        """Whether a server inside has answered, the engine here having failed before its own answer began."""
        exchange = errand.exchange
        if errand.answer.status or exchange.reason is not None or errand.route.path not in PATHS:
            return False
        if self._inside is None:
            return False
        try:
            engine = await self._inside.find(exchange.model)
        except EngineUnavailable:
            return False
        if engine is None:
            return False
        self._take_back(errand)
        exchange.forget_attempt()
        self._guard.fall_back(exchange, failure, may_cost=False)
        errand.engine = engine
        attempt = errand.tried.attempt if errand.tried.attempt == "after-cloud" else "after-local"
        errand.tried = replace(errand.tried, attempt=attempt, local=False)
        return await self._go(errand, failure)

    async def _go(self, errand: Errand, why: ServingError | None) -> bool:
        """Try whatever the egress process names, until it names the engine here, or nobody."""
        exchange = errand.exchange
        while True:
            began = time.monotonic()
            way = await self._outside.judge(exchange, errand.route, errand.call, errand.headers, errand.tried)
            if way is None:
                return False
            self._metrics.judged_seconds.observe((), time.monotonic() - began)
            errand.way = way
            exchange.reasons = (errand.rule or way.rule,)
            if way.destination is None:
                if way.zone is None or not errand.tried.local:
                    self._take_back(errand)
                    raise _nowhere(way, why, exchange.model)
                self._stay(errand, way)
                return False
            try:
                await self._send(errand, way)
            except ServingError as error:
                if not _may_go_on(errand, way, error):
                    raise
                exchange.forget_attempt()
                self._guard.fall_back(exchange, error, may_cost=way.leaves)
                errand.answer.extra = []
                if not way.leaves:
                    why = error
                    errand.tried = replace(errand.tried, failed=errand.tried.failed | {way.destination})
                    continue
                errand.rule = error.code
                exchange.reasons = (error.code,)
                errand.tried = replace(errand.tried, attempt="after-cloud")
                if errand.tried.local and not isinstance(error, StaysInside):
                    self._stay(errand, way)
                    return False
                # for what it is known only now, its answer may be one to remember
            else:
                self._metrics.routed.labels(way.zone, way.destination, exchange.reasons[0]).inc()
                return True

    async def _send(self, errand: Errand, way: Way) -> None:
        exchange, call, engine, answer = errand.exchange, errand.call, errand.engine, errand.answer
        answer.extra = self._guard.reserve(exchange, call, engine, way.prices)
        shown = f"{way.zone}; destination={way.destination}; rule={exchange.reasons[0]}"
        answer.extra.append((ROUTE_HEADER.encode(), shown.encode("ascii")))
        await self._guard.intend(exchange, call, engine, way)
        spec, head = way.spec(engine.spec.model), self._outside.headers(way)
        await self._relay(exchange, errand.route, call, spec, self._outside.upstream, head, answer)

    def _stay(self, errand: Errand, way: Way) -> None:
        """The engine here is to answer: have that counted, and the answer remembered where it is to be."""
        heard, rule = Heard(), errand.exchange.reasons[0]
        if way.answer is not None:
            errand.answer.copy_to(heard.take)

        def ended() -> None:
            self._metrics.routed.labels("perimeter", "local", rule).inc()
            self._outside.remember(way, heard.whole)

        errand.exchange.on_end = ended
        errand.answer.extra = [(ROUTE_HEADER.encode(), f"perimeter; rule={rule}".encode("ascii"))]

    def _take_back(self, errand: Errand) -> None:
        """The answer that was announced is not given by the engine here: nothing was said."""
        errand.exchange.on_end = None
        errand.answer.extra = []
        if errand.way is not None:
            self._outside.remember(errand.way, b"{}")
            errand.way = None


def _may_go_on(errand: Errand, way: Way, error: ServingError) -> bool:
    """Whether another may be asked: nothing was answered, somebody still waits, and it is not the request's own fault.

    What fails outside is served inside whatever it was; a server inside answers for all of them where it refuses.
    """
    if errand.answer.status or errand.exchange.reason is not None or isinstance(error, Unwritable):
        return False
    if way.leaves or isinstance(error, StaysInside | UnsupportedByDestination | ModelNotFound):
        return True
    return not isinstance(error, RequestError | RateLimited)


def _nowhere(way: Way, why: ServingError | None, model: str) -> ServingError:
    """Why nobody serves it."""
    if way.is_turned_away:
        return StaysInside("the policy turns away what could not be read for this reason", rule=way.rule)
    if isinstance(why, CapacityError | InternalError | UnsupportedByDestination):
        return why
    return DestinationUnavailable(
        f"no server inside that has the model `{model}` takes requests now",
        retry_after_s=5,
        hint="`serve route explain` says of each one why not; what stays inside is sent nowhere else",
    )
