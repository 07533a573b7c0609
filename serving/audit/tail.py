"""Where a log ends that is opened to be carried on.

Each line of the last segment is followed from its head, so that nothing is written behind a line that was changed.
That is done on the bytes as they stand: a line's hash is over just those, less the hash itself, and needs no parsing.
A writer that takes the place of one that died begins at the last checkpoint instead, if its own key signed that: the
one before followed the rest when it began, and had the lock since.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.audit.canonical import canonical
from serving.audit.chain import CHECKPOINT, HEAD, Entry, Link, NotAnEntry, Signer, hash_of, read_entry, signed_by
from serving.audit.segments import Segment
from serving.errors import Unverified

_HASH: Final = slice(44, 108)
"""Where a line has its hash; the time before it is always as long."""
_BEFORE_HASH: Final = slice(35, 44)
_AFTER_HASH: Final = slice(108, 119)
_NEWLINE: Final = b"\n"
_IS_CHECKPOINT: Final = b'"kind":"checkpoint"'
"""Nothing else has these bytes: quotes inside a text are escaped."""
Written = tuple[str, bytes, int]
"""The time, the record in canonical form and the number of an entry."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a log."""

    log: str
    """Its id; empty where it was only about to begin."""
    segment: int
    link: Link
    size: int
    """Bytes of its last segment that are whole."""
    torn: bytes
    """What stands after them: a line that was not ended."""
    unsigned: int
    """Entries after the last checkpoint."""
    began: str
    """When the last segment began."""


def find_tail(segments: Sequence[Segment], signer: Signer, *, from_checkpoint: bool = False) -> Tail | None:
    """Where the log ends; None where it has not begun.

    Only a last line without its end is taken for torn. Whatever else is wrong in the last segment was not done by a
    crash: it raises Unverified, and nothing is written behind it. `from_checkpoint` does not look before the last
    checkpoint, where `signer` signed it. Raises OSError.
    """
    if not segments:
        return None
    with _contents(segments[-1].path) as raw:
        whole = raw.rfind(b"\n") + 1
        if whole:
            return _follow(raw, whole, segments[-1], signer, from_checkpoint=from_checkpoint)
        torn = raw[:]
    return _tail_before(segments, torn, signer)


def entries_after(segments: Sequence[Segment], seq: int) -> list[Written]:
    """What was written after the entry of that number, the last first. Raises OSError, Unverified."""
    found: list[Written] = []
    for segment in reversed(segments):
        with _contents(segment.path) as raw:
            end = raw.rfind(b"\n")
            while end >= 0:
                begin = raw.rfind(b"\n", 0, end) + 1
                entry = _read(raw, begin, end, segment)
                if entry.seq <= seq:
                    return found
                if entry.kind not in (HEAD, CHECKPOINT):
                    found.append((entry.at, canonical(entry.record), entry.seq))
                end = begin - 1
    return found


def digest_of_torn(torn: bytes) -> str:
    """What is recorded of a line that was cut off."""
    return hashlib.sha256(torn).hexdigest()


def _follow(raw: mmap.mmap | bytes, whole: int, segment: Segment, signer: Signer, *, from_checkpoint: bool) -> Tail:
    """Follow the chain through the whole lines of a segment."""
    head = _read(raw, 0, raw.find(b"\n"), segment)
    log, link = _begin(head, segment)
    at = 0
    signed = _last_signed(raw, whole, segment, log, signer)
    if signed is not None and from_checkpoint:
        at, link = signed
    unsigned = 0
    while at < whole:
        end = raw.find(b"\n", at)
        line = raw[at:end]
        following = _next(line, link)
        if following is None:
            entry = _read(raw, at, end, segment)
            if entry.seq != link.seq + 1 or hash_of(link.hash, entry) != entry.hash:
                raise _broken(f"{_where(raw, at, segment)} does not follow from the one before")
            following = Link(entry.seq, entry.hash)
        link = following
        unsigned = 0 if _IS_CHECKPOINT in line else unsigned + 1
        at = end + 1
    return Tail(log, segment.number, link, whole, raw[whole:], unsigned, head.at)


def _next(line: bytes, link: Link) -> Link | None:
    """Where the chain stands after this line; None where it does not follow, as its bytes stand."""
    seq = link.seq + 1
    if (line[_BEFORE_HASH], line[_AFTER_HASH]) != (b',"hash":"', b'","record":') or not line.endswith(
        b',"seq":%d}' % seq
    ):
        return None
    digest = hashlib.sha256(link.hash + line[:35] + line[109:])
    return Link(seq, digest.digest()) if digest.hexdigest().encode() == line[_HASH] else None


def _last_signed(
    raw: mmap.mmap | bytes, whole: int, segment: Segment, log: str, signer: Signer
) -> tuple[int, Link] | None:
    """Where the last checkpoint begins, and the link before it; None where another key signed it, or there is none.

    Raises Unverified for one that this key is said to have signed and has not.
    """
    at = raw.rfind(_IS_CHECKPOINT, 0, whole)
    if at < 0:
        return None
    begin = raw.rfind(b"\n", 0, at) + 1
    entry = _read(raw, begin, raw.find(b"\n", at), segment)
    parts = signed_by(entry)
    if parts is None or parts[2] != signer.fingerprint:
        return None
    is_ours = (entry.record["log"], entry.record["segment"]) == (log, segment.number)
    if not is_ours or not signer.has_signed(parts[0], parts[1]):
        raise _broken(f"{_where(raw, begin, segment)} is a checkpoint that was not signed for this place")
    return begin, Link(entry.seq - 1, bytes.fromhex(entry.record["chain"]))


def _tail_before(segments: Sequence[Segment], torn: bytes, signer: Signer) -> Tail:
    """The end of the segment before one that was only about to begin."""
    before = find_tail(segments[:-1], signer)
    if before is None:
        if segments[-1].number != 1:
            raise _broken(f"`{segments[-1].path}` is empty, and nothing stands before it")
        return Tail("", 1, Link(), 0, torn, 0, "")
    if before.torn:
        raise _broken(f"`{segments[-2].path}` has no end, although another segment was begun")
    return Tail(before.log, segments[-1].number, before.link, 0, torn, 0, "")


def _begin(entry: Entry, segment: Segment) -> tuple[str, Link]:
    """The log's id and what stood before the segment, as its head has it."""
    record, where = entry.record, f"`{segment.path}`, line 1"
    log, previous = record.get("log"), record.get("previous")
    if entry.kind != HEAD or record.get("segment") != segment.number or not isinstance(log, str):
        raise _broken(f"{where} is not the head of segment {segment.number}")
    try:
        return log, Link(entry.seq - 1, bytes.fromhex(str(previous)))
    except ValueError:
        raise _broken(f"{where} does not name the hash before it") from None


def _read(raw: mmap.mmap | bytes, begin: int, end: int, segment: Segment) -> Entry:
    try:
        return read_entry(raw[begin:end])
    except NotAnEntry as error:
        raise _broken(f"{_where(raw, begin, segment)} {error}") from None


def _where(raw: mmap.mmap | bytes, begin: int, segment: Segment) -> str:
    return f"`{segment.path}`, line {raw[:begin].count(_NEWLINE) + 1}"


def _broken(what: str) -> Unverified:
    hint = "`serve audit verify` says more; move the directory away, keep it, and begin a new log"
    return Unverified(f"the audit log is broken: {what}", hint=hint)


@contextlib.contextmanager
def _contents(path: Path) -> Iterator[mmap.mmap | bytes]:
    """A file's bytes, of which those are read that are looked at. Raises OSError."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped
