"""The event loop's end of one answer: what the engine's thread tells of it, and whether its client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from serving.openai.asgi import Receive

Result = TypeVar("Result")
Update = TypeVar("Update")


class Answer(Generic[Update]):
    """The event loop's end of one request: updates as they come."""

    __slots__ = ("_preparing", "_updates", "_waiter", "gone")

    def __init__(self) -> None:
        self._preparing: asyncio.Future[Any] | None = None
        self._updates: list[Update] = []
        self._waiter: asyncio.Future[None] | None = None
        self.gone = False
        """The client has left."""

    def put(self, update: Update) -> None:
        self._updates.append(update)
        self._wake()

    def leave(self) -> None:
        self.gone = True
        if self._preparing is not None:
            self._preparing.cancel()
        self._wake()

    async def unless_gone(self, preparing: Coroutine[Any, Any, Result]) -> Result | None:
        """What is prepared for the answer; None where the client left meanwhile."""
        task = asyncio.create_task(preparing)
        self._preparing = task
        try:
            return await task
        except asyncio.CancelledError:
            if not self.gone:
                raise
            return None
        finally:
            task.cancel()
            self._preparing = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self, timeout_s: float | None = None) -> list[Update]:
        """All updates there are, at least one; none if the client left or the time passed."""
        if not self._updates and not self.gone:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            handle = None if timeout_s is None else loop.call_later(timeout_s, self._wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if handle is not None:
                    handle.cancel()
        updates, self._updates = self._updates, []
        return updates


async def watch(receive: Receive, answer: Answer[Any]) -> None:
    """Tell the answer when its client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
    answer.leave()
