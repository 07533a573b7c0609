"""One request's account: what it holds, how it ends, and that it ends exactly once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from serving.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from hmac import HMAC

    from serving.access import Principal as KeyPrincipal
    from serving.access import Reservation as Hold
    from serving.audit.recording import Kept, Recording
    from serving.gateway.admission import Reservation
    from serving.gateway.relay import Settled
    from serving.gateway.upstream import Response
    from serving.telemetry.metrics import Tally

Outcome = Literal["completed", "refused", "failed", "cancelled"]


class Principal(NamedTuple):
    """Who asks. Without keys everybody is the same one."""

    name: str = "anonymous"
    """The key's owner."""
    cache_domain: str = "default"
    """Prefixes are shared inside it only. Set here, never taken from a client."""
    key: KeyPrincipal | None = None
    source: str | None = None
    """The address of the connection's other end."""


ANYBODY: Final = Principal()


class ClientGone(ServingError):
    """The client closed its connection. Nobody is there to be answered."""

    code = "client_gone"
    http_status = 499


class Exchange:
    """What one request holds and what is known of it, from its head to its end.

    Whatever must end it early (the client left, the engine fell silent, the server stops) calls `interrupt`; the
    request's own task then meets a CancelledError, finds the reason here, and answers accordingly.
    """

    __slots__ = (
        "_task",
        "answer_mac",
        "body_has_come",
        "body_is_read",
        "bytes_in",
        "code",
        "events",
        "fingerprint",
        "first_event_at",
        "gaps",
        "has_intent",
        "hold",
        "intent",
        "is_held_back",
        "is_intent_told",
        "is_known",
        "is_refused",
        "is_sent",
        "last_byte_at",
        "model",
        "on_end",
        "on_intent",
        "outcome",
        "principal",
        "prompt_kept",
        "reason",
        "reasons",
        "recording",
        "request_id",
        "reservation",
        "response",
        "route",
        "settled",
        "started_at",
        "status",
        "stream",
    )

    def __init__(self, route: str, request_id: str) -> None:  # noqa: PLR0915 - one line for each of what it holds
        self.route = route
        self.request_id = request_id
        self.principal = ANYBODY
        self.started_at = time.monotonic()
        self.last_byte_at = self.started_at
        self.model = ""
        """Only ever a name that is served; empty until it is known to be one."""
        self.stream = False
        self.bytes_in = 0
        """Bytes of its body that are held; given back when it ends."""
        self.body_has_come = False
        """All of it was there when the request began: the next one can follow, read or not."""
        self.body_is_read = False
        self.reservation: Reservation | None = None
        self.hold: Hold | None = None
        """What is set aside of the key's limits; closed by `Guard.close`."""
        self.fingerprint: str | None = None
        """Of the prompt, keyed."""
        self.answer_mac: HMAC | None = None
        """Makes the keyed fingerprint of the answer."""
        self.recording: Recording | None = None
        """Prompt and answer on their way to the content store, for a key that is made so; closed by `Guard.close`."""
        self.reasons: tuple[str, ...] = ()
        """Codes of the rules by which it goes where it goes, where there was a choice."""
        self.on_end: Callable[[], None] | None = None
        """Called once it has ended, however."""
        self.prompt_kept: Kept | None = None
        """What the content store has of it."""
        self.has_intent = False
        self.intent: int | None = None
        """Number of its entry in the audit log."""
        self.is_intent_told = False
        """It came to be known after nobody waited for it any more; without a number it was not written."""
        self.on_intent: Callable[[int | None], None] | None = None
        """What is to be done then, where the request has ended by that time."""
        self.is_known = False
        """It was let in."""
        self.is_sent = False
        """An engine may have seen it."""
        self.is_held_back = False
        """What was relayed says little of what was computed: text is parsed before, or several tokens are an event."""
        self.is_refused = False
        """The engine answered that it does not compute it."""
        self.response: Response | None = None
        self.settled: Settled | None = None
        self.events = 0
        self.first_event_at: float | None = None
        self.gaps: Tally | None = None
        self.status = 0
        """The status that the client saw; 0 where it saw none."""
        self.outcome: Outcome | None = None
        self.code = ""
        """The stable code of the error it ended with; empty where it ended well."""
        self.reason: ServingError | None = None
        self._task = asyncio.current_task()

    def interrupt(self, reason: ServingError) -> None:
        """End the exchange early, for `reason`; the first reason counts, and none once it has ended."""
        if self.reason is None and self.outcome is None and self._task is not None:
            self.reason = reason
            self._task.cancel()

    def tell_intent(self, number: int | None) -> None:
        """What became of the intent, where whoever waited for it was refused, served without it, or cancelled."""
        self.intent, self.is_intent_told = number, True
        if self.on_intent is not None:
            self.on_intent(number)

    def take_reason(self) -> ServingError | None:
        """The reason for which the task was cancelled; None where it was cancelled from elsewhere."""
        if self.reason is not None and self._task is not None:
            self._task.uncancel()
        return self.reason

    def forget_attempt(self) -> None:
        """An attempt elsewhere came to nothing: the next one begins anew."""
        if self.response is not None:
            self.response.close()
            self.response = None
        self.is_sent = self.is_refused = self.is_held_back = False
        self.settled = None
        self.last_byte_at = time.monotonic()

    def end(self, outcome: Outcome, code: str = "") -> bool:
        """Settle how it ended, and free what it holds; True the first time, which is the only one that counts."""
        if self.outcome is not None:
            return False
        self.outcome = outcome
        self.code = code
        if self.response is not None:
            self.response.close()
            self.response = None
        if self.reservation is not None:
            self.reservation.close()
        return True
