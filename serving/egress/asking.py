"""What the gateway says of a request that it would send out, in one header beside the request itself.

The egress process believes none of it in the request's favour but what only the gateway can know: which key it was,
what that key is enrolled for, and that its budget is reserved. What the request holds it finds out by itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from serving.errors import InvalidRequest

HEADER: Final = "x-egress-ask"
ASKED: Final = "x-egress-asked"
"""Marks a question, so that it can be said afterwards that its answer was not heard."""
_MOST_CHARS: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, as the gateway knows it."""

    request: str
    """Its id."""
    principal: str
    key: str | None
    """The key's id; None: of nobody in particular, where no keys are asked for."""
    domain: str
    """The cache domain, within which texts taint each other."""
    classes: frozenset[str] = frozenset()
    residency: frozenset[str] = frozenset()
    asked_local: bool = True
    destination: str | None = None
    """The one that its budget is reserved for."""
    budget: Literal["reserved", "available", "spent"] = "spent"
    attempt: Literal["first", "after-cloud", "after-local"] = "first"
    local: bool = True
    """An engine of the server can take it."""
    failed: frozenset[str] = frozenset()
    """Destinations that have failed at it."""
    watched: bool = True
    """Somebody of its cache domain may send work out. Of all others nothing is scanned or remembered; none leaves."""


_ADAPTER: Final = TypeAdapter(Ask)


def write_ask(ask: Ask) -> str:
    """The header's value: JSON in ASCII."""
    told = asdict(ask) | {name: sorted(getattr(ask, name)) for name in ("classes", "residency", "failed")}
    return json.dumps(told, separators=(",", ":"))


def read_ask(text: str | None) -> Ask:
    """The ask in the header's value. Raises InvalidRequest."""
    if text is None or len(text) > _MOST_CHARS:
        raise InvalidRequest(f"the header `{HEADER}` is missing or too long")
    try:
        return _ADAPTER.validate_json(text, extra="forbid")
    except ValidationError:
        raise InvalidRequest(f"the header `{HEADER}` is not understood") from None
