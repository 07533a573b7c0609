"""Killed anywhere while a model comes in, there is a whole model or none, and the next try ends the work."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.store.bring import look_through
from serving.store.cas import Store
from serving.store.examine import examine_store
from tests.support.stored import DEMO

KILLS = 100
FACTORY = """
import os, sys, time
from pathlib import Path
from serving.store.bring import Origin, bring_in, look_through
from serving.store.cas import Store
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        bring_in(Store(Path(sys.argv[1])), look_through(Path(sys.argv[2]))[0], Origin("own", "bf16"))
        os._exit(0)
    print(child, flush=True)
    began = time.monotonic()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, time.monotonic() - began, flush=True)
"""
"""Imports, each in a process forked for it: a hundred starts of the interpreter would take minutes."""


class Imports:
    """Starts imports of `source` into `store`, and says how they ended."""

    def __init__(self, store: Path, source: Path) -> None:
        argv = [sys.executable, "-c", FACTORY, str(store), str(source)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self) -> int:
        """The process of a new import."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> tuple[int, float]:
        """How the import ended, and after how many seconds."""
        assert self.process.stdout is not None
        status, took_s = self.process.stdout.readline().split()
        return int(status), float(took_s)


@pytest.fixture
def imports(tmp_path: Path) -> Iterator[Imports]:
    source = tmp_path / "carried"
    shutil.copytree(DEMO / "hf", source)
    made = Imports(tmp_path / "store", source)
    yield made
    made.process.communicate(timeout=20)


def test_a_hundred_kills_of_an_import(tmp_path, imports):
    """At random moments of its length; most hit before its end, and whatever they hit, nothing half is visible."""
    chance = random.Random(6)
    store, count = Store(tmp_path / "store"), len(look_through(DEMO / "hf")[0])
    imports.start()
    status, length_s = imports.end()
    assert status == 0
    store.remove("own", "bf16", forget=True)
    hit = 0
    for _ in range(KILLS):
        child = imports.start()
        time.sleep(chance.uniform(0, length_s))  # the moment is what is tried, nothing is waited for
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        hit += imports.end()[0] == -signal.SIGKILL
        seen = store.manifests()
        assert len(seen) <= 1
        for manifest in seen:
            assert len(manifest.files) == count
            assert store.lock().find("own", "bf16") == manifest
        faults = [fault.what for fault in examine_store(store).faults if fault.models]
        # a tree and a lock may be there before their manifest, which makes the model
        assert all("its manifest is not" in what for what in faults), faults
        if seen:
            store.remove("own", "bf16", forget=chance.random() < 0.5)
    assert hit >= KILLS / 3, f"only {hit} of {KILLS} kills came before the end"
    imports.start()
    assert imports.end()[0] == 0
    assert examine_store(store).faults == ()
    assert len(list(store.tree(store.manifests()[0]).iterdir())) == count
