"""Reading a checked request so that no field of it can be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn, cast

from serving.errors import UnsupportedByDestination
from serving.openai.rules import wrong_type
from serving.openai.strict import shown


def unsupported(destination: str, path: str, why: str, hint: str | None = None) -> NoReturn:
    """Refuse the field at `path`; the value is never shown."""
    raise UnsupportedByDestination(
        f"`{path}` is unsupported by destination `{destination}`: {why}",
        param=path,
        hint=hint or "leave it out, or keep the request inside",
    )


class Fields:
    """One object of a request. Each field is taken once; `end` refuses what nobody has taken.

    Null means the same as absent, as everywhere in OpenAI's schema.
    """

    __slots__ = ("_destination", "_left", "_path")

    def __init__(self, destination: str, body: Mapping[str, object], path: str = "") -> None:
        self._destination = destination
        self._left = {name: value for name, value in body.items() if value is not None}
        self._path = path

    def at(self, name: str) -> str:
        """The path of a field, as errors name it."""
        return f"{self._path}.{name}" if self._path else name

    def refuse(self, name: str, why: str, hint: str | None = None) -> NoReturn:
        """Refuse a field by name."""
        unsupported(self._destination, self.at(name), why, hint)

    def take(self, name: str) -> object:
        """The value; None where it is absent."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            wrong_type(self.at(name), value, "a string")
        return value

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            wrong_type(self.at(name), value, "a boolean")
        return value

    def integer(self, name: str) -> int | None:
        """An integer; 3.0 counts as 3, as in JSON Schema."""
        value = self.take(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and type(value) is not int:
            wrong_type(self.at(name), value, "an integer")
        return value

    def number(self, name: str) -> float | None:
        """A number."""
        value = self.take(name)
        if value is not None and type(value) not in {int, float}:
            wrong_type(self.at(name), value, "a number")
        return cast("float | None", value)

    def mapping(self, name: str) -> dict[str, object] | None:
        """An object."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            wrong_type(self.at(name), value, "an object")
        return value

    def array(self, name: str) -> list[object]:
        """An array; empty where it is absent."""
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            wrong_type(self.at(name), value, "an array")
        return value or []

    def strings(self, name: str) -> list[str]:
        """A string or an array of strings; empty where it is absent."""
        value = self.take(name)
        given = [value] if isinstance(value, str) else value or []
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            wrong_type(self.at(name), value, "a string or an array of strings")
        return given

    def longest(self) -> int | None:
        """The longest answer in tokens, under either of its names; equal where both are given."""
        old, new = self.integer("max_tokens"), self.integer("max_completion_tokens")
        return old if new is None else new

    def neutral(self, name: str, *nothing: object, why: str = "it has no such field") -> None:
        """Accept a field only with a value that asks for nothing; anything else is refused."""
        value = self.take(name)
        if value is None:
            return
        # `1 == True` in Python, so the types are compared as well.
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in nothing):
            self.refuse(name, why)

    def end(self, names: Sequence[str] = ()) -> dict[str, object]:
        """The rest, if it is of `names` only, in the order in which it came; anything else is refused by name."""
        for name in self._left:
            if name not in names:
                self.refuse(shown(name), "it has no such field")
        return self._left


def only_own_sampling(fields: Fields) -> None:
    """Refuse what only engines here know, unless it asks for nothing."""
    fields.neutral("top_k", 0, -1)
    fields.neutral("min_p", 0)
    fields.neutral("repetition_penalty", 1)
    fields.neutral("stop_token_ids", [])
    fields.neutral("ignore_eos", False)  # noqa: FBT003 - a value that a field may have
    fields.neutral("min_tokens", 0)
