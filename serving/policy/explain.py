"""Decisions in words, for people, headers and the record. Pure.

What was found is told by its place and kind, never by its value. A place may go through names that a caller chose, as
the arguments of a tool do: of those only that they are there is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final, Protocol

from serving.policy.body import KNOWN_NAMES
from serving.policy.decide import PASSED, Decision
from serving.policy.model import REFUSE
from serving.policy.verdict import Verdict

_CODE: Final = re.compile(r"[A-Za-z0-9._+-]{1,64}(: ?[A-Za-z0-9._+-]{1,64})?")
_PART: Final = re.compile(r"[^/#.\[\]]+")
_HIDDEN: Final = "?"
_MOST: Final = 100
"""Spans in an explanation; the others are counted."""


class SpanLike(Protocol):
    """A place where something was found."""

    @property
    def where(self) -> str:
        """The place of the text in the body, such as `/messages/0/content`."""

    @property
    def start(self) -> int:
        """Characters from the beginning of that text."""

    @property
    def end(self) -> int:
        """The first that is no longer part of it."""

    @property
    def label(self) -> str:
        """What kind of thing it is."""

    @property
    def detector(self) -> str:
        """Who found it."""


class FindingLike(Protocol):
    """What detection says, with the places."""

    @property
    def verdict(self) -> Verdict:
        """On the whole."""

    @property
    def spans(self) -> Sequence[SpanLike]:
        """In any order."""

    @property
    def reasons(self) -> Sequence[str]:
        """Why it is not known."""


def explain(decision: Decision, finding: FindingLike | None) -> dict[str, Any]:
    """The decision as JSON: where to, by which rule of which policy, what was found where, and why not elsewhere."""
    spans = [] if finding is None else sorted(finding.spans, key=lambda each: (each.where, each.start, each.end))
    return {
        "destination": decision.destination,
        "zone": decision.zone,
        "rule": decision.rule,
        "policy": decision.policy,
        "needs": list(decision.needs),
        "verdict": (Verdict.UNKNOWN if finding is None else finding.verdict).value,
        "spans": [_span(each) for each in spans[:_MOST]],
        "spans_left_out": max(0, len(spans) - _MOST),
        "unknown_because": [] if finding is None else [shown(each) for each in finding.reasons],
        "reasons": [{"rule": each.rule, "why": each.why} for each in decision.reasons],
        "not_taken": [
            {"destination": each.destination, "rule": each.rule, "why": each.why} for each in decision.not_taken
        ],
    }


def explain_text(decision: Decision, finding: FindingLike | None) -> str:
    """The same for a terminal, a line for each thing that is said."""
    told = explain(decision, finding)
    where = "refused" if decision.destination == REFUSE else f"to `{decision.destination}` ({decision.zone})"
    by = "no rule objects" if decision.rule == PASSED else f"rule `{decision.rule}`"
    lines = [f"{where}: {by}", f"policy   {decision.policy}", f"verdict  {told['verdict']}"]
    lines += [f"  because of {reason}" for reason in told["unknown_because"]]
    lines += [
        f"  {each['where']} {each['start']}–{each['end']}: {each['label']} ({each['detector']})"
        for each in told["spans"]
    ]
    if told["spans_left_out"]:
        lines.append(f"  and {told['spans_left_out']} more")
    if decision.needs:
        lines.append(f"needs    {', '.join(decision.needs)}")
    lines += [f"reason   {each.rule}: {each.why}" for each in decision.reasons]
    lines += [f"not to   `{each.destination}`: {each.rule}: {each.why}" for each in decision.not_taken]
    return "\n".join(lines)


def explain_json(decision: Decision, finding: FindingLike | None) -> str:
    """`explain` as one line."""
    return json.dumps(explain(decision, finding), ensure_ascii=False)


def route_header(decision: Decision) -> str:
    """The value of `x-perimeter-route` in an answer: the zone, or `refused`, and the rule that decided."""
    return f"{decision.zone or 'refused'}; rule={decision.rule}"


def _span(span: SpanLike) -> dict[str, object]:
    return {
        "where": _place(span.where),
        "start": span.start,
        "end": span.end,
        "label": shown(span.label),
        "detector": shown(span.detector),
    }


def _place(where: str) -> str:
    """A path with the names that a caller may have chosen blanked."""
    return _PART.sub(lambda part: part[0] if part[0] in KNOWN_NAMES or _is_position(part[0]) else _HIDDEN, where)


def _is_position(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= 6


def shown(text: str) -> str:
    """A word of ours; whatever does not look like one is blanked."""
    return text if _CODE.fullmatch(text) else _HIDDEN
