"""The files of the content store: sealed records in segments, and the wrapped keys of each segment in a file apart.

`content-00000001.sealed` has the records one after the other; `keys/00000001.keys` has a slot for each: 12 bytes of the
record's id, and its wrapped key. Only the server's user may read the second. Keys are on the disk before records: a
record that can be seen has its key, unless that was erased.

A start goes on in a segment of its own. So what a crash left at the end of one (part of a record, a key without a
record) needs no mending: it is passed over by whoever reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from serving.audit.sealed import DIGEST_BYTES, MAGIC, MOST_HEADING, PREFIX, WRAPPED_BYTES, BrokenSeal, Heading, Sealed
from serving.audit.sealed import heading_of as parse_heading
from serving.audit.segments import DIRECTORY_MODE, FILE_MODE, Segment, open_to_group, segments_named
from serving.errors import BadFile, BadSettings, FileMissing
from serving.store.files import sync_directory, write_whole

_NAME: Final = re.compile(r"content-(\d{8})\.sealed")
_ID: Final = re.compile(r"(\d{1,8})-([0-9a-f]{24})")
_ID_BYTES: Final = 12
_SLOT: Final = _ID_BYTES + WRAPPED_BYTES
_GONE: Final = bytes(_ID_BYTES)
_KEY_MODE: Final = 0o600
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DSYNC
_HASHED: Final = 1 << 20
_BEGINNING: Final = PREFIX.size + MOST_HEADING


def records_in(directory: Path, number: int) -> Path:
    """The file of a segment's records."""
    return directory / f"content-{number:08d}.sealed"


def keys_in(directory: Path, number: int) -> Path:
    """The file of their wrapped keys."""
    return directory / "keys" / f"{number:08d}.keys"


def new_id(segment: int) -> str:
    """The id of a new record in that segment."""
    return f"{segment}-{secrets.token_hex(_ID_BYTES)}"


def segment_of(content: str) -> int:
    """The segment that a record is in. Raises FileMissing for what is no id."""
    matched = _ID.fullmatch(content)
    if matched is None:
        raise FileMissing(f"`{content[:60]}` is no id of a content", hint="`serve audit content list` shows them")
    return int(matched[1])


