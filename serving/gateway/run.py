"""Run the gateway and its engines until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import platform
import signal
import socket
import time
from typing import TYPE_CHECKING, Final, Protocol

import uvloop

from serving import tripwire
from serving.engines.confinement.sealing import leave_no_core
from serving.engines.remote import RemoteWatch
from serving.engines.runtime import reap_leftovers, root_of
from serving.engines.supervisor import EngineState, Supervisor
from serving.engines.warden import watch_over
from serving.errors import StartError, UsageError
from serving.gateway.admission import Admission
from serving.gateway.config import GatewayConfig, gateway_config
from serving.gateway.engine import Engine, Prober
from serving.gateway.exposure import check_exposure
from serving.gateway.front import Front, bind, front_of, url_of
from serving.gateway.guard import Guard, open_guard
from serving.gateway.outside import Outside
from serving.gateway.pipeline import Pipeline
from serving.gateway.protocol import protocol_for
from serving.gateway.tls import Tls, follow, load_tls
from serving.gateway.upstream import Upstream
from serving.hardware.nodes import make_memory_node
from serving.hardware.watch import GpuWatch, LostGpu
from serving.rings import refuse_rings
from serving.telemetry.logs import facts
from serving.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from serving.engines.spec import EngineSpec
    from serving.hardware import Gpu
    from serving.settings import Settings

    OnReady = Callable[[str, Mapping[str, object], float | None], None]
    """Told of an engine that got ready: its model, what it says of itself, and how many seconds its load took."""

log = logging.getLogger(__name__)

_INTERRUPTED: Final = 130
_ABORT_S: Final = 2.0
"""For the last events of aborted requests to leave."""


class Listener(Protocol):
    """What a person, or a log, is told while serving. Called on the event loop; must not block."""

    def on_progress(self, model: str, fraction: float, stage: str) -> None:
        """A load went on: `fraction` is from 0 to 1."""

    def on_ready(self, url: str) -> None:
        """Every engine takes requests, at `url`."""

    def on_engine_event(self, text: str) -> None:
        """An engine died or came back."""

    def on_drain(self) -> None:
        """A stop was asked for; what runs is finished first."""


def run(
    specs: Sequence[EngineSpec],
    settings: Settings,
    listener: Listener,
    gpus: Sequence[Gpu] = (),
    on_engine_ready: OnReady | None = None,
) -> int:
    """Serve `specs` until SIGTERM or SIGINT; returns the exit status. Must be called on the main thread.

    The status is 0, or 130 after a SIGINT that came before anything was served. `gpus` are those seen at the start:
    they are watched, and one that is lost is told, counted, and under `hardware.require_gpu` ends readiness.

    Raises StartError where the address cannot be had or an engine does not come up or is given up on. A first signal
    drains: nothing new is taken, what runs gets `drain_s` to finish. A second one stops at once.
    """
    config = gateway_config(settings, max((spec.concurrency for spec in specs), default=None))
    with open_guard(settings) as guard:
        if guard.lacks_keys:
            log.warning("no key was made yet, and nobody is let in without: `serve keys create --owner NAME` makes one")
        return serve(specs, config, listener, gpus, on_engine_ready, guard)


def serve(
    specs: Sequence[EngineSpec],
    config: GatewayConfig,
    listener: Listener,
    gpus: Sequence[Gpu] = (),
    on_engine_ready: OnReady | None = None,
    guard: Guard | None = None,
) -> int:
    """As `run`, with the gateway's own view of the settings."""
    guard = guard or Guard()
    leave_no_core()
    check_specs(specs)
    tls = load_tls(config.tls, time.time()) if config.tls is not None else None
    check_exposure(config.host, is_allowed=config.allow_insecure_bind or is_closed(tls, guard))
    tripwire.install(spec.origin.host for spec in specs if spec.origin is not None)
    listening = bind(config.host, config.port)
    if gpus:
        make_memory_node()
    if not refuse_rings(platform.machine()):
        log.info("io_uring cannot be refused here: what uses it is not seen by `serve doctor --egress`")
    if all(spec.backend == "vllm" for spec in specs):
        step_back()
    with contextlib.closing(listening):
        for root in {root_of(spec.socket) for spec in specs if spec.socket is not None}:
            killed = reap_leftovers(root)
            if killed:
                log.warning("killed leftovers of an earlier run", extra=facts(processes=len(killed)))
        for root in {root_of(spec.socket) for spec in specs if spec.socket is not None and spec.backend == "vllm"}:
            watch_over(root)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(House(specs, config, listener, gpus, on_engine_ready, tls, guard).run(listening))


