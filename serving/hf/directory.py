"""A model directory, looked at before Transformers may: what it would run, fetch or make up is refused here by name.

Transformers reads a directory generously. It unpickles weights (which runs what they say), imports Python files that a
configuration names, fetches attention kernels that it names, follows an adapter to its base model, and gives weights
that are missing random values.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from serving.errors import BadFile, FileMissing
from serving.safetensors import read_index

_MOST_JSON: Final = 1 << 24
"""Bytes of a configuration; the largest published ones hold a few thousand added tokens and a chat template."""
_PICKLED: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack"})
_CONFIGURATIONS: Final = ("config.json", "tokenizer_config.json", "generation_config.json")
_BUILT_IN: Final = re.compile(r"[A-Za-z0-9_]*")
"""A name of Transformers' own; one with a slash is a repository to fetch code from."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a sound directory holds."""

    path: Path
    elements: int
    """Numbers in all weights."""
    stored_bytes: int
    """Size of the weight files."""


def inspect(path: Path) -> Contents:
    """Read all headers and configurations. Raises FileMissing or BadFile, and runs nothing of what it reads."""
    if not path.exists():
        raise FileMissing(f"there is no directory `{path}`", hint="give the directory that holds config.json")
    if not path.is_dir():
        hint = "a GGUF file is served by the llama.cpp engine; this one takes the directory that holds config.json"
        raise BadFile(f"`{path}` is not a directory", hint=hint)
    if (path / "adapter_config.json").exists():
        raise BadFile(f"`{path}` is an adapter, not a model", hint="merge it into its base model first")
    for name, what in (("config.json", "configuration"), ("tokenizer.json", "tokenizer")):
        if not (path / name).is_file():
            raise FileMissing(f"`{path}` has no {what} (`{name}`)", hint="fetch the whole directory of the model")
    configurations = {name: _read_json(path / name) for name in _CONFIGURATIONS if (path / name).exists()}
    for name, configuration in configurations.items():
        _refuse_code(path / name, configuration)
    try:
        headers = read_index(path)
    except FileMissing:
        pickled = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLED)
        if not pickled:
            raise
        raise BadFile(
            f"the weights in `{path}` are pickled (`{pickled[0]}`), and reading such a file runs what it says",
            hint="fetch the model's .safetensors files, or convert it where that does no harm",
        ) from None
    tensors = [tensor for header in headers for tensor in header.tensors]
    _refuse_more_layers(path / "config.json", configurations["config.json"], len(tensors))
    return Contents(
        path,
        elements=sum(math.prod(tensor.shape) for tensor in tensors),
        stored_bytes=sum(header.file_bytes for header in headers),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_JSON:
            raise BadFile(f"`{path}` has more than {_MOST_JSON} bytes", hint="fetch the file again")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise BadFile(f"cannot read `{path}`: {error.strerror}") from None
    except (ValueError, RecursionError):  # what is wrong is not quoted: the file may be hostile
        raise BadFile(
            f"`{path}` is not JSON", hint="the download or copy was cut short: fetch the file again"
        ) from None
    if not isinstance(value, dict):
        raise BadFile(f"`{path}` is not a JSON object", hint="fetch the file again")
    return value


def _refuse_code(path: Path, configuration: dict[str, Any]) -> None:
    """Raises BadFile for a configuration that names code to import or fetch, or a format that needs other kernels."""
    for key, value in _entries(configuration):
        if key == "auto_map" and value:
            raise BadFile(
                f"`{path}` wants Python code of the model's own to be run (`auto_map`)",
                hint="only architectures that Transformers itself knows are served; a newer version may know this one",
            )
        if key in {"quantization_config", "compression_config"} and value:
            raise BadFile(
                f"`{path}` describes quantised weights (`{key}`), which take kernels that are not part of PyTorch",
                hint="serve the unquantised model here, or this one with vLLM",
            )
        if key.endswith("_implementation") and not all(map(_BUILT_IN.fullmatch, _texts(value))):
            raise BadFile(f"`{path}` names a kernel to fetch (`{key}`)", hint="remove the entry from the file")


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """All keys with their values, at whatever depth."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from value.items()
            left += value.values()
        elif isinstance(value, list):
            left += value


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    return [] if value is None else [str(value)]


def _refuse_more_layers(path: Path, configuration: dict[str, Any], tensors: int) -> None:
    """Raises BadFile for a depth that the weights cannot have: building it would take all memory there is."""
    for key, value in _entries(configuration):
        if "layers" in key and isinstance(value, int | float) and not isinstance(value, bool) and value > tensors:
            raise BadFile(
                f"`{path}` says `{key}` is {value:g}, and the weights are {tensors} tensors",
                hint="configuration and weights are not of one model: fetch the directory again",
            )
