"""What left the host: records and checkpoints as a receiver has kept them, a line each, whatever stands before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from serving.audit.chain import CHECKPOINT, HEAD, NotAnEntry, read_entry

_BEGIN: Final = b'{"at":"'


@dataclass(frozen=True, slots=True)
class Anchor:
    """The hash of each entry that left the host, by its number."""

    hashes: dict[int, bytes]
    log: str | None
    """The id of the log, where a head or a checkpoint named it."""
    problems: tuple[tuple[int, str], ...] = ()
    """Lines that do not agree with the others, and what is the matter."""
    unreadable: int = 0
    """Lines with a piece of an entry, as where a write was broken off and done again."""


def read_anchor(lines: Iterable[bytes]) -> Anchor:
    """The anchor in the lines of a receiver's file. A syslog server's own words before an entry are passed over.

    The same entry may be there several times, since delivery is at least once; two entries of one number that differ
    are a problem: a log was written anew and delivered again.
    """
    hashes: dict[int, bytes] = {}
    problems: list[tuple[int, str]] = []
    log: str | None = None
    unreadable = 0
    for number, raw in enumerate(lines, 1):
        at = raw.find(_BEGIN)
        if at < 0:
            continue  # a line of something else
        try:
            entry = read_entry(raw[at:].rstrip(b"\r\n"))
        except NotAnEntry:
            unreadable += 1
            continue
        if hashes.setdefault(entry.seq, entry.hash) != entry.hash:
            problems.append((number, f"has another entry {entry.seq} than a line before: history was written anew"))
        if entry.kind in (HEAD, CHECKPOINT):
            named = str(entry.record.get("log"))
            if log not in (None, named):
                problems.append((number, "is of another log than lines before; an anchor is to be of one log"))
            log = named
    return Anchor(hashes, log, tuple(problems), unreadable)
