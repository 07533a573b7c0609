"""JSON in the one form of RFC 8785 (JCS): the same value is always the same bytes, so that a hash stands for it.

Only what audit records are made of is taken: text, whole numbers that a double holds exactly, true, false, null, lists
and tables. Numbers with a fraction are refused: the RFC wants ECMAScript's shortest digits for them, and an audit
record has none (quantities are whole microseconds, bytes or tokens). Within these types the output is the RFC's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

MOST: Final = (1 << 53) - 1
"""The largest whole number that every reader of JSON holds exactly (RFC 7493, which RFC 8785 rests on)."""
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
_quote: Final = json.encoder.encode_basestring
"""A text as the encoder above writes it; a test compares them."""
_WORDS: Final = frozenset({str, bool, type(None)})


class NotCanonical(ValueError):
    """A value that has no canonical form here, or bytes that are not in it."""


def canonical(value: object) -> bytes:
    """The value as RFC 8785 writes it, in UTF-8. Raises NotCanonical for any other type, number or broken text."""
    try:
        return _encode(_ordered(value)).encode()
    except UnicodeEncodeError:
        raise NotCanonical("a text with half a surrogate pair has no canonical form") from None
    except RecursionError:
        raise NotCanonical("lists and tables are nested too deeply") from None


def prefix_of(name: str) -> str:
    """A field's name as `canonical_fields` takes it."""
    return f"{_quote(name)}:"


def canonical_fields(prefixes: Iterable[str], values: Iterable[Any]) -> bytes:
    """The same for a table whose names are known beforehand, in order: what is on the path of every request.

    A field that is None is left out.
    """
    parts = []
    for prefix, value in zip(prefixes, values, strict=True):
        kind = type(value)
        if kind is str:
            parts.append(prefix + _quote(value))
        elif value is not None:
            parts.append(prefix + (_short(value) or _encode(_ordered(value))))
    try:
        return f"{{{','.join(parts)}}}".encode()
    except UnicodeEncodeError:
        raise NotCanonical("a text with half a surrogate pair has no canonical form") from None


def _short(value: Any) -> str | None:
    """What needs no encoder: booleans, whole numbers that fit, and lists of texts."""
    kind = type(value)
    if kind is int:
        return str(value) if -MOST <= value <= MOST else None
    if kind is bool:
        return "true" if value else "false"
    if kind is tuple and all(type(each) is str for each in value):
        return f"[{','.join(map(_quote, value))}]"
    return None


def parse_canonical(raw: bytes) -> Any:
    """The value of bytes that are in canonical form, to the byte. Raises NotCanonical for all others."""
    try:
        value = json.loads(raw)
        same = canonical(value) == raw
    except NotCanonical:
        raise
    except (ValueError, RecursionError):
        raise NotCanonical("is not JSON") from None
    if not same:
        raise NotCanonical("is not in canonical form")
    return value


def _ordered(value: Any) -> Any:
    kind = type(value)
    if kind in _WORDS:
        return value
    if kind is int:
        if not -MOST <= value <= MOST:
            raise NotCanonical(f"the number {value:.6g} is beyond what a double holds exactly")
        return value
    if kind is dict:
        return {key: _ordered(value[key]) for key in _in_order(value)}
    if kind in (list, tuple):
        return [_ordered(each) for each in value]
    raise NotCanonical(f"a value of type `{kind.__name__}` has no canonical form here")


def _in_order(table: Mapping[Any, object]) -> Iterable[str]:
    """Keys by their UTF-16 code units, as the RFC orders them; Python orders by code points."""
    if not all(type(key) is str for key in table):
        raise NotCanonical("a table's key is no text")
    if all(map(str.isascii, table)):
        return sorted(table)
    return sorted(table, key=lambda key: key.encode("utf-16-be"))
