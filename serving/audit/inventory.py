"""Whether the content that an audit log names is in its store as it was written, or was erased as the log says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from serving.audit.sealed import Heading
from serving.audit.shelf import Placed, is_whole, list_shelf, read_headings, segment_of, wrapped_keys
from serving.errors import BadFile, FileMissing

MOST: Final = 100
"""Problems that are told one by one."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What became of the content that a log names."""

    named: int
    """Records that the log names."""
    sound: int
    """Those that are as they were written."""
    erased: int
    """Those whose erasing is in the log."""
    removed: int
    """Those that retention removed, which is in the log."""
    lost: int
    """Prompts and answers that could not be written, which is in the log."""
    unnamed: int
    """Records in the store that the log does not name."""
    problems: tuple[str, ...]
    further_problems: int
    notes: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Nothing was changed, and nothing is missing that was not erased or removed as the log says."""
        return not self.problems


@dataclass
class _Told:
    """What a log says of content."""

    digests: dict[str, str] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    removed_through: int = 0
    lost: int = 0


@dataclass
class _Shelf:
    """What is in a store."""

    found: dict[str, str | None] = field(default_factory=dict)
    """Of each record that the log names what is wrong with it, if anything is."""
    unnamed: int = 0
    sees_keys: bool = True


def take_inventory(lines: Iterable[bytes], directory: Path) -> Inventory:
    """Compare the store in a directory with what the lines of a log say. Raises FileMissing, BadFile.

    Whether the wrapped keys are there too is looked at where this user may read them; a note says where not.
    """
    told = _read(lines)
    shelf = _look(directory, told)
    problems = [f"`{content}`: {problem}" for content, problem in shelf.found.items() if problem is not None]
    missing = told.digests.keys() - shelf.found.keys()
    removed = {content for content in missing if _segment(content) <= told.removed_through}
    problems += [
        f"`{content}`: is missing, and no record says that it was erased or removed"
        for content in sorted(missing - removed - told.erased)
    ]
    notes = []
    if not shelf.sees_keys:
        notes.append("this user may not read the wrapped keys: whether one was destroyed without a record is not seen")
    if shelf.unnamed:
        notes.append(
            f"{shelf.unnamed} records are not named in the log: a request whose intent could not be written, a kill, or"
            " the log of then is not there"
        )
    return Inventory(
        named=len(told.digests),
        sound=sum(problem is None and content not in told.erased for content, problem in shelf.found.items()),
        erased=len(told.erased & told.digests.keys()),
        removed=len(removed),
        lost=told.lost,
        unnamed=shelf.unnamed,
        problems=tuple(problems[:MOST]),
        further_problems=max(0, len(problems) - MOST),
        notes=tuple(notes),
    )


def list_contents(lines: Iterable[bytes], directory: Path, key: str = "") -> Iterator[tuple[Heading, bool]]:
    """The records in a store, or those of an API key, and whether the log's lines say that each was erased.

    Raises FileMissing, BadFile.
    """
    erased = _read(lines).erased
    for segment in list_shelf(directory):
        for placed in read_headings(segment.path, key):
            if key in ("", placed.heading.key):
                yield placed.heading, placed.heading.content in erased


def _look(directory: Path, told: _Told) -> _Shelf:
    shelf = _Shelf()
    for segment in list_shelf(directory):
        keys: dict[str, bytes] = {}
        if shelf.sees_keys:
            try:
                keys = wrapped_keys(directory, segment.number)
            except BadFile:
                shelf.sees_keys = False
        for placed in read_headings(segment.path):
            content = placed.heading.content
            if content not in told.digests:
                shelf.unnamed += 1
                continue
            problem = _changed(placed, told.digests[content])
            if problem is None and shelf.sees_keys:
                problem = _key_problem(placed, keys.get(content), is_erased=content in told.erased)
            shelf.found[content] = problem
    return shelf


def _changed(placed: Placed, digest: str) -> str | None:
    if placed.sha256 != digest:
        return f"is not what the log names: expected {digest[:16]}…, found {placed.sha256[:16]}…"
    return None if is_whole(placed) else "was changed: its digest is another"


def _key_problem(placed: Placed, wrapped: bytes | None, *, is_erased: bool) -> str | None:
    if is_erased:
        return None if wrapped is None else "the log says that it was erased, and its key is there: erase it again"
    if wrapped is None:
        return "its key is gone, and no record says that it was erased"
    if hashlib.sha256(wrapped).hexdigest() != placed.heading.wrapped:
        return "its wrapped key was changed"
    return None


def _segment(content: str) -> int:
    try:
        return segment_of(content)
    except FileMissing:
        return 0


def _read(lines: Iterable[bytes]) -> _Told:
    told = _Told()
    for line in lines:
        try:
            record: dict[str, Any] = json.loads(line)["record"]
            kind = record["kind"]
        except (ValueError, KeyError, TypeError):
            continue  # the check of the log says so
        if kind in ("intent", "outcome"):
            if record.get("content") is not None:
                told.digests[str(record["content"])] = str(record.get("content_sha256"))
            told.lost += record.get("content_lost") is True
        elif kind == "content-erased":
            told.erased.update(map(str, record.get("contents", ())))
        elif kind == "content-removed":
            told.removed_through = max(told.removed_through, int(record.get("through_segment", 0)))
    return told
