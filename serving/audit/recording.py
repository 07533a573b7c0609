"""One request's prompt and answer, collected while it runs; `content.py` keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from serving.errors import Unwritable

if TYPE_CHECKING:
    from serving.audit.content import ContentStore

HINT: Final = "the operator has to make room for it"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept of one prompt or answer, and held in memory of all together; bytes."""

    record_bytes: int = 16 << 20
    held_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that is on the disk, as the audit log names it."""

    content: str
    sha256: str


class Recording:
    """One request's prompt and answer on their way. For the event loop, until they are handed over or dropped."""

    __slots__ = ("_answer", "_is_cut", "_kept", "_prompt", "_prompt_held", "_store", "answer_size", "key", "request")

    def __init__(self, store: ContentStore, key: str, request: str, prompt: bytes) -> None:
        most = store.bounds.record_bytes
        self._store = store
        self.key = key
        self.request = request
        self._prompt_held = store.hold(min(len(prompt), most))
        self._prompt: tuple[bytes, int] | None = (prompt[:most], len(prompt))
        if self._prompt_held < len(self._prompt[0]):
            self._prompt = None
        self._answer: list[bytes] = []
        self._kept = 0
        self._is_cut = False
        self.answer_size = 0
        """Bytes of the answer that were relayed so far."""

    def add(self, data: bytes) -> None:
        """The next piece of the answer, as it is relayed."""
        self.answer_size += len(data)
        if self._is_cut:
            return
        room = self._store.hold(min(len(data), self._store.bounds.record_bytes - self._kept))
        self._is_cut = room < len(data)
        self._kept += room
        self._answer.append(data[:room])

    async def keep_prompt(self) -> Kept:
        """Have the prompt on the disk. Raises Unwritable."""
        prompt, self._prompt = self._prompt, None
        if prompt is None:
            raise Unwritable("the prompt cannot be recorded: too much waits for the disk already", hint=HINT)
        held, self._prompt_held = self._prompt_held, 0
        return await asyncio.wrap_future(self._store.put(self, "prompt", prompt[0], prompt[1], None, held))

    def keep_answer(self, intent: int | None, then: Callable[[Kept | None], None]) -> None:
        """Have the answer on the disk, and then call `then`, in some thread; with None where it could not be written.

        Nothing waits for it. This is the recording's end.
        """
        pieces, held = self._answer, self._kept
        self._answer, self._kept = [], 0
        self.drop()

        def done(future: Future[Kept]) -> None:
            then(None if future.cancelled() or future.exception() is not None else future.result())

        self._store.put(self, "answer", pieces, self.answer_size, intent, held).add_done_callback(done)

    def drop(self) -> None:
        """Let go of what was not handed over."""
        self._store.release(self._prompt_held + self._kept)
        self._prompt, self._prompt_held, self._answer, self._kept = None, 0, [], 0
