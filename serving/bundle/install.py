"""A bundle into this host: read once, from beginning to end, and visible only when all of it has been seen.

Members are hashed as they stream and laid aside under the store's `incoming`. Only when the end has come, and every
file is what it should be, are weights moved among the blobs, models made visible, and the rest put in its place. A kill
leaves what had come in whole, and the next try hashes it and goes on; what is refused leaves nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from serving.bundle.form import Member, Source
from serving.bundle.host import Host, check_host, level_of
from serving.bundle.kept import Kept
from serving.bundle.manifest import REQUIREMENTS, SBOM, BundleManifest, Wheel, Wheels, model_members, requirements_of
from serving.bundle.opening import Head, complete
from serving.bundle.trust import NO_EXCEPTIONS, Exceptions, Last, decide_serial
from serving.bundle.wheels import check_wheel, choose_wheels
from serving.errors import BadFile, NoFitError, ServingError, Unverified
from serving.store.accepted import check_content
from serving.store.bring import Found, form_of, template_digest
from serving.store.cas import Store
from serving.store.files import FULL, Progress, digest_of, sync_directory
from serving.store.lock import NOTHING, Accepted, decide_lock
from serving.store.manifest import Manifest

_WORK: Final = "bundle"
_READ_ONLY: Final = 0o444


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a bundle is to be installed."""

    exceptions: Exceptions = NO_EXCEPTIONS
    accepted: Accepted = NOTHING
    models_only: bool = False
    """Leave the wheels, which may be for another platform."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What came of it."""

    place: Path
    """The bundle's manifest, bill of materials, licences and wheels."""
    wheels: tuple[Wheel, ...]
    """Those for this host."""
    written_bytes: int
    """What had not come in before."""


def install(
    source: Source,
    head: Head,
    store: Store,
    host: Host,
    wishes: Wishes,
    progress: Progress = lambda _: None,
    on_wait: Callable[[], None] = lambda: None,
) -> Installed:
    """Bring in what follows the head of a bundle.

    The publisher's serial number is not recorded yet (`record`). Raises Untrusted for an old bundle, Unverified,
    BadFile, NoFitError; what was served before is then as it was.
    """
    kept = Kept(store.bundles)
    wheels = _wheels_for(head.manifest, host, wishes)
    _decide(head, store, kept, wishes)
    with complete(source), store.alone(_WORK, on_wait) as shared:
        _decide(head, store, kept, wishes)
        work = shared / head.sha256[:32]
        for other in shared.iterdir():
            if other != work:
                shutil.rmtree(other, ignore_errors=True)
        work.mkdir(mode=0o700, exist_ok=True)
        aside = _Aside(store, work, head.manifest)
        store.require_space(aside.missing_bytes(wheels))
        try:
            for member in head.manifest.members:
                aside.take(source, member, wheels, progress)
            source.read_end()
            for model in head.manifest.models:
                aside.check_model(model)
            half = aside.gather_papers(head, wheels)
        except (BadFile, Unverified):
            shutil.rmtree(work, ignore_errors=True)
            raise
        aside.keep_weights()
        place = kept.settle(half, head.sha256)
        for model in head.manifest.models:
            store.publish(_as_here(model, store), wishes.accepted)
        for name, entry in head.manifest.entries.items():
            kept.write_entry(name, entry)
        shutil.rmtree(work, ignore_errors=True)
    return Installed(place, wheels, aside.written_bytes)


def _as_here(model: Manifest, store: Store) -> Manifest:
    """The model with this host's own word on whether a mirror may hand it on; a bundle has none in that."""
    locked = store.lock().find(model.model, model.variant)
    is_same = locked is not None and locked.files == model.files
    return replace(model, publishable=is_same and locked is not None and locked.publishable)


def record(store: Store, head: Head, *, may_go_back: bool = False) -> None:
    """Remember the bundle as its publisher's last, now that all of it is done; one that nobody signed is not.

    A later one that was installed meanwhile stays the last, unless it `may_go_back`.
    """
    if head.publisher is None:
        return
    with store.alone(_WORK):
        kept = Kept(store.bundles)
        last = kept.last(head.publisher.fingerprint)
        if may_go_back or last is None or last.serial <= head.manifest.serial:
            kept.record(head.publisher.fingerprint, Last(head.manifest.serial, head.sha256))


def _decide(head: Head, store: Store, kept: Kept, wishes: Wishes) -> None:
    """Whether this bundle may change what is here. Raises Untrusted, Unverified."""
    if head.publisher is not None:
        last = kept.last(head.publisher.fingerprint)
        decide_serial(head.manifest, head.sha256, head.publisher, last, wishes.exceptions)
    lock = store.lock()
    for model in head.manifest.models:
        lock = decide_lock(lock, model, wishes.accepted)


def _wheels_for(manifest: BundleManifest, host: Host, wishes: Wishes) -> tuple[Wheel, ...]:
    if manifest.wheels is None or wishes.models_only:
        return ()
    check_host(manifest.wheels, host)
    return choose_wheels(manifest.wheels, *level_of(host.flags))


