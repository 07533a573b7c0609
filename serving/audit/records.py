"""What is recorded. Every kind is closed: a field that is not named here cannot be written.

Nothing of a prompt or an answer is in any of them: keyed fingerprints (`keys.py`), counts, ids, digests, codes.
Texts that a client chose (a request id, a name of a model) are for the caller to bound; they are escaped here.
A field that is None is left out of the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, ClassVar, Final, Literal

from serving.audit.canonical import NotCanonical, canonical_fields, prefix_of

FORMLESS: Final = "it has no canonical form"
"""Why a record is lost that has, say, half a surrogate pair in a text."""


class Record:
    """Something that happened. Its time and number are the entry's (`chain.py`)."""

    __slots__ = ()
    kind: ClassVar[str]


@dataclass(slots=True, kw_only=True)
class Intent(Record):
    """A request is about to be handed to an engine or a destination; durable before it is.

    Made for every request, as is the outcome: frozen, as the others are, it would take three times as long to make.
    """

    kind: ClassVar[str] = "intent"
    request: str
    """The request's id. A client may choose it, so that outcomes refer to the entry's number and not to this."""
    route: str
    principal: str
    key: str | None = None
    """Id of the key, never the key."""
    source: str | None = None
    """The client's address."""
    model: str
    weights: str | None = None
    """SHA-256 that stands for the weights: a manifest's digest, or a file's."""
    engine: str | None = None
    destination: str | None = None
    """Where the request may go."""
    reasons: tuple[str, ...] = ()
    """Why it may go there: codes of rules, no words of the request."""
    prompt: str | None = None
    """Keyed fingerprint of the prompt."""
    prompt_tokens: int | None = None
    output_limit: int | None = None
    """Tokens that were asked for at most."""
    stream: bool = False
    content: str | None = None
    """Id of the prompt in the content store, where the key's content is recorded."""
    content_sha256: str | None = None
    """Digest of it as it is sealed there."""
    content_lost: bool | None = None
    """It should be there, and could not be written."""


