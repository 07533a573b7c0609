"""Health, readiness, metrics and the list of models: what is answered without asking an engine for tokens."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request, Response
from prometheus_client import generate_latest

from serving import tripwire
from serving.engines.reaching_out import unrouted_of
from serving.errors import EngineUnavailable
from serving.gateway.answers import error_headers
from serving.gateway.explaining import PATH as EXPLAIN
from serving.gateway.explaining import Explaining
from serving.gateway.pipeline import model_not_found, names_of
from serving.gateway.upstream import EngineBroke
from serving.openai import responses, serialise
from serving.telemetry.metrics import Metrics, relabel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serving.gateway.engine import Engine
    from serving.gateway.pipeline import Pipeline

_SCRAPE_S: Final = 5.0
"""An engine that computes on every core answers late; what scrapes us waits ten seconds if not told otherwise."""
_SCRAPE_BYTES: Final = 4 << 20


class Admin:
    """Everything that is read from the outside and changes nothing."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        metrics: Metrics,
        pipeline: Pipeline,
        unready: Callable[[], str | None] = lambda: None,
        *,
        tells_engines: bool = True,
        explaining: Explaining | None = None,
    ) -> None:
        """`unready` says why nothing should be sent here although the engines are ready, or None.

        `explaining`: what says where a request would go, where any may leave at all.

        `tells_engines`: whether `/ready` says of each engine what it does, to whoever asks.
        """
        self._tells_engines = tells_engines
        self._explaining = explaining
        self._unready = unready
        self._engines = engines
        self._metrics = metrics
        self._pipeline = pipeline

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter()
        router.add_api_route("/health", self.health, methods=["GET"], summary="Whether this process lives")
        router.add_api_route("/ready", self.ready, methods=["GET"], summary="Whether every engine takes requests")
        for path, endpoint in (("/health", self.health), ("/ready", self.ready)):  # as some load balancers ask
            router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
        router.add_api_route("/metrics", self.metrics, methods=["GET"], summary="Prometheus text")
        router.add_api_route("/v1/models", self.models, methods=["GET"], summary="The models that are served")
        router.add_api_route("/v1/models/{model:path}", self.model, methods=["GET"], summary="One model")
        if self._explaining is not None:
            told = self._explaining.explain
            router.add_api_route(EXPLAIN, told, methods=["POST"], summary="Where a chat request would go, and why")
        return router

    async def health(self) -> Response:
        """Alive: says nothing of the engines."""
        return _json(200, serialise({"status": "ok"}))

    async def ready(self) -> Response:
        """200 once every engine takes requests, else 503 with what each one is doing."""
        engines = {
            name: {
                "phase": engine.supervisor.state.phase,
                "progress": engine.supervisor.state.fraction,
                "stage": engine.supervisor.state.stage,
            }
            for name, engine in self._engines.items()
        }
        are_up = all(engine.supervisor.state.phase == "ready" for engine in self._engines.values())
        status = "draining" if self._pipeline.is_draining else self._unready() or ("ready" if are_up else "loading")
        is_ready = status == "ready"
        told = {"status": status, "engines": engines} if self._tells_engines else {"status": status}
        answer = _json(200 if is_ready else 503, serialise(told))
        if not is_ready:
            answer.headers["retry-after"] = "1"
        return answer

    async def metrics(self) -> Response:
        """The gateway's own metrics, then those of each engine with `model` and `engine` labels."""
        for name, engine in self._engines.items():
            self._metrics.in_flight.labels(name).set(engine.admission.taken)
        self._metrics.egress.look("gateway", "", tripwire.attempts())
        for name, found in zip(self._engines, await asyncio.to_thread(self._unrouted), strict=True):
            for namespace, count in found.items():
                self._metrics.unrouted.look(name, namespace, count)
        texts = await asyncio.gather(*(self._scrape(engine) for engine in self._engines.values()))
        for name, text in zip(self._engines, texts, strict=True):
            self._metrics.engine_scraped.labels(name).set(text is not None)
        own = generate_latest(self._metrics.registry).decode()
        labelled = [
            ({"model": name, "engine": engine.spec.backend}, text)
            for (name, engine), text in zip(self._engines.items(), texts, strict=True)
            if text is not None
        ]
        theirs = relabel(labelled, reserved=self._metrics.names())
        return Response(own + theirs, 200, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _unrouted(self) -> list[dict[str, int]]:
        """Of each engine, what its namespaces count."""
        pids = [getattr(engine.supervisor, "pid", None) for engine in self._engines.values()]
        return [{} if pid is None else unrouted_of(pid) for pid in pids]

    async def models(self, request: Request) -> Response:
        """OpenAI's list of models: those that the caller may use."""
        names = await self._names(request)
        return _json(200, responses.model_list([self._card(*named) for named in names.items()]))

    async def model(self, model: str, request: Request) -> Response:
        """One model of the list."""
        names = await self._names(request)
        engine = names.get(model)
        if engine is None:
            error = model_not_found(model, names)
            return _json(error.http_status, responses.error_body(error), dict(error_headers(error)))
        return _json(200, serialise(self._card(model, engine)))

    async def _names(self, request: Request) -> dict[str, Engine]:
        """Those of engines here, and those that servers inside have."""
        key = request.scope["principal"].key
        others: Mapping[str, Engine] = {}
        if self._pipeline.inside is not None:
            with contextlib.suppress(EngineUnavailable):  # the others are told all the same
                others = await self._pipeline.inside.engines()
        here = names_of(self._engines)
        names = here | {name: engine for name, engine in others.items() if name not in here}
        return {name: engine for name, engine in names.items() if key is None or key.may_use(name)}

    def _card(self, name: str, engine: Engine) -> dict[str, object]:
        longest = engine.supervisor.state.facts.get("n_ctx_seq")
        return responses.model_card(
            name,
            created=engine.created,
            max_model_len=longest if isinstance(longest, int) else None,
            dummy=engine.spec.dummy,
            parent=None if name == engine.spec.model else engine.spec.model,
        )

    async def _scrape(self, engine: Engine) -> str | None:
        if engine.supervisor.state.phase != "ready":
            return None
        try:
            async with asyncio.timeout(_SCRAPE_S):
                response = await engine.upstream.request("GET", "/metrics")
                try:
                    body = await response.read_all(_SCRAPE_BYTES)
                finally:
                    response.close()
        except (EngineBroke, TimeoutError):
            return None
        return body.decode("utf-8", "replace") if response.status == 200 else None


def _json(status: int, body: bytes, headers: Mapping[bytes, bytes] | None = None) -> Response:
    named = {name.decode(): value.decode() for name, value in (headers or {}).items()}
    return Response(body, status, named, "application/json")
