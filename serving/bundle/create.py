"""A bundle from what is in the store: everything is read, checked and measured, then written in one go.

What is refused on the way in is refused here already, so that nobody learns of it on the far side.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serving.bundle import form
from serving.bundle.gather import Gathered
from serving.bundle.manifest import (
    REQUIREMENTS,
    SBOM,
    BundleManifest,
    Wheels,
    canonical,
    model_members,
    names_of,
    parse,
    requirements_of,
)
from serving.bundle.sbom import bill
from serving.bundle.wheels import check_wheel
from serving.errors import BadFile, BadSettings, FileMissing, NoFitError, Unverified
from serving.keyfiles import fingerprint_of
from serving.store.accepted import is_licence
from serving.store.cas import Store
from serving.store.files import FULL, Progress, digest_of
from serving.store.lock import lock_of
from serving.store.manifest import Manifest
from serving.store.verify import Opened, close_all, open_verified

_MAX_LICENCE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Contents:
    """What is to travel."""

    models: tuple[Manifest, ...]
    entries: Mapping[str, Mapping[str, Any]]
    """The catalogue's entry of each model, without paths."""
    licences: Mapping[str, Path]
    """Texts of licences for models that have none among their files."""
    wheels: tuple[str, str, str, tuple[Gathered, ...]] | None = None
    """Extra, platform, Python, and the wheels."""


@dataclass(frozen=True, slots=True)
class Written:
    """A bundle that was made."""

    manifest: BundleManifest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Held:
    """A member's content: bytes, or an open file."""

    size: int
    sha256: str
    content: bytes | int


def create(
    store: Store,
    contents: Contents,
    output: Path,
    *,
    key: Ed25519PrivateKey | None,
    serial: int,
    rehash_s: float,
    progress: Progress = lambda _: None,
) -> Written:
    """Write the bundle to `output`, which becomes visible when it is whole and on the disk.

    Raises FileMissing for a model without a licence, Unverified where weights are not what was locked, BadFile,
    NoFitError.
    """
    models = lock_of(contents.models).entries
    with contextlib.ExitStack() as stack:
        held: dict[str, _Held] = {}
        licences: dict[str, tuple[str, ...]] = {}
        names = model_members(models)
        for model in models:
            opened = open_verified(store, model, rehash_s=rehash_s)
            stack.callback(close_all, opened)
            for each in opened:
                held[names[each.file.sha256]] = _Held(each.file.size, each.file.sha256, each.descriptor)
            texts = _licences(model, opened, contents.licences.get(model.model))
            licences[model.model] = tuple(sorted({*licences.get(model.model, ()), *texts}))
            held |= texts
        wheels = _hold_wheels(contents, held, stack)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        described = [
            (each.wheel, check_wheel(each.path, each.wheel.file)) for each in (contents.wheels or ((), (), (), ()))[3]
        ]
        held[SBOM] = _bytes(bill(models, contents.entries, described, created, serial))
        manifest = BundleManifest(
            created=created,
            serial=serial,
            publisher=None if key is None else fingerprint_of(key.public_key()),
            models=models,
            entries=contents.entries,
            licences=licences,
            wheels=wheels,
            members=tuple(
                form.Member(name, held[name].size, held[name].sha256) for name in names_of(models, licences, wheels)
            ),
        )
        raw = canonical(manifest)
        parse(raw, "the bundle")
        signature = b"" if key is None else key.sign(raw)
        size = form.size_of(len(raw), len(signature), manifest.members)
        with _whole_file(output, size) as write:
            _write_small(write, form.MANIFEST, raw)
            _write_small(write, form.SIGNATURE, signature)
            for member in manifest.members:
                write(form.header(member.name, member.size))
                _copy(held[member.name], member, write, progress)
                write(form.padding(member.size))
            write(form.END)
    return Written(manifest, size)


