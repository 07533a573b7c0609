"""What another policy would have done with what was decided before. Pure.

The record holds the facts of each decision without a text of its request, so the same function is asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from serving.policy.body import without_names
from serving.policy.decide import Decision, decide
from serving.policy.explain import shown
from serving.policy.facts import Facts, Published, from_record, to_record
from serving.policy.model import Policy

_NAME_CHARS: Final = 256
"""Of the name of a model, which a caller chose."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision of the record."""

    at: str
    """What names the request in the record."""
    facts: Facts
    destination: str
    """Where it went: the name of a destination, or `refuse`."""


@dataclass(frozen=True, slots=True)
class Change:
    """A request of the record that another policy would have sent elsewhere."""

    at: str
    before: str
    after: Decision


def recorded(facts: Facts, policy: Policy) -> dict[str, object]:
    """The facts as the record has them: without names that a caller made, and without what is published anyhow."""
    fields = None if facts.fields is None else without_names(facts.fields, policy.field_names)
    model = None if facts.model is None else facts.model[:_NAME_CHARS].encode("utf-8", "backslashreplace").decode()
    return to_record(replace(facts, fields=fields, model=model, published=None))


def decided(record: Mapping[str, Any], published: tuple[Published, ...]) -> Decided | None:
    """A decision of the record, as the gateway was told it; None for one that only confirmed such a one.

    Labels are found as often as `published` says: the record has no figures. Raises ValueError, KeyError for what is
    no such record.
    """
    facts = replace(from_record(record["facts"]), published=published)
    return None if facts.decider != "gateway" else Decided(str(record["request"]), facts, str(record["destination"]))


def replay(requests: Iterable[Decided], policy: Policy) -> list[Change]:
    """What another policy would have changed."""
    found = []
    for each in requests:
        after = decide(each.facts, policy)
        if after.destination != each.destination:
            found.append(Change(each.at, each.destination, after))
    return found


def replay_text(changes: Sequence[Change], of: int) -> str:
    """Those changes for a terminal, of so many requests; what would leave, and did not, stands first."""
    out = [each for each in changes if each.after.zone == "cloud"]
    rest = [each for each in changes if each.after.zone != "cloud"]
    lines = [
        f"{shown(each.at)}: `{shown(each.before)}` → `{each.after.destination}` (rule `{each.after.rule}`)"
        for each in [*out, *rest]
    ]
    return "\n".join([*lines, f"{len(changes)} of {of} requests would go elsewhere, {len(out)} of them to a cloud"])
