"""The parts a route's schema is made of: each checks a value and describes itself as JSON Schema.

One table of rules is thus both what is enforced and what `/openapi.json` says. A rule returns the checked value, or
DROP where the value only says what is the case anyway and need not travel further.
"""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeAlias

from serving.errors import InvalidRequest, UnsupportedFeature
from serving.openai.strict import shown

JsonSchema: TypeAlias = dict[str, object]


class _Drop:
    """The type of DROP."""


DROP: Final = _Drop()
"""Returned by a rule for a value that asks for nothing: accepted, and not sent on."""

_NAMES: Final[dict[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def wrong_type(path: str, value: object, wanted: str) -> NoReturn:
    """Refuse `value` for its type, naming both types and never the value."""
    raise InvalidRequest(f"`{path}` must be {wanted}, got {_NAMES.get(type(value), 'something else')}", param=path)


class Rule(ABC):
    """What one value must be."""

    __slots__ = ()

    @abstractmethod
    def check(self, value: object, path: str) -> object:
        """The value that goes further, or DROP. Raises InvalidRequest or UnsupportedFeature with `path` as param."""

    @abstractmethod
    def describe(self) -> JsonSchema:
        """The JSON Schema of the values that `check` lets through."""


@dataclass(frozen=True, slots=True)
class Text(Rule):
    """A string; its length is bounded by the body's where no bound is given."""

    max_chars: int | None = None
    min_chars: int = 0
    pattern: str | None = None

    def check(self, value: object, path: str) -> object:
        if not isinstance(value, str):
            wrong_type(path, value, "a string")
        if len(value) < self.min_chars:
            raise InvalidRequest(f"`{path}` must not be empty", param=path)
        if self.max_chars is not None and len(value) > self.max_chars:
            raise InvalidRequest(f"`{path}` has {len(value)} characters, at most {self.max_chars} fit", param=path)
        if self.pattern is not None and re.fullmatch(self.pattern, value) is None:
            raise InvalidRequest(f"`{path}` must match `{self.pattern}`", param=path)
        return value

    def describe(self) -> JsonSchema:
        schema: JsonSchema = {"type": "string"}
        if self.min_chars:
            schema["minLength"] = self.min_chars
        if self.max_chars is not None:
            schema["maxLength"] = self.max_chars
        if self.pattern is not None:
            schema["pattern"] = f"^(?:{self.pattern})$"
        return schema


@dataclass(frozen=True, slots=True)
class Flag(Rule):
    """A boolean."""

    def check(self, value: object, path: str) -> object:
        if not isinstance(value, bool):
            wrong_type(path, value, "a boolean")
        return value

    def describe(self) -> JsonSchema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Integer(Rule):
    """An integer from `least` to `most`; 3.0 counts as 3, as in JSON Schema."""

    least: int
    most: int

    def check(self, value: object, path: str) -> object:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            wrong_type(path, value, "an integer")
        if not self.least <= value <= self.most:
            raise InvalidRequest(f"`{path}` is {value}, must be from {self.least} to {self.most}", param=path)
        return value

    def describe(self) -> JsonSchema:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class Number(Rule):
    """A number from `least` to `most`, both included unless `above` excludes the lower one."""

    least: float
    most: float
    above: bool = False

    def check(self, value: object, path: str) -> object:
        if not isinstance(value, int | float) or isinstance(value, bool):
            wrong_type(path, value, "a number")
        if not self.least <= value <= self.most or (self.above and value == self.least):
            bound = f"above {self.least:g} and at most" if self.above else f"from {self.least:g} to"
            raise InvalidRequest(f"`{path}` is {value:g}, must be {bound} {self.most:g}", param=path)
        return value

    def describe(self) -> JsonSchema:
        lower = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "number", lower: self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class OneOf(Rule):
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, value: object, path: str) -> object:
        if not isinstance(value, str):
            wrong_type(path, value, "a string")
        if value not in self.words:
            raise InvalidRequest(
                f"`{path}` is `{shown(value)}`, must be one of {', '.join(f'`{word}`' for word in self.words)}",
                param=path,
            )
        return value

    def describe(self) -> JsonSchema:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Array(Rule):
    """An array of `least` to `most` items that each pass `item`."""

    item: Rule
    most: int
    least: int = 0

    def check(self, value: object, path: str) -> object:
        if not isinstance(value, list):
            wrong_type(path, value, "an array")
        if len(value) > self.most:
            raise InvalidRequest(f"`{path}` has {len(value)} items, at most {self.most} are accepted", param=path)
        if len(value) < self.least:
            raise InvalidRequest(f"`{path}` must not be empty", param=path)
        check = self.item.check
        return [check(item, f"{path}.{index}") for index, item in enumerate(value)]

    def describe(self) -> JsonSchema:
        schema: JsonSchema = {"type": "array", "items": self.item.describe(), "maxItems": self.most}
        if self.least:
            schema["minItems"] = self.least
        return schema


@dataclass(frozen=True, slots=True)
class AnyObject(Rule):
    """An object that is carried and not read here, such as the JSON Schema of a tool; bounded by the body's depth."""

    def check(self, value: object, path: str) -> object:
        if not isinstance(value, dict):
            wrong_type(path, value, "an object")
        return value

    def describe(self) -> JsonSchema:
        return {"type": "object", "additionalProperties": True}


@dataclass(frozen=True, slots=True)
class Discarded(Rule):
    """A value of the right type that means something to OpenAI's own service only: checked, then dropped."""

    inner: Rule

    def check(self, value: object, path: str) -> object:
        self.inner.check(value, path)
        return DROP

    def describe(self) -> JsonSchema:
        return self.inner.describe()


@dataclass(frozen=True, slots=True)
class Refused(Rule):
    """A field that is known and not served: `passing` values ask for nothing and pass, the rest is refused by name."""

    hint: str
    passing: tuple[object, ...] = ()
    inner: Rule | None = None
    """What the value must be to be taken seriously at all; a wrong type is a wrong type, not a missing feature."""

    def check(self, value: object, path: str) -> object:
        checked = value if self.inner is None else self.inner.check(value, path)
        # `1 == True` in Python, so the types are compared as well.
        if any(checked == one and isinstance(checked, bool) == isinstance(one, bool) for one in self.passing):
            return DROP
        raise UnsupportedFeature(f"`{path}` is not served here with this value", param=path, hint=self.hint)

    def describe(self) -> JsonSchema:
        return {"enum": list(self.passing), "description": f"Not served: {self.hint}."} if self.passing else NEVER


NEVER: Final[JsonSchema] = {"type": "null", "description": "Not served."}


@dataclass(frozen=True, slots=True)
class ByType(Rule):
    """Different rules by the JSON type of the value, such as a string or an array of parts."""

    text: Rule | None = None
    array: Rule | None = None
    object_: Rule | None = None

    def check(self, value: object, path: str) -> object:
        if isinstance(value, str) and self.text is not None:
            return self.text.check(value, path)
        if isinstance(value, list) and self.array is not None:
            return self.array.check(value, path)
        if isinstance(value, dict) and self.object_ is not None:
            return self.object_.check(value, path)
        choices = {"a string": self.text, "an array": self.array, "an object": self.object_}
        wrong_type(path, value, " or ".join(name for name, rule in choices.items() if rule is not None))

    def describe(self) -> JsonSchema:
        return {"anyOf": [rule.describe() for rule in (self.text, self.array, self.object_) if rule is not None]}


@dataclass(frozen=True, slots=True)
class Custom(Rule):
    """A check that needs a few lines of its own, with the schema it amounts to."""

    function: Callable[[object, str], object]
    schema: JsonSchema = field(hash=False)

    def check(self, value: object, path: str) -> object:
        return self.function(value, path)

    def describe(self) -> JsonSchema:
        return self.schema


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an object: its rule, whether it must be there, and a sentence for the documents.

    An optional field may be null, which says the same as leaving it out: OpenAI's clients send nulls freely.
    """

    rule: Rule
    doc: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Closed(Rule):
    """An object all of whose fields are known. Any other is refused with its name, or dropped if so configured."""

    fields: Mapping[str, Field] = field(hash=False)
    ignore_unknown: bool = False
    finish: Callable[[dict[str, object], str], None] | None = None
    """What must hold between fields; given the checked object and its path."""

    def check(self, value: object, path: str) -> object:
        return self.check_object(value, path)

    def check_object(self, value: object, path: str) -> dict[str, object]:
        """As `check`; an object is never dropped as a whole."""
        if not isinstance(value, dict):
            wrong_type(path, value, "an object")
        checked: dict[str, object] = {}
        fields = self.fields
        for name, item in value.items():
            known = fields.get(name)
            if known is None:
                if not self.ignore_unknown:
                    self._refuse_unknown(name, path)
                continue
            if item is None and not known.required:
                continue
            result = known.rule.check(item, f"{path}.{name}" if path else name)
            if result is not DROP:
                checked[name] = result
        for name, known in fields.items():
            if known.required and name not in value:
                missing = f"{path}.{name}" if path else name
                raise InvalidRequest(f"`{missing}` is missing", param=missing)
        if self.finish is not None:
            self.finish(checked, path)
        return checked

    def _refuse_unknown(self, name: str, path: str) -> NoReturn:
        short = shown(name)
        near = difflib.get_close_matches(short, self.fields, n=1)
        where = f"`{path}`" if path else "the body"
        raise InvalidRequest(
            f"unknown field `{short}` in {where}",
            param=f"{path}.{short}" if path else short,
            hint=f"did you mean `{near[0]}`?" if near else "see /docs for the fields of this route",
        )

    def describe(self) -> JsonSchema:
        properties: dict[str, object] = {}
        for name, known in self.fields.items():
            schema = dict(known.rule.describe())
            if not known.required and schema.get("type") != "null":
                schema = {"anyOf": [schema, {"type": "null"}]}
            if known.doc:
                schema["description"] = known.doc
            properties[name] = schema
        described: JsonSchema = {
            "type": "object",
            "properties": properties,
            "additionalProperties": self.ignore_unknown,
        }
        required = [name for name, known in self.fields.items() if known.required]
        if required:
            described["required"] = required
        return described


@dataclass(frozen=True, slots=True)
class Tagged(Rule):
    """An object whose `tag` field says which of several objects it is, such as a message by its role."""

    tag: str
    kinds: Mapping[str, Rule] = field(hash=False)

    def check(self, value: object, path: str) -> object:
        if not isinstance(value, dict):
            wrong_type(path, value, "an object")
        where = f"{path}.{self.tag}" if path else self.tag
        kind = value.get(self.tag)
        if kind is None:
            raise InvalidRequest(f"`{where}` is missing", param=where)
        if not isinstance(kind, str):
            wrong_type(where, kind, "a string")
        rule = self.kinds.get(kind)
        if rule is None:
            raise InvalidRequest(
                f"`{where}` is `{shown(kind)}`, must be one of {', '.join(f'`{word}`' for word in self.kinds)}",
                param=where,
            )
        return rule.check(value, path)

    def describe(self) -> JsonSchema:
        schemas = [rule.describe() for rule in self.kinds.values()]
        return {"anyOf": [schema for schema in schemas if schema is not NEVER]}
