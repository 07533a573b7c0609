"""What is wrong with a value that came from outside, in our words: settings, catalogues and flags share them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

MOST_NAMED: Final = 4
"""Further mistakes that are named; the rest are counted."""
_SHOWN_CHARS: Final = 80
_SIGNS: Final = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
_PHRASES: Final = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text, in quotes",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "path_type": "must be a path, in quotes",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dataclass_type": "must be a table",
    "list_type": "must be a list, in brackets",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "too_short": "must have at least {min_length} entry",
    "string_pattern_mismatch": "must match {pattern}",
}
"""By pydantic's type of error, with its context."""


def mistake(error: Mapping[str, Any]) -> str:
    """One of `ValidationError.errors()` as the end of a sentence: `must be at least 1`."""
    phrase = _PHRASES.get(error["type"])
    if phrase is not None:
        return phrase.format(**error.get("ctx") or {})
    text: str = error["msg"].removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def shown(value: object) -> str:
    """A value as a settings file would have it, cut to a length that can be read."""
    text = json.dumps(
        value, ensure_ascii=False, default=lambda each: float(each) if isinstance(each, Decimal) else str(each)
    )
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def also(places: Iterable[str]) -> str:
    """The other places to correct, as the end of a hint; nothing where there are none."""
    names = list(dict.fromkeys(places))
    if not names:
        return ""
    named = ", ".join(f"`{name}`" for name in names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"; also to correct: {named}{more}"


def describe(field: FieldInfo) -> str:
    """What the setting is for, and what may stand there."""
    bounds = allowed(field)
    return f"{field.description} [{bounds}]" if bounds else str(field.description)


def allowed(field: FieldInfo) -> str:
    """The values that are taken: the words themselves, or the bounds."""
    words = [word for word in get_args(field.annotation) if isinstance(word, str)]
    if words:
        return " | ".join(words)
    if field.annotation is bool:
        return "true | false"
    bounds = []
    for rule in field.metadata:
        if type(rule) in _SIGNS:
            sign, name = _SIGNS[type(rule)]
            bounds.append(f"{sign} {getattr(rule, name)}")
        elif isinstance(rule, (MinLen, MaxLen)):
            bounds.append("not empty")
    return ", ".join(dict.fromkeys(bounds))


def explained(failure: ValidationError, table: type[BaseModel], where: str, hint: str) -> tuple[str, str]:
    """The first mistake in a file of tables like `table`, with its place and value; and the way out, the others named.

    `where` names the file, `hint` says where its form is told.
    """
    errors = failure.errors(include_url=False)
    # a field that is misspelt is missing too, and the one that stands there says more
    first, *others = sorted(errors, key=lambda each: each["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"] if part != "[key]"]
    more = also(".".join(map(str, other["loc"])) for other in others)
    if first["type"] == "extra_forbidden":
        known = _fields_of(table, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        guess = f"did you mean `{near[0]}`? " if near else ""
        place = f"table `[{'.'.join(path[:-1])}]`" if path[:-1] else "the top level"
        return f"{where}: {place} has no field `{path[-1]}`", f"{guess}allowed: {', '.join(known)}{more}"
    if first["type"] == "missing":
        return f"{where}: `{'.'.join(path)}` is missing", f"{hint}{more}"
    value = "" if isinstance(first["input"], dict | BaseModel) else f" = `{shown(first['input'])}`"
    place = f"`{'.'.join(path)}`{value}: " if path else ""
    return f"{where}: {place}{mistake(first)}", f"{hint}{more}"


def _fields_of(table: Any, path: list[str]) -> list[str]:
    """What a table within a table may have."""
    for name in path:
        if isinstance(table, type) and issubclass(table, BaseModel):
            by_name = {info.alias or field: info for field, info in table.model_fields.items()}
            table = by_name[name].annotation
        else:
            table = get_args(table)[-1 if get_origin(table) is dict else 0]  # of `dict[str, …]`, of `tuple[…, ...]`
        if get_origin(table) in (Union, UnionType):  # `… | None`
            table = next((each for each in get_args(table)[:1] if _is_table(each)), table)
    return [info.alias or name for name, info in table.model_fields.items()]


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
