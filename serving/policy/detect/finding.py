"""What goes into a scan and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from serving.policy.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Part:
    """A text of a request, and where it stands there."""

    where: str
    """JSON pointer, such as `/messages/3/content`. Behind a `#` it goes on inside a text that is JSON itself."""
    text: str = field(repr=False)
    unread: str | None = None
    """What stands here and is no text, such as `image_url`; it makes the verdict UNKNOWN."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where something was found: offsets in the part's text as it came, never the value."""

    where: str
    start: int
    end: int
    label: str
    """What it is, such as `ru.snils`."""
    detector: str


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a scan."""

    verdict: Verdict
    spans: tuple[Span, ...] = ()
    """In the order of the request. Those of one label do not overlap."""
    reasons: tuple[str, ...] = ()
    """Why it is not known, as codes: `too_long`, `detector_failed:names`, `language_not_covered:han`, and so on."""

    @property
    def labels(self) -> frozenset[str]:
        """All that was found."""
        return frozenset(span.label for span in self.spans)


class Hit(NamedTuple):
    """What a detector yields: offsets in the folded text that it was given."""

    start: int
    end: int
    label: str
