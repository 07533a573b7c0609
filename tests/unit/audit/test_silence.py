"""A process that writes the log and does not answer, dies, or is given what it cannot write.

Nothing waits for ever, nothing is lost without a word, and nothing is there twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.audit import Audit, Patience, Places
from serving.audit.canonical import NotCanonical
from serving.audit.reading import read_lines, verify_log
from serving.audit.records import ModelLoaded
from serving.audit.verify import Report
from serving.errors import Unwritable
from tests.support.audit_logs import intent, open_audit, outcome, places_in, public
from tests.support.harness import SOURCE, wait_until

SHORT = Patience(wait_s=0.5, kill_s=3600)
LOADED = ModelLoaded(model="demo", weights="a" * 64, engine="demo#0")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return places_in(tmp_path)


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Let the event loop run until that is so."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - another process has no event for it
            await asyncio.sleep(0.01)


class Client:
    """Asks as the gateway does: one intent each, and its outcome once the number is known, early or late."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self.asked = 0
        self.without = 0
        """Outcomes whose intent was not written."""

    async def ask(self) -> int | Unwritable | None:
        name = self.asked
        self.asked += 1

        def close(number: int | None) -> None:
            self.without += number is None
            self.audit.outcome(outcome(number, f"req-{name}"))

        try:
            number = await self.audit.intent(intent(name), close)
        except Unwritable as error:
            return error
        if number is not None:
            close(number)
        return number


def records(places: Places, kind: str) -> list[dict]:
    entries = [json.loads(line)["record"] for line in read_lines(places.directory)]
    return [entry for entry in entries if entry["kind"] == kind]


def checked(places: Places) -> Report:
    """What holds of each log here: it is sound and ended in order, no record is there twice, none is by itself."""
    report = verify_log(places.directory, [public(places)])
    assert report.is_sound, report.breaks
    assert report.is_closed
    for kind in ("intent", "outcome"):
        assert set(Counter(record["request"] for record in records(places, kind)).values()) <= {1}, kind
    numbered = [record["intent"] for record in records(places, "outcome") if "intent" in record]
    assert len(numbered) == len(set(numbered)) == len(records(places, "intent"))
    assert not report.open_intents
    return report


@pytest.mark.parametrize("mode", ["refuse", "serve"])
async def test_a_writer_that_hangs_keeps_nobody_waiting(places: Places, mode: str) -> None:
    """Requests get 503 after a while, or are served; then at once. When it wakes, each record is there, once."""
    audit = open_audit(places, on_failure=mode, patience=SHORT)
    client = Client(audit)
    assert isinstance(await client.ask(), int)
    os.kill(audit.writer_pid, signal.SIGSTOP)
    told = await asyncio.wait_for(asyncio.gather(*(client.ask() for _ in range(8))), 10)
    for answer in told:
        if mode == "serve":
            assert answer is None
        else:
            assert isinstance(answer, Unwritable)
            assert (answer.http_status, answer.code) == (503, "audit_unwritable")
            assert answer.retry_after_s >= 1
            assert "does not answer" in answer.message
    assert audit.failure is not None
    at_once = asyncio.create_task(client.ask())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert at_once.done()
    os.kill(audit.writer_pid, signal.SIGCONT)
    await until(lambda: audit.failure is None)
    assert isinstance(await client.ask(), int)
    assert audit.close() is None
    checked(places)
    (gap,) = records(places, "gap")
    # the one that came while it was silent was refused before anything, or is late like the others
    is_refused = mode == "refuse"
    assert (gap["lost"], client.without) == (is_refused, is_refused)
    assert gap["late"] >= 8 + (not is_refused)
    assert len(records(places, "intent")) == client.asked - is_refused


