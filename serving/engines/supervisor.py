"""Keeps one engine running.

    starting ──ready──▶ ready
       │                  │
       └──────died────────┴──▶ stopping its group ──▶ backoff ──▶ starting …
                                      └──▶ given up

One writer: `run` is the only code that changes the state. What happens outside (the process exits, a probe sees
progress, somebody asks to stop) is put into its inbox. Others read `state`, which is a frozen value. What follows a
crash is decided by the pure `restart.decide_restart`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, Protocol

from serving.engines import vllm_output
from serving.engines.process import Exit, Process, become_subreaper
from serving.engines.restart import Crash, GiveUp, RestartPolicy, decide_restart, forget_old
from serving.engines.runtime import (
    OWN,
    LoadTurn,
    claim,
    clear,
    keep_log,
    private_directory,
    release,
    state_directory,
)
from serving.errors import EngineFailed, EngineUnavailable, NotSealed, StartError
from serving.telemetry.logs import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from serving.engines.spec import EngineSpec

log = logging.getLogger(__name__)

Phase = Literal["starting", "ready", "backoff", "given_up", "stopped"]
_TERM_WAIT_S: Final = 3.0
"""How long an engine may take to leave when asked."""
_GONE_WAIT_S: Final = 5.0
_LAST_LINES: Final = 12
_TURN: Final = "waiting for another engine's load"
_TURN_EVERY_S: Final = 0.1
_OUTPUT_EVERY_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Loading:
    """What a probe saw: how far the load is, or that it is done."""

    ready: bool
    fraction: float | None = None
    """0 to 1; None where the engine does not say."""
    stage: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What a ready engine says of itself (docs/engine-protocol.md)."""


class Probe(Protocol):
    """Asks an engine how far it is; None where nobody answers yet."""

    async def __call__(self, spec: EngineSpec) -> Loading | None: ...


