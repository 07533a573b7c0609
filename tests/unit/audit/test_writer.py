"""The writer: groups, bounds, failures and what comes after them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serving.audit import Limits, Retention
from serving.audit.canonical import NotCanonical
from serving.audit.failures import OTHERS, SOURCES, FailureTally
from serving.audit.reading import read_lines, verify_log
from serving.audit.records import ModelLoaded
from serving.audit.segments import Segment, decide_removal
from serving.errors import BadSettings, Unverified, Unwritable
from tests.support.audit_logs import files_of, intent, open_audit, outcome, places_in, public
from tests.support.harness import SOURCE, wait_until


def records_of(directory: Path) -> list[dict]:
    return [json.loads(line)["record"] for line in read_lines(directory)]


async def test_intents_are_durable_when_they_are_acknowledged(tmp_path: Path) -> None:
    """Many at once are told their numbers, each another, and each is in the file by then."""
    places = places_in(tmp_path)
    audit = open_audit(places)

    async def one(number: int) -> int | None:
        seq = await audit.intent(intent(number))
        assert f'"seq":{seq}}}'.encode() in b"".join(read_lines(places.directory))
        audit.outcome(outcome(seq))
        return seq

    numbers = await asyncio.gather(*map(one, range(100)))
    assert len(set(numbers)) == 100
    assert audit.close("test") is None
    report = verify_log(places.directory, [public(places)])
    assert report.is_sound, report.breaks
    assert report.is_closed
    assert not report.open_intents
    assert (report.kinds["intent"], report.kinds["outcome"]) == (100, 100)


async def test_a_caller_that_leaves_keeps_nobody_up(tmp_path: Path) -> None:
    """Its intent is written all the same; others of the group are told; it stays open in the report."""
    places = places_in(tmp_path)
    audit = open_audit(places)
    gone = asyncio.create_task(audit.intent(intent(1)))
    stays = asyncio.create_task(audit.intent(intent(2)))
    await asyncio.sleep(0)
    gone.cancel()
    assert isinstance(await stays, int)
    assert gone.cancelled()
    audit.close()
    assert len(verify_log(places.directory, [public(places)]).open_intents) == 2


async def test_the_process_that_writes_dies_and_another_goes_on(tmp_path: Path) -> None:
    """Who waits is refused; what nobody waited for is written by the next one, after a record that says since when."""
    places = places_in(tmp_path)
    audit = open_audit(places)
    first = await audit.intent(intent(1))
    os.kill(audit.writer_pid, signal.SIGSTOP)
    waiting = asyncio.create_task(audit.intent(intent(2)))
    await asyncio.sleep(0)
    audit.outcome(outcome(first, "kept"))
    os.kill(audit.writer_pid, signal.SIGKILL)
    with pytest.raises(Unwritable, match="the process that writes it ended"):
        await waiting
    for _ in range(500):
        with contextlib.suppress(Unwritable):
            assert isinstance(await audit.intent(intent(3)), int)
            break
        await asyncio.sleep(0.02)
    assert audit.failure is None
    assert audit.close() is None
    report = verify_log(places.directory, [public(places)])
    assert report.is_sound, report.breaks
    assert report.kinds["gap"] == 1
    assert b'"request":"kept"' in b"".join(read_lines(places.directory))


async def test_a_thread_and_a_loop_are_told_their_own_numbers(tmp_path: Path) -> None:
    """Whoever reads the answers: records from threads, some of which began before there was a loop, and intents."""
    places = places_in(tmp_path)
    audit = open_audit(places)
    loaded = ModelLoaded(model="demo", weights="a" * 64, engine="demo#0")
    told: list[int] = []
    threads = [threading.Thread(target=lambda: told.extend(audit.record(loaded) for _ in range(20))) for _ in range(4)]
    for thread in threads:
        thread.start()

    async def one(number: int) -> tuple[int, int | None]:
        return number, await asyncio.wait_for(audit.intent(intent(number)), 10)

    pairs = await asyncio.gather(*map(one, range(200)))
    while any(thread.is_alive() for thread in threads):  # noqa: ASYNC110 - threads have no event for it
        await asyncio.sleep(0.01)
    audit.close()
    entries = {entry["seq"]: entry["record"] for entry in map(json.loads, read_lines(places.directory))}
    assert all(entries[seq]["request"] == f"req-{number}" for number, seq in pairs)
    assert len(told) == 80
    assert all(entries[seq]["kind"] == "model-load" for seq in told)


def test_threads_write_too(tmp_path: Path) -> None:
    """From many at once; each waits until its record is on the disk."""
    places = places_in(tmp_path)
    audit = open_audit(places)
    loaded = ModelLoaded(model="demo", weights="a" * 64, engine="demo#0")
    threads = [threading.Thread(target=audit.record, args=(loaded,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(record["kind"] == "model-load" for record in records_of(places.directory)) == 20
    audit.close()
    with pytest.raises(Unwritable, match="closed"):
        audit.record(loaded)


def test_a_record_of_another_form_is_refused_at_once(tmp_path: Path) -> None:
    """A float, half a surrogate pair, a number that no double holds: nothing is written."""
    audit = open_audit(places_in(tmp_path))
    for fields in ({"prompt_tokens": 1.5}, {"request": "\ud800"}, {"output_limit": 1 << 60}):
        with pytest.raises(NotCanonical):
            audit.event(intent(**fields))
    audit.close()


def test_a_host_has_one_writer(tmp_path: Path) -> None:
    """A second one is refused, and the first is none the worse for it."""
    audit = open_audit(places_in(tmp_path))
    with pytest.raises(BadSettings, match="another process"):
        open_audit(places_in(tmp_path))
    audit.close()
    open_audit(places_in(tmp_path)).close()


def test_nothing_is_written_behind_a_break(tmp_path: Path) -> None:
    """A changed line is no torn one: the log does not open, whatever a crash may have done."""
    places = places_in(tmp_path)
    open_audit(places).close()
    (path,) = files_of(places)
    path.write_bytes(path.read_bytes().replace(b'"version":"1"', b'"version":"2"'))
    with pytest.raises(Unverified, match="line 3"):
        open_audit(places)


def test_files_are_for_the_user_and_the_group_to_read(tmp_path: Path) -> None:
    """Whatever the umask: 0640 in 0750, so that an auditor needs not be the operator; keys are the user's alone."""
    before = os.umask(0o077)
    try:
        places = places_in(tmp_path)
        open_audit(places).close()
    finally:
        os.umask(before)
    assert places.directory.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in files_of(places)} == {0o640}
    assert {path.stat().st_mode & 0o777 for path in (places.signing_key, places.fingerprint_key)} == {0o600}


