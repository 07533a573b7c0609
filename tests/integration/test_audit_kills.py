"""A process that writes the audit log is killed at random points: what it acknowledged is there, and verifies."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from serving.audit import Limits
from serving.audit.chain import read_entry
from serving.audit.reading import read_lines, verify_log
from serving.audit.records import ModelLoaded
from tests.support.audit_logs import intent, open_audit, outcome, places_in, public
from tests.support.harness import SOURCE

KILLS = int(os.environ.get("AUDIT_KILLS", "20"))
"""The full number is 100; in the gate fewer, since each starts a process."""


def run_and_kill(directory: Path, after_s: float, after_records: int) -> list[int]:
    """Start a writer, kill it some time after it has acknowledged some records; returns all that it acknowledged."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "tests.support.audit_child", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=SOURCE) as child:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(after_records)]
        time.sleep(after_s)  # the point at which it is killed, not a wait for anything
        child.send_signal(signal.SIGKILL)
        told += child.stdout.read().splitlines(keepends=True)
    return [int(line) for line in told if line.endswith(b"\n")]


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    """After each kill the log opens again, every acknowledged intent is in it, and the whole chain holds."""
    chance = random.Random(11)
    places = places_in(tmp_path)
    acknowledged: set[int] = set()
    for _ in range(KILLS):
        acknowledged |= set(run_and_kill(tmp_path, chance.uniform(0, 0.05), chance.randint(1, 60)))
        open_audit(places).close()
        entries = [read_entry(line.rstrip(b"\n")) for line in read_lines(places.directory)]
        intents = {entry.seq for entry in entries if entry.kind == "intent"}
        assert acknowledged <= intents
    report = verify_log(places.directory, [public(places)])
    assert report.is_sound, report.breaks
    assert report.is_closed
    assert any("crashed, or was killed" in note for note in report.notes)
    assert set(report.open_intents) <= intents
    assert report.segments > 1


def test_a_torn_line_is_cut_off_and_said(tmp_path: Path) -> None:
    """Wherever in the last line the end came, and in the first lines of a segment too."""
    places = places_in(tmp_path)
    open_audit(places).close()
    path = next(places.directory.glob("audit-*"))
    whole = path.read_bytes()
    whole_lines = {len(whole.splitlines()[-1]) + 1, len(whole)}
    for cut in (0, 1, 5, *whole_lines, len(whole) - 1):
        path.write_bytes(whole[: len(whole) - cut] if cut else whole + b'{"at":"20')
        open_audit(places).close()
        report = verify_log(places.directory, [public(places)])
        assert report.is_sound, (cut, report.breaks)
        assert report.kinds.get("recovered", 0) == (cut not in whole_lines), cut


async def test_no_record_is_lost_or_doubled_by_the_writers_death(tmp_path: Path) -> None:
    """It is killed while requests come: each intent and outcome, and whatever nobody waits for, is there once."""
    chance = random.Random(23)
    places = places_in(tmp_path)
    limits = Limits(checkpoint_records=50, checkpoint_s=3600, segment_bytes=200_000)
    audit = open_audit(places, limits, on_failure="serve")
    asked: list[str] = []
    lost: list[str] = []
    is_over = asyncio.Event()

    async def client(name: int) -> None:
        for turn in itertools.count():
            request = f"{name}-{turn}"
            asked.append(request)

            def close(number: int | None, request: str = request) -> None:
                if number is None:
                    lost.append(request)
                audit.outcome(outcome(number, request))

            number = await audit.intent(intent(0, request=request), close)
            if number is not None:
                close(number)
            audit.event(ModelLoaded(model=request, engine="demo#0"))
            if is_over.is_set():
                return
            await asyncio.sleep(chance.uniform(0, 0.02))  # its pace, not a wait for anything

    clients = [asyncio.create_task(client(name)) for name in range(8)]
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0, 0.2))  # the point at which it is killed
        pid = audit.writer_pid
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while audit.writer_pid == pid or audit.failure is not None:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.005)
    is_over.set()
    await asyncio.gather(*clients)
    assert audit.close() is None
    entries = [read_entry(line.rstrip(b"\n")) for line in read_lines(places.directory)]
    records = [(entry.seq, entry.record) for entry in entries]
    assert not lost
    assert sum(record["lost"] for _, record in records if record["kind"] == "gap") == 0
    assert sum(record["kind"] == "gap" for _, record in records) == KILLS
    for kind, field in (("intent", "request"), ("outcome", "request"), ("model-load", "model")):
        assert sorted(record[field] for _, record in records if record["kind"] == kind) == sorted(asked), kind
    intents = {seq: record["request"] for seq, record in records if record["kind"] == "intent"}
    assert intents == {record["intent"]: record["request"] for _, record in records if record["kind"] == "outcome"}
    report = verify_log(places.directory, [public(places)])
    assert report.is_sound, report.breaks
    assert (report.is_closed, report.open_intents) == (True, ())
    assert not any("name no open intent" in note for note in report.notes)
