"""The form of a catalogue file, checked: closed to unknown fields, errors that name file, table, field and value."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.errors import BadFile, BadSettings
from serving.registry.model import Architecture, Backend, Kind, Model, Variant
from serving.settings.wording import also, mistake, shown

Count = Annotated[int, Field(ge=1, le=1 << 40)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ArchitectureTable(_Table):
    """`[models.NAME.architecture]`."""

    family: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    layers: int = Field(ge=1, le=4096)
    embedding: Count
    feed_forward: Count | None = None
    heads: int = Field(ge=1, le=65536)
    kv_heads: int = Field(ge=1, le=65536)
    key_length: Count
    value_length: Count
    vocabulary: Count
    sliding_window: Count | None = None
    windowed_every: int | None = Field(None, ge=2, le=4096, description="all layers but each N-th are windowed")
    expert_feed_forward: Count | None = None
    experts: Count | None = None
    experts_used: Count | None = None
    shared_experts: int = Field(0, ge=0, le=1024)
    dense_layers: int = Field(0, ge=0, le=4096)
    kv_rank: Count | None = Field(None, description="latent attention; key_length is then this and the rotary part")
    q_rank: Count | None = None
    key_length_mla: Count | None = None
    value_length_mla: Count | None = None
    tied: bool = Field(default=False, description="the output matrix is the token embedding")
    positions: Count | None = Field(None, description="learnt position embeddings")

    @model_validator(mode="after")
    def _together(self) -> ArchitectureTable:
        if self.windowed_every is not None and self.sliding_window is None:
            message = "windowed_every needs sliding_window"
            raise ValueError(message)
        if (self.experts is None) != (self.experts_used is None):
            message = "experts and experts_used are given together"
            raise ValueError(message)
        if self.experts is not None and self.experts_used is not None and self.experts_used > self.experts:
            message = f"experts_used ({self.experts_used}) exceeds experts ({self.experts})"
            raise ValueError(message)
        if self.dense_layers > self.layers:
            message = f"dense_layers ({self.dense_layers}) exceeds layers ({self.layers})"
            raise ValueError(message)
        if self.heads % self.kv_heads:
            message = f"heads ({self.heads}) is not a multiple of kv_heads ({self.kv_heads})"
            raise ValueError(message)
        latent = (self.kv_rank, self.key_length_mla, self.value_length_mla)
        if any(latent) and not all(latent):
            message = "kv_rank, key_length_mla and value_length_mla are given together"
            raise ValueError(message)
        return self

    def build(self) -> Architecture:
        """The table as the rest of the program knows it."""
        every = self.windowed_every
        windowed: tuple[bool, ...] = ()
        if self.sliding_window is not None:
            windowed = tuple(every is None or (layer + 1) % every != 0 for layer in range(self.layers))
        return Architecture(
            family=self.family,
            layers=self.layers,
            embedding=self.embedding,
            feed_forward=self.feed_forward,
            heads=self.heads,
            kv_heads=(self.kv_heads,) * self.layers,
            key_length=self.key_length,
            value_length=self.value_length,
            vocabulary=self.vocabulary,
            sliding_window=self.sliding_window,
            windowed=windowed,
            expert_feed_forward=self.expert_feed_forward,
            experts=self.experts,
            experts_used=self.experts_used,
            shared_experts=self.shared_experts,
            dense_layers=self.dense_layers,
            latent=self.kv_rank is not None,
            kv_rank=self.kv_rank,
            q_rank=self.q_rank,
            key_length_mla=self.key_length_mla,
            value_length_mla=self.value_length_mla,
            tied=self.tied,
            positions=self.positions,
        )


class VariantTable(_Table):
    """`[[models.NAME.variants]]`."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    format: Literal["gguf", "safetensors"]
    backends: list[Backend] = Field(min_length=1)
    size_bytes: Count | None = None
    path: str | None = Field(None, min_length=1)
    source: str | None = Field(None, min_length=1)

    def build(self, base: Path) -> Variant:
        """The table as the rest of the program knows it; relative paths start at `base`."""
        return Variant(
            name=self.name,
            format=self.format,
            backends=tuple(self.backends),
            size_bytes=self.size_bytes,
            path=base / self.path if self.path else None,
            source=self.source,
        )


