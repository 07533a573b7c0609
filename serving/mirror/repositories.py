"""Which models a mirror offers, and under which names and commits; pure.

A hub has repositories, each with commits, each with files; a store has variants of models. A variant is offered as

- `perimeter/MODEL-VARIANT`, always, and
- the repository that it came from, where its source names one, so that a client keeps the name that it knows. Variants
  of one repository are together there, as the hub has them; files of two commits are never mixed where they differ.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from serving.store.accepted import is_words
from serving.store.lock import Lock, format_lock, lock_of
from serving.store.manifest import Manifest, StoredFile

OWN: Final = "perimeter"
"""The organisation of the store's own names; what came from a hub under it keeps only these."""
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
MAIN: Final = "main"
_HOST: Final = re.compile(r"[A-Za-z0-9.\[\]:-]*[.:][A-Za-z0-9.\[\]:-]*|localhost")
_PART: Final = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?(?<!\.git)")
"""What huggingface_hub takes for an organisation or a name of one."""
_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a hub has a model."""

    repository: str
    """`org/name`, or `name` for the oldest ones."""
    directory: str
    """Of its files within the repository, with a `/` at its end; empty for the top."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository at one commit."""

    commit: str
    """40 hexadecimal digits."""
    files: Mapping[str, StoredFile]
    """By the name that they have in the repository, in order."""
    manifests: tuple[Manifest, ...]


@dataclass(frozen=True, slots=True)
class Repository:
    """What is offered under one name."""

    name: str
    main: Snapshot | None
    """What `main` leads to; None where its commits differ in more than words, and one has to be named."""
    snapshots: Mapping[str, Snapshot]
    """By their commits, `main`'s among them."""

    def find(self, revision: str) -> Snapshot | None:
        """What a revision stands for."""
        return self.main if revision in (MAIN, f"refs/heads/{MAIN}") else self.snapshots.get(revision)


@dataclass(frozen=True, slots=True)
class Held:
    """A model that is not offered."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Offer:
    """Everything that a mirror hands on."""

    repositories: Mapping[str, Repository]
    """By name, in order."""
    models: tuple[Manifest, ...]
    held: tuple[Held, ...]
    lock: bytes
    """`models.lock` with the models that are offered, and no others."""


def offer_of(manifests: Iterable[Manifest], lock: Lock, faults: Iterable[Held] = ()) -> Offer:
    """What of a store is handed on: models marked publishable that are what the lock says.

    `faults` are those of which nobody knows what they consist of.
    """
    offered, held = [], list(faults)
    for manifest in manifests:
        locked = lock.find(manifest.model, manifest.variant)
        if not manifest.publishable:
            held.append(Held(str(manifest), "not publishable"))
        elif locked is None:
            held.append(Held(str(manifest), "not in the lock"))
        elif locked != manifest:
            held.append(Held(str(manifest), "not the one in the lock"))
        else:
            offered.append(manifest)
    handed_on = lock_of(offered)
    return Offer(repositories_of(handed_on.entries), handed_on.entries, tuple(held), format_lock(handed_on))


def repositories_of(manifests: Sequence[Manifest]) -> dict[str, Repository]:
    """The repositories that these models make, by name."""
    parts: dict[str, list[tuple[Manifest, str]]] = {}
    for name, manifest in own_names(manifests).items():
        parts.setdefault(name, []).append((manifest, ""))
    for manifest in manifests:
        source = source_of(manifest)
        if source is not None and not source.repository.startswith(f"{OWN}/"):
            parts.setdefault(source.repository, []).append((manifest, source.directory))
    found = {name: _repository(name, parts[name]) for name in sorted(parts)}
    return {name: repository for name, repository in found.items() if repository.snapshots}


def own_names(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """The store's own name of each: of model and variant, or of the digest where that is no name or is two models'."""
    names = [f"{manifest.model}-{manifest.variant}" for manifest in manifests]
    found = {}
    for manifest, name in zip(manifests, names, strict=True):
        is_good = _PART.fullmatch(name) is not None and names.count(name) == 1
        found[f"{OWN}/{name if is_good else f'sha256-{manifest.digest[:16]}'}"] = manifest
    return found


def source_of(manifest: Manifest) -> Source | None:
    """The repository that a model's source names, such as `huggingface.co/org/name/directory/file.gguf@commit`.

    None for any other text: what was converted from a repository is not what the repository has.
    """
    text = (manifest.source or "").partition("://")[2] or manifest.source or ""
    host, *parts = text.partition("@")[0].split("/")
    if not _HOST.fullmatch(host) or not parts:
        return None
    names, path = parts[:2], parts[2:]
    if not all(_PART.fullmatch(name) for name in names) or not all(_PATH.fullmatch(part) for part in path):
        return None
    if path and path[-1].endswith((".gguf", ".safetensors", ".json")):
        path = path[:-1]
    directory = "".join(f"{part}/" for part in path)
    if any(file.name.startswith(directory) for file in manifest.files):
        directory = ""
    return Source("/".join(names), directory)


def commit_of(manifest: Manifest) -> str:
    """The commit that it came from, or one made of its digest."""
    revision = manifest.revision or ""
    return revision if COMMIT.fullmatch(revision) else manifest.digest[:40]


def _repository(name: str, parts: Sequence[tuple[Manifest, str]]) -> Repository:
    """A commit that two models tell differently is left out: nobody knows which of them is right."""
    by_commit: dict[str, list[tuple[Manifest, str]]] = {}
    for manifest, directory in parts:
        by_commit.setdefault(commit_of(manifest), []).append((manifest, directory))
    snapshots = {}
    for commit, members in sorted(by_commit.items()):
        files = _together(members, may_differ=False)
        if files is not None:
            snapshots[commit] = Snapshot(commit, files, tuple(manifest for manifest, _ in members))
    if len(snapshots) < 2:
        return Repository(name, next(iter(snapshots.values()), None), snapshots)
    told = [(manifest, directory) for manifest, directory in parts if commit_of(manifest) in snapshots]
    files = _together(told, may_differ=True)
    if files is None:
        return Repository(name, None, snapshots)
    commit = hashlib.sha256(" ".join(snapshots).encode()).hexdigest()[:40]
    main = Snapshot(commit, files, tuple(manifest for manifest, _ in told))
    return Repository(name, main, {**snapshots, commit: main})


def _together(members: Iterable[tuple[Manifest, str]], *, may_differ: bool) -> dict[str, StoredFile] | None:
    """The files of several models; None where one name stands for two.

    With `may_differ`, words that do are left out: a card changes between commits, and no engine reads it.
    """
    files: dict[str, StoredFile] = {}
    unclear = set()
    for manifest, directory in members:
        for file in manifest.files:
            name = directory + file.name
            before = files.setdefault(name, StoredFile(name, file.sha256, file.size))
            if before.sha256 != file.sha256:
                if not (may_differ and is_words(name)):
                    return None
                unclear.add(name)
    return {name: files[name] for name in sorted(files) if name not in unclear}
