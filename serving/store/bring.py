"""A model from a directory, a disk or a finished download into the store: copied, hashed, checked, then visible.

Each file is copied once, and hashed as it is copied. What a killed import has brought in stays among the blobs, and a
note of it beside: the next import of the same directory goes on with the first file that is not there yet.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

from serving import gguf
from serving.errors import BadFile, FileMissing, NoFitError, UsageError
from serving.registry.directory import CONFIG, template_of
from serving.store.accepted import SIGNATURE, check_content, is_weights, refuse_name
from serving.store.cas import Store
from serving.store.files import FULL, Progress, digest_of, expect
from serving.store.lock import NOTHING, Accepted
from serving.store.manifest import DIGEST, MAX_FILES, NAME, Format, Manifest, StoredFile
from serving.store.signature import UNSIGNED, Signing, check_signature

_CHUNK: Final = 4 << 20
_PASSED_OVER: Final = frozenset({".git", ".cache", ".gitattributes", ".gitignore", ".huggingface"})
"""What the hub's own tools leave in a directory, and is nobody's model."""
_DONE: Final = "done.json"
ADAPTER: Final = "adapter_config.json"
"""What PEFT writes beside an adapter's matrices."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of a model that its files do not say."""

    model: str
    variant: str
    source: str | None = None
    revision: str | None = None
    licence: str | None = None
    publishable: bool = False
    known_template: str | None = None
    """Digest of the chat template that the catalogue gives."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is to be brought in."""

    name: str
    path: Path
    size: int
    mtime_ns: int


def look_through(directory: Path, *, leave_out: bool = False) -> tuple[tuple[Found, ...], tuple[str, ...]]:
    """The files of a directory that make a model, and, with `leave_out`, sentences on those that are passed over.

    Nothing is followed: a symbolic link, a device or a name that leads elsewhere is refused, and so are code and
    pickles unless they may be left out. Raises BadFile, FileMissing.
    """
    if not directory.is_dir():
        raise FileMissing(f"`{directory}` is no directory", hint="name the directory that holds the model's files")
    found: list[Found] = []
    passed: list[str] = []
    for path in _walk(directory):
        name = path.relative_to(directory).as_posix()
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            message = f"`{path}` is a symbolic link, and an import follows none"
            raise BadFile(message, hint="copy the directory with its links resolved: `cp -rL`")
        if not stat.S_ISREG(status.st_mode):
            raise BadFile(f"`{path}` is neither a file nor a directory", hint="remove it from the directory")
        refusal = refuse_name(name)
        if refusal is None:
            found.append(Found(name, path, status.st_size, status.st_mtime_ns))
        elif leave_out:
            passed.append(f"`{name}` is left out: {refusal}")
        else:
            message = f"`{path}` is not taken: {refusal}"
            raise BadFile(message, hint="remove it, or say `--leave-out` to bring in what can be taken")
    return tuple(found), tuple(passed)


