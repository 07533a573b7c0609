"""What every door has in common: what is shown at it, who is turned away, and who is told of that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.access.keys import Address, Denied, Presented, Principal, parse_key
from serving.access.sources import AttemptLimits, FailedAttempts
from serving.errors import PermissionDenied, RateLimited, Unauthenticated

if TYPE_CHECKING:
    from serving.settings import Access as AccessSettings


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt to get in that failed; for the audit, which makes one record of a source's in a minute."""

    source: Address | None
    reason: str
    key_id: str | None
    """The id that was shown, where it is one of a key that is known."""


class Entrance:
    """Turns away, counts how often a source was wrong, and tells of it."""

    def __init__(self, attempts: FailedAttempts) -> None:
        self._attempts = attempts
        self._failed: list[Callable[[Failure], None]] = []

    def on_failed(self, callback: Callable[[Failure], None]) -> None:
        """Call this with each attempt that fails, in the thread of `authenticate`."""
        self._failed.append(callback)

    def _let_in(
        self, outcome: Principal | Denied, key_id: str | None, source: Address | None, hint: str | None = None
    ) -> Principal:
        """The principal. Raises Unauthenticated, PermissionDenied, RateLimited where it is none."""
        if isinstance(outcome, Principal):
            return outcome
        failure = Failure(source, outcome.reason, key_id)
        if outcome.http_status == 401:
            raise self._refusal(failure, outcome.message, hint)
        self._tell(failure)
        raise PermissionDenied(outcome.message, hint="ask whoever runs this server for a key that is")

    def _refusal(self, failure: Failure, message: str, hint: str | None = None) -> Unauthenticated | RateLimited:
        self._tell(failure)
        wait_s = self._attempts.failed(failure.source, time.monotonic())
        if wait_s is None:
            return unauthenticated(message, hint)
        return RateLimited(
            "too many wrong API keys came from this address", retry_after_s=wait_s, hint="use a right one"
        )

    def _tell(self, failure: Failure) -> None:
        for callback in self._failed:
            callback(failure)


def attempts_of(settings: AccessSettings) -> FailedAttempts:
    """How often a source may be wrong, as the settings have it."""
    return FailedAttempts(AttemptLimits(settings.failed_burst, settings.failed_per_minute, settings.failed_sources))


def presented(authorizations: list[bytes]) -> Presented | str:
    """The one key that is shown, or what is wrong with it, in words that say nothing of it."""
    if len(authorizations) > 1:
        return "the request has several authorization headers"
    kind, _, text = authorizations[0].decode("latin-1").partition(" ")
    if kind.lower() != "bearer":
        return "the authorization header is not `Bearer` and a key"
    return parse_key(text.strip(" "))


def token(authorizations: list[bytes]) -> str | None:
    """What may be a token of an identity provider: one bearer, that does not begin as a key does."""
    kind, _, text = authorizations[0].decode("latin-1").partition(" ")
    text = text.strip(" ")
    return None if len(authorizations) > 1 or kind.lower() != "bearer" or text[:3] in {"", "pk_"} else text


def unauthenticated(message: str, hint: str | None = None) -> Unauthenticated:
    """401, with how to send a key."""
    if hint is None:
        hint = "send `Authorization: Bearer pk_…`; the operator makes one: `serve keys create`"
    return Unauthenticated(message, hint=hint)
