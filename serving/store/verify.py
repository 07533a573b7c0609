"""Weights that are opened are the weights that were locked: hashed, then held by their descriptors.

A file is hashed when it is first opened, and again once it looks touched (size, inode, device, or the times of its
content or its inode differ), after `rehash_days`, or whenever that is asked for. What this cannot see between two
hashes: who can write to the disk beneath the file system, set the system's clock back and then write, or has the
kernel; and a disk that returns other bytes than it was given. The next hash sees the last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from serving.errors import BadFile, FileMissing, Unverified
from serving.store.accepted import is_words
from serving.store.cas import Store
from serving.store.files import Progress, digest_of
from serving.store.lock import Lock
from serving.store.manifest import DIGEST, Manifest, StoredFile

DAY_S: Final = 86400
_MAX_RECORD: Final = 16 << 20
_OTHER_FILES: Final = 512
"""What a process has open beside weights."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a file looks without reading it (fstat(2))."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A file that was hashed: how it looked before and after, when, and what came out."""

    look: Look
    at_s: float
    """Seconds since 1970."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A file of a model, verified and open for reading."""

    file: StoredFile
    path: Path
    descriptor: int


def is_trusted(seen: Seen | None, look: Look, now_s: float, rehash_s: float) -> bool:
    """Whether a file that looks like this needs no hashing: it was hashed, not long ago, and looks as it did then.

    A file changed within the clock's grain of when it was hashed could look the same; such a one is hashed again.
    """
    if seen is None or seen.look != look:
        return False
    settled = seen.at_s - max(look.mtime_ns, look.ctime_ns) / 1e9 > 2.0
    return settled and 0 <= now_s - seen.at_s < rehash_s


