"""What is kept of prompts and answers: sealed, bounded, read by the auditor alone, and erased for good."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from serving.audit import Retention
from serving.audit.content import ContentStore
from serving.audit.counter import Erase, ask, attended, erase, key_from, show
from serving.audit.inventory import list_contents, take_inventory
from serving.audit.reading import read_lines, verify_log
from serving.audit.recording import Bounds
from serving.audit.sealed import unseal
from serving.audit.shelf import (
    Erasing,
    OpenSegment,
    begin_erasing,
    find,
    keys_in,
    prepare,
    read_headings,
    read_sealed,
    records_in,
    segment_of,
    wrapped_keys,
)
from serving.desk import myself
from serving.errors import BadSettings, FileMissing, RequestError, Untrusted, Unverified, Unwritable
from tests.support.audit_logs import open_audit, places_in, public
from tests.support.contents import REASON, Keeping, keeping

WORDS = b'{"messages":[{"role":"user","content":"canary-51c2"}]}'


def records(kept: Keeping, kind: str) -> list[dict]:
    entries = [json.loads(line) for line in read_lines(kept.places.directory)]
    return [entry["record"] for entry in entries if entry["record"]["kind"] == kind]


def files(home: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


async def test_the_auditor_reads_what_was_said_and_heard(tmp_path: Path) -> None:
    """Both parts of a request come back to the byte; the reading is in the log with who and why; no file has a word."""
    with keeping(tmp_path) as kept:
        asked, said = await kept.request(WORDS, [b"data: one\n\n", b"data: canary-51c2\n\n"])
        assert said is not None
        heading, text = await asyncio.to_thread(kept.show, asked.content)
        assert (heading.kind, heading.key, heading.intent, text) == ("prompt", "key1", None, WORDS)
        heading, text = await asyncio.to_thread(kept.show, said.content)
        (intent,) = [entry for entry in read_lines(kept.places.directory) if b'"intent","model"' in entry]
        assert f'"seq":{heading.intent}}}'.encode() in intent
        assert (heading.kind, text) == ("answer", b"data: one\n\ndata: canary-51c2\n\n")
        read = records(kept, "content-read")
        assert [each["content"] for each in read] == [asked.content, said.content]
        assert {(each["by"], each["reason"]) for each in read} == {(str(myself()), REASON)}
        assert f"uid {os.getuid()}" in read[0]["by"]
        assert not [path for path, raw in files(tmp_path).items() if b"canary" in raw]
        assert records_in(kept.directory, 1).stat().st_mode & 0o777 == 0o640
        assert keys_in(kept.directory, 1).stat().st_mode & 0o777 == 0o600
        assert (kept.directory / "keys").stat().st_mode & 0o777 == 0o700
    assert verify_log(kept.places.directory, [public(kept.places)]).is_sound


def test_without_the_private_key_nobody_reads(tmp_path: Path) -> None:
    """Another's key is refused before anything is recorded; used nevertheless it opens nothing."""
    with keeping(tmp_path) as kept:
        content = kept.prompt(WORDS).content
        other = X25519PrivateKey.generate()
        with pytest.raises(Untrusted, match="sealed for another key"):
            show(kept.directory, content, other, lambda _: pytest.fail("asked for the key"))
        raw, wrapped = read_sealed(find(kept.directory, content)), wrapped_keys(kept.directory, 1)[content]
        with pytest.raises(ValueError, match="does not open"):
            unseal(raw, wrapped, other)
        with pytest.raises(FileMissing):
            kept.show("1-" + "0" * 24)
        with pytest.raises(FileMissing, match="no id"):
            kept.show("../../etc/passwd")
        assert not records(kept, "content-read")