class ModelTable(_Table):
    """`[models.NAME]`."""

    title: str = Field(min_length=1)
    context: int = Field(ge=1, le=16 * 1024**2)
    kind: Kind = "chat"
    licence: str | None = Field(None, min_length=1)
    parameters: Count | None = None
    tool_parser: str | None = Field(None, min_length=1)
    reasoning_parser: str | None = Field(None, min_length=1)
    note: str | None = Field(None, min_length=1)
    template_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    architecture: ArchitectureTable | None = None
    variants: list[VariantTable] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> ModelTable:
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                message = f"variant {name!r} is given twice"
                raise ValueError(message)
        return self


class CatalogueFile(_Table):
    """A whole file."""

    models: dict[Annotated[str, Field(pattern=NAME)], ModelTable] = {}


def read_catalogue(path: Path, base: Path, origin: str, *, over: tuple[Path, Path] | None = None) -> dict[str, Model]:
    """The models of one file by name, in its order.

    Relative weight paths start at `base`. With `over`, a catalogue and where its paths start, an entry that has
    neither `title` nor `context` changes that catalogue's entry of its name: field over field, variants by their names.
    Raises BadSettings naming file, table, field, value and what is allowed.
    """
    tree = _read(path)
    if over is not None:
        _lay_over(tree, base, _read(over[0]), over[1])
    return _build(path, tree, base, origin)


def read_entries(path: Path, over: Path | None = None) -> dict[str, Any]:
    """The entries of one file as it has them, those that only change one of the catalogue `over` completed by it.

    Paths are left out: they are a host's own. Raises BadSettings.
    """
    tree = _read(path)
    if over is not None:
        _lay_over(tree, path.parent, _read(over), over.parent)
    _build(path, tree, path.parent, str(path))
    entries: dict[str, Any] = tree.get("models", {})
    for entry in entries.values():
        entry["variants"] = [
            {key: value for key, value in variant.items() if key != "path"} for variant in entry["variants"]
        ]
    return entries


def check_entries(entries: Mapping[str, Any], where: str) -> None:
    """See that these tables, from outside, are entries of a catalogue. `where` names their source. Raises BadFile."""
    try:
        CatalogueFile.model_validate({"models": entries})
    except ValidationError as failure:
        first = failure.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"] if part != "[key]")
        message = f"{where} has an entry of the catalogue that is none: `{place}`: {mistake(first)}"
        raise BadFile(message, hint="docs/site-catalogue.md describes every field") from None


def format_entry(name: str, entry: Mapping[str, Any]) -> bytes:
    """A checked entry as a catalogue file of its own."""
    table = f"models.{json.dumps(name)}"
    lines = [f"[{table}]", *_fields(entry)]
    if entry.get("architecture") is not None:
        lines += ["", f"[{table}.architecture]", *_fields(entry["architecture"])]
    for variant in entry["variants"]:
        lines += ["", f"[[{table}.variants]]", *_fields(variant)]
    return "".join(f"{line}\n" for line in lines).encode()


def _fields(table: Mapping[str, Any]) -> list[str]:
    """The fields of a table that are no tables. Printable texts, numbers and booleans are in TOML as in JSON."""
    plain = {key: value for key, value in table.items() if key not in ("architecture", "variants")}
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items() if value is not None]


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        message = f"catalogue `{path}` does not exist"
        raise BadSettings(message, hint="correct `registry.site_file`, or leave it out") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        message = f"cannot read catalogue `{path}`: {failure}"
        raise BadSettings(message, hint="it must be a TOML file in the form of docs/site-catalogue.md") from None


