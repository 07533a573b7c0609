"""What is known of a request's content. Not known counts as sensitive, wherever that is asked."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Verdict(Enum):
    """Of a text, a message or a whole request."""

    CLEAN = "clean"
    """All of it was read, by every detector that is required, and nothing was found."""
    UNKNOWN = "unknown"
    """It could not be read, or not in time, or not by all. Counts as SENSITIVE."""
    SENSITIVE = "sensitive"
    """Something was found."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a whole of parts. Of no parts nothing is known."""
    seen = set(verdicts)
    if Verdict.SENSITIVE in seen:
        return Verdict.SENSITIVE
    return Verdict.CLEAN if seen == {Verdict.CLEAN} else Verdict.UNKNOWN
