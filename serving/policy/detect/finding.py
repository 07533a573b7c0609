"""What goes into a scan and what comes out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from serving.policy.verdict import Verdict, worst


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


def places_of(parts: Iterable[Part]) -> dict[str, int]:
    """The place of each `where` among the parts; of one that comes twice the first."""
    places: dict[str, int] = {}
    for index, part in enumerate(parts):
        places.setdefault(part.where, index)
    return places


def merged(spans: Iterable[Span], places: Mapping[str, int]) -> tuple[Span, ...]:
    """In order, and of one label none that overlaps another. What is in none of the places comes last."""
    found: list[Span] = []
    last: dict[tuple[str, str], int] = {}

    def order(span: Span) -> tuple[int, str, int, int, str, str]:
        return places.get(span.where, len(places)), span.where, span.start, -span.end, span.label, span.detector

    for span in sorted(spans, key=order):
        key = (span.where, span.label)
        index = last.get(key)
        if index is not None and span.start < found[index].end:
            before = found[index]
            if span.end > before.end:
                found[index] = Span(before.where, before.start, span.end, before.label, before.detector)
            continue
        last[key] = len(found)
        found.append(span)
    return tuple(found)


def together(findings: Sequence[Finding], parts: Iterable[Part]) -> Finding:
    """What several scans found, each of some of the parts, as one: the worst verdict, all places, all reasons."""
    spans = [span for finding in findings for span in finding.spans]
    reasons = dict.fromkeys(reason for finding in findings for reason in finding.reasons)
    return Finding(worst(finding.verdict for finding in findings), merged(spans, places_of(parts)), tuple(reasons))


class Hit(NamedTuple):
    """What a detector yields: offsets in the folded text that it was given."""

    start: int
    end: int
    label: str
