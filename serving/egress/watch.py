"""Whoever watches while something is being sent: the client may leave, and the kill switch may be thrown."""

from __future__ import annotations

import asyncio
from typing import Final, Self

from serving.egress.judge import Judge
from serving.errors import ServingError, StaysInside
from serving.openai.asgi import Receive

_WATCH_S: Final = 0.25
"""How often the kill switch is looked at while an answer streams."""


class Watch:
    """Ends what is done meanwhile once the client leaves or the kill switch is thrown, also while nothing comes."""

    def __init__(self, judge: Judge, receive: Receive, *, leaves: bool = True) -> None:
        """`leaves`: it is sent outside; the kill switch does not concern what is sent to a server inside."""
        self._leaves = leaves
        self._judge = judge
        self._receive = receive
        self._task = asyncio.current_task()
        self._reason: ServingError | None = None
        self._watchers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._watchers = [asyncio.create_task(self._gone())]
        if self._leaves:
            self._watchers.append(asyncio.create_task(self._thrown()))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for each in self._watchers:
            each.cancel()
        if kind is asyncio.CancelledError:
            reason = self.take_reason()
            if reason is not None:
                raise reason from None

    def take_reason(self) -> ServingError | None:
        """Why the task was cancelled, if it is to go on and say so; None where nobody is there to be told."""
        reason, self._reason = self._reason, None
        if reason is not None and self._task is not None:
            self._task.uncancel()
        return reason

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end(None)

    async def _thrown(self) -> None:
        while self._judge.is_open:  # noqa: ASYNC110 - files change without telling
            await asyncio.sleep(_WATCH_S)
        self._end(closed())

    def _end(self, reason: ServingError | None) -> None:
        self._reason = reason
        if self._task is not None:
            self._task.cancel()


def closed() -> StaysInside:
    """What keeps everything inside while the kill switch is thrown."""
    return StaysInside("the kill switch was thrown", rule="switch")
