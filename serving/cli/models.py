"""`serve models`."""

from __future__ import annotations

import sys
from pathlib import Path

from serving.cli.options import settings_for
from serving.cli.show import known, print_json, print_rows
from serving.planner.text import gib
from serving.registry import Model, Variant, load_catalogue


def list_models(config: Path | None, *, as_json: bool) -> int:
    """Print the catalogue."""
    models = load_catalogue(settings_for(config).registry.site_file).models
    if as_json:
        print_json(models)
    else:
        header = ("NAME", "CONTEXT", "VARIANTS", "LICENCE", "TITLE")
        print_rows([header, *((m.name, str(m.context), _variants(m), known(m.licence), m.title) for m in models)])
    return 0


def show_model(name: str, config: Path | None, *, as_json: bool) -> int:
    """Print one model, with what its files on this host say."""
    model = load_catalogue(settings_for(config).registry.site_file).find(name)
    if as_json:
        print_json(model)
        return 0
    shape = model.architecture
    rows = [
        ("name", model.name),
        ("title", model.title),
        ("licence", known(model.licence)),
        ("context", f"{model.context} tokens"),
        ("from", model.origin),
    ]
    if model.note:
        rows.append(("note", model.note))
    if shape is not None:
        kv_heads = sorted(set(shape.kv_heads))
        rows.append(("family", shape.family))
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


def _variants(model: Model) -> str:
    return " ".join(variant.name for variant in model.variants)


def _row(variant: Variant) -> tuple[str, str, str, str, str]:
    size = "–" if variant.size_bytes is None else gib(variant.size_bytes)
    here = variant.path is not None and variant.path.exists()
    where = str(variant.path) if here else f"not here ({known(variant.source or variant.path)})"
    return variant.name, variant.format, size, " ".join(variant.backends), where
