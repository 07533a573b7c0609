"""What a stored model consists of, to the byte; two who have the same write the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

from serving.errors import BadFile
from serving.store.accepted import refuse_name

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""Names of models and variants, as in the catalogue: they become names of files."""
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
MAX_FILES: Final = 4096
MAX_SIZE: Final = 1 << 45
Format = Literal["gguf", "safetensors"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a model."""

    name: str
    """Relative to the model, with `/` between parts."""
    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One variant of a model: every file with its digest, and where it came from."""

    model: str
    variant: str
    format: Format
    files: tuple[StoredFile, ...]
    """In the order of their names."""
    source: str | None = None
    """A hub's repository, such as `huggingface.co/org/name`; None for what came from a disk."""
    revision: str | None = None
    """The commit that the repository's name stood for."""
    template_sha256: str | None = None
    """Of the chat template's text; None without one."""
    licence: str | None = None
    """As the catalogue or its card names it."""
    publishable: bool = False
    """A mirror may hand it on."""

    def __str__(self) -> str:
        return f"{self.model} ({self.variant})"

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest's canonical form: it stands for all that is in it."""
        return hashlib.sha256(canonical(self)).hexdigest()

    def file(self, name: str) -> StoredFile | None:
        """The file of that name."""
        return next((file for file in self.files if file.name == name), None)


def canonical(manifest: Manifest) -> bytes:
    """The one way to write it: JSON in ASCII, keys in order, no spaces, one newline at its end."""
    return json.dumps(asdict(manifest), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """The manifest that `raw` is, which must be in its canonical form. `where` names it in errors. Raises BadFile."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise _bad(where, "is not JSON") from None
    manifest = manifest_of(value, where)
    if canonical(manifest) != raw:
        raise _bad(where, "is not written as this program writes it")
    return manifest


def manifest_of(value: object, where: str) -> Manifest:
    """A parsed JSON or TOML table as a manifest, checked in every field. Raises BadFile."""
    if not isinstance(value, Mapping):
        raise _bad(where, "is no table")
    unknown = value.keys() - {field.name for field in fields(Manifest)}
    if unknown:
        raise _bad(where, f"has fields that are not known: {', '.join(sorted(map(repr, unknown)))}")
    model, variant, form = value.get("model"), value.get("variant"), value.get("format")
    for what, name in (("model", model), ("variant", variant)):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise _bad(where, f"names no {what} ({name!r})")
    if form not in ("gguf", "safetensors"):
        raise _bad(where, f"has a format that is not known ({form!r})")
    template = value.get("template_sha256")
    if template is not None and (not isinstance(template, str) or not DIGEST.fullmatch(template)):
        raise _bad(where, "has a template digest that is none")
    words = {key: value.get(key) for key in ("source", "revision", "licence")}
    for key, word in words.items():
        if word is not None and (not isinstance(word, str) or not word.isprintable() or len(word) > 400):
            raise _bad(where, f"has a `{key}` that is no short text")
    publishable = value.get("publishable", False)
    if not isinstance(publishable, bool):
        raise _bad(where, "has a `publishable` that is neither true nor false")
    return Manifest(
        model=str(model),
        variant=str(variant),
        format="gguf" if form == "gguf" else "safetensors",
        files=_files(value.get("files"), where),
        template_sha256=template,
        publishable=publishable,
        **words,
    )


def _files(value: object, where: str) -> tuple[StoredFile, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_FILES:
        raise _bad(where, "has no list of files")
    files = tuple(_file(entry, where) for entry in value)
    names = [file.name for file in files]
    if names != sorted(set(names)):
        raise _bad(where, "names a file twice, or its files out of order")
    directories = {name[:at] for name in names for at, letter in enumerate(name) if letter == "/"}
    if directories & set(names):
        raise _bad(where, "has a file and a directory of one name")
    return files


def _file(entry: Any, where: str) -> StoredFile:
    if not isinstance(entry, Mapping) or entry.keys() != {"name", "sha256", "size"}:
        raise _bad(where, "has an entry that is no file")
    name, sha256, size = entry["name"], entry["sha256"], entry["size"]
    if not isinstance(name, str):
        raise _bad(where, "has a file without a name")
    refusal = refuse_name(name)
    if refusal is not None:
        raise _bad(where, f"names {name!r}: {refusal}")
    if not isinstance(sha256, str) or not DIGEST.fullmatch(sha256):
        raise _bad(where, f"gives `{name}` a digest that is none")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_SIZE:
        raise _bad(where, f"gives `{name}` a size that is none")
    return StoredFile(name, sha256, size)


def _bad(where: str, problem: str) -> BadFile:
    return BadFile(f"{where} {problem}", hint="it was damaged or written by something else; pull or import again")


def digest_of(files: Iterable[tuple[str, str]]) -> str:
    """One SHA-256 that stands for files, given as names and digests: of what `sha256sum` prints of them, by name."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
