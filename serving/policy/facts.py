"""What a decision is made from. A fact that nobody established is None, and None keeps the request inside.

Facts hold no text of a request: names of fields and labels, counts, and words of the policy. So they can be kept in the
record, and decided again under another policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from enum import Enum
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from serving.errors import InvalidRequest
from serving.policy.model import Complexity
from serving.policy.verdict import Verdict

ROUTE_HEADER: Final = "x-perimeter-route"
Decider = Literal["gateway", "egress"]
Attempt = Literal["first", "after-cloud", "after-local"]
Budget = Literal["reserved", "available", "spent"]


class Taint(Enum):
    """Whether something of a request was part of a sensitive one."""

    NONE = "none"
    UNKNOWN = "unknown"
    """The store is lost, or has a hole. Counts as TAINTED."""
    TAINTED = "tainted"


@dataclass(frozen=True, slots=True)
class Found:
    """What detection says of a request: its verdict, what kinds of things were found, why it is not known."""

    verdict: Verdict
    labels: frozenset[str] = frozenset()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """How much of what there is of a label is found, by the last measurement that was published."""

    label: str
    recall: int
    """The lower end of its interval, in ten-thousandths."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One request, at one moment, for one who decides."""

    decider: Decider | None = None
    attempt: Attempt | None = None
    """`after-cloud`: a cloud destination took it and failed. `after-local`: the engine here did."""
    route: str | None = None
    """As `policy.model.Route` names it, or another, which never leaves."""
    fields: frozenset[str] | None = None
    """Paths, as `policy.body.fields_of` gives them."""
    model: str | None = None
    """As the caller named it."""
    classes: frozenset[str] | None = None
    """What the key is enrolled for."""
    residency: frozenset[str] | None = None
    """Regions that the key's data may go to."""
    asked_local: bool | None = None
    """The caller asked to stay inside. False is that they were asked and did not."""
    found: Found | None = None
    taint: Taint | None = None
    published: tuple[Published, ...] | None = None
    complexity: Complexity | None = None
    budget: Budget | None = None
    """`available`: a gateway may reserve it; the egress process wants it reserved."""
    cloud_open: bool | None = None
    """False: the kill switch was thrown while running."""
    healthy: frozenset[str] | None = None
    """Destinations whose circuit breaker lets a request through."""
    local: bool | None = None
    """An engine of this server can take it."""
    today: date | None = None
    """In UTC."""
    only: str | None = None
    """The one destination that is asked about. A gateway may leave it open; the egress process decides about one."""


def asks_to_stay(header: str | None) -> bool:
    """What the header `x-perimeter-route` of a request asks for. Raises InvalidRequest for all but `local`."""
    if header is None:
        return False
    if header.strip().lower() != "local":
        message = f"the header `{ROUTE_HEADER}` can only keep a request inside: its one value is `local`"
        raise InvalidRequest(message, hint="leave it out; where a request may go is the policy's to say")
    return True


def taints(facts: Facts) -> bool:
    """Whether the texts of this request, and of its answer, are to be remembered: all that is not known to be clean."""
    is_clean = facts.found is not None and facts.found.verdict is Verdict.CLEAN
    return not (is_clean and facts.taint is Taint.NONE)


def to_record(facts: Facts) -> dict[str, object]:
    """Facts as JSON has them, without what nobody established. `from_record` reads back the same."""
    return {
        each.name: _plain(value)
        for each in fields(facts)
        for value in (getattr(facts, each.name),)
        if value is not None
    }


def from_record(record: Mapping[str, Any]) -> Facts:
    """The facts that `to_record` wrote. Raises ValueError for anything else."""
    try:
        facts = _read(Facts, dict(record))
        is_same = isinstance(facts, Facts) and to_record(facts) == record
    except (TypeError, KeyError) as error:
        raise ValueError(f"no facts of a decision: {error}") from None
    if not isinstance(facts, Facts) or not is_same:
        raise ValueError("no facts of a decision")
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, date):
        return value.isoformat()
    if hasattr(value, "__dataclass_fields__"):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return value


def _read(kind: Any, value: Any) -> Any:
    """The value that `_plain` made of one of type `kind`."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        (kind,) = [each for each in get_args(kind) if each is not type(None)]
        return _read(kind, value)
    if origin is tuple:
        return tuple(_read(get_args(kind)[0], each) for each in value)
    if origin is frozenset:
        return frozenset(_read(get_args(kind)[0], each) for each in value)
    if origin is Literal:
        if value not in get_args(kind):
            raise ValueError(f"none of {get_args(kind)}")
        return value
    return _read_one(kind, value)


def _read_one(kind: Any, value: Any) -> Any:
    if kind is date:
        return date.fromisoformat(value)
    if issubclass(kind, Enum):
        return kind(value)
    if hasattr(kind, "__dataclass_fields__"):
        hints = get_type_hints(kind)
        return kind(**{name: _read(hints[name], each) for name, each in dict(value).items()})
    if type(value) is not kind:
        raise ValueError(f"no {kind.__name__}")
    return value
