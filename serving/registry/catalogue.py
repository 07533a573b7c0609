"""The models that can be named: the catalogue that ships, a site's own on top, and any GGUF file by its path."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path

import serving
from serving.errors import FileMissing, UnknownModel
from serving.gguf import read_header
from serving.registry.local import architecture_of, check_kind, check_servable, describe, model_of
from serving.registry.model import Model
from serving.registry.schema import read_catalogue
from serving.registry.sizes import foretell

PACKAGE = Path(serving.__file__).parent


class Catalogue:
    """Models by name."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = dict(models)

    @property
    def models(self) -> tuple[Model, ...]:
        """All entries as the files give them, in their order."""
        return tuple(self._models.values())

    def find(self, name: str) -> Model:
        """The model of that name or path, with the facts of those of its weight files that are on this host.

        Raises UnknownModel with the nearest names, FileMissing or BadFile.
        """
        if name in self._models:
            return with_files(self._models[name])
        if _is_path(name):
            header = read_header(Path(name).expanduser())
            check_servable(header)
            return model_of(header)
        lowered = {known.lower(): known for known in self._models}
        near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
        guess = f"did you mean {', '.join(f'`{match}`' for match in near)}? " if near else ""
        message = f"no model is called `{name}`"
        raise UnknownModel(message, hint=f"{guess}`serve models list` shows all; a path to a .gguf file works too")


def load_catalogue(site_file: Path | None = None, shipped: Path | None = None) -> Catalogue:
    """The catalogue that ships with the package, and over it the site's file. Raises BadSettings."""
    path = shipped or _shipped()
    models = read_catalogue(path, PACKAGE, "catalogue")
    if site_file is not None:
        models |= read_catalogue(site_file, site_file.resolve().parent, str(site_file))
    return Catalogue(models)


def with_files(model: Model) -> Model:
    """The model with what the headers of its GGUF files say, and what its shape foretells of those not here.

    Raises FileMissing if nothing says what it looks like.
    """
    variants = []
    architecture = model.architecture
    for variant in model.variants:
        if variant.path is None or not variant.path.exists():
            variants.append(foretell(model, dataclasses.replace(variant, path=None)))
        elif variant.format == "gguf":
            header = read_header(variant.path)
            check_servable(header)
            check_kind(header, model.name, model.kind)
            architecture = architecture_of(header) if architecture is None else architecture
            variants.append(describe(variant, header))
        else:
            size = sum(file.stat().st_size for file in variant.path.glob("*.safetensors"))
            variants.append(dataclasses.replace(variant, size_bytes=size or None))
    if architecture is None:
        first = next((variant.path for variant in model.variants if variant.format == "gguf"), None)
        message = f"weight file `{first}` of `{model.name}` does not exist"
        raise FileMissing(message, hint="this installation is incomplete: install the package again")
    return dataclasses.replace(model, variants=tuple(variants), architecture=architecture)


def _shipped() -> Path:
    """models.toml beside the package's modules when installed, at the top of the repository in a checkout."""
    installed = PACKAGE / "models.toml"
    return installed if installed.exists() else PACKAGE.parent / "models.toml"


def _is_path(name: str) -> bool:
    return name.endswith(".gguf") or "/" in name or name.startswith(("~", ".")) or Path(name).is_file()
