"""The store: weights on disk by what they are, not by where they came from.

    blobs/sha256/ab/abcd…            every file once, read-only, named by its digest
    trees/MODEL/VARIANT-DIGEST/      a model's files under their own names: hard links to blobs
    manifests/MODEL/VARIANT.json     what a model consists of; a model is there when its manifest is
    incoming/                        what is on its way: never looked at by anything that serves
    bundles/                         what came with models in bundles (`serving.bundle.kept`)
    models.lock                      what each model was when it was accepted (`serving.store.lock`)

Whatever becomes visible does so by one rename of something whole, hashed and on the disk. The order is blobs, tree,
lock, manifest: killed anywhere, there is a model or there is none, and the next try finds what was done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.errors import BadFile, BadSettings, FileMissing, NoFitError, UnknownModel, Unverified
from serving.store.files import is_whole, sync_directory, write_whole
from serving.store.lock import NOTHING, Accepted, Lock, decide_lock, format_lock, parse_lock
from serving.store.manifest import NAME, Manifest, StoredFile, canonical, parse_manifest

_READ_ONLY: Final = 0o444
_MAX_MANIFEST: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """What a model takes on the disk, in bytes."""

    manifest: Manifest
    own_bytes: int
    """Of files that no other model has."""
    shared_bytes: int
    """Of files that others have too; counted for each of them."""


class Store:
    """One directory of weights. Several processes may use it at once: what changes it holds a lock (flock(2))."""

    def __init__(self, root: Path, lock_file: Path | None = None) -> None:
        self.root = root
        self.lock_file = (lock_file or root / "models.lock").resolve()
        self.incoming = root / "incoming"
        self.bundles = root / "bundles"
        self._blobs = root / "blobs" / "sha256"
        self._manifests = root / "manifests"
        self._trees = root / "trees"

    # what is there

    def lock(self) -> Lock:
        """What has been accepted; empty where nothing has. Raises BadFile or Unverified."""
        try:
            raw = self.lock_file.read_bytes()
        except FileNotFoundError:
            return Lock()
        except OSError as error:
            raise BadFile(f"`{self.lock_file}` cannot be read: {error.strerror}") from None
        return parse_lock(raw, f"`{self.lock_file}`")

    def manifests(self) -> tuple[Manifest, ...]:
        """Every model that is there, in the order of their names. Raises BadFile for a damaged manifest."""
        return tuple(self.read_manifest(path) for path in self.manifest_files())

    def manifest_files(self) -> list[Path]:
        """The files that `manifests` reads."""
        return sorted(self._manifests.glob("*/*.json"))

    def find(self, model: str, variant: str) -> Manifest | None:
        """That variant of that model, where it is there. Raises BadFile for a damaged manifest."""
        if not NAME.fullmatch(model) or not NAME.fullmatch(variant):
            return None
        path = self._manifest_file(model, variant)
        return self.read_manifest(path) if path.exists() else None

    def of_model(self, model: str) -> tuple[Manifest, ...]:
        """All variants of a model that are there. Raises UnknownModel where none is."""
        found = tuple(manifest for manifest in self.manifests() if manifest.model == model)
        if not found:
            message = f"no weights of `{model}` are in the store `{self.root}`"
            raise UnknownModel(message, hint="`serve models du` shows what is; `serve models pull` brings more")
        return found

    def read_manifest(self, path: Path) -> Manifest:
        """The manifest in a file, which must be where it belongs. Raises BadFile."""
        try:
            with path.open("rb") as file:
                raw = file.read(_MAX_MANIFEST + 1)
        except OSError as error:
            raise BadFile(f"`{path}` cannot be read: {error.strerror}") from None
        manifest = parse_manifest(raw, f"`{path}`")
        if path != self._manifest_file(manifest.model, manifest.variant):
            raise BadFile(f"`{path}` is the manifest of {manifest}", hint="import or pull the model again")
        return manifest

    def blob(self, sha256: str) -> Path:
        """Where the file of that digest is or would be."""
        return self._blobs / sha256[:2] / sha256

    def has(self, file: StoredFile) -> bool:
        """Whether a blob of that digest and size is there; its content is not looked at."""
        try:
            status = self.blob(file.sha256).lstat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == file.size

    def blobs(self) -> Iterator[Path]:
        """Every blob."""
        yield from (path for path in sorted(self._blobs.glob("*/*")) if not path.is_dir() or path.is_symlink())

    def tree(self, manifest: Manifest) -> Path:
        """The directory in which the model's files have their own names."""
        return self._trees / manifest.model / f"{manifest.variant}-{manifest.digest[:12]}"

    def shelf(self) -> dict[tuple[str, str], Path]:
        """Where the weights of each model and variant lie: the (first) GGUF file, or the directory of safetensors.

        A manifest that cannot be read has no place on it: `serve models verify` tells of it.
        """
        found = {}
        for path in self.manifest_files():
            with contextlib.suppress(BadFile):
                manifest = self.read_manifest(path)
                tree = self.tree(manifest)
                if manifest.file("adapter_config.json") is not None:
                    continue  # an adapter is served with its model, by its path
                first = next(file.name for file in manifest.files if file.name.endswith(f".{manifest.format}"))
                found[manifest.model, manifest.variant] = tree / first if manifest.format == "gguf" else tree
        return found

    def of_path(self, path: Path) -> Manifest | None:
        """The model whose weights lie at `path`, as `shelf` has it; None for a path outside the store."""
        return next((self.find(*key) for key, place in self.shelf().items() if place == path), None)

    def usage(self) -> tuple[Usage, ...]:
        """What each model takes."""
        manifests = self.manifests()
        holders: dict[str, int] = {}
        for manifest in manifests:
            for digest in {file.sha256 for file in manifest.files}:
                holders[digest] = holders.get(digest, 0) + 1
        found = []
        for manifest in manifests:
            sizes = {file.sha256: file.size for file in manifest.files}
            own = sum(size for digest, size in sizes.items() if holders[digest] == 1)
            found.append(Usage(manifest, own, sum(sizes.values()) - own))
        return tuple(found)

    # what changes it

    def prepare(self) -> None:
        """Make the directories. Raises BadSettings."""
        try:
            for directory in (self._blobs, self._manifests, self._trees, self.incoming):
                directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            message = f"the store `{self.root}` cannot be used: {error.strerror} (`{error.filename}`)"
            raise BadSettings(message, hint="set store.directory to one that this user may write to") from None

    @contextlib.contextmanager
    def alone(self, what: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
        """A directory under `incoming` for one piece of work, held against other processes; `on_wait` where one has it.

        It stays when the work fails, and the next try finds it as it was left. Until the work is done nothing that it
        brought is taken for garbage.
        """
        self.prepare()
        with self._held(self.root / ".using", exclusive=False), self._held(self.incoming / f"{what}.lock", on_wait):
            directory = self.incoming / what
            directory.mkdir(mode=0o700, exist_ok=True)
            yield directory

    def require_space(self, needed_bytes: int) -> None:
        """Raises NoFitError where the disk has not so much left."""
        free = shutil.disk_usage(self.root).free
        if needed_bytes > free:
            message = f"the store `{self.root}` needs {needed_bytes:,} bytes more, and {free:,} are free"
            raise NoFitError(message, hint="`serve models remove` makes room; store.directory names another disk")

    def keep(self, path: Path, file: StoredFile) -> None:
        """Move the file at `path`, which has been hashed, in among the blobs.

        It is on the disk before it is visible. Where the same is there already, and is whole, `path` is dropped; one
        that was damaged is replaced, in the trees of the models that have it too.
        """
        target = self.blob(file.sha256)
        target.parent.mkdir(mode=0o750, exist_ok=True)
        is_there = os.path.lexists(target)
        if is_there and is_whole(target, file):
            path.unlink()
            return
        with path.open("rb") as opened:
            os.fchmod(opened.fileno(), _READ_ONLY)
            os.fsync(opened.fileno())
        path.replace(target)
        sync_directory(target.parent)
        if is_there:
            with self._held(self.root / ".changing"):
                for manifest in self.manifests():
                    if any(each.sha256 == file.sha256 for each in manifest.files):
                        self._grow(manifest)

    def publish(self, manifest: Manifest, accepted: Accepted = NOTHING, known_template: str | None = None) -> None:
        """Make the model visible; its blobs are there. Raises Unverified where it may not be (`decide_lock`)."""
        parse_manifest(canonical(manifest), f"what is known of {manifest}")  # what is written must be readable again
        lacking = [file.name for file in manifest.files if not self.has(file)]
        if lacking:
            raise FileMissing(f"`{lacking[0]}` of {manifest} is not in the store", hint="pull or import it again")
        with self._held(self.root / ".changing"):
            before = self.lock()
            self._set_down(manifest, before, decide_lock(before, manifest, accepted, known_template))

    def mend(self, manifest: Manifest) -> None:
        """See that the model's tree is made of its blobs and nothing else. Raises BadSettings."""
        if self.astray(manifest):
            with self._held(self.root / ".changing"):
                self._grow(manifest)

    def mark(self, model: str, variant: str, *, publishable: bool) -> Manifest:
        """Let a mirror hand the variant on, or no more; in manifest and lock. Raises UnknownModel, Unverified."""
        self.prepare()
        with self._held(self.root / ".using", exclusive=False), self._held(self.root / ".changing"):
            manifest, before = self.find(model, variant), self.lock()
            if manifest is None:
                message = f"`{model}` ({variant}) is not in the store `{self.root}`"
                raise UnknownModel(message, hint="`serve models du` shows what is")
            locked = before.find(model, variant)
            # Lock and manifest may differ in the mark alone: somebody was killed between the two.
            if locked is None or dataclasses.replace(locked, publishable=manifest.publishable) != manifest:
                message = f"{manifest} in the store is not the one in `{self.lock_file}`"
                raise Unverified(message, hint="`serve models verify` tells what differs; pull the locked one again")
            marked = dataclasses.replace(manifest, publishable=publishable)
            if not marked == manifest == locked:
                self._set_down(marked, before, before.with_entry(marked))
        return marked

    def _set_down(self, manifest: Manifest, before: Lock, lock: Lock) -> None:
        """Tree, lock and manifest, in this order; then what the variant had before goes."""
        self._grow(manifest)
        if lock != before:
            write_whole(self.lock_file, format_lock(lock), 0o644)
        path = self._manifest_file(manifest.model, manifest.variant)
        path.parent.mkdir(mode=0o750, exist_ok=True)
        write_whole(path, canonical(manifest), _READ_ONLY)
        for tree in self._trees.glob(f"{manifest.model}/{manifest.variant}-*"):
            if tree != self.tree(manifest) and tree.name[:-13] == manifest.variant:
                _remove_tree(tree)

    def remove(self, model: str, variant: str, *, forget: bool = False) -> int:
        """Take a variant away, and with `forget` also out of the lock; returns the bytes that became free.

        An engine that has it open keeps it until it ends. While others bring something in, nothing is freed yet.
        """
        manifest = self.find(model, variant)
        if manifest is None:
            message = f"`{model}` ({variant}) is not in the store `{self.root}`"
            raise UnknownModel(message, hint="`serve models du` shows what is")
        with self._held(self.root / ".changing"):
            self._manifest_file(model, variant).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._manifest_file(model, variant).parent.rmdir()
            _remove_tree(self.tree(manifest))
            with contextlib.suppress(OSError):
                self.tree(manifest).parent.rmdir()
            lock = self.lock()
            if forget and lock.find(model, variant) is not None:
                write_whole(self.lock_file, format_lock(lock.without(model, variant)), 0o644)
        return self.collect()

    def collect(self, *, unfinished: bool = False) -> int:
        """Remove blobs and trees that no manifest names; returns their bytes. Does nothing while others bring some.

        With `unfinished` also what was begun and never ended, which then begins anew.
        """
        freed = 0
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._held(self.root / ".using", waits=False))
            except BlockingIOError:
                return 0
            stack.enter_context(self._held(self.root / ".changing"))
            manifests = self.manifests()
            named = {file.sha256 for manifest in manifests for file in manifest.files}
            trees = {self.tree(manifest) for manifest in manifests}
            for tree in self._trees.glob("*/*"):
                if tree not in trees:
                    _remove_tree(tree)
            for path in self.blobs():
                if path.name not in named:
                    freed += path.lstat().st_size
                    path.unlink()
            for path in self.incoming.iterdir():
                if unfinished and path.is_dir():
                    freed += sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())
                    _remove_tree(path)
                elif path.is_dir():
                    with contextlib.suppress(OSError):  # what is not empty is gone on with
                        path.rmdir()
                else:  # a lock, which nobody holds: whoever works here holds the other as well
                    path.unlink()
        return freed

    def _grow(self, manifest: Manifest) -> None:
        """The model's tree, in one rename."""
        tree = self.tree(manifest)
        if tree.exists() and not self.astray(manifest):
            return
        half = self.incoming / f"tree-{manifest.digest[:16]}"
        _remove_tree(half)
        half.mkdir(mode=0o750)
        for file in manifest.files:
            name = half / file.name
            name.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            try:
                os.link(self.blob(file.sha256), name, follow_symlinks=False)
            except OSError as error:
                message = f"the store `{self.root}` cannot link files: {error.strerror}"
                raise BadSettings(
                    message, hint="put it on a file system with hard links (ext4, XFS, btrfs, ZFS)"
                ) from None
        for directory, _, _ in os.walk(half):
            sync_directory(Path(directory))
        _remove_tree(tree)
        tree.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        half.rename(tree)
        sync_directory(tree.parent)

    def astray(self, manifest: Manifest) -> list[str]:
        """What in the model's tree is not its own, as sentences: lacking, added, or not the blob it should be."""
        tree = self.tree(manifest)
        found = []
        for file in manifest.files:
            try:
                here, blob = (tree / file.name).lstat(), self.blob(file.sha256).lstat()
            except OSError:
                found.append(f"`{tree / file.name}` is missing")
                continue
            if (here.st_ino, here.st_dev) != (blob.st_ino, blob.st_dev):
                found.append(f"`{tree / file.name}` is not the blob that the manifest names")
        names = {file.name for file in manifest.files}
        for directory, _, files in os.walk(tree):
            there = (os.path.relpath(Path(directory) / name, tree) for name in files)
            found += [f"`{tree / name}` is not of the model" for name in there if name not in names]
        return found

    def _manifest_file(self, model: str, variant: str) -> Path:
        return self._manifests / model / f"{variant}.json"

    @contextlib.contextmanager
    def _held(
        self,
        path: Path,
        on_wait: Callable[[], None] = lambda: None,
        *,
        exclusive: bool = True,
        waits: bool = True,
    ) -> Iterator[None]:
        """Hold a lock file, which stays: two who removed and made it anew would each hold their own."""
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            message = f"the store `{self.root}` cannot be changed: {error.strerror} (`{path}`)"
            raise BadSettings(message, hint="run as the user that owns it") from None
        try:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waits:
                    raise
                on_wait()
                fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
