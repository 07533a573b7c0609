"""Rendering and tokenising, on a thread of its own with a very large stack.

For several pre-tokenizer types llama.cpp falls back to a recursive regular expression: 30,000 equal letters overflow
an 8 MiB stack and kill the process. The stack here is virtual memory that is only touched when it is needed. A
text that could not fit the context even at the longest token is refused before it is looked at, and so is one that
could overflow even this stack.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from serving.errors import ContextLengthExceeded, InvalidRequest
from serving.generation.template import Piece
from serving.llamacpp.binding import Model

Result = TypeVar("Result")

_STACK_BYTES = 4 << 30
_STACK_FALLBACK_BYTES = 256 << 20
_STACK_PER_BYTE = 512
"""Stack that one byte of text may take at most; 270 to 350 were measured."""
_stack = threading.local()


_LONGEST_RUN: dict[str, tuple[re.Pattern[str], str, int]] = {
    "jais-2": (re.compile(r"\s+"), "blanks", 10_000),
    "superbpe": (re.compile(r"\d+"), "digits", 128),
}
"""Pre-tokenizer types whose regular expression looks to the end of a run again from every place in it: what may run,
what it is called, and how long it may be. The call cannot be interrupted, and a run of 1,000,000 takes from minutes
(jais-2) to hours (superbpe); with these limits as much text in the longest runs takes seconds."""


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


def tokenize(model: Model, pieces: Sequence[Piece], context: int, *, add_special: bool) -> list[int]:
    """Tokens of a prompt.

    Raises ContextLengthExceeded for text that cannot fit `context` tokens however it splits, and InvalidRequest for a
    run of equal characters that this vocabulary's regular expression would take minutes for.
    """
    encoded = [(piece.text.encode(), piece.is_plain) for piece in pieces]
    size = sum(len(text) for text, _ in encoded)
    if size > context * model.longest_piece:
        raise ContextLengthExceeded(
            f"the prompt has {size} bytes, which is more than {context} tokens of context can hold",
            hint="shorten the prompt, or serve the model with a larger context",
        )
    most = getattr(_stack, "size", _STACK_FALLBACK_BYTES) // _STACK_PER_BYTE
    if any(len(text) > most for text, _ in encoded):
        raise InvalidRequest(f"a message has more than {most} bytes, the most that can be tokenised at once")
    for piece in pieces:
        refuse_long_runs(piece.text, model.pre_tokenizer)
    tokens: list[int] = []
    for index, (text, is_plain) in enumerate(encoded):
        tokens += model.tokenize(text, add_special=add_special and index == 0, parse_special=not is_plain)
    return tokens


def refuse_long_runs(text: str, pre_tokenizer: str) -> None:
    """Raises InvalidRequest for text that this pre-tokenizer type would take minutes for."""
    if pre_tokenizer not in _LONGEST_RUN:
        return
    pattern, what, most = _LONGEST_RUN[pre_tokenizer]
    longest = max((match.end() - match.start() for match in pattern.finditer(text)), default=0)
    if longest > most:
        raise InvalidRequest(
            f"the prompt has {longest} {what} in a row; this model's tokenizer is given at most {most}",
            hint=f"shorten the run of {what}",
        )
