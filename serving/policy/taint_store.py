"""What is remembered of sensitive texts: fingerprints alone, in memory and encrypted on the disk, by one process.

Each call returns with what it added durable. A store is *lost* where its file is shorter than its marker says, has
another content, or is gone; so is one that was never begun, and one that could not be written to. Of a lost store every
answer is TAINTED or UNKNOWN, until an operator begins it again. An answer that was being given when the process died
leaves a *hole*: what was read of it is not known, and until it would have expired everything else is UNKNOWN. What
could not be read, and what there was no room for, leaves a hole in its cache domain alone.

Room is shared: a domain may have so many times what is left free, so that the more one has taken, the sooner it stops,
and something is always left for the others. Who has reached that has a hole of its own.

Two things are not recognised: an older copy of the whole directory that was put back, so begin the store again after
restoring it; and what was not kept because the file system had become read-only, once it is writable and the process
was started again, since that could not be noted anywhere.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from serving.errors import BadSettings, ShuttingDown
from serving.policy.facts import Taint
from serving.policy.taint import KEY_BYTES, NO_FINGERPRINTS, Fingerprinter, Fingerprints
from serving.policy.taint_file import (
    CLOSED,
    FINGERPRINT,
    HOLE,
    OPENED,
    Blocks,
    TaintFile,
    lock,
    read_contents,
    rows_of,
    sync,
    write_new,
)
from serving.policy.taint_index import Index

_SLACK: Final = 1 << 16
"""Blocks that are worth nothing any more, before a file is written anew."""
_REFRESH: Final = 8
"""A fingerprint that comes again is written again once an eighth of its time is over."""
_REWRITE_MIN: Final = 10
"""Minutes between two looks for what has expired, in a store that is full."""
_FULL: Final = 0
"""The number of a hole that is everybody's."""
_OWN: Final = 1 << 31
"""Of a hole's minute: it is in one cache domain alone, whose mark is its number. Minutes get there in 6053."""
_SHARE: Final = 3
"""Fingerprints of one domain, in times of what is free: one that is alone has three quarters of all."""
_DOMAINS: Final = 256