def step_back() -> None:
    """Wake up without taking a core from somebody who computes on it (SCHED_BATCH, sched(7)).

    vLLM's build for processors computes a step on all cores in lockstep, and its front writes the step's tokens one by
    one: each would interrupt a compute thread, and so hold up all. Where cores are idle, as in front of a GPU, nothing
    changes. Not beside llama.cpp, which it slows down (decision 0029).
    """
    with contextlib.suppress(OSError):  # a sandbox may not allow it; then it is as it was
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def is_closed(tls: Tls | None, guard: Guard) -> bool:
    """Whether only those are served who are known, over a wire that nobody else reads."""
    return tls is not None and (tls.asks_clients or guard.asks_keys)


def check_specs(specs: Sequence[EngineSpec]) -> None:
    """Refuse a set of engines that cannot be told apart or cannot be started. Raises UsageError."""
    names = [name for spec in specs for name in (spec.model, *spec.adapters)]
    if not names:
        raise UsageError("there is no model to serve", hint="serve --model NAME")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the model `{name}` is given twice", hint="give each model and adapter its own name")
    for spec in specs:
        if spec.origin is None and (spec.socket is None or not spec.argv):
            raise UsageError(f"the engine of `{spec.model}` is neither a child process nor a server elsewhere")


class House:
    """The parts of one gateway, wired; owns their life from start to drained."""

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        config: GatewayConfig,
        listener: Listener,
        gpus: Sequence[Gpu] = (),
        on_engine_ready: OnReady | None = None,
        tls: Tls | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._guard = guard or Guard()
        self._on_engine_ready = on_engine_ready
        self._tls = tls
        self._config = config
        self._listener = listener
        self._stops = 0
        self._served = False
        self._interrupted = False
        self._stopped = asyncio.Event()
        self._hurried = asyncio.Event()
        self._metrics = Metrics()
        prober = Prober()
        self._engines = {spec.model: self._engine(spec, prober) for spec in specs}
        for model in self._engines:
            self._metrics.in_flight_most.labels(model).set(config.most_in_flight)
            self._metrics.engine_restarts.labels(model)
        on_lost = self._metrics.untold.inc
        self._outside = None if config.egress is None else Outside(config.egress, config.egress_user, on_lost)
        self._pipeline = Pipeline(config, self._engines, self._metrics, self._guard, self._outside)
        self._watch = GpuWatch(gpus, self._on_gpus)

    def _engine(self, spec: EngineSpec, prober: Prober) -> Engine:
        keeper = self._keeper(spec, prober)
        admission, now = Admission(spec.model, self._config.most_in_flight), int(time.time())
        if isinstance(keeper, RemoteWatch):
            return Engine(spec, keeper, Upstream(spec.origin or socket_of(spec)), admission, now)
        prober.know(spec.model, keeper.owns)
        return Engine(spec, keeper, Upstream(socket_of(spec), keeper.owns), admission, now)

    def _keeper(self, spec: EngineSpec, prober: Prober) -> Supervisor | RemoteWatch:
        """What keeps a child running, or watches a server elsewhere."""
        config, told = self._config, self._on_change(spec)
        if spec.origin is not None:
            return RemoteWatch(spec, prober, self._listener, start_timeout_s=config.start_timeout_s, on_change=told)
        return Supervisor(
            spec,
            prober,
            self._listener,
            policy=config.restart,
            start_timeout_s=config.start_timeout_s,
            hang_timeout_s=config.hang_timeout_s,
            on_change=told,
        )

    async def run(self, listening: socket.socket) -> int:
        """Serve until stopped; returns the exit status, or raises what made an engine fail."""
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        loop = asyncio.get_running_loop()

        def cut(key_id: str) -> None:
            loop.call_soon_threadsafe(self._pipeline.cut, key_id)

        async with self._guard.administered(cut):
            return await self._run(listening)

    async def _run(self, listening: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        url = url_of(listening, is_tls=self._tls is not None)
        supervisors = [asyncio.create_task(engine.supervisor.run()) for engine in self._engines.values()]
        await asyncio.sleep(0)  # the engines are started
        self._server = self._front()
        server = asyncio.create_task(self._server.serve(sockets=[listening]))
        starter = asyncio.create_task(self._announce(url))
        stopper = asyncio.create_task(self._stopped.wait())
        watchers = [asyncio.create_task(self._watch.run())]
        if self._config.tls is not None and self._tls is not None:
            self._metrics.certificate_expires.set(self._tls.expires_at)
            watchers.append(asyncio.create_task(follow(self._config.tls, self._renew)))
        failure: StartError | None = None
        try:
            pending: set[asyncio.Task[object]] = {server, starter, stopper, *supervisors}
            while not stopper.done() and failure is None:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a bug in one of them is a bug of the whole
                failure = self._failure()
        finally:
            starter.cancel()
            stopper.cancel()
            for watcher in watchers:
                watcher.cancel()
            await self._drain()
            self._server.leave()
            await server
            for engine in self._engines.values():
                engine.supervisor.stop()
            await asyncio.gather(*supervisors, return_exceptions=True)
            for engine in self._engines.values():
                engine.upstream.close()
            if self._outside is not None:
                await self._outside.close()
        if failure is not None:
            raise failure
        return _INTERRUPTED if self._interrupted and not self._served else 0

    def _front(self) -> Front:
        # FastAPI takes a third of a second to import; imported here, the engines load meanwhile.
        from serving.gateway.admin import Admin  # noqa: PLC0415
        from serving.gateway.app import Gateway  # noqa: PLC0415
        from serving.gateway.explaining import Explaining  # noqa: PLC0415

        tells_engines = not self._guard.asks_keys
        explaining = (
            None
            if self._outside is None
            else Explaining(
                self._outside,
                self._guard,
                self._config.limits,
                self._config.body_timeout_s,
                self._pipeline.is_taken_here,
            )
        )
        admin = Admin(
            self._engines,
            self._metrics,
            self._pipeline,
            self._unready,
            tells_engines=tells_engines,
            explaining=explaining,
        )
        gateway = Gateway(self._config, self._pipeline, admin, self._guard)
        context = None if self._tls is None else self._tls.context
        protocol = protocol_for(self._config.connections, self._config.idle_timeout_s, gateway.turn_away)
        return front_of(gateway, protocol, context)

    async def _announce(self, url: str) -> None:
        states = [await engine.supervisor.wait_settled() for engine in self._engines.values()]
        if all(state.phase == "ready" for state in states):
            # What lives now lives long: a collection of it all would stall every stream for its duration.
            gc.collect()
            gc.freeze()
            self._served = True
            self._listener.on_ready(url)

    def _failure(self) -> StartError | None:
        """The error to leave with: an engine that never came up, or none left that could come back."""
        states = [engine.supervisor.state for engine in self._engines.values()]
        failures = [state.failure for state in states if state.failure is not None]
        came_up = [engine.supervisor.was_ready for engine in self._engines.values()]
        if failures and (len(failures) == len(states) or not all(came_up)):
            return failures[0]
        return None

    async def _drain(self) -> None:
        self._pipeline.is_draining = True
        self._server.leave()
        if self._pipeline.running:
            self._listener.on_drain()
        if not await self._idle_within(self._config.drain_s):
            log.warning("requests cut at the end of the drain", extra=facts(requests=self._pipeline.running))
            self._pipeline.abort_all()
            await self._idle_within(_ABORT_S, even_if_hurried=True)
        # The last answers are written, perhaps not all taken yet. uvicorn tells of its connections only when asked.
        deadline = time.monotonic() + _ABORT_S
        while self._server.server_state.connections and self._stops < 2 and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for connection in list(self._server.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()  # a client that does not read keeps nobody from leaving
        self._server.force_exit = True

    async def _idle_within(self, seconds: float, *, even_if_hurried: bool = False) -> bool:
        """Wait until nothing runs; False where it takes longer, or a second signal came."""
        idle = asyncio.create_task(self._pipeline.wait_idle())
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait(
            {idle} if even_if_hurried else {idle, hurried}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        idle.cancel()
        hurried.cancel()
        return not self._pipeline.running

    def _unready(self) -> str | None:
        """Why nothing should be sent here although the engines are ready."""
        return "gpu_lost" if self._config.require_gpu and self._watch.lost else None

    def _on_gpus(self, lost: tuple[LostGpu, ...]) -> None:
        self._metrics.gpus_lost.set(len(lost))
        for one in lost:
            self._listener.on_engine_event(str(one))
        if not lost:
            self._listener.on_engine_event("all GPUs answer again")

    async def _renew(self, outcome: Tls | StartError) -> None:
        """Serve with a certificate that has changed, or say why not."""
        if isinstance(outcome, StartError):
            self._metrics.certificate_renewals.labels("refused").inc()
            return
        await self._server.renew(outcome.context)
        self._metrics.certificate_renewals.labels("served").inc()
        self._metrics.certificate_expires.set(outcome.expires_at)

    def _on_signal(self, number: int) -> None:
        self._stops += 1
        self._interrupted |= number == signal.SIGINT
        self._stopped.set()
        if self._stops > 1:
            self._hurried.set()

    def _on_change(self, spec: EngineSpec) -> Callable[[EngineState], None]:
        model, lives, loaded = spec.model, 1, 0

        def note(state: EngineState) -> None:
            nonlocal lives, loaded
            self._metrics.engine_up.labels(model).set(1 if state.phase == "ready" else 0)
            if state.phase == "ready" and state.life > loaded:
                loaded = state.life
                self._guard.on_loaded(spec)
            if state.phase == "ready" and self._on_engine_ready is not None:
                self._on_engine_ready(model, state.facts, state.load_s)
            if state.life > lives:
                lives = state.life
                self._metrics.engine_restarts.labels(model).inc()

        return note


def socket_of(spec: EngineSpec) -> Path:
    """The engine's socket; `check_specs` has seen that there is one."""
    if spec.socket is None:
        raise UsageError(f"the engine of `{spec.model}` has no socket")
    return spec.socket
