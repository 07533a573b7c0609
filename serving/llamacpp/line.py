"""Tokens on their way out: written by the engine's thread where that can be done at once, else by the event loop.

Waking the event loop for a token costs more than writing it, and its thread and the engine's need the same
interpreter lock between two steps, when all cores wait (decision 0006).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from serving.llamacpp.engine import Update
from serving.openai.logprobs import TokenLogprob
from serving.openai.peers import CheckedProtocol


class Line:
    """The connection of one streamed answer, in chunked encoding.

    Two threads write to it and never at the same time: the engine's may only while all that it has given the event
    loop has reached the kernel. Of the counts below each is written by one thread, and a count that is read too early
    only sends a token the longer way.
    """

    __slots__ = ("_encode", "_fd", "_given", "_handled", "_left", "_transport", "_written")

    def __init__(self, transport: asyncio.Transport, encode: Callable[[str], bytes]) -> None:
        self._transport = transport
        self._encode = encode
        # A descriptor of its own: the transport's number may belong to another client the moment it is closed.
        self._fd = os.dup(transport.get_extra_info("socket").fileno())
        self._left = b""
        """The end of a chunk of which the kernel took only the beginning."""
        self._given = 0
        """Updates that the engine's thread gave the event loop."""
        self._handled = 0
        self._written = -1
        """Updates given to the event loop that are all with the kernel."""

    def __del__(self) -> None:
        os.close(self._fd)  # with the last reference: neither thread may while the other writes

    def pass_on(self, update: Update) -> Update | None:
        """On the engine's thread: write it; what the event loop has to do, None where that is nothing."""
        if update.finish is not None or self._given != self._written:
            self._given += 1
            return update
        if not update.text:
            return None
        data = self._encode(update.text)
        data = b"%x\r\n%b\r\n" % (len(data), data)
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return None  # the connection is gone, and the event loop is told by others
        if sent == len(data):
            return None
        self._left = data[sent:]
        self._given += 1
        return update._replace(text="")

    def resume(self) -> None:
        """On the event loop, before it writes: first what the kernel did not take."""
        if self._left:
            self._transport.write(self._left)
            self._left = b""

    def handled(self, count: int) -> None:
        """On the event loop: it has written so many updates, of those given to it."""
        self._handled += count
        # What is written leaves at the end of this turn of the loop.
        asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        if self._transport.get_write_buffer_size() == 0:
            self._written = self._handled


class Collected:
    """The text of an answer that is sent whole: the event loop hears of its end only."""

    __slots__ = ("logprobs", "parts")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.logprobs: list[TokenLogprob] = []

    def pass_on(self, update: Update) -> Update | None:
        """On the engine's thread."""
        self.parts.append(update.text)
        if update.logprobs:
            self.logprobs += update.logprobs
        return None if update.finish is None else update


class Protocol(CheckedProtocol):
    """uvicorn's, which tells the application its transport: `scope["extensions"]["serving.transport"]`."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {"serving.transport": self.transport}  # type: ignore[dict-item]