def test_what_is_erased_is_gone(tmp_path: Path) -> None:
    """With the private key and every file there is: its wrapped key is in none; the log says who and why."""
    with keeping(tmp_path) as kept:
        gone, stays = kept.prompt(WORDS), kept.prompt(b"another")
        wrapped = wrapped_keys(kept.directory, 1)[gone.content]
        told = erase(kept.store, Erase(content=gone.content, reason=REASON), myself())
        assert told == {"erased": [gone.content]}
        assert not [path for path, raw in files(tmp_path).items() if wrapped in raw]
        with pytest.raises(FileMissing, match="erased"):
            kept.show(gone.content)
        with pytest.raises(FileMissing, match="erased already"):
            erase(kept.store, Erase(content=gone.content, reason=REASON), myself())
        assert kept.show(stays.content)[1] == b"another"
        later = kept.prompt(b"later")
        assert kept.show(later.content)[1] == b"later"
        (record,) = records(kept, "content-erased")
        assert (record["contents"], record["by"], record["reason"]) == ([gone.content], str(myself()), REASON)
        listed = list_contents(read_lines(kept.places.directory), kept.directory)
        states = {heading.content: is_erased for heading, is_erased in listed}
        assert states == {gone.content: True, stays.content: False, later.content: False}


def test_all_of_a_key_or_of_before_a_day_is_erased_at_once(tmp_path: Path) -> None:
    """Whatever segments it is in, and nothing else."""
    for _ in range(2):
        with keeping(tmp_path) as kept:
            mine = [kept.prompt(b"mine", key="mine").content for _ in range(3)]
            other = kept.prompt(b"other", key="other").content
    with keeping(tmp_path) as kept:
        today = datetime.now(UTC).date()
        assert erase(kept.store, Erase(before=today.isoformat(), reason=REASON), myself())["erased"] == []
        told = erase(kept.store, Erase(key="mine", reason=REASON), myself())["erased"]
        assert len(told) == 6
        assert set(mine) < set(told)
        assert kept.show(other)[1] == b"other"
        tomorrow = (today + timedelta(days=1)).isoformat()
        assert len(erase(kept.store, Erase(before=tomorrow, reason=REASON), myself())["erased"]) == 2
        assert records(kept, "content-erased")[0]["key"] == "mine"


def test_what_is_too_long_is_cut_and_marked(tmp_path: Path) -> None:
    """At the bound of a record, or where the memory for all is taken; a prompt that finds none is refused."""

    async def ask(kept: Keeping) -> None:
        asked, said = await kept.request(b"p" * 3000, [b"a" * 600, b"b" * 600, b"c"])
        assert said is not None
        heading, text = await asyncio.to_thread(kept.show, asked.content)
        assert (heading.size, heading.kept, heading.is_cut, text) == (3000, 1024, True, b"p" * 1024)
        heading, text = await asyncio.to_thread(kept.show, said.content)
        assert (heading.size, text) == (1201, b"a" * 600 + b"b" * 424)
        waiting = [kept.store.record("key1", "req", b"w" * 1000) for _ in range(2)]
        late = kept.store.record("key1", "req", b"l" * 1000)
        with pytest.raises(Unwritable, match="too much waits"):
            await late.keep_prompt()
        for each in [*waiting, late]:
            each.drop()
        assert kept.store.hold(5000) == 2048
        kept.store.release(2048)

    with keeping(tmp_path, Bounds(record_bytes=1024, held_bytes=2048)) as kept:
        asyncio.run(ask(kept))


def test_what_was_changed_or_taken_away_is_found(tmp_path: Path) -> None:
    """By comparing the store with the log: a changed record or key, one that is missing; not what was erased."""
    with keeping(tmp_path) as kept:
        pairs = [asyncio.run(kept.request(b"prompt %d" % at, [b"answer"])) for at in range(4)]
        erase(kept.store, Erase(content=pairs[0][0].content, reason=REASON), myself())

    def check() -> tuple[str, ...]:
        return take_inventory(read_lines(kept.places.directory), kept.directory).problems

    found = take_inventory(read_lines(kept.places.directory), kept.directory)
    assert (found.named, found.sound, found.erased, found.is_sound) == (8, 7, 1, True)
    sealed, keys = records_in(kept.directory, 1), keys_in(kept.directory, 1)
    whole, slots = sealed.read_bytes(), keys.read_bytes()
    placed = find(kept.directory, pairs[2][0].content)
    at = placed.offset + placed.size - 40
    sealed.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert [each.split(":")[0] for each in check()] == [f"`{pairs[2][0].content}`"]
    sealed.write_bytes(whole[: placed.offset])
    assert len(check()) == 4
    assert all("is missing" in each for each in check())
    sealed.write_bytes(whole)
    keys.write_bytes(slots[:20] + bytes([slots[20] ^ 1]) + slots[21:])
    assert [each.partition(": ")[2] for each in check()] == ["its wrapped key was changed"]
    keys.write_bytes(slots[92:])
    assert "no record says that it was erased" in check()[0]
    keys.write_bytes(slots)
    assert check() == ()


