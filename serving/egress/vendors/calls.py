"""What goes into a connector and what comes out of it, whichever vendor it is for."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from serving.egress.vendors.events import Event, EventReader, NotEvents
from serving.errors import BadSettings, DestinationUnavailable, ServingError
from serving.openai import Usage, responses
from serving.openai.fields import wants_usage

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
EMBEDDINGS: Final = "/v1/embeddings"

_IN_A_HEADER: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class OutCall:
    """One request that may leave, as the strict parser and the closed schema of its route let it through."""

    route: str
    """The path here: `/v1/chat/completions`, `/v1/completions` or `/v1/embeddings`."""
    body: Mapping[str, object]
    """The checked fields. Never changed by a connector."""
    model: str
    """What the destination calls the model (Azure: the deployment)."""
    id: str = "0"
    """Names the answer where the vendor gives it no id: the request's own id."""
    created: int = 0
    """When the request was made, in seconds since the epoch: connectors read no clock."""

    def __repr__(self) -> str:
        return f"OutCall(route={self.route!r}, model={self.model!r}, id={self.id!r})"

    @property
    def stream(self) -> bool:
        """The client wants events."""
        return self.body.get("stream") is True

    @property
    def include_usage(self) -> bool:
        """The client wants the chunk with the usage at the end of its stream."""
        return wants_usage(dict(self.body))

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return cast("int", self.body.get("n") or 1)


@dataclass(frozen=True, slots=True)
class VendorRequest:
    """What is sent, to the byte, but for the credential."""

    method: str
    path: str
    """Path and query below the destination's origin."""
    headers: tuple[tuple[str, str], ...]
    """Names in lower case. The credential is not among them (`Vendor.auth`), nor are host and length."""
    body: bytes
    """Compact UTF-8 JSON, keys in the order in which they were built: their order means something in a schema."""

    def __repr__(self) -> str:
        return f"VendorRequest({self.method} {self.path}, bytes={len(self.body)})"


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer, or the error that it was, in OpenAI's shape."""

    status: int
    body: bytes
    usage: Usage | None
    """None where the vendor did not say, and with every error."""
    error: ServingError | None = None
    is_estimated: bool = False
    """The usage was guessed from the size of the texts."""

    def __repr__(self) -> str:
        return f"Answered(status={self.status}, bytes={len(self.body)}, usage={self.usage!r})"


def failed(error: ServingError) -> Answered:
    """The answer that an error is."""
    return Answered(error.http_status, responses.error_body(error), None, error)


class StreamTranslator(ABC):
    """A vendor's stream of events on its way to the client: `feed` what arrives, `close` where it ends.

    However the bytes are cut, the same events come out. Nothing follows an error or the end.
    """

    __slots__ = ("_destination", "_events", "error", "is_complete", "usage")

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._events = EventReader()
        self.usage: Usage | None = None
        """What the vendor has said so far; also after an error, since what was computed is charged for."""
        self.error: ServingError | None = None
        """Why the stream broke."""
        self.is_complete = False
        """The whole answer has come, and `[DONE]` was sent."""

    def feed(self, data: bytes) -> list[bytes]:
        """OpenAI's events for what has arrived; each is one server-sent event."""
        return self._take(data, at_end=False)

    def close(self) -> list[bytes]:
        """The last events, at the end of the vendor's bytes or where the connection was cut."""
        out = self._take(b"", at_end=True)
        if not self._is_over:
            self._ended(out)
        if not self._is_over:
            out.append(self._fail(self.broken("broke off its answer")))
        return out

    def broken(self, how: str) -> DestinationUnavailable:
        """The error for a destination that did not answer as its API says."""
        return broken(self._destination, how)

    @property
    def _is_over(self) -> bool:
        return self.is_complete or self.error is not None

    def _take(self, data: bytes, *, at_end: bool) -> list[bytes]:
        out: list[bytes] = []
        if self._is_over:
            return out
        try:
            for event in self._events.feed(data, at_end=at_end):
                self._translate(event, out)
                if self._is_over:
                    break
        except NotEvents:
            out.append(self._fail(self.broken("sent what is no stream of events")))
        except ServingError as error:
            out.append(self._fail(error))
        except (ValueError, TypeError, RecursionError):  # what it sent can be nobody's answer
            out.append(self._fail(self.broken("sent what is no answer")))
        return out

    def _fail(self, error: ServingError) -> bytes:
        self.error = error
        return responses.error_event(error)

    def _done(self, out: list[bytes]) -> None:
        self.is_complete = True
        out.append(responses.DONE)

    @abstractmethod
    def _translate(self, event: Event, out: list[bytes]) -> None:
        """Add to `out` what the client receives for one event. Raises the ServingError that it stands for."""

    def _ended(self, out: list[bytes]) -> None:  # noqa: B027 - most vendors say themselves where their stream ends
        """The bytes have ended, and no event said that the stream has: call `_done` where it is whole all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor(ABC):
    """One destination's API."""

    name: str
    """What the site calls the destination; it stands in errors."""

    @abstractmethod
    def request(self, call: OutCall) -> VendorRequest:
        """The request in the vendor's words.

        Raises UnsupportedByDestination with the field that the vendor cannot express, and InvalidRequest for what no
        vendor would take.
        """

    @abstractmethod
    def auth(self, secret: str) -> tuple[tuple[str, str], ...]:
        """The headers that carry the credential. Raises BadSettings where no header can."""

    @abstractmethod
    def answer(self, call: OutCall, status: int, headers: Mapping[str, str], body: bytes) -> Answered:
        """A whole answer; `headers` with names in lower case. Never raises for what a vendor sends."""

    @abstractmethod
    def stream(self, call: OutCall) -> StreamTranslator:
        """What translates the events of an answer with status 200; any other status goes to `answer`."""


def post(path: str, body: bytes, *, stream: bool, headers: tuple[tuple[str, str], ...] = ()) -> VendorRequest:
    """A request as all of these APIs take it. Compressed answers are not asked for: their size would say nothing."""
    accept = "text/event-stream" if stream else "application/json"
    common = (("content-type", "application/json"), ("accept", accept), ("accept-encoding", "identity"))
    return VendorRequest("POST", path, (*common, *headers), body)


def credential(destination: str, secret: str) -> str:
    """The secret, if a header can carry it: visible ASCII. The error shows nothing of it. Raises BadSettings."""
    if _IN_A_HEADER.fullmatch(secret) is None:
        raise BadSettings(
            f"the credential of destination `{destination}` is empty or holds what no HTTP header can carry",
            hint="the file must hold the key alone, without spaces or further lines",
        )
    return secret


def broken(destination: str, how: str) -> DestinationUnavailable:
    """The error for a destination that did not answer as its API says."""
    return DestinationUnavailable(f"the destination `{destination}` {how}")
