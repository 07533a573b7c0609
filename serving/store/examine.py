"""`serve models verify`: everything in the store, read again and compared with what it should be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from serving.errors import BadFile, StartError
from serving.store.cas import Store
from serving.store.files import Progress, digest_of
from serving.store.lock import Lock, differing
from serving.store.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in the store that is not as it should be."""

    what: str
    """A sentence that names the file."""
    models: tuple[str, ...] = ()
    """The models that it keeps from being served."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What was looked at, and what was wrong with it."""

    models: tuple[Manifest, ...]
    """Those whose manifests could be read."""
    blobs: int
    read_bytes: int
    faults: tuple[Fault, ...]


def examine_store(store: Store, names: Iterable[str] = (), progress: Progress = lambda _: None) -> Examined:
    """Read every file of these models, or of all and whatever else lies in the store, and tell all that is wrong.

    Nothing is taken on trust: not the times of files, not what was hashed before.
    """
    wanted = frozenset(names)
    faults: list[Fault] = []
    lock = _lock(store, faults)
    manifests = _manifests(store, faults, wanted)
    for manifest in manifests:
        faults += _against_lock(store, manifest, lock)
        faults += [Fault(what, (str(manifest),)) for what in store.astray(manifest)]
    users: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        for file in manifest.files:
            users.setdefault(file.sha256, []).append(manifest)
    blobs = [store.blob(digest) for digest in sorted(users)]
    if not wanted:
        blobs = sorted({*blobs, *store.blobs()})
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        looked = list(pool.map(lambda path: _look_at(path, progress), blobs))
    for path, (problem, _) in zip(blobs, looked, strict=True):
        if problem is not None:
            names_of = tuple(dict.fromkeys(str(manifest) for manifest in users.get(path.name, ())))
            faults.append(Fault(problem, names_of))
    faults += _sizes(store, manifests)
    if not wanted and lock is not None:
        faults += _absent(lock, manifests, store)
    return Examined(manifests, len(blobs), sum(size for _, size in looked), tuple(faults))


def _lock(store: Store, faults: list[Fault]) -> Lock | None:
    try:
        return store.lock()
    except StartError as error:
        faults.append(Fault(error.message))
        return None


def _manifests(store: Store, faults: list[Fault], wanted: frozenset[str]) -> tuple[Manifest, ...]:
    found = []
    for path in store.manifest_files():
        if wanted and path.parent.name not in wanted:
            continue
        try:
            found.append(store.read_manifest(path))
        except BadFile as error:
            faults.append(Fault(error.message, (f"{path.parent.name} ({path.stem})",)))
    return tuple(found)


def _against_lock(store: Store, manifest: Manifest, lock: Lock | None) -> list[Fault]:
    if lock is None:
        return []
    locked = lock.find(manifest.model, manifest.variant)
    if locked == manifest:
        return []
    if locked is None:
        return [Fault(f"{manifest} is not in `{store.lock_file}`", (str(manifest),))]
    names = ", ".join(f"`{name}`" for name in differing(locked, manifest)) or "what is said of it"
    return [Fault(f"{manifest} is not the one in `{store.lock_file}`: {names} differ", (str(manifest),))]


def _look_at(path: Path, progress: Progress) -> tuple[str | None, int]:
    """What is wrong with a blob, and the bytes that were read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return f"`{path}` cannot be read: {error.strerror}", 0
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return f"`{path}` is no regular file", 0
        try:
            digest = digest_of(descriptor, progress)
        except OSError as error:
            return f"`{path}` cannot be read: {error.strerror}", 0
    finally:
        os.close(descriptor)
    if digest != path.name or path.parent.name != digest[:2]:
        return f"`{path}` is not what its name says: its SHA-256 is {digest[:16]}…", status.st_size
    if stat.S_IMODE(status.st_mode) & 0o222:
        return f"`{path}` may be written to (mode {stat.S_IMODE(status.st_mode):o})", status.st_size
    return None, status.st_size


def _sizes(store: Store, manifests: Iterable[Manifest]) -> list[Fault]:
    """Manifests that give a file that is there another size than it has."""
    found = []
    for manifest in manifests:
        for file in manifest.files:
            path = store.blob(file.sha256)
            if path.is_file() and path.stat().st_size != file.size:
                found.append(Fault(f"`{path}` has not the {file.size:,} bytes of `{file.name}`", (str(manifest),)))
    return found


def _absent(lock: Lock, manifests: Iterable[Manifest], store: Store) -> list[Fault]:
    """Models whose trees lie here without a manifest: something was taken away, or an import never ended."""
    named = {store.tree(manifest) for manifest in manifests}
    locked = {store.tree(entry): entry for entry in lock.entries}
    trees = sorted((store.root / "trees").glob("*/*"))
    return [
        Fault(f"`{tree}` is there and its manifest is not", (str(locked[tree]),) if tree in locked else ())
        for tree in trees
        if tree not in named
    ]
