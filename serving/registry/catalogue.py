"""The models that can be named: the catalogue that ships, a site's own on top, and any GGUF file by its path."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path

import serving
from serving.errors import FileMissing, UnknownModel
from serving.gguf import read_header
from serving.registry.directory import CONFIG, model_from_directory, weights_bytes, with_directory
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

        Raises UnknownModel with the nearest names, FileMissing where nothing here says what it looks like, or BadFile.
        """
        model = self.look_up(name)
        # Transformers builds the model from its own configuration, and needs no shape of ours.
        if model.architecture is None and not any(
            "transformers" in each.backends and each.path for each in model.variants
        ):
            raise _shapeless(model)
        return model

    def look_up(self, name: str) -> Model:
        """As `find`, also where the model's shape is not known and it cannot be planned for."""
        if name in self._models:
            return with_files(self._models[name])
        if _is_path(name):
            path = Path(name).expanduser()
            if (path / CONFIG).exists():
                return model_from_directory(path)
            header = read_header(path)
            check_servable(header)
            return model_of(header)
        lowered = {known.lower(): known for known in self._models}
        near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
        guess = f"did you mean {', '.join(f'`{match}`' for match in near)}? " if near else ""
        message = f"no model is called `{name}`"
        hint = f"{guess}`serve models list` shows all; a path to a .gguf file or a directory of safetensors works too"
        raise UnknownModel(message, hint=hint)


def load_catalogue(site_file: Path | None = None, shipped: Path | None = None) -> Catalogue:
    """The catalogue that ships with the package, and over it the site's file. Raises BadSettings."""
    path = shipped or _shipped()
    models = read_catalogue(path, PACKAGE, "catalogue")
    if site_file is not None:
        models |= read_catalogue(site_file, site_file.resolve().parent, str(site_file), over=(path, PACKAGE))
    return Catalogue(models)


def with_files(model: Model) -> Model:
    """The model with what the headers of its files say, and what its shape foretells of those not here.

    A file that was made for a shorter context than the entry says has the last word. Raises BadFile.
    """
    variants = []
    architecture, context, warnings = model.architecture, model.context, list(model.warnings)
    for variant in model.variants:
        if variant.path is None or not variant.path.exists():
            if variant.path is not None:
                warnings.append(f"`{variant.path}` ({variant.name}) does not exist")
            variants.append(foretell(model, dataclasses.replace(variant, path=None, missing=variant.path)))
        elif variant.format == "gguf":
            header = read_header(variant.path)
            check_servable(header)
            check_kind(header, model.name, model.kind)
            architecture = architecture_of(header) if architecture is None else architecture
            variants.append(describe(variant, header))
            most = header.integer("context_length") or context
            if most < context:
                warnings.append(f"context {most}, not its entry's {context}: `{variant.path}` was made for no more")
                context = most
        elif architecture is None:
            is_read = "transformers" in variant.backends
            variants.append(dataclasses.replace(variant, size_bytes=weights_bytes(variant.path) if is_read else None))
        else:
            described, most = with_directory(model, variant)
            variants.append(described)
            if most < context:
                warnings.append(f"context {most}, not its entry's {context}: `{variant.path}` was made for no more")
                context = most
    return dataclasses.replace(
        model, variants=tuple(variants), architecture=architecture, context=context, warnings=tuple(warnings)
    )


def _shapeless(model: Model) -> FileMissing:
    """Why nothing says what the model looks like: its entry has no architecture, and no GGUF file is there to read."""
    gone = next((variant for variant in model.variants if variant.missing), None)
    table = "give the entry an `architecture` table (docs/site-catalogue.md)"
    if gone is not None:
        message = f"the weights of `{model.name}` are missing: `{gone.missing}` ({gone.name}) does not exist"
        hint = f"correct its `path` in `{model.origin}`, or bring the weights there; to plan without them, {table}"
        if model.origin == "catalogue":
            hint = "this installation is incomplete: install the package again"
        return FileMissing(message, hint=hint)
    there = next((variant for variant in model.variants if variant.path), None)
    if there is not None:
        message = f"the shape of `{model.name}` is not known: it is read from GGUF files, and `{there.path}` is none"
        return FileMissing(message, hint=f"{table} in `{model.origin}`")
    message = f"the shape of `{model.name}` is not known: its entry has no architecture, and no variant has a `path`"
    return FileMissing(message, hint=f"in `{model.origin}`, give a GGUF variant its `path`; or {table}")


def _shipped() -> Path:
    """models.toml beside the package's modules when installed, at the top of the repository in a checkout."""
    installed = PACKAGE / "models.toml"
    return installed if installed.exists() else PACKAGE.parent / "models.toml"


def _is_path(name: str) -> bool:
    return name.endswith(".gguf") or "/" in name or name.startswith(("~", ".")) or Path(name).is_file()
