"""Content stores for tests, each beside a log of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from serving.audit import Audit, Places, Retention
from serving.audit.auditor import load_auditor, load_private_auditor, make_auditor
from serving.audit.content import ContentStore
from serving.audit.counter import Read, read, show
from serving.audit.recording import Bounds, Kept
from serving.audit.sealed import Heading
from serving.desk import myself
from tests.support.audit_logs import intent, open_audit, outcome, places_in

REASON = "a complaint"


@dataclass
class Keeping:
    """A store that is open, its log, and the auditor's key."""

    directory: Path
    places: Places
    audit: Audit
    store: ContentStore
    private: X25519PrivateKey

    def prompt(self, text: bytes, key: str = "key1", request: str = "req-0") -> Kept:
        """A prompt that is on the disk."""
        return asyncio.run(self.store.record(key, request, text).keep_prompt())

    def show(self, content: str) -> tuple[Heading, bytes]:
        """As the auditor does it."""

        def wrapped_key_of(content: str) -> bytes:
            return bytes.fromhex(read(self.store, Read(content=content, reason=REASON), myself())["wrapped"])

        return show(self.directory, content, self.private, wrapped_key_of)

    async def request(self, prompt: bytes, pieces: list[bytes], key: str = "key1") -> tuple[Kept, Kept | None]:
        """A whole request: prompt, intent, answer, outcome; what was kept of it."""
        recording = self.store.record(key, "req-0", prompt)
        asked = await recording.keep_prompt()
        named = {"content": asked.content, "content_sha256": asked.sha256, "key": key}
        number = await self.audit.intent(intent(**named))
        for piece in pieces:
            recording.add(piece)
        done: asyncio.Future[Kept | None] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        recording.keep_answer(number, lambda kept: loop.call_soon_threadsafe(done.set_result, kept))
        said = await done
        if said is not None:
            self.audit.outcome(outcome(number, content=said.content, content_sha256=said.sha256))
        return asked, said


@contextlib.contextmanager
def keeping(home: Path, bounds: Bounds | None = None, retention: Retention | None = None) -> Iterator[Keeping]:
    """A log and a store in `home`, made if they are not there."""
    key = home / "auditor.key"
    if not key.exists():
        make_auditor(key)
    places = places_in(home)
    audit = open_audit(places)
    try:
        public = load_auditor(home / "auditor.key.pub")
        store = ContentStore(home / "content", audit, public, bounds, retention)
        try:
            yield Keeping(home / "content", places, audit, store, load_private_auditor(key))
        finally:
            store.close()
    finally:
        audit.close()
