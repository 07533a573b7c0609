"""The lock of the weights that come with the package: `python -m serving.store.shipped` writes it anew."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import serving
from serving.gguf import read_header
from serving.registry import load_catalogue
from serving.registry.directory import template_of
from serving.store.lock import Lock, format_lock, lock_of, parse_lock
from serving.store.manifest import Manifest, StoredFile

FILE: Final = Path(serving.__file__).parent / "models" / "models.lock"


def shipped_lock() -> Lock:
    """What the package's own weights are. Raises BadFile or Unverified where the installation was damaged."""
    return parse_lock(FILE.read_bytes(), f"`{FILE}`")


def files_of(path: Path) -> Mapping[str, Path]:
    """The files of a model by their names in it: of a directory all, else the one."""
    if not path.is_dir():
        return {path.name: path}
    found = (each for each in sorted(path.rglob("*")) if not each.is_dir())
    return {each.relative_to(path).as_posix(): each for each in found}


def read_shipped() -> Lock:
    """The lock of the weights as they lie there."""
    entries = []
    for model in load_catalogue().models:
        for variant in model.variants:
            if variant.path is not None:
                files = tuple(_file(name, path) for name, path in files_of(variant.path).items())
                template = hashlib.sha256(_template(variant.path).encode()).hexdigest()
                entries.append(
                    Manifest(
                        model.name,
                        variant.name,
                        variant.format,
                        files,
                        template_sha256=template,
                        licence=model.licence,
                        publishable=True,
                    )
                )
    return lock_of(entries)


def _file(name: str, path: Path) -> StoredFile:
    content = path.read_bytes()
    return StoredFile(name, hashlib.sha256(content).hexdigest(), len(content))


def _template(path: Path) -> str:
    if path.is_dir():
        return template_of(path)
    return read_header(path).text("tokenizer.chat_template") or ""


if __name__ == "__main__":
    FILE.write_bytes(format_lock(read_shipped()))
