"""What every table of the settings file is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Strict
from pydantic_core import PydanticCustomError


def _not_empty(path: object) -> object:
    """An empty text would be the current directory."""
    if path == "":
        kind, message = "empty_path", "is empty; give a path, or leave it out"
        raise PydanticCustomError(kind, message)
    return path


# Files hold text where Python wants a Path; everything else is taken as it stands (`port = "8000"` is an error).
SettingPath = Annotated[Path, Strict(strict=False), BeforeValidator(_not_empty)]


class Section(BaseModel):
    """A table of the settings file: frozen, closed to unknown fields, no conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
