"""The models that can be named: the catalogue that ships, a site's on top, those in the store, and files by path."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import serving
from serving.errors import FileMissing, StartError, UnknownModel
from serving.gguf import read_header
from serving.registry.directory import CONFIG, model_from_directory, weights_bytes, with_directory
from serving.registry.local import architecture_of, check_kind, check_servable, describe, model_of
from serving.registry.model import Backend, Model, Variant
from serving.registry.schema import read_catalogue, read_entries
from serving.registry.sizes import foretell

PACKAGE = Path(serving.__file__).parent


Shelf = Mapping[tuple[str, str], Path]
"""Where the weights of a model (first name) in a variant (second) lie: a GGUF file, or a directory of safetensors."""
_BACKENDS: Final[dict[str, tuple[Backend, ...]]] = {"gguf": ("llamacpp",), "safetensors": ("vllm", "transformers")}


class Catalogue:
    """Models by name. What an entry has no path for is looked for on the `shelf`."""

    def __init__(self, models: Mapping[str, Model], shelf: Shelf = MappingProxyType({})) -> None:
        self._models = {name: _shelved(model, shelf) for name, model in models.items()}
        self._own: dict[str, dict[str, Path]] = {}
        for (name, variant), path in shelf.items():
            if name not in models:
                self._own.setdefault(name, {})[variant] = path

    @property
    def models(self) -> tuple[Model, ...]:
        """All entries as the files give them, in their order, and after them what only the shelf has."""
        return (*self._models.values(), *(_listed(name, paths) for name, paths in self._own.items()))

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
        if name in self._own:
            return _from_shelf(name, self._own[name])
        if _is_path(name):
            path = Path(name).expanduser()
            if (path / CONFIG).exists():
                return model_from_directory(path)
            header = read_header(path)
            check_servable(header)
            return model_of(header)
        lowered = {known.lower(): known for known in (*self._models, *self._own)}
        near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
        guess = f"did you mean {', '.join(f'`{match}`' for match in near)}? " if near else ""
        message = f"no model is called `{name}`"
        hint = f"{guess}`serve models list` shows all; a path to a .gguf file or a directory of safetensors works too"
        raise UnknownModel(message, hint=hint)


def load_catalogue(
    site_file: Path | None = None,
    shipped: Path | None = None,
    shelf: Shelf = MappingProxyType({}),
    bundled: Path | None = None,
) -> Catalogue:
    """The catalogue that ships with the package, over it what came in bundles, and over that the site's file.

    `bundled` is the directory of the files that came in bundles. Raises BadSettings.
    """
    path = shipped or _shipped()
    models = read_catalogue(path, PACKAGE, "catalogue")
    for each in _files_in(bundled):
        for name, model in read_catalogue(each, each.parent, str(each)).items():
            models[name] = _joined(model, models.get(name))
    if site_file is not None:
        models |= read_catalogue(site_file, site_file.resolve().parent, str(site_file), over=(path, PACKAGE))
    return Catalogue(models, shelf)


def load_entries(
    site_file: Path | None = None, shipped: Path | None = None, bundled: Path | None = None
) -> dict[str, Any]:
    """The same as tables, in the form of models.toml, without the paths of weights. Raises BadSettings."""
    path = shipped or _shipped()
    entries = read_entries(path)
    for each in _files_in(bundled):
        entries |= read_entries(each)
    return entries if site_file is None else entries | read_entries(site_file, path)


def _files_in(directory: Path | None) -> list[Path]:
    return [] if directory is None else sorted(directory.glob("*.toml"))


def _joined(model: Model, below: Model | None) -> Model:
    """An entry with the variants of the one below that it does not have itself."""
    if below is None:
        return model
    names = {variant.name for variant in model.variants}
    kept = tuple(variant for variant in below.variants if variant.name not in names)
    return dataclasses.replace(model, variants=(*model.variants, *kept))


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


def _shelved(model: Model, shelf: Shelf) -> Model:
    """The entry with the paths that the shelf has for it, and the variants that only the shelf has."""
    known = {variant.name for variant in model.variants}
    variants = [
        variant
        if variant.path is not None
        else dataclasses.replace(variant, path=shelf.get((model.name, variant.name)))
        for variant in model.variants
    ]
    variants += [
        _variant(variant, path)
        for (name, variant), path in shelf.items()
        if name == model.name and variant not in known
    ]
    return dataclasses.replace(model, variants=tuple(variants))


def _variant(name: str, path: Path) -> Variant:
    form: Literal["gguf", "safetensors"] = "gguf" if path.suffix == ".gguf" else "safetensors"
    return Variant(name, form, _BACKENDS[form], None, path)


def _from_shelf(name: str, paths: Mapping[str, Path]) -> Model:
    """A model that no catalogue knows, as its files describe it. Raises BadFile."""
    told = []
    for variant, path in paths.items():
        if path.suffix == ".gguf":
            header = read_header(path)
            check_servable(header)
            model = model_of(header)
        else:
            model = dataclasses.replace(model_from_directory(path), title=name)
        told.append((dataclasses.replace(model.variants[0], name=variant), model))
    first = told[0][1]
    return dataclasses.replace(
        first,
        name=name,
        variants=tuple(variant for variant, _ in told),
        tool_parser=next((model.tool_parser for _, model in told if model.tool_parser), None),
        reasoning_parser=next((model.reasoning_parser for _, model in told if model.reasoning_parser), None),
        origin="store",
    )


def _listed(name: str, paths: Mapping[str, Path]) -> Model:
    """As `_from_shelf`; what cannot be read is listed with the reason as a warning."""
    try:
        return _from_shelf(name, paths)
    except StartError as error:
        variants = tuple(_variant(variant, path) for variant, path in paths.items())
        return Model(name, name, 0, None, variants, warnings=(error.message,), origin="store")


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
