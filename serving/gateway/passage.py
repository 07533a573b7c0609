"""One stream on its way to its client, and the clock that ends it where nothing comes any more."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from serving.gateway.exchange import ClientGone
from serving.gateway.relay import EventStream, framed_events
from serving.gateway.upstream import EngineBroke
from serving.telemetry.metrics import SECONDS_FINE, Tally

if TYPE_CHECKING:
    from serving.eager import Job
    from serving.gateway.answers import Answer
    from serving.gateway.config import GatewayConfig
    from serving.gateway.exchange import Exchange


class Passage:
    """Passes a stream of events on, in the callback that received them, and notes when they came.

    Almost every chunk that an engine sends is an event that nothing has to be done with: it goes `straight`, framing
    and all, past the parser of the one connection and the writer of the other (decision 0030). What has to be read or
    held back takes the other way, `take`.
    """

    __slots__ = ("_answer", "_exchange", "_gaps", "_last", "_silence", "stream")

    def __init__(self, exchange: Exchange, answer: Answer, silence: Silence, *, withhold_usage: bool) -> None:
        self._exchange = exchange
        self._answer = answer
        self._silence = silence
        self._gaps = exchange.gaps = Tally(SECONDS_FINE)
        self._last = 0.0
        self.stream = EventStream(withhold_usage=withhold_usage)

    def take(self, data: bytes) -> Job | None:
        """Pass on what is whole events of it; gives back what must be awaited before more. Raises EngineBroke."""
        stream = self.stream
        self._exchange.last_byte_at = time.monotonic()
        before = stream.events
        out = stream.feed(data)
        if stream.events > before:
            self._arrived(stream.events - before)
        rest = self._answer.events(out) if out else None
        return None if rest is None else self._silence.on_client(rest)

    def straight(self, frames: bytes) -> bool:
        """Pass on whole chunks as the engine framed them; False where they must be taken the other way."""
        events = framed_events(frames)
        if not events or not self.stream.is_between_events or not self._answer.frames(frames):
            return False
        self._exchange.last_byte_at = time.monotonic()
        self.stream.events += events
        self._arrived(events)
        return True

    def _arrived(self, events: int) -> None:
        """Note the gap before these events: those that arrive together have none between them."""
        exchange = self._exchange
        if exchange.first_event_at is None:
            exchange.first_event_at = exchange.last_byte_at
            self._silence.has_started()
        else:
            self._gaps.observe(exchange.last_byte_at - self._last)
        if events > 1:
            self._gaps.observe(0.0, events - 1)
        self._last = exchange.last_byte_at


class Silence:
    """Interrupts an exchange whose engine has sent nothing for too long.

    The clock starts again with every byte, comments included. One timer per request, set anew only when it goes off.
    """

    __slots__ = ("_exchange", "_idle_s", "_is_on_client", "_limit_s", "_timer")

    def __init__(self, exchange: Exchange, config: GatewayConfig, *, stream: bool) -> None:
        self._exchange = exchange
        self._limit_s = config.first_byte_timeout_s if stream else config.answer_timeout_s
        self._idle_s = config.idle_timeout_s
        self._is_on_client = False
        exchange.last_byte_at = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(self._limit_s, self._check)

    def has_started(self) -> None:
        """The first event is there; from now on the bound inside an answer holds."""
        self._limit_s = self._idle_s
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._limit_s, self._check)

    async def on_client(self, rest: Job) -> None:
        """Wait for the client, which does not take what was sent; silence meanwhile is its own."""
        self._is_on_client = True
        try:
            await rest
        finally:
            self._is_on_client = False

    def close(self) -> None:
        """Stop the clock."""
        self._timer.cancel()

    def _check(self) -> None:
        left = self._exchange.last_byte_at + self._limit_s - time.monotonic()
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._check)
            return
        if self._is_on_client:
            self._exchange.interrupt(ClientGone(f"the client took no bytes for {self._limit_s:g} s"))
            return
        what = "sent nothing" if self._exchange.stream else "was not done"
        hint = "limits.idle_timeout_s is the bound"
        if self._exchange.first_event_at is None:
            hint = f"limits.{'first_byte' if self._exchange.stream else 'answer'}_timeout_s is the bound"
        self._exchange.interrupt(EngineBroke(f"the engine {what} within {self._limit_s:g} s", hint=hint))