@dataclass(slots=True, kw_only=True)
class Outcome(Record):
    """How a request ended; closes its intent."""

    kind: ClassVar[str] = "outcome"
    intent: int | None
    """Number of the intent's entry; None where it could not be written and requests are served nevertheless."""
    request: str
    outcome: Literal["completed", "refused", "failed", "cancelled"]
    code: str | None = None
    """Stable code of the error it ended with."""
    status: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    is_estimated: bool | None = None
    answer: str | None = None
    """Keyed fingerprint of the answer."""
    duration_us: int | None = None
    """Microseconds from the request's head to its end."""
    content: str | None = None
    """Id of the answer in the content store."""
    content_sha256: str | None = None
    content_lost: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Record):
    """The server began to write."""

    kind: ClassVar[str] = "start"
    version: str
    host: str
    pid: int
    fingerprint_key: str
    """Which key made the fingerprints from here on (`Fingerprints.id`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Record):
    """The server ended in order."""

    kind: ClassVar[str] = "stop"
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsUsed(Record):
    """The settings in force from here on."""

    kind: ClassVar[str] = "settings"
    sha256: str
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyUsed(Record):
    """The policy in force from here on."""

    kind: ClassVar[str] = "policy"
    sha256: str
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PricesUsed(Record):
    """The price book in force from here on."""

    kind: ClassVar[str] = "prices"
    version: str
    """The first 16 digits of its SHA-256, as in each line of usage."""
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoaded(Record):
    """An engine has these weights."""

    kind: ClassVar[str] = "model-load"
    model: str
    variant: str | None = None
    weights: str | None = None
    """SHA-256 that stands for all of its files; None where they were not verified."""
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCreated(Record):
    """A key was made."""

    kind: ClassVar[str] = "key-created"
    key: str
    owner: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotated(Record):
    """A key has a new secret, or another in its place."""

    kind: ClassVar[str] = "key-rotated"
    key: str
    successor: str | None = None
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged(Record):
    """What a key may do, or how long, is about to be something else."""

    kind: ClassVar[str] = "key-changed"
    key: str
    changes: tuple[str, ...]
    """Such as `requests_per_minute: 60 -> 120`; `none` stands for no limit."""
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevoked(Record):
    """A key is not taken any more."""

    kind: ClassVar[str] = "key-revoked"
    key: str
    by: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed(Record):
    """Where a request may go was decided, by what is known of it: enough to decide it again under another policy."""

    kind: ClassVar[str] = "route"
    request: str
    principal: str
    key: str | None = None
    destination: str
    """Its name, `local` for the engines here, or `refuse`."""
    rule: str
    """The code of the rule that decided."""
    policy: str
    """SHA-256 of the policy."""
    facts: dict[str, object]
    """As `policy.facts.to_record` has them: labels, counts and names of fields that schemas have, no text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRead(Record):
    """Somebody is about to read content that is stored."""

    kind: ClassVar[str] = "content-read"
    content: str
    """Id of what is read."""
    key: str | None = None
    """Id of the API key that it is of."""
    by: str
    """User number as the kernel says it, and the name that the host has for it."""
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentErased(Record):
    """Content that is stored is about to be made unreadable for ever."""

    kind: ClassVar[str] = "content-erased"
    contents: tuple[str, ...]
    """Ids of what is erased."""
    key: str | None = None
    """Id of the API key that all of it is of, where all of a key's was asked for."""
    by: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRemoved(Record):
    """The oldest segments of the content store are about to be removed, as retention wants it."""

    kind: ClassVar[str] = "content-removed"
    through_segment: int
    """The last one that goes, the number before the dash in ids; all before it have gone or go too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded(Record):
    """A file of a model was handed on to another host, or part of it; written once it ended."""

    kind: ClassVar[str] = "download"
    principal: str
    key: str | None = None
    """Id of the key, never the key."""
    source: str | None = None
    repository: str
    commit: str
    file: str
    sha256: str
    """Of the whole file."""
    start: int
    sent_bytes: int
    outcome: str
    """`complete`, or why it was cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationFailed(Record):
    """All failed attempts from one source in one minute."""

    kind: ClassVar[str] = "authentication-failed"
    source: str
    minute: str
    """Its beginning, such as `2026-01-31T12:34Z`."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(Record):
    """The last line was torn, as after a crash, and has been cut off. It was never acknowledged to anybody."""

    kind: ClassVar[str] = "recovered"
    cut_bytes: int
    cut_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Record):
    """Records could not be written for a while."""

    kind: ClassVar[str] = "gap"
    since: str
    reason: str
    lost: int
    """Records that were not written, at most; those whose requests were refused among them."""
    late: int | None = None
    """Records that were kept, and written when it could be again."""
    lost_kind: str | None = None
    """The kind of the one that was lost, where it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed(Record):
    """The oldest segments are about to be removed, as retention wants it."""

    kind: ClassVar[str] = "removed"
    through_segment: int
    """The last one that goes; all before it have gone or go too."""
    through_hash: str
    """The last hash in it, which the head of the segment that remains first names."""
    undelivered: bool = False
    """Some of it had not left the host."""


def body_of(record: Record) -> bytes:
    """The record in canonical form. Raises NotCanonical for a field of another type."""
    return body_of_values(type(record), values_of(record))


def values_of(record: Record) -> tuple[Any, ...]:
    """Its kind and fields, in the order in which they are written."""
    layout = _LAYOUTS.get(type(record)) or _layout(type(record))
    return layout[1](record)


def body_of_values(kind: type[Record], values: tuple[Any, ...]) -> bytes:
    """The canonical form of a record of that kind with these values. Raises NotCanonical."""
    layout = _LAYOUTS.get(kind) or _layout(kind)
    return canonical_fields(layout[0], values)


def body_or_gap(kind: type[Record], values: tuple[Any, ...], at: str) -> tuple[bytes, bool]:
    """The same, and True; where there is none, that of a gap which says so, and False."""
    try:
        return body_of_values(kind, values), True
    except NotCanonical:
        return body_of(formless(kind, at)), False


def formless(kind: type[Record], at: str) -> Gap:
    """What is recorded instead of a record that cannot be written at all."""
    return Gap(since=at, reason=FORMLESS, lost=1, lost_kind=kind.kind)


def _layout(kind: type[Record]) -> _Layout:
    names = tuple(sorted(["kind", *(field.name for field in fields(kind))]))  # type: ignore[arg-type] # each is one
    _LAYOUTS[kind] = tuple(map(prefix_of, names)), attrgetter(*names)
    return _LAYOUTS[kind]


_Layout = tuple[tuple[str, ...], Callable[[Record], tuple[Any, ...]]]
_LAYOUTS: dict[type[Record], _Layout] = {}
"""Of each kind, the names of its fields in the order in which they are written, and what reads them."""