def _licences(model: Manifest, opened: tuple[Opened, ...], given: Path | None) -> dict[str, _Held]:
    """The licence texts of a model by their names in the bundle. Raises FileMissing, BadFile."""
    found = {}
    for each in opened:
        if "/" not in each.file.name and is_licence(each.file.name) and each.file.size <= _MAX_LICENCE:
            content = os.pread(each.descriptor, _MAX_LICENCE, 0)
            found[f"licences/{model.model}/{each.file.name}"] = _bytes(content)
    if given is not None:
        try:
            with given.open("rb") as file:
                content = file.read(_MAX_LICENCE + 1)
            text = content.decode()
        except FileNotFoundError:
            raise FileMissing(f"`{given}`, the licence of `{model.model}`, does not exist") from None
        except (OSError, UnicodeDecodeError):
            raise BadFile(f"`{given}`, the licence of `{model.model}`, is no text in UTF-8") from None
        if len(content) > _MAX_LICENCE or not text.strip():
            raise BadFile(f"`{given}`, the licence of `{model.model}`, is empty or has more than {_MAX_LICENCE} bytes")
        found[f"licences/{model.model}/LICENSE"] = _bytes(content)
    if not any(held.size for held in found.values()):
        message = f"{model} has no licence's text among its files, and none is handed on without"
        raise FileMissing(message, hint=f"name the file that has it: --licence {model.model}=FILE")
    return found


def _hold_wheels(contents: Contents, held: dict[str, _Held], stack: contextlib.ExitStack) -> Wheels | None:
    if contents.wheels is None:
        return None
    extra, platform, python, gathered = contents.wheels
    wheels = Wheels(extra, platform, python, tuple(each.wheel for each in gathered))
    for each in gathered:
        file = stack.enter_context(each.path.open("rb"))
        size = os.fstat(file.fileno()).st_size
        if digest_of(file.fileno()) != each.wheel.sha256:
            raise Unverified(f"`{each.path}` changed while it was read", hint="make the bundle again")
        held[each.wheel.member] = _Held(size, each.wheel.sha256, file.fileno())
    held[REQUIREMENTS] = _bytes(requirements_of(wheels))
    return wheels


def _bytes(content: bytes) -> _Held:
    return _Held(len(content), hashlib.sha256(content).hexdigest(), content)


def _write_small(write: Callable[[bytes], object], name: str, content: bytes) -> None:
    write(form.header(name, len(content)) + content + form.padding(len(content)))


def _copy(held: _Held, member: form.Member, write: Callable[[bytes], object], progress: Progress) -> None:
    """Write a member's content, hashed once more as it is written. Raises Unverified."""
    hasher, at = hashlib.sha256(), 0
    while at < held.size:
        if isinstance(held.content, bytes):
            piece = held.content[at : at + form.CHUNK]
        else:
            piece = os.pread(held.content, min(form.CHUNK, held.size - at), at)
        if not piece:
            break
        hasher.update(piece)
        write(piece)
        progress(len(piece))
        at += len(piece)
    if hasher.hexdigest() != member.sha256:
        raise Unverified(f"`{member.name}` changed while it was read", hint="find out what writes to it")


@contextlib.contextmanager
def _whole_file(path: Path, size: int) -> Iterator[Callable[[bytes], object]]:
    """Write a file of that many bytes beside `path`, and move it there when it is done. Raises NoFitError."""
    try:
        free = shutil.disk_usage(path.absolute().parent).free
        if size > free:
            message = f"the bundle has {size:,} bytes, and the disk of `{path}` has {free:,} free"
            raise NoFitError(message, hint="write it to another disk")
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    except OSError as error:
        raise BadSettings(f"`{path}` cannot be written: {error.strerror}", hint="name another file with -o") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file.write
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        Path(name).replace(path)
    except OSError as error:
        if error.errno in FULL:
            raise NoFitError(f"the disk of `{path}` is full", hint="write the bundle to another disk") from None
        raise BadFile(f"`{path}` cannot be written: {error.strerror}") from None
    finally:
        Path(name).unlink(missing_ok=True)