@pytest.mark.parametrize("mode", ["refuse", "serve"])
async def test_a_writer_that_hangs_for_long_is_killed(places: Places, mode: str) -> None:
    """Another one goes on, with all that was on its way, and knows what of it was written."""
    audit = open_audit(places, on_failure=mode, patience=Patience(wait_s=0.2, kill_s=0.2))
    client = Client(audit)
    for _ in range(20):
        assert isinstance(await client.ask(), int)
    before = audit.writer_pid
    os.kill(before, signal.SIGSTOP)
    told = await asyncio.wait_for(asyncio.gather(*(client.ask() for _ in range(8))), 10)
    assert not any(isinstance(answer, int) for answer in told)
    await until(lambda: audit.writer_pid != before and audit.failure is None)
    assert isinstance(await client.ask(), int)
    assert audit.close() is None
    checked(places)
    (gap,) = records(places, "gap")
    assert (gap["lost"], len(records(places, "intent"))) == (0, client.asked)


def test_a_thread_does_not_wait_for_ever(places: Places) -> None:
    """Where no event loop is there either: an act is refused, another is recorded later; and it goes on."""
    audit = open_audit(places, patience=SHORT)
    os.kill(audit.writer_pid, signal.SIGSTOP)
    threads = [threading.Thread(target=audit.keep, args=(LOADED,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    with pytest.raises(Unwritable, match="does not answer"):
        audit.record(LOADED)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    os.kill(audit.writer_pid, signal.SIGCONT)
    wait_until(lambda: audit.failure is None, "it answers")
    assert audit.record(LOADED) > 0
    assert audit.close() is None
    assert len(records(places, "model-load")) in (4, 5)  # the refused one had been handed over
    checked(places)


async def test_who_leaves_before_its_number_is_known_is_told_late(places: Places) -> None:
    """Also where the number had come and the task was cancelled in the same turn."""
    audit = open_audit(places)
    told: dict[int, int | None] = {}
    for turns in range(1, 400, 7):
        task = asyncio.create_task(
            audit.intent(intent(turns), lambda number, turns=turns: told.update({turns: number}))
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            number = await task
        except asyncio.CancelledError:
            await until(lambda turns=turns: turns in told)
        else:
            told[turns] = number
    audit.close()
    lines = [json.loads(line) for line in read_lines(places.directory)]
    assert told == {
        int(line["record"]["request"][4:]): line["seq"] for line in lines if line["record"]["kind"] == "intent"
    }


async def test_what_has_no_form_leaves_a_trace(places: Places) -> None:
    """Of which kind it was is on record at once; what comes with it is written."""
    audit = open_audit(places)
    with pytest.raises(Unwritable, match="canonical"):
        await audit.intent(intent(1, request="\ud800"))
    number = await audit.intent(intent(2))
    audit.outcome(outcome(number, duration_us=0.5))
    for act in (audit.event, audit.record, audit.keep):
        with pytest.raises(NotCanonical):
            act(ModelLoaded(model="\udcff", engine="demo#0"))
    assert isinstance(await audit.intent(intent(3)), int)
    assert audit.close() is None
    gaps = records(places, "gap")
    assert [gap["lost_kind"] for gap in gaps] == ["intent", "outcome", "model-load", "model-load", "model-load"]
    assert all((gap["lost"], "canonical" in gap["reason"]) == (1, True) for gap in gaps)
    assert len(records(places, "intent")) == 2
    notes = " ".join(verify_log(places.directory, [public(places)]).notes)
    assert "1 records (outcome)" in notes


NO_THREADS = """
import asyncio, os, signal, sys, threading
from pathlib import Path
from tests.support.audit_logs import *
from serving.errors import Unwritable

async def main():
    audit = open_audit(places_in(Path(sys.argv[1])))
    await audit.intent(intent(1))
    threading.stack_size(1 << 46)  # more than there is of addresses
    try:
        threading.Thread(target=print).start()
    except RuntimeError:
        print("no threads")
    os.kill(audit.writer_pid, signal.SIGKILL)
    for _ in range(500):
        try:
            await audit.intent(intent(2))
            break
        except Unwritable:
            await asyncio.sleep(0.02)
    print(audit.failure)
    assert audit.close() is None

asyncio.run(main())
"""


def test_a_writer_is_replaced_where_no_thread_can_be_started(tmp_path: Path) -> None:
    """What watches it was there before."""
    done = subprocess.run(
        [sys.executable, "-c", NO_THREADS, str(tmp_path)],
        cwd=SOURCE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, ["no threads", "None"]), done.stderr
