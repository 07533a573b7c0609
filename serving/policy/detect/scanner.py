"""The scan: parts joined, folded, decoded, shown to every detector; what each found, and what could not be judged.

Parts are joined by a line break and scanned as one text, so that what says what a number is may stand in another part,
and a number may be spread over two. A detector that raises makes the verdict UNKNOWN and stops no other one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Protocol

from serving.policy.detect import (
    american,
    cards,
    conditions,
    cues,
    decoded,
    european,
    lettered,
    markings,
    money,
    pairs,
    russian,
    secret,
    wording,
)
from serving.policy.detect.contact import find_addresses, find_emails, find_international
from serving.policy.detect.dates import find_birth_dates
from serving.policy.detect.finding import Finding, Hit, Part, Span, merged, places_of
from serving.policy.detect.fold import View, view_of
from serving.policy.detect.numbers import find_numbers, tables_of
from serving.policy.detect.script import unjudged
from serving.policy.detect.site import Site
from serving.policy.detect.vocabulary import DetectSettings
from serving.policy.verdict import Verdict

Origin = Callable[[int, int], tuple[int, int]]
"""From offsets in a view to offsets in the joined parts."""
Detector = Callable[[View], Iterable[Hit]]
_BETWEEN: Final = "\n"
_MOST_SPANS: Final = 10_000
"""Of one detector in one view; what is beyond is left out, and the verdict is SENSITIVE anyway."""
_PATTERNS: Final = "site_patterns"


class NameFinder(Protocol):
    """Finds names of people; `serving.policy.detect.names` has one."""

    def find(self, text: str) -> Iterable[tuple[int, int]]:
        """Offsets of names in the text."""


class Scanner:
    """Built once, used for any number of scans: no clock, no disk, no log, the same answer for the same parts.

    Raises BadSettings for a site's pattern that RE2 does not take.
    """

    def __init__(self, settings: DetectSettings | None = None, names: NameFinder | None = None) -> None:
        self._settings = settings if settings is not None else DetectSettings()
        self._names = names
        site = Site(self._settings.site)
        numbers = tables_of(russian.RULES + european.RULES + american.RULES + cards.CARDS)
        self._detectors: dict[str, Detector] = {
            "numbers": lambda view: find_numbers(view, numbers),
            "passports": russian.find_passport_pairs,
            "licences": russian.find_old_licences,
            "accounts": russian.find_accounts_by_bik,
            "ibans": lettered.find_ibans,
            "lettered": lettered.find_forms,
            "id_cards": lettered.find_id_cards,
            "emails": find_emails,
            "phones": find_international,
            "addresses": find_addresses,
            "birth_dates": find_birth_dates,
            "wording": wording.find_wording,
            "conditions": conditions.find_conditions,
            "sums": money.find_sums,
            "document_labels": markings.find_labels,
            "secrets": secret.find_secrets,
            "name_cues": cues.find_name_cues,
            "name_pairs": pairs.find_pairs,
            "site_terms": site.find_terms,
        }
        self._missing: list[str] = []
        if site.patterns is None:
            self._missing.append(f"not_installed:{_PATTERNS}")
        elif site.patterns:
            self._detectors[_PATTERNS] = site.find_patterns
        if self._settings.names and names is None:
            self._missing.append("not_installed:names")

    @property
    def detectors(self) -> frozenset[str]:
        """The names of those that are asked in each scan."""
        return frozenset(self._detectors) | ({"names"} if self._names is not None else frozenset())

    def scan(self, parts: Sequence[Part]) -> Finding:
        """What is in the parts. SENSITIVE if anything was found, UNKNOWN if anything was not judged, or CLEAN."""
        reasons = dict.fromkeys(self._missing)
        reasons.update(dict.fromkeys(f"unread:{part.unread}" for part in parts if part.unread is not None))
        texts = [part.text for part in parts]
        if sum(map(len, texts)) + len(texts) > self._settings.most_chars:
            return Finding(Verdict.UNKNOWN, reasons=(*reasons, "too_long"))
        joined = _BETWEEN.join(texts)
        places = _Places(parts)
        spans: list[Span] = []
        try:
            for view, origin in self._views(joined, reasons):
                for name, hits in self._found(view, reasons):
                    for hit in hits:
                        spans += places.spans(hit.label, name, *origin(*view.origin(hit.start, hit.end)))
                for start, end in self._named(view.text, reasons):
                    spans += places.spans("name.person", "names", *origin(start, end))
        except Exception:  # noqa: BLE001 - whatever it is, it is not CLEAN
            reasons["detector_failed:reading"] = None
        found = merged(spans, places_of(parts)) if spans else ()
        verdict = Verdict.SENSITIVE if found else Verdict.UNKNOWN if reasons else Verdict.CLEAN
        return Finding(verdict, found, tuple(reasons))

    def _views(self, joined: str, reasons: dict[str, None]) -> Iterator[tuple[View, Origin]]:
        reasons.update(dict.fromkeys(unjudged(joined)))
        view = view_of(joined)
        yield view, _same
        said = decoded.spoken(joined, view.words)
        if said is not None:
            yield view_of(said.text), said.origin
        plain = decoded.unescaped(joined)
        if plain is not None:
            reasons.update(dict.fromkeys(unjudged(plain.text)))
            yield view_of(plain.text), plain.origin
        unpacked, is_unreadable = decoded.unpacked(joined)
        if is_unreadable:
            reasons["unreadable:packed"] = None
        if unpacked is not None:
            reasons.update(dict.fromkeys(unjudged(unpacked.text)))
            yield view_of(unpacked.text), unpacked.origin

    def _found(self, view: View, reasons: dict[str, None]) -> Iterator[tuple[str, list[Hit]]]:
        for name, detector in self._detectors.items():
            hits: list[Hit] = []
            try:
                for hit in detector(view):
                    if not 0 <= hit.start < hit.end <= len(view.folded):
                        raise ValueError(name)  # noqa: TRY301 - garbage is as good as a crash
                    if self._is_wanted(hit.label):
                        hits.append(hit)
                    if len(hits) >= _MOST_SPANS:
                        break
            except Exception:  # noqa: BLE001 - a detector that crashed counts as not judged, whatever it raised
                reasons[f"detector_failed:{name}"] = None
            yield name, hits

    def _named(self, text: str, reasons: dict[str, None]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        if self._names is None or not self._is_wanted("name.person"):
            return found
        try:
            for start, end in self._names.find(text):
                if not 0 <= start < end <= len(text):
                    raise ValueError(start, end)  # noqa: TRY301 - garbage is as good as a crash
                found.append((start, end))
        except Exception:  # noqa: BLE001 - a model that crashed counts as not judged, whatever it raised
            reasons["detector_failed:names"] = None
        return found

    def _is_wanted(self, label: str) -> bool:
        without = self._settings.without
        return not without or (label not in without and label.partition(".")[0] not in without)


def _same(start: int, end: int) -> tuple[int, int]:
    return start, end


class _Places:
    """Which part an offset of the joined text is in."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        sizes = (len(part.text) + len(_BETWEEN) for part in parts)
        self._starts = [0, *accumulate(sizes)]

    def spans(self, label: str, detector: str, start: int, end: int) -> Iterator[Span]:
        """The stretch, as a span in each part that it is in."""
        index = max(0, bisect_right(self._starts, start) - 1)
        while index < len(self._parts) and self._starts[index] < end:
            part, begin = self._parts[index], self._starts[index]
            first, last = max(start - begin, 0), min(end - begin, len(part.text))
            if first < last:
                yield Span(part.where, first, last, label, detector)
            index += 1