def test_old_segments_go_and_the_rest_verifies(tmp_path: Path) -> None:
    """By the checkpoint that it begins with; that they went is recorded before they go."""
    places = places_in(tmp_path)
    audit = open_audit(places, retention=Retention(keep_bytes=12_000))
    for _ in range(400):
        audit.record(intent())
    wait_until(lambda: len(files_of(places)) <= 4, "old segments are removed")
    audit.close()
    assert files_of(places)[0].name != "audit-00000001.jsonl"
    report = verify_log(places.directory, [public(places)])
    assert report.is_sound, report.breaks
    assert report.first_seq > 1
    assert any("retention has removed" in note for note in report.notes)
    files_of(places)[0].unlink()
    assert "no record says that retention" in verify_log(places.directory, [public(places)]).breaks[-1].what


def test_what_has_not_left_the_host_is_kept_within_a_bound() -> None:
    """Retention waits for a receiver, until what it waits for is too much."""
    segments = [Segment(number, Path(str(number)), 100, float(number)) for number in range(1, 7)]

    def gone(delivered: int | None, bound: int) -> list[int]:
        retention = Retention(keep_s=1.0, undelivered_bytes=bound)
        return [segment.number for segment in decide_removal(segments, 1000.0, retention, delivered)]

    assert gone(None, 0) == [1, 2, 3, 4, 5]
    assert gone(2, 10_000) == [1, 2]
    assert gone(0, 350) == [1, 2, 3]
    assert decide_removal(segments, 1000.0, Retention(), None) == ()


