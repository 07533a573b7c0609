"""One served model as the pipeline sees it: its supervisor, its connections, its places; and how it is probed."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from serving.engines.supervisor import EngineState, Loading
from serving.gateway.upstream import EngineBroke, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.engines.remote import RemoteWatch
    from serving.engines.spec import EngineSpec, Origin
    from serving.engines.supervisor import Supervisor
    from serving.gateway.admission import Admission

_PROBE_S: Final = 1.0
_PROBE_BYTES: Final = 1 << 20
_PROBE_ELSEWHERE_S: Final = 5.0
_NAMES: Final = 5
_NAME_CHARS: Final = 80


class Named:
    """In place of what watches an engine: how such a server is, only the process that sends to it knows."""

    was_ready = True

    def __init__(self) -> None:
        self.state = EngineState("ready", time.monotonic(), 1)

    async def run(self) -> None:
        """Nothing is to be watched."""

    def stop(self) -> None:
        """Nothing runs."""

    async def wait_settled(self) -> EngineState:
        """It is what it will be."""
        return self.state

    def check_ready(self) -> int:
        """It is asked when a request is there."""
        return self.state.life


@dataclass(frozen=True, slots=True)
class Engine:
    """A model that is served."""

    spec: EngineSpec
    supervisor: Supervisor | RemoteWatch | Named
    upstream: Upstream
    admission: Admission
    created: int = field(default=0)
    """When this gateway began to serve it, in seconds since the epoch."""
    is_here: bool = True
    """False: a server named as inside has it, and the egress process is asked to send there."""


class Prober:
    """Asks engines how far their load is: a child over a new connection each time, a server elsewhere over one kept."""

    def __init__(self) -> None:
        self._kept: dict[str, Upstream] = {}
        """By model, so that one that hangs holds up no other."""
        self._is_engine: dict[str, Callable[[int], bool]] = {}

    def know(self, model: str, is_engine: Callable[[int], bool]) -> None:
        """From now on only a process of which `is_engine` holds is asked about that model."""
        self._is_engine[model] = is_engine

    async def __call__(self, spec: EngineSpec) -> Loading | None:
        """What the engine says of itself; None where it says nothing that is understood."""
        if spec.origin is not None:
            return await self._elsewhere(spec, spec.origin)
        if spec.socket is None or not spec.socket.exists():
            return None
        upstream = Upstream(spec.socket, self._is_engine.get(spec.model))
        try:
            async with asyncio.timeout(_PROBE_S):
                path = "/ready" if spec.capabilities.readiness else "/health"
                response = await upstream.request("GET", path)
                body = await response.read_all(_PROBE_BYTES)
                if response.status == 200 and not spec.capabilities.readiness:
                    listed = await upstream.request("GET", "/v1/models")
                    return Loading(ready=True, facts=facts_of(spec.model, await listed.read_all(_PROBE_BYTES)))
        except (EngineBroke, TimeoutError):
            return None
        finally:
            upstream.close()
        return loading_of(response.status, body) if spec.capabilities.readiness else None

    async def _elsewhere(self, spec: EngineSpec, origin: Origin) -> Loading | None:
        if spec.model not in self._kept:  # TLS reads its certificates once, not every second
            self._kept[spec.model] = Upstream(origin)
        upstream = self._kept[spec.model]
        head = "" if spec.key is None else f"authorization: Bearer {spec.key}\r\n"
        try:
            async with asyncio.timeout(_PROBE_ELSEWHERE_S):
                response = await upstream.request("GET", "/v1/models", head)
                body = await response.read_all(_PROBE_BYTES)
        except (EngineBroke, TimeoutError):
            upstream.close()
            return None
        return listing_of(spec.model, response.status, body)


def listing_of(model: str, status: int, body: bytes) -> Loading:
    """What a server elsewhere says of its models: ready where this one is among them, else what is the matter."""
    if status in {401, 403}:
        return Loading(ready=False, stage="it wants a key" if status == 401 else "it refuses the key")
    if status != 200:
        return Loading(ready=False, stage=f"its list of models is answered with status {status}")
    try:
        names = [str(card["id"])[:_NAME_CHARS] for card in json.loads(body)["data"]]
    except (ValueError, RecursionError, KeyError, TypeError):
        return Loading(ready=False, stage="it gives no list of models")
    if model in names:
        return Loading(ready=True, facts=facts_of(model, body))
    shown = ", ".join(f"`{name}`" for name in names[:_NAMES]) or "nothing"
    return Loading(ready=False, stage=f"it serves {shown if shown.isprintable() else 'other models'}, not `{model}`")


def facts_of(model: str, body: bytes) -> dict[str, object]:
    """What a list of models says of one of them, in the words of `/ready`."""
    try:
        cards = json.loads(body)["data"]
        card = next(card for card in cards if card["id"] == model)
    except (ValueError, RecursionError, KeyError, TypeError, StopIteration):
        return {}
    return {"n_ctx_seq": card.get("max_model_len")}


def loading_of(status: int, body: bytes) -> Loading | None:
    """What `GET /ready` answered, as far as it is understood (docs/engine-protocol.md)."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if status == 200 and value.get("status") == "ready":
        return Loading(ready=True, facts={key: item for key, item in value.items() if key != "status"})
    progress, stage = value.get("progress"), value.get("stage")
    return Loading(
        ready=False,
        fraction=_fraction(progress),
        stage="".join(letter for letter in stage[:64] if letter.isprintable()) if isinstance(stage, str) else "",
    )


def _fraction(told: object) -> float | None:
    """How far a load is, from 0 to 1; None where what was told is no number that can be."""
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told <= 1:
        return None
    return float(told)