class Record:
    """What was hashed on this host, kept in a file. A damaged one counts as none: everything is hashed again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _read_record(path)
        self._adding = threading.Lock()

    def get(self, path: Path) -> Seen | None:
        """What is known of the file at `path`."""
        return self._seen.get(str(path))

    def add(self, found: Mapping[Path, Seen]) -> None:
        """Remember these; where the file cannot be written the next start hashes again."""
        with self._adding:
            merged = {**self._seen, **_read_record(self._path), **{str(path): seen for path, seen in found.items()}}
            self._seen = {path: seen for path, seen in merged.items() if Path(path).exists()}
            body = json.dumps({path: asdict(seen) for path, seen in self._seen.items()}, sort_keys=True)
            temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            with contextlib.suppress(OSError):
                temporary.write_text(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n", encoding="utf-8")
                temporary.chmod(0o600)
                temporary.replace(self._path)


@contextlib.contextmanager
def opened(
    store: Store, manifest: Manifest, *, rehash_s: float, paranoid: bool = False, progress: Progress = lambda _: None
) -> Iterator[tuple[Opened, ...]]:
    """`open_verified`, closed again at the end."""
    files = open_verified(store, manifest, rehash_s=rehash_s, paranoid=paranoid, progress=progress)
    try:
        yield files
    finally:
        close_all(files)


def open_verified(
    store: Store, manifest: Manifest, *, rehash_s: float, paranoid: bool = False, progress: Progress = lambda _: None
) -> tuple[Opened, ...]:
    """Every file of a stored model, open, and seen to be what its manifest and the lock say.

    Raises Unverified or FileMissing; then none is open.
    """
    locked = store.lock().find(manifest.model, manifest.variant)
    if locked is None:
        message = f"{manifest} is in the store and not in `{store.lock_file}`"
        raise Unverified(message, hint="pull or import it again, which locks it")
    if locked != manifest:
        message = f"{manifest} in the store is not the one in `{store.lock_file}`"
        raise Unverified(message, hint="`serve models verify` tells what differs; pull the locked one again")
    named = [(file, store.blob(file.sha256)) for file in manifest.files]
    return _open_all(named, Record(store.root / "verified.json"), rehash_s, progress, paranoid=paranoid)


def open_locked(
    files: Mapping[str, Path], lock: Lock, record: Path, *, rehash_s: float, paranoid: bool = False
) -> tuple[Manifest, tuple[Opened, ...]]:
    """Files that lie outside the store, by the names they have in their model, and the entry of the lock that has them.

    A single file may have another name there; of a directory every file that an engine reads must be the entry's, and
    none may be missing. Raises Unverified.
    """
    kept = Record(record)
    found: dict[Path, Seen] = {}
    held: list[Opened] = []
    try:
        for name, path in files.items():
            descriptor = _open(path, name)
            held.append(Opened(StoredFile(name, "", 0), path, descriptor))
            seen = _look_into(path, descriptor, kept.get(path), rehash_s, lambda _: None, paranoid=paranoid)
            found[path] = seen
            held[-1] = Opened(StoredFile(name, seen.sha256, seen.look.size), path, descriptor)
        entry = _entry_of(held, lock)
    except BaseException:
        close_all(held)
        raise
    kept.add(found)
    return entry, tuple(held)


def open_seen(store: Store, file: StoredFile, seen: Seen | None, *, rehash_s: float | None) -> Opened | None:
    """One blob, open, where it needs no hashing by what was `seen` of it; else None.

    `rehash_s` is None for what was seen just now: then it only has to look as it did. Whether a lock has it is for the
    caller to see. Raises Unverified, FileMissing or BadFile.
    """
    opened = Opened(file, store.blob(file.sha256), _open(store.blob(file.sha256), file.name))
    try:
        look = _look(opened.descriptor)
        is_good = seen is not None and seen.look == look
        if rehash_s is not None:
            is_good = is_trusted(seen, look, time.time(), rehash_s)
        if seen is not None and is_good:
            _expect(opened, seen)
            return opened
    except BaseException:
        close_all([opened])
        raise
    close_all([opened])
    return None


def check_file(
    store: Store, file: StoredFile, record: Record, progress: Progress = lambda _: None, *, rehash_s: float
) -> Seen | None:
    """Hash one blob unless it needs none, and remember it. Raises Unverified, FileMissing or BadFile."""
    close_all(_open_all([(file, store.blob(file.sha256))], record, rehash_s, progress, paranoid=False))
    return record.get(store.blob(file.sha256))


def close_all(files: Sequence[Opened]) -> None:
    """Close them."""
    for file in files:
        with contextlib.suppress(OSError):
            os.close(file.descriptor)


def _entry_of(held: Sequence[Opened], lock: Lock) -> Manifest:
    for entry in lock.entries:
        read = {file.name: file.sha256 for file in entry.files if not is_words(file.name)}
        if len(held) == 1 and [held[0].file.sha256] == list(read.values()):
            return entry
        if read == {opened.file.name: opened.file.sha256 for opened in held if not is_words(opened.file.name)}:
            return entry
    unknown = next((each for each in held if lock.of_digest(each.file.sha256) is None), held[0])
    message = f"`{unknown.path}` is in no entry of the lock"
    raise Unverified(message, hint="bring it in with `serve models import`, which locks it")


def _open_all(
    named: Sequence[tuple[StoredFile, Path]], record: Record, rehash_s: float, progress: Progress, *, paranoid: bool
) -> tuple[Opened, ...]:
    held: list[Opened] = []
    _make_room(len(named))
    try:
        for file, path in named:
            held.append(Opened(file, path, _open(path, file.name)))
        with ThreadPoolExecutor(min(len(held), os.cpu_count() or 1, 8)) as pool:
            looks = pool.map(
                lambda each: _look_into(
                    each.path, each.descriptor, record.get(each.path), rehash_s, progress, paranoid=paranoid
                ),
                held,
            )
            seen = dict(zip((each.path for each in held), looks, strict=True))
        for each in held:
            _expect(each, seen[each.path])
    except BaseException:
        close_all(held)
        raise
    if any(record.get(path) != new for path, new in seen.items()):
        record.add(seen)
    return tuple(held)


def _make_room(count: int) -> None:
    """Let this process have so many files open, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _expect(opened: Opened, seen: Seen) -> None:
    file = opened.file
    if (seen.sha256, seen.look.size) != (file.sha256, file.size):
        message = f"`{opened.path}` (`{file.name}`) is not what was locked: {seen.look.size:,} bytes, SHA-256"
        message += f" {seen.sha256[:16]}…, not {file.size:,} bytes, {file.sha256[:16]}…"
        hint = "it was damaged or changed; `serve models verify` tells all that is; pull or import the model again"
        raise Unverified(message, hint=hint)


def _look_into(
    path: Path, descriptor: int, seen: Seen | None, rehash_s: float, progress: Progress, *, paranoid: bool
) -> Seen:
    """What the open file is, by its look where that suffices, else by its content."""
    look, now_s = _look(descriptor), time.time()
    if not paranoid and seen is not None and is_trusted(seen, look, now_s, rehash_s):
        progress(look.size)
        return seen
    sha256 = digest_of(descriptor, progress)
    if _look(descriptor) != look:
        raise Unverified(f"`{path}` changed while it was read", hint="something else writes to it; find out what")
    return Seen(look, now_s, sha256)


def _open(path: Path, name: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FileMissing(
            f"`{name}` is missing: `{path}` does not exist", hint="pull or import the model again"
        ) from None
    except OSError as error:
        raise BadFile(
            f"`{path}` (`{name}`) cannot be opened: {error.strerror}", hint="pull or import it again"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadFile(f"`{path}` (`{name}`) is no regular file", hint="pull or import the model again")
    return descriptor


def _look(descriptor: int) -> Look:
    status = os.fstat(descriptor)
    return Look(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def _read_record(path: Path) -> dict[str, Seen]:
    try:
        with path.open("rb") as file:
            digest, _, body = file.read(_MAX_RECORD).decode().partition("\n")
        body = body.removesuffix("\n")
        if hashlib.sha256(body.encode()).hexdigest() != digest:
            return {}
        return {
            name: Seen(Look(**value["look"]), float(value["at_s"]), value["sha256"])
            for name, value in json.loads(body).items()
            if DIGEST.fullmatch(value["sha256"])
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
