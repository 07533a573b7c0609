"""`serve models`."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.cli.options import settings_for
from serving.cli.runtime import catalogue_of
from serving.cli.show import align, known, print_json, print_rows, terminal_columns
from serving.planner.text import gib
from serving.registry import Architecture, Model, Variant
from serving.registry.tensors import active_parameters_of, parameters_of


def list_models(config: Path | None, *, as_json: bool) -> int:
    """Print the catalogue."""
    models = catalogue_of(settings_for(config), os.environ).models
    if as_json:
        print_json([dataclasses.replace(model, parameters=model.parameters or _count(model)) for model in models])
    else:
        header = ("NAME", "KIND", "SIZE", "CONTEXT", "VARIANTS", "LICENCE", "TITLE")
        rows = ((m.name, m.kind, _size(m), str(m.context), _variants(m), known(m.licence), m.title) for m in models)
        _print_fitting([header, *rows])
    return 0


def _print_fitting(rows: Sequence[Sequence[str]]) -> None:
    """As many columns as the screen has room for; those left out are named on stderr."""
    columns = terminal_columns()
    names, kept = rows[0], len(rows[0])
    while columns is not None and kept > 2 and _width([row[:kept] for row in rows]) > columns:
        kept -= 1
    print_rows([row[:kept] for row in rows])
    if kept < len(names):
        hidden = " and ".join(name.lower() for name in names[kept:])
        sys.stderr.write(f"no room for {hidden}: `serve models show NAME` has all of one model\n")


def _width(rows: Sequence[Sequence[str]]) -> int:
    return max(map(len, align(rows, None).splitlines()))


def show_model(name: str, config: Path | None, *, as_json: bool) -> int:
    """Print one model, with what its files on this host say."""
    model = catalogue_of(settings_for(config), os.environ).look_up(name)
    if as_json:
        print_json(model)
        return 0
    shape = model.architecture
    rows = [
        ("name", model.name),
        ("title", model.title),
        ("licence", known(model.licence)),
        ("kind", model.kind),
        ("context", f"{model.context} tokens"),
        ("from", model.origin),
    ]
    if model.note:
        rows.append(("note", model.note))
    rows += [("warning", warning) for warning in model.warnings]
    if shape is not None:
        kv_heads = sorted(set(shape.kv_heads))
        rows.append(("family", shape.family))
        rows.append(("parameters", _parameters(shape)))
        rows.append(("layers", f"{shape.layers}, {shape.embedding} wide"))
        rows.append(("heads", f"{shape.heads}, {'/'.join(map(str, kv_heads)) or '–'} key/value"))
        rows.append(("vocabulary", known(shape.vocabulary)))
        if shape.sliding_window is not None:
            rows.append(("window", f"{shape.sliding_window} tokens in {sum(shape.windowed)} layers"))
        if shape.experts is not None:
            rows.append(("experts", f"{shape.experts}, {known(shape.experts_used)} used"))
    print_rows(rows)
    sys.stdout.write("\n")
    print_rows([("VARIANT", "FORMAT", "SIZE", "SERVED BY", "WHERE"), *map(_row, model.variants)])
    return 0


def _parameters(shape: Architecture) -> str:
    """All that are learnt, and those that one token is computed with where these are fewer."""
    total, active = parameters_of(shape), active_parameters_of(shape)
    if total is None or active is None:
        return "–"
    used = f", {active / 1e9:.1f} billion used for a token" if shape.experts else ""
    return f"{total / 1e9:.2f} billion{used}" if total >= 1e8 else f"{total / 1e6:.2f} million"


def _size(model: Model) -> str:
    """Parameters in billions or millions; a dash where the shape is not known before a file has been read."""
    total = _count(model)
    if total is None:
        return "–"
    return f"{total / 1e9:.1f}B" if total >= 1e8 else f"{total / 1e6:.1f}M"


def _count(model: Model) -> int | None:
    """Parameters by the model's shape."""
    return parameters_of(model.architecture) if model.architecture else None


def _variants(model: Model) -> str:
    return " ".join(variant.name for variant in model.variants)


def _row(variant: Variant) -> tuple[str, str, str, str, str]:
    size = "–" if variant.size_bytes is None else gib(variant.size_bytes)
    here = variant.path is not None and variant.path.exists()
    where = str(variant.path) if here else f"not here ({variant.source or 'no path given'})"
    if variant.missing is not None:
        where = f"{variant.missing} does not exist"
    return variant.name, variant.format, size, " ".join(variant.backends), where
