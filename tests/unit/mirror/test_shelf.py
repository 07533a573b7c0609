"""Files that are opened once they are verified, with a real store."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from serving.errors import Unverified
from serving.mirror.application import Mirror
from serving.mirror.door import Door
from serving.mirror.shelf import NotYet, Shelf
from serving.store import verify
from serving.store.bring import Origin
from serving.store.cas import Store
from serving.store.manifest import StoredFile
from serving.store.verify import DAY_S, close_all
from tests.support.mirror import bring, write_model


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    write_model(tmp_path / "small", 8 << 20)
    bring(store, tmp_path / "small", Origin("small", "noise", publishable=True))
    return store


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each file that is read whole."""
    found: list[int] = []
    real = verify.digest_of

    def counting(descriptor: int, *more: Any) -> str:
        found.append(descriptor)
        return real(descriptor, *more)

    monkeypatch.setattr(verify, "digest_of", counting)
    return found


def weights(store: Store) -> StoredFile:
    manifest = store.find("small", "noise")
    assert manifest is not None
    file = manifest.file("model.safetensors")
    assert file is not None
    return file


async def test_all_who_want_a_file_wait_for_one_hash(store: Store, hashed: list[int]) -> None:
    """Twenty requests at once read it once, and each gets a descriptor of its own."""
    shelf = Shelf(store, 7 * DAY_S)
    opened = await asyncio.gather(*(shelf.open(weights(store)) for _ in range(20)))
    assert len(hashed) == 1
    assert len({one.descriptor for one in opened}) == 20
    assert os.pread(opened[0].descriptor, 8, 0) == os.pread(opened[19].descriptor, 8, 0)
    close_all(opened)
    shelf.close()


async def test_who_waits_too_long_is_told_when_to_come_again(store: Store) -> None:
    """429 with Retry-After, and nothing of the file; the hashing goes on, and the next one is served."""
    shelf = Shelf(store, 7 * DAY_S, patience_s=0)
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    path = b"/perimeter/small-noise/resolve/main/model.safetensors"
    scope = {"type": "http", "method": "GET", "raw_path": path, "query_string": b"", "headers": []}
    await Mirror(shelf, Door())(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 429
    assert int(dict(sent[0]["headers"])[b"retry-after"]) >= 1
    assert b"verified" in sent[1]["body"]
    assert shelf.is_hashing
    with pytest.raises(NotYet):
        await shelf.open(weights(store))
    shelf.close()


async def test_what_was_found_damaged_is_not_read_again(store: Store, hashed: list[int]) -> None:
    """It is refused by how it looks; once it looks otherwise it is looked into."""
    shelf = Shelf(store, 7 * DAY_S)
    blob = store.blob(weights(store).sha256)
    whole = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for _ in range(3):
        with pytest.raises(Unverified):
            await shelf.open(weights(store))
    assert len(hashed) == 1
    blob.write_bytes(whole)
    close_all([await shelf.open(weights(store))])
    shelf.close()


async def test_files_are_hashed_before_somebody_asks(store: Store, hashed: list[int]) -> None:
    """All that are offered, once."""
    shelf = Shelf(store, 7 * DAY_S)
    task = asyncio.create_task(shelf.keep_verified())
    async with asyncio.timeout(20):
        while len(hashed) < 4 or shelf.is_hashing:  # noqa: ASYNC110 - polled, with a deadline
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(hashed) == 4
    shelf.close()


async def test_a_store_that_cannot_be_written_to_is_served(store: Store, hashed: list[int]) -> None:
    """What was hashed is remembered for as long as the mirror runs, in memory alone."""
    (store.root / "verified.json").mkdir()
    shelf = Shelf(store, 7 * DAY_S)
    manifest = store.find("small", "noise")
    assert manifest is not None
    for file in manifest.files:
        close_all([await shelf.open(file)])
    assert all(shelf._record.get(store.blob(file.sha256)) is not None for file in manifest.files)
    shelf.close()
