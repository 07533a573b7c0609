"""The two sets of templates, as data: `open.toml` and `held_out.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

Part = Literal["open", "held_out"]
PARTS: Final[tuple[Part, ...]] = ("open", "held_out")
LANGUAGES: Final = ("ru", "en", "de")


@dataclass(frozen=True, slots=True)
class Templates:
    """One part. Sentences, titles and vocabularies by language and label; keys by label."""

    part: Part
    shells: dict[str, dict[str, list[str]]]
    prose: dict[str, dict[str, list[str]]]
    titles: dict[str, dict[str, str]]
    keys: dict[str, str]
    values: dict[str, dict[str, list[str]]]
    clean: dict[str, dict[str, list[str]]]

    def languages_of(self, label: str) -> tuple[str, ...]:
        """The languages in which the label has sentences."""
        return tuple(language for language in LANGUAGES if label in self.prose[language])


@lru_cache
def templates_of(part: Part) -> Templates:
    """The part's templates, read once."""
    with (Path(__file__).parent / f"{part}.toml").open("rb") as file:
        return Templates(part=part, **tomllib.load(file))