def bring_in(
    store: Store,
    files: Iterable[Found],
    origin: Origin,
    accepted: Accepted = NOTHING,
    expected: Mapping[str, StoredFile] = MappingProxyType({}),
    progress: Progress = lambda _: None,
    *,
    signing: Signing = UNSIGNED,
    move: bool = False,
) -> Manifest:
    """Bring these files in as one variant of a model, and make it visible.

    Where `expected` has a file it must be just that. With `move` the files, which must lie on the store's own disk, are
    taken and not copied. Raises BadFile, Unverified, NoFitError; what was there before is then as it was.
    """
    wanted = sorted(files, key=lambda file: file.name)
    if len(wanted) > MAX_FILES:
        raise BadFile(f"it has {len(wanted)} files", hint=f"a model has at most {MAX_FILES}")
    twice = [one.name for one, other in pairwise(wanted) if one.name == other.name]
    if twice:
        raise BadFile(f"`{twice[0]}` is given twice", hint="leave --licence out where the model brings its own")
    form = form_of(wanted)
    for what, name in (("model", origin.model), ("variant", origin.variant)):
        if not NAME.fullmatch(name):
            raise UsageError(f"`{name}` is no name of a {what}", hint="letters, digits and `._:-`")
    key = hashlib.sha256(f"{origin.model}\0{origin.variant}".encode()).hexdigest()[:16]
    with store.alone(f"import-{key}") as work:
        done = _Done(work / _DONE)
        known = {file.name: done.find(file) for file in wanted}
        if not move:
            store.require_space(sum(file.size for file in wanted if not _is_in(store, known[file.name])))
        stored = []
        for file in wanted:
            before = known[file.name]
            if before is not None and _is_in(store, before):
                progress(file.size)
            else:
                before = _take(store, file, work, expected.get(file.name), progress, move=move)
                done.add(file, before)
            _check(before, expected.get(file.name))
            stored.append(before)
        names = {file.name for file in stored}
        lacking = sorted(expected.keys() - names)
        if lacking:
            raise FileMissing(f"`{lacking[0]}` of {origin.model} ({origin.variant}) is missing", hint="bring it too")
        manifest = Manifest(
            origin.model,
            origin.variant,
            form,
            tuple(stored),
            origin.source,
            origin.revision,
            template_digest(store, stored),
            origin.licence,
            origin.publishable or _is_published(store, origin, stored),
        )
        signature = manifest.file(SIGNATURE)
        check_signature(str(manifest), stored, store.blob(signature.sha256) if signature else None, signing)
        store.publish(manifest, accepted, origin.known_template)
        done.forget()
    return manifest


def _is_published(store: Store, origin: Origin, files: Sequence[StoredFile]) -> bool:
    """Whether the very same files are there already and may be handed on: bringing them in anew withdraws nothing."""
    with contextlib.suppress(BadFile):
        before = store.find(origin.model, origin.variant)
        return before is not None and before.publishable and before.files == tuple(files)
    return False


def form_of(files: Iterable[Found]) -> Format:
    """Whether the files are a GGUF model or a directory of safetensors. Raises BadFile where they are neither."""
    names = [file.name for file in files]
    ggufs = [name for name in names if name.endswith(".gguf")]
    tensors = [name for name in names if name.endswith(".safetensors")]
    if ggufs and tensors:
        raise BadFile("it has GGUF files and safetensors, which are two variants", hint="bring each in by itself")
    if len(ggufs) > 1 and not all("-of-" in name for name in ggufs):
        shown = ", ".join(f"`{name}`" for name in ggufs[:4])
        raise BadFile(f"it has several GGUF files ({shown}), which are several variants", hint="name one of the files")
    if ggufs:
        return "gguf"
    if tensors and (CONFIG in names or ADAPTER in names):
        return "safetensors"
    if tensors:
        raise BadFile(f"it has safetensors and no `{CONFIG}`", hint="bring in the whole directory of the model")
    raise BadFile(
        "it has no weights: neither GGUF nor safetensors", hint="name the directory that has the model's files"
    )


def template_digest(store: Store, files: Iterable[StoredFile]) -> str | None:
    """SHA-256 of the chat template's text that an engine would use; None without one."""
    text = template_text(store, files)
    return hashlib.sha256(text.encode()).hexdigest() if text else None


def template_text(store: Store, files: Iterable[StoredFile]) -> str | None:
    """The chat template of files that are among the blobs; None where they have none. Raises BadFile."""
    blobs = {file.name: store.blob(file.sha256) for file in files}
    for name in sorted(blobs):
        if name.endswith(".gguf"):
            return gguf.read_header(blobs[name]).text("tokenizer.chat_template")
    with tempfile.TemporaryDirectory(dir=store.incoming) as directory:
        for name, blob in blobs.items():
            if "/" not in name and not is_weights(name):
                (Path(directory) / name).symlink_to(blob.absolute())
        return template_of(Path(directory)) or None


