"""The bill of materials of a bundle in CycloneDX 1.6 (ECMA-424): what is in it, by digest, with licences."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

import serving
from serving.bundle.manifest import Wheel
from serving.bundle.wheels import Described
from serving.store.manifest import Manifest

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/schema/bom-1.6.schema.json")


def bill(
    models: Iterable[Manifest],
    entries: Mapping[str, Mapping[str, Any]],
    wheels: Iterable[tuple[Wheel, Described]],
    created: str,
    serial: int,
) -> bytes:
    """The document, in JSON. The same arguments give the same bytes."""
    components = [_model(model, entries[model.model]) for model in models]
    components += [_wheel(wheel, described) for wheel, described in wheels]
    body: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": created,
            "tools": {
                "components": [{"type": "application", "name": "perimeter-serving", "version": serving.__version__}]
            },
            "component": {"type": "data", "bom-ref": "bundle", "name": "bundle", "version": str(serial)},
        },
        "components": components,
    }
    body["serialNumber"] = uuid.uuid5(_NAMESPACE, json.dumps(body, sort_keys=True)).urn
    return json.dumps(body, sort_keys=True, indent=1, ensure_ascii=True).encode() + b"\n"


def _model(model: Manifest, entry: Mapping[str, Any]) -> dict[str, Any]:
    reference = f"model:{model.model}:{model.variant}"
    told: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": model.model,
        "version": model.revision or model.variant,
        "description": str(entry["title"]),
        "properties": [
            {"name": "perimeter:variant", "value": model.variant},
            {"name": "perimeter:manifest-sha256", "value": model.digest},
        ],
        "components": [
            {
                "type": "file",
                "bom-ref": f"{reference}:{file.name}",
                "name": file.name,
                "hashes": [{"alg": "SHA-256", "content": file.sha256}],
            }
            for file in model.files
        ],
    }
    licence = model.licence or entry.get("licence")
    if licence:
        told["licenses"] = [{"license": {"name": licence}}]
    if model.source:
        told["externalReferences"] = [{"type": "distribution", "url": f"https://{model.source}"}]
    return told


def _wheel(wheel: Wheel, described: Described) -> dict[str, Any]:
    told: dict[str, Any] = {
        "type": "library",
        "bom-ref": wheel.member,
        "name": described.project,
        "version": described.version,
        "purl": f"pkg:pypi/{described.project}@{described.version.replace('+', '%2B')}?file_name={wheel.file}",
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }
    if described.licence:
        told["licenses"] = [{"license": {"name": described.licence}}]
    return told
