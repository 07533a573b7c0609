"""The way out: what the egress process says of a request, and what it is told of answers that were given inside.

The gateway decides nothing here. It asks, reserves the budget of the destination that it is told, and hands the request
over; the egress process finds out for itself whether it leaves, and what it says no to is served inside.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.egress.asking import ASKED, HEADER, Ask, write_ask
from serving.engines.spec import Capabilities, EngineSpec
from serving.errors import EngineUnavailable, InvalidRequest, PermissionDenied, ShuttingDown
from serving.gateway.upstream import EngineBroke, Upstream
from serving.openai import serialise
from serving.policy.facts import ROUTE_HEADER, Attempt, asks_to_stay
from serving.policy.model import LOCAL, Zone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serving.gateway.exchange import Exchange, Principal
    from serving.gateway.routes import Call, Route

log = logging.getLogger(__name__)
_TOLD_BYTES: Final = 4 << 20
_JUDGE_S: Final = 30.0
_READY_S: Final = 5.0
_AGAIN_S: Final = 1.0
_CAPABILITIES: Final = Capabilities(readiness=False, cache_domain="none", tokenize=False, keep_alive_comments=False)
_UNTOLD_BYTES: Final = 256 << 20
"""Of all answers that are still to be told; what comes beyond is told without what it said."""
_UNTOLD: Final = 1 << 12
"""Of answers; what comes beyond is not told at all."""
_UNREAD: Final = b"\0"
"""Told in place of an answer that cannot be."""
_ASKED_BYTES: Final = 16
PATHS: Final = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})
"""Routes that the egress process sends anywhere."""


@dataclass(frozen=True, slots=True)
class Way:
    """What is to become of one request."""

    ask: Ask
    rule: str
    zone: Zone | None
    """None: nobody is to serve it."""
    prices: str | None
    """The `engine` of the destination's entries in the price book; None: it is served inside."""
    answer: str | None
    """The number under which its answer is to be remembered; None: it need not be, or not by this process."""
    is_turned_away: bool = False
    """By the policy's own word, whoever could serve it."""

    @property
    def destination(self) -> str | None:
        """The one that is to be tried, outside or inside; None: the engine here serves it, or nobody."""
        return self.ask.destination

    @property
    def leaves(self) -> bool:
        """A destination outside is to be tried."""
        return self.zone == "cloud"

    def spec(self, model: str) -> EngineSpec:
        """The destination in the terms of an engine."""
        return EngineSpec(model, "remote", capabilities=_CAPABILITIES)


@dataclass(frozen=True, slots=True)
class _Untold:
    """What the egress process has yet to hear of one answer."""

    ask: str
    which: str
    """The header that says which answer."""
    answer: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tried:
    """What has been tried of a request, and what else is known of it before it is judged."""

    attempt: Attempt = "first"
    local: bool = True
    """An engine here can take it."""
    failed: frozenset[str] = frozenset()
    """Destinations that have failed at it."""
    is_watched: bool = True
    """Somebody of its cache domain may send work out."""