def prepare(directory: Path) -> int:
    """Make the directories if need be, and become their one user; returns the descriptor that holds the lock.

    Raises BadSettings.
    """
    hint = "set audit.content.directory to a directory that this user may write to"
    try:
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(DIRECTORY_MODE)
            sync_directory(directory.parent)
        (directory / "keys").mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory)
        descriptor = os.open(directory / "keys" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BadSettings(f"content cannot be kept in `{directory}`: {error.strerror}", hint=hint) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        message = f"another process keeps content in `{directory}`"
        raise BadSettings(message, hint="give this server an audit.content.directory of its own") from None
    return descriptor


def list_shelf(directory: Path) -> tuple[Segment, ...]:
    """The segments that are there, by number. Raises FileMissing, BadFile."""
    try:
        return segments_named(_NAME, directory)
    except FileNotFoundError:
        raise FileMissing(f"no content is kept in `{directory}`", hint="audit.content.directory says where") from None
    except OSError as error:
        raise BadFile(f"the content in `{directory}` cannot be read: {error.strerror}") from None


def last_number(directory: Path) -> int:
    """The highest number that a segment has had; 0 without any."""
    keys = (int(path.stem) for path in (directory / "keys").glob("*.keys") if path.stem.isdecimal())
    return max([0, *keys, *(segment.number for segment in list_shelf(directory))])


@dataclass(frozen=True, slots=True)
class Placed:
    """A record on the disk."""

    heading: Heading
    path: Path
    offset: int
    size: int
    """Bytes, from its first to the digest's last."""
    sha256: str
    """As it stands at its end; `is_whole` says whether it is so."""


def read_headings(path: Path, having: str = "") -> Iterator[Placed]:
    """The records of a segment, in order, up to what was not written whole; those alone whose heading has that text.

    Raises BadFile, FileMissing.
    """
    wanted = having.encode()
    with _open(path) as file:
        descriptor = file.fileno()
        end, at = os.fstat(descriptor).st_size, 0
        while at + PREFIX.size + DIGEST_BYTES <= end:
            begin = os.pread(descriptor, _BEGINNING, at)
            magic, heading_bytes, body_bytes = PREFIX.unpack_from(begin)
            size = PREFIX.size + heading_bytes + body_bytes + DIGEST_BYTES
            if magic != MAGIC or PREFIX.size + heading_bytes > _BEGINNING or at + size > end:
                return
            told = begin[PREFIX.size : PREFIX.size + heading_bytes]
            if wanted in told:
                digest = os.pread(descriptor, DIGEST_BYTES, at + size - DIGEST_BYTES).hex()
                try:
                    placed = Placed(parse_heading(told), path, at, size, digest)
                except BrokenSeal:
                    return
                # What stands behind a record has been written after it was whole.
                if at + size == end and not is_whole(placed):
                    return
                yield placed
            at += size


def is_whole(placed: Placed) -> bool:
    """Whether the record is what its digest stands for. Raises BadFile, FileMissing."""
    with _open(placed.path) as file:
        file.seek(placed.offset)
        hasher, left = hashlib.sha256(), placed.size - DIGEST_BYTES
        while left:
            piece = file.read(min(left, _HASHED))
            if not piece:
                return False
            hasher.update(piece)
            left -= len(piece)
    return hasher.hexdigest() == placed.sha256


def read_sealed(placed: Placed) -> bytes:
    """The whole record as it stands. Raises BadFile, FileMissing."""
    with _open(placed.path) as file:
        file.seek(placed.offset)
        return file.read(placed.size)


def find(directory: Path, content: str) -> Placed:
    """The record of that id. Raises FileMissing, BadFile."""
    path = records_in(directory, segment_of(content))
    if path.exists():
        for placed in read_headings(path, content):
            if placed.heading.content == content:
                return placed
    hint = "`serve audit content list` shows those that are kept"
    raise FileMissing(f"no content `{content}` is kept", hint=hint)


def wrapped_keys(directory: Path, segment: int) -> dict[str, bytes]:
    """The wrapped keys of a segment's records, by their ids. Raises BadFile where this user may not read them."""
    try:
        raw = keys_in(directory, segment).read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        message = f"the wrapped keys in `{directory / 'keys'}` cannot be read: {error.strerror}"
        raise BadFile(message, hint="only the server's user may") from None
    slots = (raw[at : at + _SLOT] for at in range(0, len(raw) - _SLOT + 1, _SLOT))
    return {f"{segment}-{slot[:_ID_BYTES].hex()}": slot[_ID_BYTES:] for slot in slots if slot[:_ID_BYTES] != _GONE}


def destroy_keys(directory: Path, segment: int, contents: Collection[str]) -> None:
    """Overwrite the wrapped keys of these records, and write the rest into a new file. Raises OSError, BadSettings."""
    path = keys_in(directory, segment)
    if not path.exists():
        return
    wanted = {content.rpartition("-")[2] for content in contents}
    with path.open("r+b", buffering=0) as file:
        raw = file.read()
        rest = []
        for at in range(0, len(raw), _SLOT):
            slot = raw[at : at + _SLOT]
            if slot[:_ID_BYTES].hex() in wanted:
                file.seek(at)
                file.write(bytes(len(slot)))
            elif len(slot) == _SLOT and slot[:_ID_BYTES] != _GONE:
                rest.append(slot)
        os.fsync(file.fileno())
    write_whole(path, b"".join(rest), _KEY_MODE)


def remove_segment(directory: Path, segment: int, *, is_last: bool) -> None:
    """Overwrite the keys of a segment and remove it; of the last one its empty file stays, for its number.

    Raises OSError.
    """
    path = keys_in(directory, segment)
    with contextlib.suppress(FileNotFoundError):
        with path.open("r+b", buffering=0) as file:
            file.write(bytes(os.fstat(file.fileno()).st_size))
            os.fsync(file.fileno())
        path.unlink()
        sync_directory(path.parent)
    records = records_in(directory, segment)
    if is_last:
        os.truncate(records, 0)
    else:
        records.unlink()
    sync_directory(directory)


@dataclass(frozen=True, slots=True)
class Erasing:
    """What is to be erased, by whom, why."""

    contents: tuple[str, ...]
    by: str
    reason: str
    key: str | None = None


def begin_erasing(directory: Path, erasing: Erasing) -> None:
    """Have it on the disk that this is being erased. Raises BadSettings."""
    write_whole(directory / "keys" / "erasing", json.dumps(asdict(erasing)).encode(), _KEY_MODE)


def begun_erasing(directory: Path) -> Erasing | None:
    """What was being erased when the last process ended. Raises OSError, ValueError, TypeError."""
    path = directory / "keys" / "erasing"
    if not path.exists():
        return None
    told = json.loads(path.read_bytes())
    return Erasing(tuple(told["contents"]), told["by"], told["reason"], told["key"])


def end_erasing(directory: Path) -> None:
    """It is done, or will not be. Raises OSError."""
    (directory / "keys" / "erasing").unlink()
    sync_directory(directory / "keys")


class OpenSegment:
    """A segment that is written. For one thread; after an error it is written no more."""

    def __init__(self, directory: Path, number: int) -> None:
        """Begin it. Raises OSError."""
        self.number = number
        self.size = 0
        """Bytes of its records."""
        self._keys = os.open(keys_in(directory, number), _FLAGS | os.O_EXCL | os.O_APPEND, _KEY_MODE)
        try:
            self._records = os.open(records_in(directory, number), _FLAGS | os.O_EXCL | os.O_APPEND, FILE_MODE)
        except OSError:
            os.close(self._keys)
            raise
        try:
            open_to_group(self._records, directory)
            sync_directory(directory / "keys")
            sync_directory(directory)
        except OSError:
            self.close()
            raise

    def append(self, records: Collection[Sealed]) -> None:
        """Have records on the disk, their keys before them. Raises OSError; then none of them counts."""
        slots = [bytes.fromhex(each.heading.content.rpartition("-")[2]) + each.wrapped for each in records]
        _write(self._keys, b"".join(slots))
        before = self.size
        try:
            whole = b"".join([each.raw for each in records])
            _write(self._records, whole)
            self.size += len(whole)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._records, before)
            raise

    def close(self) -> None:
        """Write no more."""
        os.close(self._keys)
        os.close(self._records)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:  # a full disk takes a part, and says so when asked again
        view = view[os.write(descriptor, view) :]


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise FileMissing(f"`{path}` does not exist") from None
    except OSError as error:
        message = f"`{path}` cannot be read: {error.strerror}"
        raise BadFile(message, hint="its directory's group may read it") from None
