"""Rendering and tokenising, on a thread of its own: off the event loop, one job at a time, and interruptible.

Its stack is very large, and virtual until it is needed: for several pre-tokenizer types llama.cpp falls back to a
recursive regular expression, and 30,000 equal letters overflow one of 8 MiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from serving.errors import InvalidRequest

Result = TypeVar("Result")

PREPARE_TIMEOUT_S = 30.0
"""Longest time that rendering and tokenising one prompt may take."""

_STACK_BYTES = 4 << 30
_STACK_FALLBACK_BYTES = 256 << 20
_stack = threading.local()


class TextTimeout(Exception):
    """Raised inside the text thread when a job has had its time."""


class TextThread:
    """Runs jobs one after another on one thread; `run` awaits them from the event loop."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], object], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._current: asyncio.Future[Any] | None = None
        self._began = 0.0
        self._lock = threading.Lock()
        self._thread = self._start()

    def _start(self) -> threading.Thread:
        before = threading.stack_size()
        for size in (_STACK_BYTES, _STACK_FALLBACK_BYTES):
            try:
                threading.stack_size(size)
                thread = threading.Thread(target=self._work, args=(size,), name="text", daemon=True)
                thread.start()
            except (RuntimeError, ValueError):  # the address space is limited; try with less
                continue
            finally:
                threading.stack_size(before)
            return thread
        raise MemoryError("no thread with a stack of 256 MiB could be started")

    async def run(self, job: Callable[[], Result], timeout_s: float) -> Result:
        """The job's result. Raises InvalidRequest when it ran longer than `timeout_s`; time in the queue is free.

        Cancelled, it is left out if it has not begun, and interrupted if it has.
        """
        done: asyncio.Future[Result] = self._loop.create_future()
        self._jobs.put((job, done))
        try:
            while not (await asyncio.wait({done}, timeout=timeout_s))[0]:
                self._interrupt(done, after_s=timeout_s)
        except asyncio.CancelledError:
            done.cancel()
            self._interrupt(done, after_s=0.0)
            raise
        try:
            return done.result()
        except TextTimeout:
            raise InvalidRequest(f"the prompt took longer than {timeout_s:g} s to prepare") from None

    def _interrupt(self, done: asyncio.Future[Any], *, after_s: float) -> None:
        """End the job if it is this one's, and has had so long."""
        with self._lock:
            if self._current is done and time.monotonic() - self._began >= after_s:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(TextTimeout)
                )

    def _work(self, stack_bytes: int) -> None:
        _stack.size = stack_bytes
        while True:
            # An interruption may arrive a moment after its job, wherever the thread then is; it must live on.
            with contextlib.suppress(TextTimeout):
                self._work_off()

    def _work_off(self) -> None:
        job: Callable[[], object] | None = None
        done: asyncio.Future[Any] | None = None
        while True:
            try:
                job, done = self._jobs.get()
                if done.cancelled():
                    continue
                with self._lock:
                    self._current, self._began = done, time.monotonic()
                try:
                    result = job()
                finally:
                    with self._lock:
                        self._current = None
                self._loop.call_soon_threadsafe(_settle, done, result, None)
            except BaseException as error:  # noqa: BLE001 - handed to the one who waits; the thread must live on
                # an interruption may also arrive just after its job: settling twice is harmless, a lost one is not
                if done is not None:
                    self._loop.call_soon_threadsafe(_settle, done, None, error)


def _settle(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)


def stack_bytes() -> int:
    """The stack that a job has, asked from within it."""
    size: int = getattr(_stack, "size", _STACK_FALLBACK_BYTES)
    return size
