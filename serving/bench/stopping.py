"""SIGINT and SIGTERM end what goes on, and what was measured by then is kept."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def stopping() -> Iterator[asyncio.Event]:
    """An event that the signals set, for the time of the block."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> tuple[T | None, bool]:
    """What comes of it, and whether it was stopped before its end, and cancelled. Raises what it raises."""
    doing, waiting = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if doing.done():
        return doing.result(), False
    doing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await doing
    return None, True