def test_a_checkpoint_comes_by_time_too(tmp_path: Path) -> None:
    """Without any further record."""
    places = places_in(tmp_path)
    audit = open_audit(places, Limits(checkpoint_s=0.05))
    audit.record(intent())
    wait_until(lambda: records_of(places.directory)[-1]["kind"] == "checkpoint", "a checkpoint")
    audit.close()


def test_failed_attempts_are_one_record_for_a_source_and_minute(tmp_path: Path) -> None:
    """However many there are, and however many sources: growth is bounded."""
    tally = FailureTally()
    for number in range(3 * SOURCES):
        tally.add(f"10.0.{number // 250}.{number % 250}", "2026-01-31T12:34")
        tally.add("10.9.9.9", "2026-01-31T12:34")
    assert not tally.take("2026-01-31T12:34")
    taken = {record.source: record.count for record in tally.take("2026-01-31T12:35")}
    assert len(taken) <= SOURCES + 1
    assert taken["10.9.9.9"] == 3 * SOURCES
    assert taken[OTHERS] == 2 * SOURCES + 1
    assert sum(taken.values()) == 6 * SOURCES
    places = places_in(tmp_path)
    audit = open_audit(places)
    for _ in range(500):
        audit.authentication_failed("10.0.0.1")
    audit.close()
    failed = [record for record in records_of(places.directory) if record["kind"] == "authentication-failed"]
    assert len(failed) <= 2  # the minute may have ended in between
    assert sum(record["count"] for record in failed) == 500


FULL_DISK = """
import asyncio, json, os, sys
from pathlib import Path
from tests.support.audit_logs import *
from tests.support.harness import wait_until
from serving.errors import Unwritable
from serving.audit.reading import verify_log
from dataclasses import replace

keys, disk = map(Path, sys.argv[1:])
places = replace(places_in(keys), directory=disk / "log")
assert os.system(f"mount -t tmpfs -o size=256k none {disk}") == 0

async def main():
    for mode in ("refuse", "serve"):
        audit = open_audit(places, Limits(), on_failure=mode)
        room = os.statvfs(disk)
        (disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_bsize // 2))
        refused = 0
        while refused < 3:
            try:
                number = await audit.intent(intent(prompt="f" * 64))
                refused += number is None
            except Unwritable as error:
                assert mode == "refuse" and (error.code, error.http_status) == ("audit_unwritable", 503), error
                assert "No space left" in error.message, error
                refused += 1
        assert audit.failure.reason == "No space left on device"
        audit.outcome(outcome(1, "kept"))
        (disk / "ballast").unlink()
        wait_until(lambda: audit.failure is None, "it writes again")
        assert isinstance(await audit.intent(intent()), int)
        assert audit.close() is None
        report = verify_log(places.directory, [public(places)])
        assert report.is_sound, report.breaks
        assert report.is_closed
        lines = b"".join(lines_of(places))
        assert report.kinds["gap"] == (1 if mode == "refuse" else 2)
        assert b'"request":"kept"' in lines
        for path in files_of(places)[:-1]:
            path.unlink()
    print("done")

asyncio.run(main())
"""


def test_a_full_disk_refuses_or_serves_and_is_recorded(tmp_path: Path) -> None:
    """Intents are refused or let through, by setting; with room again it goes on, and says what it lost."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here (unshare -rm)")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "full.py"
    script.write_text(FULL_DISK)
    done = subprocess.run(
        [unshare, "-rm", sys.executable, str(script), str(tmp_path), str(disk)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