def _lay_over(tree: dict[str, Any], base: Path, shipped: dict[str, Any], shipped_base: Path) -> None:
    """Complete the entries of `tree` that only change those of `shipped`. What is of a wrong form is left as it is."""
    entries: Any = tree.get("models")
    for name, entry in list(entries.items()) if isinstance(entries, dict) else ():
        ours = shipped["models"].get(name)
        if ours is None or not isinstance(entry, dict) or not entry.keys().isdisjoint({"title", "context"}):
            continue
        changed = entry.get("variants", [])
        entries[name] = {**ours, **entry}
        if isinstance(changed, list) and all(isinstance(variant, dict) for variant in changed):
            theirs = [_with_path(variant, base) for variant in changed]
            named = {str(variant.get("name")): variant for variant in theirs}
            kept = [_with_path(variant, shipped_base) for variant in ours["variants"]]
            known = {variant["name"] for variant in kept}
            entries[name]["variants"] = [{**variant, **named.get(variant["name"], {})} for variant in kept] + [
                variant for variant in theirs if variant.get("name") not in known
            ]


def _with_path(variant: dict[str, Any], base: Path) -> dict[str, Any]:
    path = variant.get("path")
    return {**variant, "path": str(base / path)} if isinstance(path, str) and path else variant


def _build(path: Path, tree: dict[str, Any], base: Path, origin: str) -> dict[str, Model]:
    try:
        tables = CatalogueFile.model_validate(tree)
    except ValidationError as failure:
        raise _bad_entry(path, tree, failure) from None
    return {
        name: Model(
            name=name,
            title=table.title,
            context=table.context,
            architecture=table.architecture.build() if table.architecture else None,
            variants=tuple(variant.build(base) for variant in table.variants),
            kind=table.kind,
            licence=table.licence,
            parameters=table.parameters,
            tool_parser=table.tool_parser,
            reasoning_parser=table.reasoning_parser,
            note=table.note,
            template_sha256=table.template_sha256,
            origin=origin,
        )
        for name, table in tables.models.items()
    }


def _bad_entry(path: Path, tree: dict[str, Any], failure: ValidationError) -> BadSettings:
    # A field misspelt is both unknown and missing: its own name is the more telling of the two.
    first, *others = sorted(failure.errors(include_url=False), key=lambda error: error["type"] != "extra_forbidden")
    where = [part for part in first["loc"] if part != "[key]"]
    more = also(_dotted(tree, [part for part in other["loc"] if part != "[key]"]) for other in others)
    if first["type"] in ("extra_forbidden", "missing"):
        allowed = _fields_at(where[:-1])
        near = difflib.get_close_matches(str(where[-1]), allowed, n=1)
        guess = f"did you mean `{near[0]}`? " if near and first["type"] == "extra_forbidden" else ""
        problem = "has no field" if first["type"] == "extra_forbidden" else "lacks the field"
        message = f"catalogue `{path}`: table `{_dotted(tree, where[:-1])}` {problem} `{where[-1]}`"
        return BadSettings(message, hint=f"{guess}allowed: {', '.join(allowed)}{more}")
    value = f" = `{shown(first['input'])}`" if not isinstance(first["input"], dict) else ""
    message = f"catalogue `{path}`: `{_dotted(tree, where)}`{value}: {mistake(first)}"
    return BadSettings(message, hint=f"docs/site-catalogue.md describes every field{more}")


def _dotted(tree: object, where: list[int | str]) -> str:
    """The place in the words of the file: a variant by its name, not by its number."""
    parts: list[str] = []
    for part in where:
        if isinstance(tree, dict):
            tree = tree.get(part)
            parts.append(str(part))
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            tree = tree[part]
            name = tree.get("name") if isinstance(tree, dict) else None
            parts.append(str(name or part))
        else:
            parts.append(str(part))
    return ".".join(parts) or "the file"


def _fields_at(where: list[int | str]) -> list[str]:
    match where:
        case []:
            return list(CatalogueFile.model_fields)
        case [_, _]:
            return list(ModelTable.model_fields)
        case [_, _, "architecture"]:
            return list(ArchitectureTable.model_fields)
        case [_, _, "variants", _]:
            return list(VariantTable.model_fields)
    return []
