"""A process that keeps content is killed at random points: what it acknowledged is there, what it erased is not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.audit.inventory import list_contents, take_inventory
from serving.audit.reading import read_lines, verify_log
from serving.errors import FileMissing
from tests.support.audit_logs import public
from tests.support.content_child import text_of
from tests.support.contents import keeping
from tests.support.harness import SOURCE

KILLS = int(os.environ.get("CONTENT_KILLS", "20"))


def run_and_kill(home: Path, after_s: float, after_lines: int) -> list[list[str]]:
    """Start a keeper, kill it some time after it has acknowledged something; returns the words of all that it said."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "tests.support.content_child", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=SOURCE) as child:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(after_lines)]
        time.sleep(after_s)  # the point at which it is killed, not a wait for anything
        child.send_signal(signal.SIGKILL)
        told += child.stdout.read().splitlines(keepends=True)
    return [line.decode().split() for line in told if line.endswith(b"\n")]


def test_nothing_acknowledged_is_lost_and_nothing_erased_comes_back(tmp_path: Path) -> None:
    """Every prompt that an intent names is there; each record is whole, or is not seen; erasures are completed."""
    chance = random.Random(5)
    said: list[list[str]] = []
    for _ in range(KILLS):
        said += run_and_kill(tmp_path, chance.uniform(0, 0.05), chance.randint(1, 25))
        with keeping(tmp_path) as kept:
            kept.store.close()  # what was being erased is done with
            found = take_inventory(read_lines(kept.places.directory), kept.directory)
            assert found.is_sound, found.problems
    records = [json.loads(line)["record"] for line in read_lines(kept.places.directory)]
    erased = {content for record in records for content in record.get("contents", ())}
    assert {words[1] for words in said if words[0] == "erased"} <= erased
    with keeping(tmp_path) as kept:
        for words in said:
            if words[0] == "kept":
                text = text_of(int(words[3]), int(words[4]))
                assert kept.show(words[2])[1] == text + b"answer"
                if words[1] not in erased:
                    assert kept.show(words[1])[1] == text
        for content in erased:
            with pytest.raises(FileMissing, match="erased"):
                kept.show(content)
        for heading, is_erased in list_contents(read_lines(kept.places.directory), kept.directory):
            if not is_erased:
                assert kept.show(heading.content)[0] == heading
    report = verify_log(kept.places.directory, [public(kept.places)])
    assert report.is_sound, report.breaks
    assert report.kinds["intent"] > KILLS
    assert report.kinds["content-erased"] > 0
