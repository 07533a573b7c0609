"""The catalogue's entries that travel with models: what this host's files say of them, or the weights themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from serving.registry.catalogue import Catalogue
from serving.registry.model import Model
from serving.store.cas import Store
from serving.store.manifest import Manifest

_BACKENDS = {"gguf": ["llamacpp"], "safetensors": ["vllm", "transformers"]}


def entries_for(
    models: Iterable[Manifest], known: Mapping[str, Mapping[str, Any]], store: Store
) -> dict[str, dict[str, Any]]:
    """One entry for each model, with the variants that travel and no paths.

    `known` is what the catalogue's files have; what they lack is read from the weights. Raises BadFile.
    """
    by_name: dict[str, list[Manifest]] = {}
    for model in models:
        by_name.setdefault(model.model, []).append(model)
    return {name: _entry(known.get(name) or _described(store, found[0]), found) for name, found in by_name.items()}


def _entry(known: Mapping[str, Any], models: list[Manifest]) -> dict[str, Any]:
    variants = {variant["name"]: variant for variant in known["variants"]}
    travelling = []
    for model in models:
        ours: dict[str, Any] = variants.get(model.variant, {})
        told = {"name": model.variant, "format": model.format, "backends": _BACKENDS[model.format]}
        travelling.append({**told, **ours, "format": model.format})
    return {**known, "variants": travelling}


def _described(store: Store, manifest: Manifest) -> dict[str, Any]:
    tree = store.tree(manifest)
    first = next((file.name for file in manifest.files if file.name.endswith(".gguf")), None)
    model: Model = Catalogue({}).look_up(str(tree / first if first else tree))
    told = {
        "title": manifest.model,
        "context": model.context,
        "kind": model.kind,
        "licence": manifest.licence,
        "parameters": model.parameters,
        "tool_parser": model.tool_parser,
        "reasoning_parser": model.reasoning_parser,
        "variants": [],
    }
    return {key: value for key, value in told.items() if value is not None}
