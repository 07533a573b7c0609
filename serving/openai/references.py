"""References inside a client's JSON Schema: those that lead back to themselves and nowhere else are refused here.

A schema may be recursive; one whose reference, followed, is only references describes nothing, and engines answer it
with a failure of their own (CVE-2026-105757 is of this family).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from serving.errors import InvalidRequest
from serving.openai.rules import AnyObject, Custom, Rule


def schema_rule() -> Rule:
    """A JSON Schema: any object in which no reference leads to itself alone."""

    def check(value: object, path: str) -> object:
        AnyObject().check(value, path)
        if isinstance(value, dict):
            endless = endless_reference(value)
            if endless is not None:
                raise InvalidRequest(f"`{path}` has a reference that leads back to itself: `{endless}`", param=path)
        return value

    return Custom(check, AnyObject().describe())


def endless_reference(schema: Mapping[str, object]) -> str | None:
    """The first `$ref` from which only references follow, until one comes again; None without such."""
    ends: set[str] = set()
    """References that are known to lead somewhere, so that each is followed once."""
    for start in _references(schema):
        seen = {start}
        target = _target(schema, start)
        while isinstance(target, dict) and isinstance(target.get("$ref"), str):
            following = target["$ref"]
            if following in seen:
                return start
            if following in ends:
                break
            seen.add(following)
            target = _target(schema, following)
        ends |= seen
    return None


def _references(schema: object) -> Iterator[str]:
    """Every `$ref` in it, once. Bodies are bounded in depth and in objects, so this is, too."""
    found: dict[str, None] = {}
    left = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str):
                found[reference] = None
            left += value.values()
        elif isinstance(value, list):
            left += value
    yield from found


def _target(schema: Mapping[str, object], reference: str) -> object:
    """What a local reference names; None for one that names nothing, or something elsewhere (RFC 6901)."""
    if not reference.startswith("#"):
        return None
    value: object = schema
    for part in unquote(reference[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        value = value.get(name) if isinstance(value, dict) else None
    return value
