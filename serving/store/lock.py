"""`models.lock`: what each model was when it was first accepted. A file that differs from it is refused from then on.

The file is TOML, to be read and compared by people and kept under version control. Each entry carries the digest of
all that it says, so that a changed letter is found as surely as a changed weight. Whoever may write it may lock
something else: it belongs to the operator, or is checked by a signature (docs/store.md).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from serving.errors import BadFile, Unverified
from serving.store.manifest import DIGEST, Manifest, manifest_of

VERSION: Final = 1
MAX_BYTES: Final = 64 * 1024**2
_HEAD: Final = """\
# What each model is, to the byte. Written by `serve models pull` and `import`; a file that differs is refused.
# Keep it under version control: a change here is a change of what is served.
"""


@dataclass(frozen=True, slots=True)
class Lock:
    """The manifests that may be served, each of another model and variant."""

    entries: tuple[Manifest, ...] = ()
    """In the order of model and variant."""

    def find(self, model: str, variant: str) -> Manifest | None:
        """The entry of that variant."""
        return next((entry for entry in self.entries if (entry.model, entry.variant) == (model, variant)), None)

    def of_digest(self, sha256: str) -> Manifest | None:
        """An entry that has a file of that digest."""
        return next((entry for entry in self.entries if any(file.sha256 == sha256 for file in entry.files)), None)

    def with_entry(self, manifest: Manifest) -> Lock:
        """The lock with `manifest` in place of what it had for the same variant."""
        return lock_of([*self.without(manifest.model, manifest.variant).entries, manifest])

    def without(self, model: str, variant: str) -> Lock:
        """The lock without that variant."""
        return Lock(tuple(entry for entry in self.entries if (entry.model, entry.variant) != (model, variant)))


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the operator accepts by name, beyond what is locked."""

    template: bool = False
    """A chat template other than the one known."""
    change: bool = False
    """Files other than those locked."""


NOTHING: Final = Accepted()


def lock_of(entries: Iterable[Manifest]) -> Lock:
    """A lock of these entries, in order."""
    return Lock(tuple(sorted(entries, key=lambda entry: (entry.model, entry.variant))))


def decide_lock(
    lock: Lock, manifest: Manifest, accepted: Accepted = NOTHING, known_template: str | None = None
) -> Lock:
    """The lock that `manifest` leads to. `known_template` is the digest that the catalogue gives, or None.

    Raises Unverified where it differs from what is locked, or its chat template from the one known, and nobody has
    said that this is meant.
    """
    before = lock.find(manifest.model, manifest.variant)
    if before is not None and before.files != manifest.files and not accepted.change:
        names = ", ".join(f"`{name}`" for name in differing(before, manifest)[:5])
        message = f"{manifest} is not what was locked: {names} differ"
        raise Unverified(message, hint="find out why; if the change is meant, say `--accept-change`")
    known = known_template or (before.template_sha256 if before is not None else None)
    if known is not None and manifest.template_sha256 != known and not accepted.template:
        whose = "the catalogue's" if known_template is not None else "the one that was locked"
        message = f"the chat template of {manifest} is not {whose}"
        raise Unverified(
            message, hint="read it: `serve models show --template`; if it is meant, say `--accept-template`"
        )
    return lock.with_entry(manifest)


def differing(one: Manifest, other: Manifest) -> list[str]:
    """Names of files that only one of them has, or that differ, in order."""
    return sorted({file.name for file in set(one.files) ^ set(other.files)})


def format_lock(lock: Lock) -> bytes:
    """The lock as TOML; `parse_lock` reads back the same."""
    lines = [_HEAD, f"version = {VERSION}\n"]
    for entry in lock.entries:
        told = {key: value for key, value in asdict(entry).items() if key != "files" and value is not None}
        lines.append("\n[[models]]\n")
        lines += [f"{key} = {_toml(value)}\n" for key, value in told.items()]
        lines.append(f"digest = {_toml(entry.digest)}\n")
        lines.append("files = [\n")
        lines += [
            f"    {{ name = {_toml(file.name)}, size = {file.size}, sha256 = {_toml(file.sha256)} }},\n"
            for file in entry.files
        ]
        lines.append("]\n")
    return "".join(lines).encode()


def parse_lock(raw: bytes, where: str) -> Lock:
    """The lock that `raw` is. `where` names it in errors. Raises BadFile, or Unverified where an entry was changed."""
    if len(raw) > MAX_BYTES:
        raise BadFile(f"{where} has more than {MAX_BYTES} bytes")
    try:
        content = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{where} is not TOML: {error}", hint="restore it from version control or a backup") from None
    version = content.pop("version", None)
    if version != VERSION:
        raise BadFile(f"{where} is of version {version!r}", hint=f"this program reads version {VERSION}")
    tables = content.pop("models", [])
    if content or not isinstance(tables, list):
        raise BadFile(f"{where} is no lock: it holds {', '.join(map(repr, content)) or 'no list of models'}")
    entries = [_entry(table, where) for table in tables]
    keys = [(entry.model, entry.variant) for entry in entries]
    if keys != sorted(set(keys)):
        raise BadFile(f"{where} locks a variant twice, or its entries are out of order", hint="restore it")
    return Lock(tuple(entries))


def _entry(table: object, where: str) -> Manifest:
    if not isinstance(table, dict):
        raise BadFile(f"{where} has an entry that is no table")
    digest = table.pop("digest", None)
    entry = manifest_of(table, where)
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or digest != entry.digest:
        message = f"{where} was changed: its entry for {entry} is not what its digest stands for"
        raise Unverified(message, hint="restore it from version control or a backup")
    return entry


def _toml(value: object) -> str:
    """A text or boolean as TOML. JSON's texts are TOML's, but for control characters, which none here has."""
    return json.dumps(value, ensure_ascii=False)
