"""Models that servers named as inside have, beside those of the engines here: the process that sends there knows."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from serving.engines.remote import ALL
from serving.engines.spec import Capabilities, EngineSpec
from serving.errors import EngineUnavailable
from serving.gateway.admission import Admission
from serving.gateway.engine import Engine, Named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.gateway.outside import Outside

_FRESH_S: Final = 1.0
"""How long what was told is taken for what is: a policy that changed counts as soon."""
_CAPABILITIES: Final = Capabilities(
    readiness=False,
    cache_domain="none",
    tokenize=False,
    tasks=frozenset({"generate", "embed"}),
    keep_alive_comments=False,
    serves=ALL,
)


class Inside:
    """The models of servers inside, each as an engine that is not here."""

    def __init__(self, outside: Outside, most: int) -> None:
        """`most` requests of one model are taken at a time."""
        self._outside = outside
        self._most = most
        self._engines: dict[str, Engine] = {}
        """Also of models that are no longer named: their places may be taken still."""
        self._names: frozenset[str] | None = None
        self._failure: EngineUnavailable | None = None
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def engines(self) -> Mapping[str, Engine]:
        """By the names that callers use, in their order. Raises EngineUnavailable where nobody could ever say."""
        async with self._asking:
            if time.monotonic() - self._asked_at > _FRESH_S:
                try:
                    self._names, self._failure = await self._outside.models_inside(), None
                except EngineUnavailable as failure:
                    self._failure = failure
                self._asked_at = time.monotonic()
        if self._names is None:
            raise self._failure or EngineUnavailable("it is not known which models there are inside")
        return {name: self._engine(name) for name in sorted(self._names)}

    async def find(self, model: str) -> Engine | None:
        """The one of that name; None where no server inside has it. Raises EngineUnavailable."""
        return (await self.engines()).get(model)

    def _engine(self, model: str) -> Engine:
        if model not in self._engines:
            spec = EngineSpec(model, "remote", capabilities=_CAPABILITIES)
            admission = Admission(model, self._most)
            self._engines[model] = Engine(
                spec, Named(), self._outside.upstream, admission, int(time.time()), is_here=False
            )
        return self._engines[model]