class TaintStore:
    """Remembers and looks up; one process on a host has it. Safe to be called by any thread.

    `look` never waits for the disk.
    """

    def __init__(
        self,
        directory: Path,
        key: bytes,
        *,
        keep_s: float,
        most: int,
        never: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the store in `directory`; one that is lost is opened too, and says so.

        `key` has 32 bytes, and who reads the store has it not; `keep_s` is how long a fingerprint is kept, `most` how
        many at one time; `never` are texts that taint nothing; `clock` gives seconds since 1970. Raises StartError
        where another process has it.
        """
        _check_key(key)
        self._directory = directory
        self._key = key
        self._keep = max(1, int(keep_s // 60))
        self._most = most
        self._never = tuple(never)
        self._clock = clock
        self._writing = threading.Lock()
        self._mutex = threading.Lock()
        self._index = Index(most)
        self._opened: dict[int, int] = {}
        self._holes: dict[int, int] = {}
        self._own_holes: dict[int, int] = {}
        """By the mark of the cache domain that they are in."""
        self._held: dict[int, deque[tuple[int, int]]] = {}
        """What each domain has added since the process started: until when, and how many."""
        self._rewritten = 0
        self._file: TaintFile | None = None
        self._is_closed = False
        self._is_noted = False
        """The marker says no longer that the store is whole."""
        self._fingerprinter = lru_cache(_DOMAINS)(self._make_fingerprinter)
        self._locked = lock(directory)
        try:
            contents = read_contents(directory, key)
            self._problem = contents.problem
            self._take(contents.blocks)
            if self._problem is None:
                self._open(contents.generation, len(contents.blocks))
        except BaseException:
            self.close()
            raise
        self._fingerprinter("").seek(["é"])  # the tables of letters are made now, and not for the first request

    @property
    def problem(self) -> str | None:
        """Why nothing is known not to be tainted; None while all is well."""
        with self._mutex:
            if self._problem is None and self._has_hole():
                return "not all that was in sensitive requests could be kept"
            return self._problem

    @property
    def keep_s(self) -> float:
        """How long what is remembered is kept, seconds."""
        return self._keep * 60.0

    def fingerprinter(self, domain: str) -> Fingerprinter:
        """That of a cache domain, with the store's key."""
        return self._fingerprinter(domain)

    def look(self, wanted: Fingerprints | None, domain: str | None = None) -> Taint:
        """Whether any of these is remembered. None is a request whose texts could not be read.

        `domain` is whose they are; without one no hole of a domain is looked at.
        """
        mark = None if domain is None else self._mark(domain)
        with self._mutex:
            if wanted is not None and (self._index.expires(wanted) > self._now()).any():
                return Taint.TAINTED
            is_known = wanted is not None and self._problem is None and not self._has_hole(mark)
        return Taint.NONE if is_known else Taint.UNKNOWN

    def add(self, kept: Fingerprints | None, *, closes: int | None = None, domain: str | None = None) -> bool:
        """Remember these, durably, and that an answer has ended; whether there is no new hole for it.

        None is a text that could not be read.

        `domain` is whose they are: what of it cannot be kept is UNKNOWN there, and without one everywhere. Where that
        cannot be done the store is lost from then on; no error is raised for it. Raises ShuttingDown once it
        is closed: who asks is told, and nothing is lost by that.
        """
        with self._writing:
            self._check_open()
            now = self._now()
            until = now + self._keep
            mark = None if domain is None else self._mark(domain)
            wanted = np.unique(kept) if kept is not None else NO_FINGERPRINTS
            with self._mutex:
                expires = self._index.expires(wanted)
            fresh = wanted[expires <= until - max(1, self._keep // _REFRESH)]
            new = int(np.count_nonzero(expires <= now))
            if self._is_full(fresh) and now >= self._rewritten + _REWRITE_MIN:
                self._rewrite(now)
            rows = [rows_of(fresh, until, FINGERPRINT)]
            is_kept = kept is not None and not self._is_full(fresh) and self._has_share(mark, new, now)
            if not is_kept:
                rows = [rows_of([_FULL], until, HOLE) if mark is None else rows_of([mark], until | _OWN, HOLE)]
            elif mark is not None and new:
                self._held.setdefault(mark, deque()).append((until, new))
            if closes is not None:
                rows.append(rows_of([closes], until, CLOSED))
            self._append(np.concatenate(rows))
            if self._file is not None and self._file.places > 2 * len(self._index) + _SLACK:
                self._rewrite(now)
        return is_kept

    def open_answer(self) -> int:
        """An answer to a sensitive request begins: if this process dies before `add(…, closes=…)`, that is known.

        Raises ShuttingDown once the store is closed.
        """
        number = secrets.randbits(64)
        with self._writing:
            self._check_open()
            self._append(rows_of([number], self._now() + self._keep, OPENED))
        return number

    def close(self) -> None:
        """Give its files back."""
        with self._writing:
            self._is_closed = True
            self._shut("the store is closed")
            if self._locked >= 0:
                os.close(self._locked)
            self._locked = -1

    def _check_open(self) -> None:
        if self._is_closed:
            raise ShuttingDown("the store of sensitive texts is closed")

    def _make_fingerprinter(self, domain: str) -> Fingerprinter:
        return Fingerprinter(self._key, domain, self._never)

    def _now(self) -> int:
        return int(self._clock() // 60)

    def _mark(self, domain: str) -> int:
        """What stands for a cache domain where its name is not to be read."""
        raw = hmac.digest(self._key, b"hole " + domain.encode("utf-8", "surrogatepass"), "sha256")
        return int.from_bytes(raw[:8], "little")

    def _live(self, holes: dict[int, int]) -> Iterator[int]:
        now = self._now()
        return (number for number, expires in holes.items() if expires > now)

    def _has_hole(self, mark: int | None = None) -> bool:
        """One that is everybody's, or in the domain of that mark."""
        is_own = mark is not None and self._own_holes.get(mark, 0) > self._now()
        return is_own or any(True for _ in self._live(self._holes))

    def _has_share(self, mark: int | None, new: int, now: int) -> bool:
        """Whether a domain may have so many more: in proportion to what would be left free."""
        if mark is None or not new:
            return True
        held = self._held.get(mark, deque())
        while held and held[0][0] <= now:
            held.popleft()
        return sum(count for _, count in held) + new <= _SHARE * (self._most - len(self._index) - new)

    def _is_full(self, fresh: Fingerprints) -> bool:
        return len(fresh) > 0 and len(self._index) + len(fresh) > self._most

    def _take(self, blocks: Blocks) -> None:
        """Put into memory what was read: answers that nobody ended are holes."""
        self._remember(blocks[blocks["check"] != OPENED])
        ended = set(blocks["number"][blocks["check"] == CLOSED].tolist())
        for number, expires, _ in blocks[blocks["check"] == OPENED].tolist():
            if number not in ended:
                self._holes[number] = expires

    def _remember(self, rows: Blocks) -> None:
        prints = rows[rows["check"] == FINGERPRINT]
        self._index.put(prints["number"].astype(np.uint64), prints["expires"].astype(np.uint32))
        for number, expires, kind in rows[rows["check"] != FINGERPRINT].tolist():
            if kind == HOLE and expires >= _OWN:
                self._own_holes[number] = expires - _OWN
            elif kind == CLOSED:
                self._opened.pop(number, None)
                self._holes.pop(number, None)  # told after a restart
            else:
                (self._opened if kind == OPENED else self._holes)[number] = expires

    def _open(self, generation: bytes, places: int) -> None:
        try:
            self._file = TaintFile(self._directory, self._key, generation, places)
        except OSError as error:
            self._shut(f"the store cannot be written: {error.strerror}")

    def _append(self, rows: Blocks) -> None:
        """Into memory first, so that they are found at once and whatever happens; then to the disk."""
        if not len(rows):
            return
        with self._mutex:
            self._remember(rows)
        if self._file is not None:
            try:
                self._file.append(rows)
            except OSError as error:
                self._shut(f"the store cannot be written: {error.strerror}")
        if self._file is None and not self._is_noted:
            # the next start is to find out that something is missing; a marker that is gone needs no room
            with contextlib.suppress(OSError):
                (self._directory / "marker").unlink(missing_ok=True)
                sync(self._directory)
                self._is_noted = True

    def _rewrite(self, now: int) -> None:
        """The same without what has expired, in a new file."""
        if self._file is None:
            return
        self._rewritten = now
        with self._mutex:
            numbers, expires = self._index.live(now)
            self._holes = {number: self._holes[number] for number in self._live(self._holes)}
            self._own_holes = {mark: self._own_holes[mark] for mark in self._live(self._own_holes)}
            own = {mark: until | _OWN for mark, until in self._own_holes.items()}
            tables = ((self._opened, OPENED), (self._holes, HOLE), (own, HOLE))
            rows = [rows_of(list(table), list(table.values()), kind) for table, kind in tables]
        rows.append(rows_of(numbers, expires, FINGERPRINT))
        index = Index(self._most)
        index.put(numbers, expires)
        try:
            generation = write_new(self._directory, self._key, np.concatenate(rows))
        except OSError as error:
            self._shut(f"the store cannot be written: {error.strerror}")
            return
        self._file.close()
        self._file = None
        with self._mutex:
            self._index = index
        self._open(generation, sum(map(len, rows)))

    def _shut(self, problem: str) -> None:
        """Nothing is written from now on, and nothing is known not to be tainted."""
        with self._mutex:
            if self._problem is None:
                self._problem = problem
        if self._file is not None:
            self._file.close()
        self._file = None


def begin(directory: Path, key: bytes) -> int:
    """Begin a store, by the operator's word: whatever was lost before counts for nothing from here on.

    What can be read of a store that was there is kept. Returns how many fingerprints that is. Raises BadSettings where
    it cannot be written, StartError where a process has it.
    """
    _check_key(key)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        locked = lock(directory)
        try:
            blocks = read_contents(directory, key).blocks
            rows = blocks[blocks["check"] == FINGERPRINT]
            write_new(directory, key, rows)
        finally:
            os.close(locked)
    except OSError as error:
        message = f"the store of tainted texts in `{directory}` cannot be made: {error.strerror}"
        raise BadSettings(message, hint="let this user write there, or make room") from None
    return len(rows)


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes")