def _take(
    store: Store, file: Found, work: Path, expected: StoredFile | None, progress: Progress, *, move: bool
) -> StoredFile:
    """One file, hashed, checked and among the blobs."""
    part = work / f"{hashlib.sha256(file.name.encode()).hexdigest()[:16]}.part"
    try:
        source = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        message = f"`{file.path}` cannot be read: {error.strerror}"
        raise BadFile(message, hint="name a file, not a link, that stays where it is") from None
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise BadFile(f"`{file.path}` is no regular file")
        digest = digest_of(source, progress) if move else _copy(source, part, progress)
        if _has_changed(file, os.fstat(source)):
            raise BadFile(f"`{file.path}` changed while it was read", hint="import it when nothing writes to it")
    finally:
        os.close(source)
    taken = StoredFile(file.name, digest, file.size)
    _check(taken, expected)
    here = file.path if move else part
    check_content(file.name, here)
    if here != store.blob(digest):
        store.keep(here, taken)
    return taken


def _copy(source: int, target: Path, progress: Progress) -> str:
    """Copy an open file, and its SHA-256. Raises NoFitError where the disk is full."""
    hasher, at = hashlib.sha256(), 0
    target.unlink(missing_ok=True)
    try:
        with target.open("xb") as file:
            while chunk := os.pread(source, _CHUNK, at):
                hasher.update(chunk)
                file.write(chunk)
                at += len(chunk)
                progress(len(chunk))
    except OSError as error:
        target.unlink(missing_ok=True)
        if error.errno in FULL:
            message = f"the disk of `{target.parent}` is full"
            raise NoFitError(message, hint="make room and import again: what came in whole is kept") from None
        raise BadFile(f"the copy broke off: {error.strerror}", hint="see whether the disk is still there") from None
    return hasher.hexdigest()


def _check(file: StoredFile, expected: StoredFile | None) -> None:
    if expected is not None:
        expect(expected, file.sha256, file.size, "what is brought in")


def _has_changed(file: Found, status: os.stat_result) -> bool:
    return (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns)


def _is_in(store: Store, file: StoredFile | None) -> bool:
    return file is not None and store.has(file)


def _walk(directory: Path) -> list[Path]:
    """What is in a directory, all the way down, links not followed, in the order of names."""
    found = []
    for top, directories, files in os.walk(directory, onerror=_unreadable):
        kept = [name for name in directories if name not in _PASSED_OVER]
        links = [name for name in kept if (Path(top) / name).is_symlink()]
        directories[:] = [name for name in kept if name not in links]
        found += [Path(top) / name for name in [*files, *links] if name not in _PASSED_OVER]
    return sorted(found)


def _unreadable(error: OSError) -> NoReturn:
    raise BadFile(f"`{error.filename}` cannot be read: {error.strerror}", hint="let this user read it") from None


class _Done:
    """Which files of an import are among the blobs already, by how they looked where they came from."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, tuple[str, int, int, str]] = {}
        with contextlib.suppress(OSError):
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError):  # the last one may be cut
                    name, came_from, size, mtime_ns, sha256 = json.loads(line)
                    self._files[str(name)] = (str(came_from), int(size), int(mtime_ns), str(sha256))

    def find(self, file: Found) -> StoredFile | None:
        """The file as it came in, where it is the same."""
        path, size, mtime_ns, sha256 = self._files.get(file.name, ("", 0, 0, ""))
        if (path, size, mtime_ns) != (str(file.path.absolute()), file.size, file.mtime_ns):
            return None
        return StoredFile(file.name, sha256, size) if DIGEST.fullmatch(sha256) else None

    def add(self, file: Found, stored: StoredFile) -> None:
        """A line of its own, so that thousands of small files cost no more than their lines."""
        seen = (str(file.path.absolute()), file.size, file.mtime_ns, stored.sha256)
        self._files[file.name] = seen
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write("\n" + json.dumps([file.name, *seen]))  # before it, as a kill may have cut the last one

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)