def test_a_key_that_survived_its_erasing_is_found(tmp_path: Path) -> None:
    """As where a copy was put back: the log says erased, and the key is there."""
    with keeping(tmp_path) as kept:
        asked, _ = asyncio.run(kept.request(WORDS, [b"answer"]))
        before = keys_in(kept.directory, 1).read_bytes()
        erase(kept.store, Erase(content=asked.content, reason=REASON), myself())
    keys_in(kept.directory, 1).write_bytes(before)
    (problem,) = take_inventory(read_lines(kept.places.directory), kept.directory).problems
    assert "erase it again" in problem


def test_retention_removes_the_oldest_and_says_so(tmp_path: Path) -> None:
    """Keys first; a number is never used twice; the log explains what is not there."""
    with keeping(tmp_path) as kept:
        asyncio.run(kept.request(WORDS, [b"answer"]))
    old = datetime.now(UTC).timestamp() - 90_000
    os.utime(records_in(kept.directory, 1), (old, old))
    with keeping(tmp_path, retention=Retention(keep_s=86_400)) as kept:
        new = kept.prompt(b"new").content
        assert segment_of(new) == 2
        assert kept.show(new)[1] == b"new"
    found = take_inventory(read_lines(kept.places.directory), kept.directory)
    assert (found.named, found.removed, found.is_sound) == (2, 2, True)
    assert not keys_in(kept.directory, 1).exists()
    assert records(kept, "content-removed")[0]["through_segment"] == 1


def test_a_store_has_one_user(tmp_path: Path) -> None:
    """A second process is told so."""
    with keeping(tmp_path) as kept, pytest.raises(BadSettings, match="another process"):
        ContentStore(kept.directory, kept.audit, None)


def test_what_cannot_be_written_counts_for_nothing(tmp_path: Path) -> None:
    """The request is told, nothing of it can be seen, and it goes on as soon as it can be written again."""
    with keeping(tmp_path) as kept:
        first = kept.prompt(b"first").content
        blocked = keys_in(kept.directory, 2)
        blocked.mkdir()
        kept.store._end_segment()
        with pytest.raises(Unwritable, match="cannot be recorded"):
            kept.prompt(b"second")
        kept.store._retry_at = 0.0
        assert kept.show(kept.prompt(b"third").content)[1] == b"third"
        listed = list_contents(read_lines(kept.places.directory), kept.directory)
        shown = [heading.content for heading, _ in listed]
        assert shown[0] == first
        assert len(shown) == 2


def open_files() -> list[int]:
    return [int(path.name) for path in Path("/proc/self/fd").iterdir()]


def test_a_segment_that_cannot_be_begun_leaves_nothing_open(tmp_path: Path) -> None:
    """Where descriptors run out half way, after one file, after two, or at what comes behind both."""
    lock = prepare(tmp_path / "content")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(1, 4):
        before = len(open_files())
        fillers: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_files()) + 8, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.open("/dev/null", os.O_RDONLY))
            for _ in range(number - 1):
                os.close(fillers.pop())
            with pytest.raises(OSError, match="Too many open files"):
                OpenSegment(tmp_path / "content", number)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)
        assert len(open_files()) == before
    os.close(lock)


