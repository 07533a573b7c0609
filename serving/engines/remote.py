"""A model that somebody else's server computes: any that speaks OpenAI's protocol at a URL.

It is neither started nor ended here, only watched: requests are refused with a time to come back while it does not
answer, and taken again as soon as it lists the model.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from serving.engines.spec import Capabilities, EngineSpec, Origin
from serving.engines.supervisor import EngineState
from serving.errors import BadSettings, EngineFailed, EngineUnavailable
from serving.openai.limits import Serves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from serving.engines.supervisor import Probe, Watcher

EVERY_S: Final = 1.0
"""How often it is asked for its models."""
_KEY_CHARS: Final = 4096
ALL: Final = Serves(choices=True, logprobs=True, structured_output=True, tools=True)
"""What a server elsewhere may serve: it refuses the rest itself."""


def plan_remote(model: str, url: str, key_file: Path | None = None) -> EngineSpec:
    """The engine behind `url`, reached with the key in `key_file`. Raises BadSettings for a URL or key that is none.

    Prompt prefixes are not kept apart there by cache domain: the protocol has no field for it.
    """
    return EngineSpec(
        model=model,
        backend="remote",
        origin=origin_of(url),
        key=None if key_file is None else read_key(key_file),
        capabilities=Capabilities(
            readiness=False,
            cache_domain="none",
            tasks=frozenset({"generate", "embed", "rerank"}),
            keep_alive_comments=False,
            serves=ALL,
        ),
    )


def origin_of(url: str) -> Origin:
    """Where a base URL leads, with or without the `/v1` that clients write. Raises BadSettings."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadSettings(f"`{url}` is not a URL: {error}", hint="write it as http://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or " " in url:
        raise BadSettings(f"`{url}` is not the URL of a server", hint="write it as http://host:port, or https://host")
    if parts.username or parts.password or parts.query or parts.fragment:
        hint = "a key goes into a file that `--engine-key-file` names; the rest is left out"
        raise BadSettings("the URL of an engine has a user, a password, a query or a fragment in it", hint=hint)
    is_tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return Origin(parts.hostname, port or (443 if is_tls else 80), is_tls, prefix)


def read_key(path: Path) -> str:
    """The key in a file, which nobody else may read. Raises BadSettings."""
    try:
        if path.stat().st_mode & 0o077:
            raise BadSettings(f"others may read the key in `{path}`", hint=f"chmod 600 {path}")
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"cannot read a key from `{path}`: {error}", hint="name a file with the key alone") from None
    if not key or len(key) > _KEY_CHARS or not key.isprintable() or " " in key:
        raise BadSettings(f"`{path}` holds no key", hint="name a file with the key alone, on one line")
    return key


class RemoteWatch:
    """Watches one server elsewhere; for the gateway what a `Supervisor` is for a child."""

    def __init__(
        self,
        spec: EngineSpec,
        probe: Probe,
        watcher: Watcher,
        *,
        start_timeout_s: float = 600.0,
        every_s: float = EVERY_S,
        on_change: Callable[[EngineState], None] | None = None,
    ) -> None:
        self.spec = spec
        self._probe = probe
        self._watcher = watcher
        self._start_timeout_s = start_timeout_s
        self._every_s = every_s
        self._on_change = on_change
        self._state = EngineState("starting", time.monotonic(), 1)
        self._stopped = asyncio.Event()
        self._settled = asyncio.Event()
        self._ever_ready = False

    @property
    def state(self) -> EngineState:
        """The latest snapshot."""
        return self._state

    @property
    def was_ready(self) -> bool:
        """Whether it has ever listed the model."""
        return self._ever_ready

    def check_ready(self) -> int:
        """The life that a request may use now. Raises EngineUnavailable, with when to come back."""
        if self._state.phase == "ready":
            return self._state.life
        message = f"the server of `{self.spec.model}` does not answer"
        raise EngineUnavailable(message, retry_after_s=max(1, math.ceil(self._every_s)))

    async def wait_settled(self) -> EngineState:
        """The first state that is neither starting nor in backoff."""
        await self._settled.wait()
        return self._state

    def stop(self) -> None:
        """Ask `run` to return."""
        self._stopped.set()

    async def run(self) -> None:
        """Watch until stopped, or until it has never answered within the time for a start."""
        begun, stage = time.monotonic(), ""
        while not self._stopped.is_set():
            seen = await self._probe(self.spec)
            if seen is not None and seen.ready:
                self._came(seen.facts)
            elif self._state.phase == "ready":
                self._set(EngineState("backoff", time.monotonic(), self._state.life, retry_at=time.monotonic()))
                self._watcher.on_engine_event(f"the server of {self.spec.model} no longer answers")
            elif not self._ever_ready:
                now = "nobody answers there" if seen is None else seen.stage
                if now != stage:
                    stage = now
                    self._watcher.on_progress(self.spec.model, 0.0, f"waiting for {self.spec.origin}: {stage}")
                if time.monotonic() - begun > self._start_timeout_s:
                    self._give_up(stage)
                    return
            try:
                async with asyncio.timeout(self._every_s):
                    await self._stopped.wait()
            except TimeoutError:
                continue
        self._set(EngineState("stopped", time.monotonic(), self._state.life))
        self._settled.set()

    def _came(self, facts: Mapping[str, object]) -> None:
        if self._state.phase == "ready":
            return
        if self._ever_ready:
            self._watcher.on_engine_event(f"the server of {self.spec.model} answers again")
        life = self._state.life + (1 if self._ever_ready else 0)
        self._ever_ready = True
        self._set(EngineState("ready", time.monotonic(), life, 1.0, "ready", facts))
        self._settled.set()

    def _give_up(self, stage: str) -> None:
        failure = EngineFailed(
            f"`{self.spec.model}` cannot be had from {self.spec.origin}: {stage}",
            hint="see that it runs and serves the model under this name; `--engine-key-file` names a file with its key",
        )
        self._set(EngineState("given_up", time.monotonic(), self._state.life, failure=failure))
        self._settled.set()

    def _set(self, state: EngineState) -> None:
        self._state = state
        if self._on_change is not None:
            self._on_change(state)
