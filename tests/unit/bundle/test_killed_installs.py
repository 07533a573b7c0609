"""An installation that is killed, over and over: what is visible is whole, and the next one ends it."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from serving.store.examine import examine_store
from tests.support.bundles import ANY, CONFIG, Draft, Site, tensors, wheel

KILLS = 100


def draft() -> Draft:
    """Three models of a MiB, of which two share a file, and a wheel."""
    files = [{"config.json": CONFIG, "model.safetensors": tensors(1 << 20, seed)} for seed in range(3)]
    shared = {**files[1], "more.safetensors": tensors(1 << 19, 0)}
    models = [("one", "bf16", files[0]), ("two", "bf16", shared), ("two", "f16", files[1])]
    return Draft(
        models=[(model, variant, "safetensors", told) for model, variant, told in models],
        wheels=[(ANY, None, wheel(extra=[("large.bin", random.Random(1).randbytes(1 << 20))]))],
    )


class Installer:
    """The process that forks installations."""

    def __init__(self, bundle: Path, root: Path) -> None:
        command = [sys.executable, "-m", "tests.support.install_in_forks", str(bundle), str(root)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def run(self, kill_after_s: float | None) -> tuple[int, float]:
        """One installation; its status, and how long it took."""
        child, start = int(self._ask()), time.monotonic()
        if not select.select([self._out], [], [], kill_after_s)[0]:
            os.kill(child, signal.SIGKILL)
        assert self._out.readline() == "ended\n"
        took_s = time.monotonic() - start
        return int(self._ask()), took_s

    def _ask(self) -> str:
        self._in.write("go\n")
        self._in.flush()
        return self._out.readline()

    def close(self) -> None:
        self._in.close()
        assert self._process.wait(60) == 0
        self._out.close()


def is_whole(site: Site) -> bool:
    """Whether nothing is wrong with any model that is visible; what is on its way does not count."""
    examined = examine_store(site.store)
    visible = {str(model) for model in examined.models}
    return not [fault for fault in examined.faults if visible & set(fault.models)]


def test_a_killed_installation_goes_on(tmp_path: Path) -> None:
    """A hundred times SIGKILL anywhere in it: every model that is visible is whole, and an installation ends it."""
    site = Site(tmp_path)
    bundle = tmp_path / "bundle.tar"
    bundle.write_bytes(draft().build(site.key))
    installer = Installer(bundle, tmp_path)
    rng = random.Random(11)
    _, whole_s = installer.run(None)
    expected = site.traces()
    assert len(site.store.manifests()) == 3
    struck = tries = partial = resumed = 0
    shutil.rmtree(site.store.root)
    while struck < KILLS:
        status, took_s = installer.run(rng.uniform(0, whole_s))
        tries += 1
        struck += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL)
        manifests = site.store.manifests() if site.store.root.exists() else ()
        partial += 0 < len(manifests) < 3
        resumed += any(path.name.startswith(("weights-", "papers-")) for path in tmp_path.rglob("incoming/bundle/*/*"))
        assert is_whole(site)
        assert tries < 10 * KILLS
        if status == 0 or rng.random() < 0.15:
            status, took_s = installer.run(None)
            assert status == 0
            assert is_whole(site)
            assert not examine_store(site.store).faults
            assert site.traces() == expected
            whole_s = (whole_s + took_s) / 2
            shutil.rmtree(site.store.root)
    installer.close()
    sys.stderr.write(f"{struck} of {tries} struck, {resumed} with files laid aside, {partial} between two models\n")
    assert resumed > KILLS // 4