def test_half_a_record_is_never_seen(tmp_path: Path) -> None:
    """Where the file may grow no further in the midst of one, and where a crash left its beginning at the end."""
    with keeping(tmp_path) as kept:
        first = kept.prompt(b"x" * 300_000).content
        path = records_in(kept.directory, 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 500, hard))
        try:
            with pytest.raises(Unwritable, match="File too large"):
                kept.prompt(b"y" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        whole = path.read_bytes()
        for torn in (whole[:3], whole[:200], whole[:-1], whole[:-32] + bytes(32), bytes(500)):
            path.write_bytes(whole + torn)
            assert [placed.heading.content for placed in read_headings(path)] == [first]
        path.write_bytes(whole)
        kept.store._retry_at = 0.0
        later = kept.prompt(b"later").content
        assert kept.show(first)[1] == b"x" * 300_000
        assert kept.show(later)[1] == b"later"


def test_a_changed_record_is_not_shown(tmp_path: Path) -> None:
    """Not even where its digest was made anew: what the log names is the other, and the key does not open it."""
    with keeping(tmp_path) as kept:
        content = kept.prompt(WORDS).content
        placed = find(kept.directory, content)
        raw = bytearray(read_sealed(placed))
        raw[-40] ^= 1
        placed.path.write_bytes(bytes(raw[:-32]) + hashlib.sha256(raw[:-32]).digest())
        with pytest.raises(Unverified, match="does not open"):
            kept.show(content)


async def test_a_server_is_asked_and_says_who_asked(tmp_path: Path) -> None:
    """Over a socket that its directory's group may connect to; errors are the same as without a server."""

    def nothing() -> contextlib.AbstractContextManager[ContentStore]:
        raise AssertionError("a server runs")

    with keeping(tmp_path) as kept:
        log = kept.places.directory
        asked, _ = await kept.request(WORDS, [b"answer"])
        async with attended(kept.store, log) as path:
            assert path.stat().st_mode & 0o777 == 0o660
            assert path.stat().st_gid == log.stat().st_gid
            body = {"content": asked.content, "reason": REASON}
            told = await asyncio.to_thread(ask, log, "read", body, nothing)
            assert unseal(read_sealed(find(kept.directory, asked.content)), key_from(told), kept.private)[1] == WORDS
            assert records(kept, "content-read")[0]["by"].startswith(f"uid {os.getuid()} (")
            for operation, wrong, error in (
                ("read", {"content": asked.content}, RequestError),
                ("read", {"content": asked.content, "reason": ""}, RequestError),
                ("read", {"content": "1-00", "reason": REASON}, FileMissing),
                ("erase", {"before": "soon", "reason": REASON}, RequestError),
            ):
                with pytest.raises(error):
                    await asyncio.to_thread(ask, log, operation, wrong, nothing)
            assert len(records(kept, "content-read")) == 1
            assert await asyncio.to_thread(ask, log, "erase", {"reason": REASON}, nothing) == {"erased": []}
            assert await asyncio.to_thread(ask, log, "erase", body, nothing) == {"erased": [asked.content]}
        assert not path.exists()


def test_an_erasing_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    """At the next start, and recorded again: whether it was before is not known."""
    with keeping(tmp_path) as kept:
        asked, _ = asyncio.run(kept.request(WORDS, [b"answer"]))
        begin_erasing(kept.directory, Erasing((asked.content,), "uid 7 (her)", REASON))
    with keeping(tmp_path) as kept:
        kept.store.close()
        (record,) = records(kept, "content-erased")
        assert (record["contents"], record["by"], record["reason"]) == ([asked.content], "uid 7 (her)", REASON)
        with pytest.raises(FileMissing, match="erased"):
            kept.show(asked.content)
    assert take_inventory(read_lines(kept.places.directory), kept.directory).is_sound


def test_what_is_not_recorded_is_not_erased(tmp_path: Path) -> None:
    """Nor at the next start: who asked was told that it was not done."""
    with keeping(tmp_path) as kept:
        content = kept.prompt(WORDS).content
        kept.store.audit = open_audit(places_in(tmp_path / "other"))
        kept.store.audit.close()
        with pytest.raises(Unwritable):
            kept.store.erase(Erasing((content,), "uid 7", REASON))
        with pytest.raises(Unwritable):
            kept.show(content)
    with keeping(tmp_path) as kept:
        assert kept.show(content)[1] == WORDS
