"""Prompts and answers of the keys that have their content recorded: written by the server, which cannot read them.

One thread seals and writes (`sealed.py`, `shelf.py`), erases, and removes what is too old. The event loop hands bytes
over and does none of it. What is collected and not yet on the disk is bounded, and so is each record.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from serving.audit.auditor import load_auditor
from serving.audit.book import Clock
from serving.audit.recording import HINT, Bounds, Kept, Recording
from serving.audit.records import ContentErased, ContentRemoved
from serving.audit.sealed import SECRET_BYTES, Heading, Kind, Sealed, seal
from serving.audit.segments import Retention, Segment, decide_removal
from serving.audit.shelf import (
    Erasing,
    OpenSegment,
    begin_erasing,
    begun_erasing,
    destroy_keys,
    end_erasing,
    last_number,
    list_shelf,
    new_id,
    prepare,
    records_in,
    remove_segment,
    segment_of,
)
from serving.errors import Unwritable
from serving.keyfiles import fingerprint_of
from serving.telemetry.logs import facts

if TYPE_CHECKING:
    from serving.audit.log import Audit
    from serving.settings.model import Content as Settings

log = logging.getLogger(__name__)
RETRY_S: Final = 1.0
"""Between two tries to write after one has failed."""
_SEGMENT_BYTES: Final = 64 << 20
_SEGMENT_S: Final = 86_400.0
_GROUP_BYTES: Final = 16 << 20
"""Texts that are written at once are this long together at most, or it is a single one."""
_TICK_S: Final = 60.0
"""Between two looks at what is too old."""
_ERASED_AT_ONCE: Final = 256
"""Ids in one record of the audit log."""


@dataclass(frozen=True, slots=True, eq=False)
class _Text:
    """A prompt or an answer that is to be sealed."""

    key: str
    request: str
    kind: Kind
    pieces: bytes | Sequence[bytes]
    size: int
    intent: int | None
    held: int
    at: str
    done: Future[Kept]


class ContentStore:
    """The store in a directory, open; `close` leaves everything that was handed over on the disk."""

    def __init__(
        self,
        directory: Path,
        audit: Audit,
        public: X25519PublicKey | None,
        bounds: Bounds | None = None,
        retention: Retention | None = None,
    ) -> None:
        """Open it, made if need be. Without a public key nothing is written; what is there can be read and erased.

        Raises BadSettings where it cannot be kept there, or another process has it.
        """
        self.directory = directory
        self.audit = audit
        self.bounds = bounds or Bounds()
        self._public = public
        self._to = "" if public is None else fingerprint_of(public)
        self._retention = retention or Retention()
        self._clock = Clock()
        self._lock = prepare(directory)
        self._number = last_number(directory)
        self._open: OpenSegment | None = None
        self._began = 0.0
        self._failed: str | None = None
        self._retry_at = 0.0
        self._held = 0
        self._holding = threading.Lock()
        self._is_closed = False
        self._queue: queue.SimpleQueue[_Text | Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="content", daemon=True)
        self._thread.start()

    @classmethod
    def from_settings(cls, directory: Path, settings: Settings, audit: Audit) -> ContentStore:
        """The same, as a site's settings want it. Raises FileMissing, BadFile too, where the public key is none."""
        public = None if settings.public_key is None else load_auditor(settings.public_key.expanduser())
        retention = Retention(keep_s=settings.keep_days * 86_400 or None, keep_bytes=settings.keep_bytes or None)
        return cls(directory, audit, public, Bounds(settings.record_bytes, settings.held_bytes), retention)

    @property
    def takes(self) -> bool:
        """Whether it is known for whom to seal."""
        return self._public is not None

    def record(self, key: str, request: str, prompt: bytes) -> Recording:
        """Begin to record a request of that API key. `prompt` is the body as the client sent it."""
        return Recording(self, key, request, prompt)

    def hold(self, wanted: int) -> int:
        """Count bytes that are held in memory; as many as there is room for."""
        with self._holding:
            count = max(0, min(wanted, self.bounds.held_bytes - self._held))
            self._held += count
            return count

    def release(self, count: int) -> None:
        """They are not held any more."""
        with self._holding:
            self._held -= count

    def put(
        self,
        recording: Recording,
        kind: Kind,
        pieces: bytes | Sequence[bytes],
        size: int,
        intent: int | None,
        held: int,
    ) -> Future[Kept]:
        """Seal and write; the future has Unwritable where that failed. `held` bytes are released then."""
        done: Future[Kept] = Future()
        text = _Text(recording.key, recording.request, kind, pieces, size, intent, held, self._clock(), done)
        if self._is_closed:
            self._refuse([text], "it is closed")
        else:
            self._queue.put(text)
        return done

    def erase(self, erasing: Erasing) -> None:
        """Make content unreadable for ever; recorded in the audit log before. It blocks.

        Raises Unwritable where it cannot be recorded or done, and is then to be asked again.
        """
        done: Future[None] = Future()

        def work() -> None:
            try:
                self._erase(erasing)
            except BaseException as error:  # noqa: BLE001 - whatever it is, who waits is to be told
                done.set_exception(error)
            else:
                done.set_result(None)

        if self._is_closed:
            raise Unwritable("the content store is closed")
        self._queue.put(work)
        done.result()

    def close(self) -> None:
        """Write what was handed over, and let another process have it."""
        if not self._is_closed:
            self._is_closed = True
            self._queue.put(None)
        self._thread.join()

    # The thread.

    def _run(self) -> None:
        tick_at = 0.0
        is_open = True
        try:
            self._finish_erasing()
        except Exception as error:  # noqa: BLE001 - it stays to be done, and nothing else ends by it
            log.error("content is still to be erased", extra=facts(reason=type(error).__name__))  # noqa: TRY400
        while is_open:
            group, job, is_open = self._collect()
            if group:
                self._commit(group)
            if job is not None:
                job()
            if time.monotonic() >= tick_at:
                tick_at = time.monotonic() + _TICK_S
                self._remove_old()
        while not self._queue.empty():  # came while it was being closed
            late = self._queue.get_nowait()
            if isinstance(late, _Text):
                self._commit([late])
            elif late is not None:
                late()
        self._end_segment()
        os.close(self._lock)

    def _collect(self) -> tuple[list[_Text], Callable[[], None] | None, bool]:
        """What is there, after waiting for the first: texts, what is to be done after them, whether more may come."""
        group: list[_Text] = []
        size = 0
        with contextlib.suppress(queue.Empty):
            item = self._queue.get(timeout=_TICK_S)
            while True:
                if not isinstance(item, _Text):
                    return group, item, item is not None
                group.append(item)
                size += item.held
                if size >= _GROUP_BYTES or self._queue.empty():
                    break
                item = self._queue.get_nowait()
        return group, None, True

    def _commit(self, group: list[_Text]) -> None:
        wanted = []
        for text in group:
            if text.done.set_running_or_notify_cancel():
                wanted.append(text)
            else:  # who asked has left
                self.release(text.held)
        if not wanted:
            return
        if self._public is None or (self._failed is not None and time.monotonic() < self._retry_at):
            self._refuse(wanted, self._failed or "nobody is named who may read it", is_running=True)
            return
        try:
            segment = self._segment()
            sealed = [self._seal(text, segment.number, self._public) for text in wanted]
            segment.append(sealed)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody must wait for ever, and nothing count as kept
            self._broke(error)
            self._refuse(wanted, self._failed or "", is_running=True)
            return
        if self._failed is not None:
            log.warning("content can be written again")
            self._failed = None
        for text, each in zip(wanted, sealed, strict=True):
            self.release(text.held)
            text.done.set_result(Kept(each.heading.content, each.sha256))

    def _seal(self, text: _Text, segment: int, public: X25519PublicKey) -> Sealed:
        whole = text.pieces if isinstance(text.pieces, bytes) else b"".join(text.pieces)
        heading = Heading(
            content=new_id(segment),
            at=text.at,
            key=text.key,
            kind=text.kind,
            request=text.request,
            to=self._to,
            size=text.size,
            kept=len(whole),
            intent=text.intent,
        )
        return seal(heading, whole, secrets.token_bytes(SECRET_BYTES), public)

    def _segment(self) -> OpenSegment:
        """The segment to write to. Raises OSError."""
        if self._open is not None and self._is_full(self._open):
            self._end_segment()
        if self._open is None:
            self._number += 1  # also where it cannot be begun: part of it may be there
            self._open = OpenSegment(self.directory, self._number)
            self._began = time.time()
        return self._open

    def _is_full(self, segment: OpenSegment) -> bool:
        return segment.size >= _SEGMENT_BYTES or time.time() - self._began >= _SEGMENT_S

    def _end_segment(self) -> None:
        if self._open is not None:
            segment, self._open = self._open, None
            segment.close()

    def _broke(self, error: Exception) -> None:
        """Something could not be written: what comes next goes to another segment."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        if self._failed is None:
            log.error("content cannot be written", extra=facts(reason=reason))
        self._failed, self._retry_at = reason, time.monotonic() + RETRY_S
        self._end_segment()

    def _refuse(self, texts: Sequence[_Text], reason: str, *, is_running: bool = False) -> None:
        error = Unwritable(f"the content of this request cannot be recorded: {reason}", hint=HINT)
        for text in texts:
            self.release(text.held)
            if is_running or text.done.set_running_or_notify_cancel():
                text.done.set_exception(error)

    def _erase(self, erasing: Erasing) -> None:
        """Record it, then do it. What was recorded and not done is done before the next, or at the next start."""
        self._finish_erasing()
        begin_erasing(self.directory, erasing)
        self._carry_out(erasing, is_new=True)

    def _finish_erasing(self) -> None:
        begun = begun_erasing(self.directory)
        if begun is not None:
            self._carry_out(begun, is_new=False)

    def _carry_out(self, erasing: Erasing, *, is_new: bool) -> None:
        try:
            for some in batched(erasing.contents, _ERASED_AT_ONCE):
                self.audit.record(ContentErased(contents=some, key=erasing.key, by=erasing.by, reason=erasing.reason))
                is_new = False
        except Unwritable:
            if is_new:  # nobody has been told that it is erased
                end_erasing(self.directory)
            raise
        try:
            for number, of_it in groupby(sorted(erasing.contents, key=segment_of), key=segment_of):
                if self._open is not None and self._open.number == number:
                    self._end_segment()
                destroy_keys(self.directory, number, list(of_it))
            end_erasing(self.directory)
        except OSError as error:
            message = f"the content could not be erased: {error.strerror}"
            raise Unwritable(message, hint="the log says that it is: ask again until it is done") from None

    def _remove_old(self) -> None:
        if self._open is not None and self._is_full(self._open):
            self._end_segment()
        try:
            there = [segment for segment in list_shelf(self.directory) if segment.size]
            now, last = time.time(), self._number
            # The last of these is never among those that go: an open segment, or one that is not there.
            beyond = () if self._open is not None else (Segment(last + 1, self.directory, 0, now),)
            gone = decide_removal([*there, *beyond], now, self._retention, None)
            if gone:
                self.audit.record(ContentRemoved(through_segment=gone[-1].number))
            for segment in gone:
                remove_segment(self.directory, segment.number, is_last=segment.number == last)
            for empty in list_shelf(self.directory):
                if not empty.size and empty.number != last and empty.number not in {each.number for each in there}:
                    records_in(self.directory, empty.number).unlink()
        except Exception as error:  # noqa: BLE001 - tried again at the next tick, and nothing else ends by it
            log.warning("old content cannot be removed", extra=facts(reason=type(error).__name__))


def batched(ids: Sequence[str], most: int) -> Iterator[tuple[str, ...]]:
    """The ids, so many at a time."""
    rest = iter(ids)
    while some := tuple(islice(rest, most)):
        yield some


def content_directory(settings: Settings, environment: Mapping[str, str]) -> Path:
    """Where content is kept, an absolute path; nothing is made here."""
    home = Path(environment.get("HOME") or Path.home())
    state = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state") / "perimeter" / "content"
    return (settings.directory or state).expanduser().absolute()