class Watcher(Protocol):
    """Is told what a person at the terminal wants to know."""

    def on_progress(self, model: str, fraction: float, stage: str) -> None: ...

    def on_engine_event(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineState:
    """A snapshot of one engine. Advisory to all but the supervisor."""

    phase: Phase
    since: float
    """Monotonic seconds."""
    life: int = 0
    """Counts the starts."""
    fraction: float | None = None
    stage: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    retry_at: float | None = None
    """When the next start is due, in monotonic seconds, while in backoff."""
    load_s: float | None = None
    """How long the last load took."""
    failure: StartError | None = None


@dataclass(frozen=True, slots=True)
class _Died:
    life: int
    exit: Exit


@dataclass(frozen=True, slots=True)
class _Seen:
    life: int
    loading: Loading


@dataclass(frozen=True, slots=True)
class _Hung:
    life: int


class _Stop:
    pass


class Supervisor:
    """One engine: `await run()` starts it and keeps it running until `stop()` or until it is given up on."""

    def __init__(
        self,
        spec: EngineSpec,
        probe: Probe,
        watcher: Watcher,
        *,
        policy: RestartPolicy | None = None,
        start_timeout_s: float = 600.0,
        hang_timeout_s: float = 60.0,
        probe_every_s: float = 0.025,
        on_change: Callable[[EngineState], None] | None = None,
    ) -> None:
        if spec.socket is None or not spec.argv:
            raise EngineFailed(f"the engine of `{spec.model}` has no command line or no socket")
        self.spec = spec
        self._socket: Path = spec.socket
        self._directory = state_directory(spec.socket)
        self._probe = probe
        self._watcher = watcher
        self._policy = policy or RestartPolicy()
        self._start_timeout_s = start_timeout_s
        self._hang_timeout_s = hang_timeout_s
        self._probe_every_s = probe_every_s
        self._on_change = on_change
        self._inbox: asyncio.Queue[_Died | _Seen | _Hung | _Stop] = asyncio.Queue()
        self._state = EngineState("starting", time.monotonic())
        self._changed = asyncio.Event()
        self._ever_ready = False
        self._process: Process | None = None

    @property
    def state(self) -> EngineState:
        """The latest snapshot."""
        return self._state

    @property
    def was_ready(self) -> bool:
        """Whether it has ever taken requests."""
        return self._ever_ready

    @property
    def pid(self) -> int | None:
        """The engine's process; None while there is none."""
        return None if self._process is None or self._process.exit is not None else self._process.pid

    def owns(self, pid: int) -> bool:
        """Whether that process is one of the engine's."""
        with contextlib.suppress(ProcessLookupError):
            return self.pid is not None and os.getsid(pid) == self.pid
        return False

    def check_ready(self) -> int:
        """The life that a request may use now. Raises EngineUnavailable, with when to come back."""
        state = self._state
        if state.phase == "ready":
            return state.life
        model = self.spec.model
        if state.phase == "given_up":
            raise EngineUnavailable(f"the engine of `{model}` has been given up on", retry_after_s=60)
        if state.phase == "stopped":
            raise EngineUnavailable(f"the engine of `{model}` is stopped", retry_after_s=10)
        # The last load is the best guess at the next one.
        wait_s = max(0.0, (state.retry_at or 0.0) - time.monotonic()) + (state.load_s or 1.0)
        what = "is loading" if not self._ever_ready else "is restarting"
        raise EngineUnavailable(f"the engine of `{model}` {what}", retry_after_s=max(1, math.ceil(wait_s)))

    async def wait_settled(self) -> EngineState:
        """The first state that is neither starting nor in backoff."""
        while self._state.phase in {"starting", "backoff"}:
            self._changed.clear()
            await self._changed.wait()
        return self._state

    def stop(self) -> None:
        """Ask `run` to end the engine and return."""
        self._inbox.put_nowait(_Stop())

    async def run(self) -> None:
        """Start the engine, and again whenever it dies. Returns when stopped or given up on; `state` says which."""
        become_subreaper()
        claim(self._socket)
        history: tuple[Crash, ...] = ()
        life = 0
        try:
            while True:
                life += 1
                ended = await self._live(life)
                if ended is None:
                    self._set(EngineState("stopped", time.monotonic(), life))
                    return
                exit_, words = ended
                log.error("engine died", extra=facts(model=self.spec.model, how=str(exit_)))
                history = forget_old((*history, Crash(time.monotonic(), self._ever_ready, exit_.status)), self._policy)
                decision = decide_restart(history, self._policy)
                if isinstance(decision, GiveUp):
                    failure = self._failure(decision.reason, exit_, words)
                    self._set(EngineState("given_up", time.monotonic(), life, failure=failure))
                    return
                self._watcher.on_engine_event(
                    f"the engine of {self.spec.model} died ({exit_}); starting it again in {decision.delay_s:g} s"
                )
                if await self._back_off(life, decision.delay_s):
                    self._set(EngineState("stopped", time.monotonic(), life))
                    return
        finally:
            if self._process is not None:
                self._process.kill()
                await self._until_gone(self._process)
            release(self._directory)

    async def _live(self, life: int) -> tuple[Exit, list[str]] | None:
        """One life of the engine, from its start to its end; None where it was asked to stop."""
        self._set(EngineState("starting", time.monotonic(), life, load_s=self._state.load_s))
        turn = LoadTurn(self._directory.parent)
        if await self._stopped_before(turn, life):
            return None
        process = self._process = self._start(life)
        began = time.monotonic()
        prober = asyncio.create_task(self._watch(life))
        died: Exit | None = None
        try:
            while died is None:
                event = await self._next(self._state)
                if isinstance(event, _Stop):
                    process.terminate()
                    await process.exited(_TERM_WAIT_S)
                    return None
                if event is None or (isinstance(event, _Hung) and event.life == life):
                    after_s = self._start_timeout_s if event is None else self._hang_timeout_s
                    log.error("engine hangs", extra=facts(model=self.spec.model, after_s=after_s))
                    self._watcher.on_engine_event(f"the engine of {self.spec.model} said nothing for {after_s:g} s")
                    process.kill()
                    await process.exited(_GONE_WAIT_S)
                    died = Exit(None, signal.SIGKILL, f"killed, having said nothing for {after_s:g} s")
                elif event.life == life and isinstance(event, _Died):
                    died = event.exit
                elif event.life == life and isinstance(event, _Seen):
                    self._advance(life, event.loading, began)
                    if event.loading.ready:
                        turn.end()
            # Said before anything slow is done, so that no request is sent to a dead engine.
            self._set(EngineState("backoff", time.monotonic(), life, load_s=self._state.load_s))
            return died, process.words.lines()
        finally:
            prober.cancel()
            process.kill()
            await self._until_gone(process)
            turn.end()

    async def _stopped_before(self, turn: LoadTurn, life: int) -> bool:
        """Wait until no other engine loads here; True where a stop was asked for meanwhile."""
        while not turn.begin():
            self._set(EngineState("starting", time.monotonic(), life, 0.0, _TURN, load_s=self._state.load_s))
            self._watcher.on_progress(self.spec.model, 0.0, _TURN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TURN_EVERY_S):
                    if isinstance(await self._inbox.get(), _Stop):
                        return True
        return False

    def _start(self, life: int) -> Process:
        """A new process, in a directory that nobody left anything in: what one life wrote no other reads or runs."""
        try:
            private_directory(self._directory)
            clear(self._directory / OWN)
            return Process(self.spec, self._directory, lambda how: self._inbox.put_nowait(_Died(life, how)))
        except OSError as error:
            message = f"the engine of `{self.spec.model}` cannot be started: {error.strerror} (`{error.filename}`)"
            raise EngineFailed(message, hint="see that there is room in paths.runtime_dir") from None

    async def _next(self, state: EngineState) -> _Died | _Seen | _Hung | _Stop | None:
        """The next event; None where a starting engine has shown no progress for too long."""
        if state.phase == "ready":
            return await self._inbox.get()
        try:
            async with asyncio.timeout(max(0.0, state.since + self._start_timeout_s - time.monotonic())):
                return await self._inbox.get()
        except TimeoutError:
            return None

    def _advance(self, life: int, loading: Loading, began: float) -> None:
        now = time.monotonic()
        if loading.ready:
            self._ever_ready = True
            log.info("engine ready", extra=facts(model=self.spec.model, life=life, load_s=round(now - began, 3)))
            if life > 1:
                self._watcher.on_engine_event(f"the engine of {self.spec.model} is ready again")
            self._set(EngineState("ready", now, life, 1.0, "ready", loading.facts, load_s=now - began))
        elif (loading.fraction, loading.stage) != (self._state.fraction, self._state.stage):
            self._set(EngineState("starting", now, life, loading.fraction, loading.stage, load_s=self._state.load_s))
            self._watcher.on_progress(self.spec.model, loading.fraction or 0.0, loading.stage)

    async def _watch(self, life: int) -> None:
        """Report the load until it is done; after that, that the engine no longer answers at all."""
        loading: Loading | None = None
        while loading is None or not loading.ready:
            loading = self._understood(await self._probe(self.spec))
            if loading is not None:
                self._inbox.put_nowait(_Seen(life, loading))
            # Without `/ready` its output is read through each time, during a load of minutes, beside others' streams.
            await asyncio.sleep(self._probe_every_s if self.spec.capabilities.readiness else _OUTPUT_EVERY_S)
        answered = time.monotonic()
        while time.monotonic() - answered < self._hang_timeout_s:
            # Several chances before the time is up: a machine under load may be late now and then.
            await asyncio.sleep(self._hang_timeout_s / 12)
            if await self._probe(self.spec) is not None:
                answered = time.monotonic()
        self._inbox.put_nowait(_Hung(life))

    def _understood(self, loading: Loading | None) -> Loading | None:
        """What a probe saw, with what only the engine's output says."""
        if self.spec.backend != "vllm" or self._process is None:
            return loading
        lines = self._process.words.lines()
        if loading is not None and loading.ready:
            return replace(loading, facts={**loading.facts, "kv_tokens": vllm_output.capacity_of(lines)})
        stage = vllm_output.stage_of(lines)
        return loading if stage is None else Loading(ready=False, fraction=stage[0], stage=stage[1])

    async def _back_off(self, life: int, delay_s: float) -> bool:
        """Wait; True where a stop was asked for meanwhile."""
        until = time.monotonic() + delay_s
        self._set(EngineState("backoff", time.monotonic(), life, retry_at=until, load_s=self._state.load_s))
        try:
            async with asyncio.timeout(delay_s):
                while not isinstance(await self._inbox.get(), _Stop):
                    pass
        except TimeoutError:
            return False
        return True

    async def _until_gone(self, process: Process) -> None:
        """Wait until nothing of the engine is left: its memory must be back before the next one asks for it."""
        deadline = time.monotonic() + _GONE_WAIT_S
        while not process.collect_orphans() or process.exit is None:
            if time.monotonic() > deadline:
                log.error("engine does not leave", extra=facts(model=self.spec.model, pid=process.pid))
                return
            await asyncio.sleep(0.01)

    def _failure(self, reason: str, how: Exit, words: list[str]) -> StartError:
        log_file = keep_log(self._directory)
        theirs = vllm_output.failure_of(self.spec.model, words) if self.spec.backend == "vllm" else fatal_error(words)
        # An engine that has served may say what it was asked: that stays in its log, which only we may read.
        shown = [] if self._ever_ready else words[-_LAST_LINES:]
        return theirs or EngineFailed(
            f"the engine of `{self.spec.model}` failed: {reason} ({how})"
            + "".join(f"\n  | {line[:300]}" for line in shown),
            hint=f"the whole log is `{log_file}`" if log_file else None,
        )

    def _set(self, state: EngineState) -> None:
        self._state = state
        self._changed.set()
        if self._on_change is not None:
            self._on_change(state)


def fatal_error(words: list[str]) -> StartError | None:
    """The error that an engine gave as its last line before it exited; None where it gave none.

    The line is `{"event": "fatal", "code", "message", "hint"}`; the code picks the class, so that the exit status and
    the rendering are those of our own errors.
    """
    if not words:
        return None
    try:
        line = json.loads(words[-1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or line.get("event") != "fatal" or not isinstance(line.get("message"), str):
        return None
    hint = line.get("hint")
    if line.get("code") == NotSealed.code:  # its hints would tell how to take the walls down; whoever said it, say ours
        hint = "docs/sealed.md says what a host must have"
    known = next((kind for kind in _start_errors(StartError) if kind.code == line.get("code")), EngineFailed)
    return known(line["message"], hint=hint if isinstance(hint, str) else None)


def _start_errors(kind: type[StartError]) -> list[type[StartError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _start_errors(child))]