class Outside:
    """The egress process, as the pipeline sees it."""

    def __init__(
        self,
        socket: Path,
        owner: int | None = None,
        on_lost: Callable[[], None] = lambda: None,
        *,
        judge_s: float = _JUDGE_S,
        untold_bytes: int = _UNTOLD_BYTES,
    ) -> None:
        """`owner`: the user that it runs as, where that is not this process's.

        `on_lost` is called for each answer of which the egress process will not hear what it said, since more than
        `untold_bytes` of others wait to be told; it keeps what is said in that cache domain inside then.
        """
        self.upstream = Upstream(socket, owner=owner)
        self._on_lost = on_lost
        self._judge_s = judge_s
        self._untold_bytes = untold_bytes
        self._untold: deque[_Untold] = deque()
        self._untold_size = 0
        self._teller: asyncio.Task[None] | None = None

    async def judge(
        self,
        exchange: Exchange,
        route: Route,
        call: Call,
        headers: Mapping[bytes, bytes],
        tried: Tried,
    ) -> Way | None:
        """What is to become of a request; None where it has no key, and an engine here can take it.

        `tried`: what has been tried before. Raises InvalidRequest, EngineUnavailable.

        Where the egress process does not answer, a request whose texts it would have had to remember is not served:
        what was said meanwhile could leave later.
        """
        ask = _ask_of(exchange.request_id, exchange.principal, headers)
        if ask is None:
            if tried.local:
                return None
            ask = _of_nobody(exchange)
        ask = replace(ask, attempt=tried.attempt, local=tried.local, failed=tried.failed, watched=tried.is_watched)
        asked = secrets.token_hex(_ASKED_BYTES)
        asking = asyncio.create_task(self._judged(ask, serialise(call.body), route.path, asked))
        try:
            told = await asyncio.shield(asking)
        except asyncio.CancelledError:
            # its client has left; what was told is heard all the same, since an answer is waited for
            asking.add_done_callback(partial(self._never_began, ask))
            raise
        destination, prices = told.get("destination"), told.get("prices")
        answer, rule = told.get("answer"), str(told.get("rule"))
        zone: Zone | None = "perimeter" if told.get("zone") is not None else None
        if told.get("zone") == "cloud" and isinstance(destination, str) and isinstance(prices, str):
            ask, zone = replace(ask, destination=destination, budget="reserved"), "cloud"
        elif told.get("zone") == "perimeter" and isinstance(destination, str) and destination != LOCAL:
            ask = replace(ask, destination=destination)
        return Way(
            ask,
            rule,
            zone,
            str(prices) if zone == "cloud" else None,
            answer if isinstance(answer, str) else None,
            told.get("turned_away") is True,
        )

    async def models_inside(self) -> frozenset[str]:
        """What callers call the models that servers named as inside have. Raises EngineUnavailable."""
        try:
            async with asyncio.timeout(_READY_S):
                response = await self.upstream.request("GET", "/ready")
                told = json.loads(await response.read_all(_TOLD_BYTES))
        except (EngineBroke, TimeoutError, ValueError):
            raise _silent() from None
        names = told.get("inside") if isinstance(told, dict) else None
        if response.status != 200 or not isinstance(names, list):
            raise _silent()
        return frozenset(name for name in names if isinstance(name, str))

    async def explain(
        self,
        request: str,
        principal: Principal,
        path: str,
        body: dict[str, object],
        headers: Mapping[bytes, bytes],
        *,
        is_here: bool = True,
    ) -> dict[str, object]:
        """Where a request of whoever has this key would go, and why: nothing is sent, and nothing remembered.

        `is_here`: an engine here can take it. Raises InvalidRequest, EngineUnavailable, PermissionDenied for who has
        no key.
        """
        ask = _ask_of(request, principal, headers)
        if ask is None:
            raise PermissionDenied("without a key nothing leaves, and there is nothing to explain")
        ask = replace(ask, local=is_here)
        told = await self._told("/explain", ask, serialise(body), f"x-egress-path: {path}\r\n")
        explained = told.get("explained")
        return explained if isinstance(explained, dict) else {}

    async def _judged(self, ask: Ask, body: bytes, path: str, asked: str) -> dict[str, object]:
        """What it says of a request. Where that was not heard it is told so: it may wait for an answer to come."""
        mark = f"{ASKED}: {asked}\r\n"
        try:
            return await self._told("/judge", ask, body, f"x-egress-path: {path}\r\n{mark}")
        except _Unheard:
            self._tell_later(_Untold(write_ask(ask), mark, b"{}"))
            raise

    def _never_began(self, ask: Ask, asked: asyncio.Task[dict[str, object]]) -> None:
        if not asked.cancelled() and asked.exception() is None and isinstance(number := asked.result()["answer"], str):
            self.remember(Way(ask, "", None, None, number), b"{}")

    def headers(self, way: Way) -> str:
        """What goes with a request that is handed over."""
        return (
            f"content-type: application/json\r\nx-request-id: {way.ask.request}\r\n{HEADER}: {write_ask(way.ask)}\r\n"
        )

    def remember(self, way: Way, answer: bytes | None) -> None:
        """Have the answer to a sensitive request remembered; it is said until it has been heard."""
        if way.answer is None:
            return
        told = answer
        if answer is not None and self._untold_size + len(answer) > self._untold_bytes:
            log.error("an answer cannot be told, since too many wait to be: its cache domain stays inside")
            told = None
            self._on_lost()
        number = f"x-egress-answer: {way.answer}\r\n"
        self._tell_later(_Untold(write_ask(way.ask), number, _UNREAD if told is None else told))

    def _tell_later(self, untold: _Untold) -> None:
        if len(self._untold) >= _UNTOLD:  # it waits for this answer, and nothing of its domain leaves meanwhile
            log.error("an answer is not told, since too many wait to be: its cache domain stays inside")
            self._on_lost()
            return
        self._untold.append(untold)
        self._untold_size += len(untold.answer)
        if self._teller is None or self._teller.done():
            self._teller = asyncio.create_task(self._tell())

    async def close(self) -> None:
        """Say what is left, for a moment."""
        if self._teller is not None:
            await asyncio.wait([self._teller], timeout=_AGAIN_S)
            self._teller.cancel()
        self.upstream.close()

    async def _tell(self) -> None:
        while self._untold:
            first = self._untold[0]
            head = f"content-type: application/json\r\n{HEADER}: {first.ask}\r\n{first.which}"
            try:
                async with asyncio.timeout(_JUDGE_S):
                    response = await self.upstream.request("POST", "/remember", head, first.answer)
                    await response.read_all(_TOLD_BYTES)
            except (EngineUnavailable, TimeoutError):
                await asyncio.sleep(_AGAIN_S)
                continue
            if response.status == ShuttingDown.http_status:  # the next one is told
                await asyncio.sleep(_AGAIN_S)
                continue
            if response.status != 200:
                log.error("an answer could not be remembered: everything stays inside from now on")
            self._untold.popleft()
            self._untold_size -= len(first.answer)

    async def _told(self, path: str, ask: Ask, body: bytes, more: str) -> dict[str, object]:
        head = f"content-type: application/json\r\nx-request-id: {ask.request}\r\n{HEADER}: {write_ask(ask)}\r\n{more}"
        try:
            async with asyncio.timeout(self._judge_s):
                response = await self.upstream.request("POST", path, head, body)
                raw = await response.read_all(_TOLD_BYTES)
            told = json.loads(raw)
        except (EngineBroke, TimeoutError, ValueError):
            raise _silent() from None
        if response.status == InvalidRequest.http_status:
            raise InvalidRequest("the request is nested too deeply to be read", hint="send its texts as they are")
        if response.status != 200 or not isinstance(told, dict):
            raise _silent()
        return told


def _ask_of(request: str, principal: Principal, headers: Mapping[bytes, bytes]) -> Ask | None:
    """What is said of a request of this principal; None where it has no key. Raises InvalidRequest."""
    given = headers.get(ROUTE_HEADER.encode())
    asked_local = asks_to_stay(None if given is None else given.decode("latin-1"))
    key = principal.key
    if key is None:
        return None
    return Ask(
        request=request,
        principal=principal.name,
        key=key.key_id,
        domain=key.cache_domain,
        classes=key.classes,
        residency=key.residency,
        asked_local=asked_local,
        budget="available",
    )


class _Unheard(EngineUnavailable):
    """It was asked, and what it said did not come."""


def _of_nobody(exchange: Exchange) -> Ask:
    """What is said of a request without a key, which leaves in no case."""
    principal = exchange.principal
    return Ask(exchange.request_id, principal.name, None, principal.cache_domain)


def _silent() -> _Unheard:
    return _Unheard(
        "the process that sees what may leave does not answer, and what it does not see could leave later",
        retry_after_s=2,
        hint="the operator starts `serve egress`",
    )
