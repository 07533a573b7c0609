"""What may leave, said a second time: from docs/routing.md alone, and from what a test has set.

Nothing of `serving` is imported. What the detectors say of a text is not asked here either: this is what has to hold
beside their verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

_FIGURES = Path(__file__).parents[2] / "serving" / "policy" / "recall.json"
PUBLISHED: dict[str, float] = {
    label: found / 10_000 for label, found in json.loads(_FIGURES.read_text())["recall"].items()
}
ROUTES = {
    "/v1/chat/completions": "chat.completions",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}
"""Paths that may leave at all."""
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_DEPTH = 4


@dataclass(frozen=True)
class Site:
    """How everything stands at one moment, by what a test did."""

    policy: dict[str, Any] | None
    """As it stands in the file; None where the file cannot be read, or is wrong."""
    detectors: frozenset[str] = frozenset()
    """Those that the process has."""
    is_thrown: bool = False
    """The kill switch."""
    is_on_record: bool = True
    """The process's audit log can be written."""
    is_store_well: bool = True
    """What was sensitive is known."""
    credentials: frozenset[str] = frozenset()
    """Destinations whose credential is there, and this user's alone."""

    def but(self, **changed: Any) -> Site:
        """The same with something otherwise."""
        return replace(self, **changed)


@dataclass(frozen=True)
class Asked:
    """One request, and what is said of it beside it."""

    path: str
    body: dict[str, Any]
    classes: frozenset[str] = frozenset()
    residency: frozenset[str] = frozenset()
    asked_local: bool = True
    destination: str | None = None
    budget: str = "spent"
    attempt: str = "first"
    is_understood: bool = True
    """What is said of it is written as it should be."""
    is_tainted: bool = False
    """It shares a text with a sensitive request of its domain, or with the answer to one; or one is being given."""
    notes: dict[str, object] = field(default_factory=dict)


def why_not(asked: Asked, site: Site, today: date) -> str | None:
    """The first thing by which it must not leave; None where it may, if the detectors find nothing in it."""
    if not asked.is_understood:
        return "nobody knows who asks"
    if site.policy is None:
        return "there is no policy"
    return next((why for is_against, why in _against(asked, site, site.policy, today) if is_against), None)


def why_not_inside(asked: Asked, site: Site) -> str | None:
    """The first thing by which it must not be sent to a server inside; None where it may, whatever is in it."""
    if not asked.is_understood:
        return "nobody knows who asks"
    if site.policy is None:
        return "nobody knows which servers are inside"
    to = site.policy["destinations"].get(asked.destination or "", {"zone": None})
    against = (
        (to["zone"] != "perimeter", "there is no such server inside"),
        (not site.is_on_record, "it would not be on record"),
        (asked.path not in ROUTES, "the route goes nowhere"),
        (to["zone"] == "perimeter" and asked.body.get("model") not in to["models"], "it does not have the model"),
    )
    return next((why for is_against, why in against if is_against), None)


def _against(asked: Asked, site: Site, policy: dict[str, Any], today: date) -> Iterator[tuple[bool, str]]:
    yield policy["cloud"] != "on", "the policy lets nothing out"
    yield site.is_thrown, "the kill switch was thrown"
    yield asked.attempt not in ("first", "after-local"), "a vendor failed at it"
    yield asked.asked_local, "the caller wants it inside"
    yield asked.budget != "reserved", "no budget is reserved"
    yield asked.is_tainted or not site.is_store_well, "it may hold what was sensitive"
    yield not site.is_on_record, "it would not be on record"
    yield not site.detectors.issuperset(policy["detection"]["required"]), "a detector is missing"
    listed = policy["endpoints"].get(ROUTES.get(asked.path, ""), [])
    yield not listed, "the route may not leave"
    yield not all(_is_listed(place, listed) for place in _places(asked.body)), "a field may not leave"
    to = policy["destinations"].get(asked.destination or "", {"zone": None})
    yield to["zone"] != "cloud", "there is no such destination outside"
    yield asked.destination not in site.credentials, "there is no credential"
    yield asked.body.get("model") not in to["models"], "the model is not served there"
    word, most = to["attestation"], policy["attestation"]["most_retention_days"]
    yield today >= date.fromisoformat(word["expires"]), "the attestation has expired"
    yield not word["training_opt_out"], "it may train models"
    yield word["retention_days"] > most, "it is kept for too long"
    region = to["region"]
    yield region not in policy["residency"]["allowed"], "data of the site may not go to that region"
    yield region not in asked.residency, "data of the key may not go to that region"
    classes = [policy["classes"][name] for name in asked.classes if name in policy["classes"]]
    lets = [
        each
        for each in classes
        if asked.destination in each["destinations"]
        and region in each["residency"]
        and _is_found_well(each, policy)
        and _is_hard(each["hard"], asked.body)
    ]
    yield not lets, "no class of work lets it go there"


def _is_found_well(workload: dict[str, Any], policy: dict[str, Any]) -> bool:
    least = policy["detection"]["least_recall"]
    labels = workload.get("labels") or list(least)
    return all(label in PUBLISHED and PUBLISHED[label] >= least[label] for label in labels)


def _is_hard(bounds: dict[str, Any], body: dict[str, Any]) -> bool:
    seen = {
        "chars": sum(map(len, _texts([body.get(name) for name in ("messages", "prompt", "input")]))),
        "turns": len(body.get("messages") or ()),
        "tools": len(body.get("tools") or ()),
        "asked_tokens": max(body.get("max_tokens") or 0, body.get("max_completion_tokens") or 0),
    }
    return bool(
        bounds.get("always")
        or any(name in bounds and count >= bounds[name] for name, count in seen.items())
        or (bounds.get("schema") and (body.get("response_format") or {}).get("type") == "json_schema")
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(below)


def _places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where values stand, at most four names deep."""
    if isinstance(value, dict) and value and len(path) < _DEPTH:
        for name, below in value.items():
            yield from _places(below, (*path, name))
    elif isinstance(value, list) and value and len(path) < _DEPTH:
        for below in value:
            yield from _places(below, path)
    else:
        yield path


def _is_listed(place: tuple[str, ...], listed: list[str]) -> bool:
    for entry in listed:
        names = tuple(entry.removesuffix(".*").split("."))
        if entry.endswith(".*"):
            if place[: len(names)] == names:
                return True
        elif place == names and _LETTERS.issuperset("".join(place)):
            return True
    return False
