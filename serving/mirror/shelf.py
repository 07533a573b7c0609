"""The store as the mirror sees it while both go on: what is offered now, and files opened once they are verified.

A file is hashed before its first byte goes out, when it looks touched, and every `rehash_days`; what is damaged is
refused, not served. Models that are published, withdrawn, brought in or removed meanwhile are noticed at the next
request.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.errors import BadFile, StartError, Unverified
from serving.mirror.repositories import Held, Offer, offer_of
from serving.store.cas import Store
from serving.store.manifest import Manifest, StoredFile
from serving.store.verify import Opened, Record, Seen, check_file, open_seen
from serving.telemetry.logs import facts

log = logging.getLogger(__name__)

LEAST_REHASH_S: Final = 3600.0
"""A file is hashed no more often than this while it looks untouched, whatever the settings say."""
_GRAIN_NS: Final = 2_000_000_000
"""What changed so short a time ago may have changed again since, without looking so."""
_AHEAD: Final = 0.8
"""Share of the time until a hash is due after which it is made unasked."""
_ROUND_S: Final = 30.0
_HASHES_PER_S: Final = 400e6
"""Bytes; a guess at how fast a file is hashed, to tell a client when to ask again."""

_Marks = tuple[tuple[str, int, int, int], ...]


class NotYet(Exception):
    """A file is still being hashed; `retry_after_s` is a guess at how long that takes."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class _Closed(Exception):
    """Hashing was given up."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """A file that was found damaged, by how it looked then."""

    look: tuple[int, ...] | None
    error: StartError


class Shelf:
    """One store, being offered. Used from the event loop; hashing runs on threads of its own."""

    def __init__(self, store: Store, rehash_s: float, patience_s: float = 5.0) -> None:
        """`patience_s`: how long a request waits for a file to be hashed before its client is told to come again."""
        self._store = store
        self._rehash_s = max(rehash_s, LEAST_REHASH_S)
        self._patience_s = patience_s
        self._record = Record(store.root / "verified.json")
        self._is_closed = False
        self._hashing = ThreadPoolExecutor(2, "hash")
        self._under_way: dict[str, asyncio.Future[Seen | None]] = {}
        self._refused: dict[str, _Refused] = {}
        self._marks: _Marks | None = None
        self._offer: Offer | StartError = BadFile("the store was not read yet")

    def close(self) -> None:
        """Hash nothing more."""
        self._is_closed = True
        self._hashing.shutdown(wait=False, cancel_futures=True)

    def offer(self) -> Offer:
        """What is offered now. Raises BadFile or Unverified where the lock is damaged: then nothing is."""
        marks = tuple(self._look_around())
        fresh = time.time_ns() - max((mark[1] for mark in marks), default=0) < _GRAIN_NS
        if fresh or marks != self._marks:
            self._marks = marks
            before = self._offer
            self._offer = self._read()
            self._tell(before)
        if isinstance(self._offer, StartError):
            raise self._offer.with_traceback(None)
        return self._offer

    async def open(self, file: StoredFile) -> Opened:
        """A file, open and verified; the caller closes it.

        Raises NotYet while it is being hashed, and Unverified, FileMissing or BadFile where it cannot be served.
        """
        path = self._store.blob(file.sha256)
        refused = self._refused.get(file.sha256)
        if refused is not None:
            if refused.look == _look_at(path):
                raise refused.error.with_traceback(None)
            del self._refused[file.sha256]
        opened = open_seen(self._store, file, self._record.get(path), rehash_s=self._rehash_s)
        if opened is None:
            try:
                seen = await asyncio.wait_for(asyncio.shield(self._hashed(file, self._rehash_s)), self._patience_s)
            except TimeoutError:
                raise NotYet(min(600, 2 + int(file.size / _HASHES_PER_S))) from None
            opened = open_seen(self._store, file, seen, rehash_s=None)
        if opened is None:
            raise Unverified(f"`{path}` changed while it was read", hint="something else writes to it; find out what")
        return opened

    async def keep_verified(self) -> None:
        """Hash what is due before somebody asks for it, and tell what is damaged; until cancelled."""
        while True:
            try:
                files = {file.sha256: file for model in self.offer().models for file in model.files}
            except StartError:
                files = {}
            for file in sorted(files.values(), key=lambda file: file.size):
                refused = self._refused.get(file.sha256)
                if refused is None or refused.look != _look_at(self._store.blob(file.sha256)):
                    try:
                        await asyncio.shield(self._hashed(file, self._rehash_s * _AHEAD))
                    except StartError:
                        continue
            await asyncio.sleep(_ROUND_S)

    @property
    def is_hashing(self) -> bool:
        """Whether files are being verified."""
        return bool(self._under_way)

    def _hashed(self, file: StoredFile, rehash_s: float) -> asyncio.Future[Seen | None]:
        """The hashing of a file, which all who want it wait for."""
        under_way = self._under_way.get(file.sha256)
        if under_way is None:
            loop = asyncio.get_running_loop()
            check = functools.partial(check_file, self._store, file, self._record, self._go_on, rehash_s=rehash_s)
            under_way = loop.run_in_executor(self._hashing, check)
            self._under_way[file.sha256] = under_way
            under_way.add_done_callback(lambda done: self._settle(file, done))
        return under_way

    def _go_on(self, size_bytes: int) -> None:
        """Called after each piece that was hashed; ends it where nobody waits for the end."""
        if self._is_closed:
            raise _Closed(size_bytes)

    def _settle(self, file: StoredFile, done: asyncio.Future[Seen | None]) -> None:
        self._under_way.pop(file.sha256, None)
        error = None if done.cancelled() else done.exception()
        if isinstance(error, StartError):
            self._refused[file.sha256] = _Refused(_look_at(self._store.blob(file.sha256)), error)
            log.error("refused", extra=facts(file=file.name, sha256=file.sha256, why=error.message))

    def _look_around(self) -> Iterator[tuple[str, int, int, int]]:
        """How the files look that say what there is: the lock, and the directories of manifests."""
        manifests = self._store.root / "manifests"
        try:
            directories = [manifests, *(Path(entry) for entry in sorted(os.scandir(manifests), key=lambda e: e.name))]
        except OSError:
            directories = [manifests]
        for path in (self._store.lock_file, *directories):
            look = _look_at(path)
            if look is not None:
                yield str(path), max(look[1], look[2]), look[3], look[0]

    def _read(self) -> Offer | StartError:
        try:
            lock = self._store.lock()
        except StartError as error:
            return error
        manifests: list[Manifest] = []
        faults: list[Held] = []
        for path in self._store.manifest_files():
            try:
                manifests.append(self._store.read_manifest(path))
            except BadFile as error:
                faults.append(Held(f"{path.parent.name} ({path.stem})", error.message))
        return offer_of(manifests, lock, faults)

    def _tell(self, before: Offer | StartError) -> None:
        now = self._offer
        if isinstance(now, StartError):
            if not isinstance(before, StartError) or before.message != now.message:
                log.error("refused", extra=facts(why=now.message))
        elif not isinstance(before, Offer) or (before.lock, before.held) != (now.lock, now.held):
            log.info("offered", extra=facts(models=len(now.models), held=len(now.held)))


def _look_at(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
