"""The three sets of templates, as data: `open.toml`, `second.toml`, and the files of `held_out/` together."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

Part = Literal["open", "second", "held_out"]
PARTS: Final[tuple[Part, ...]] = ("open", "second", "held_out")
READABLE: Final[tuple[Part, ...]] = ("open", "second")
"""Parts that those who work on a detector may read."""
LANGUAGES: Final = ("ru", "en", "de")
SLOT: Final = re.compile(r"\{@([\w.]+)(?::(\w+))?(?:#(\d))?\}")
"""A value in a scene: its label, the grammatical case of a name, and a number where a label comes twice."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A whole document with labelled values in it."""

    format: str
    """What the values are written into: `text`, `json`, `xml` or `sql`; what breaks it is escaped."""
    text: str

    @property
    def labels(self) -> frozenset[str]:
        """What stands in it."""
        return frozenset(slot[1] for slot in SLOT.finditer(self.text))


@dataclass(frozen=True, slots=True)
class Templates:
    """One part. Sentences, titles and vocabularies by language and label; keys by label."""

    part: Part
    shells: dict[str, dict[str, list[str]]]
    prose: dict[str, dict[str, list[str]]]
    titles: dict[str, dict[str, list[str]]]
    keys: dict[str, list[str]]
    values: dict[str, dict[str, list[str]]]
    clean: dict[str, dict[str, list[str]]]
    scenes: dict[str, dict[str, Scene]]
    """By language and name; the open and the second part have none."""

    def languages_of(self, label: str) -> tuple[str, ...]:
        """The languages in which the label has sentences."""
        return tuple(language for language in LANGUAGES if label in self.prose[language])

    def scenes_of(self, language: str, label: str) -> list[str]:
        """The scenes of that language in which the label stands."""
        return [name for name, scene in self.scenes.get(language, {}).items() if label in scene.labels]


@lru_cache
def templates_of(part: Part) -> Templates:
    """The part's templates, read once."""
    here = Path(__file__).parent
    whole: dict[str, Any] = {}
    for path in sorted((here / part).glob("*.toml")) or [here / f"{part}.toml"]:
        _merge(whole, tomllib.loads(path.read_text(encoding="utf-8")))
    return Templates(
        part=part,
        shells=whole["shells"],
        prose=whole["prose"],
        titles={language: _listed(titles) for language, titles in whole["titles"].items()},
        keys=_listed(whole["keys"]),
        values=whole["values"],
        clean=whole["clean"],
        scenes={
            language: {name: Scene(**scene) for name, scene in scenes.items()}
            for language, scenes in whole.get("scenes", {}).items()
        },
    )


def _merge(whole: dict[str, Any], more: dict[str, Any]) -> None:
    """Tables into tables; nothing stands in two files."""
    for key, value in more.items():
        if isinstance(value, dict) and key in whole:
            _merge(whole[key], value)
        elif key in whole:
            raise ValueError(f"`{key}` stands in two files")
        else:
            whole[key] = value


def _listed(words: dict[str, str | list[str]]) -> dict[str, list[str]]:
    return {label: [word] if isinstance(word, str) else word for label, word in words.items()}