class _Aside:
    """The files of a bundle that have come in whole, and are not visible yet."""

    def __init__(self, store: Store, work: Path, manifest: BundleManifest) -> None:
        self.written_bytes = 0
        self._store = store
        self.work = work
        self._manifest = manifest
        self._weights = {
            name: next(file for model in manifest.models for file in model.files if file.sha256 == sha256)
            for sha256, name in model_members(manifest.models).items()
        }

    def missing_bytes(self, wheels: tuple[Wheel, ...]) -> int:
        """Bytes that are not here yet."""
        wanted = (member for member in self._manifest.members if self._is_wanted(member, wheels))
        return sum(member.size for member in wanted if not self._path(member).exists() and not self._is_blob(member))

    def take(self, source: Source, member: Member, wheels: tuple[Wheel, ...], progress: Progress) -> None:
        """Read the next member; it is laid aside unless it is here. Raises BadFile, Unverified, NoFitError; CutOff."""

        def count(piece: bytes) -> None:
            progress(len(piece))

        if not self._is_wanted(member, wheels) or self._is_here(member):
            source.read(member, count)
        else:
            self._write(source, member, count)
            self.written_bytes += member.size
        last = member.name.rpartition("/")[2]
        if member.name in self._weights:
            for model in self._manifest.models:
                for file in model.files:
                    if file.sha256 == member.sha256:
                        check_content(file.name, self.blob(file.sha256))
        elif last.endswith(".whl"):
            if self._is_wanted(member, wheels):
                check_wheel(self._path(member), last)
        elif self._is_wanted(member, wheels):
            check_content(last, self._path(member))

    def check_model(self, model: Manifest) -> None:
        """See that the files are what the model's manifest says beyond their digests. Raises BadFile, Unverified."""
        found = [Found(file.name, self.blob(file.sha256), file.size, 0) for file in model.files]
        if form_of(found) != model.format:
            raise BadFile(f"the files of {model} are not {model.format}, as its manifest says")
        if template_digest(_Beside(self._store, self), model.files) != model.template_sha256:
            message = f"the chat template of {model} is not the one that its manifest names"
            raise Unverified(message, hint="do not use the bundle, and tell its publisher")

    def blob(self, sha256: str) -> Path:
        """Where a file of a model is: laid aside, or in the store."""
        aside = self.work / f"weights-{sha256}"
        return aside if aside.exists() else self._store.blob(sha256)

    def gather_papers(self, head: Head, wheels: tuple[Wheel, ...]) -> Path:
        """Everything but weights, as one directory that is ready to be moved to its place. Raises BadFile."""
        half = self.work / "papers"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o750)
        (half / "MANIFEST.json").write_bytes(head.raw)
        (half / "MANIFEST.sig").write_bytes(head.signature)
        for member in self._manifest.members:
            if member.name == SBOM or member.name.startswith("licences/"):
                target = half / member.name
                target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
                os.link(self._path(member), target)
        if wheels and self._manifest.wheels is not None:
            told = self._manifest.wheels
            if self._path(self._manifest.member(REQUIREMENTS)).read_bytes() != requirements_of(told):
                raise BadFile(f"`{REQUIREMENTS}` in the bundle is not the list of its wheels")
            (half / "wheels").mkdir(mode=0o750)
            for wheel in wheels:
                os.link(self._path(self._manifest.member(wheel.member)), half / "wheels" / wheel.file)
            chosen = Wheels(told.extra, told.platform, told.python, wheels)
            (half / "wheels" / "requirements.txt").write_bytes(requirements_of(chosen))
        for directory, _, files in os.walk(half):
            for name in files:
                with (Path(directory) / name).open("rb") as file:
                    os.fchmod(file.fileno(), _READ_ONLY)
                    os.fsync(file.fileno())
            sync_directory(Path(directory))
        return half

    def keep_weights(self) -> None:
        """Move the weights in among the blobs."""
        for name, file in self._weights.items():
            aside = self._path(self._manifest.member(name))
            if aside.exists():
                self._store.keep(aside, file)

    def _path(self, member: Member) -> Path:
        kind = "weights" if member.name in self._weights else "papers"
        return self.work / f"{kind}-{member.sha256}"

    def _is_wanted(self, member: Member, wheels: tuple[Wheel, ...]) -> bool:
        if not member.name.startswith("wheels/"):
            return True
        return bool(wheels) and member.name in {REQUIREMENTS, *(wheel.member for wheel in wheels)}

    def _is_blob(self, member: Member) -> bool:
        file = self._weights.get(member.name)
        return file is not None and self._store.has(file)

    def _is_here(self, member: Member) -> bool:
        """Whether it came in before and is whole: by its content, not by its name."""
        return _is_whole(self._path(member), member) or (
            self._is_blob(member) and _is_whole(self._store.blob(member.sha256), member)
        )

    def _write(self, source: Source, member: Member, count: Callable[[bytes], None]) -> None:
        part = self.work / "part"
        part.unlink(missing_ok=True)
        try:
            with part.open("xb") as file:

                def take(piece: bytes) -> None:
                    file.write(piece)
                    count(piece)

                source.read(member, take)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path(member))
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno in FULL:
                message = f"the disk of the store `{self._store.root}` is full"
                hint = "make room and install again: what came in whole is kept"
                raise NoFitError(message, hint=hint) from None
            raise BadFile(f"the store cannot be written to: {error.strerror}") from None
        except ServingError:
            part.unlink(missing_ok=True)
            raise


class _Beside(Store):
    """The store, with what is laid aside among its blobs."""

    def __init__(self, store: Store, aside: _Aside) -> None:
        super().__init__(store.root, store.lock_file)
        self.incoming = aside.work  # what a kill leaves there is removed with the rest
        self._aside = aside

    def blob(self, sha256: str) -> Path:
        return self._aside.blob(sha256)


def _is_whole(path: Path, member: Member) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        is_file = stat.S_ISREG(status.st_mode) and status.st_size == member.size
        return is_file and digest_of(descriptor) == member.sha256
    except OSError:
        return False
    finally:
        os.close(descriptor)
