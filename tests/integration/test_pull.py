"""`serve models pull` from a mirror, with the real huggingface_hub, over wires that are slow, cut or tampered with."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.store.bring import Origin, bring_in, look_through
from serving.store.cas import Store
from serving.store.examine import examine_store
from tests.support.between import Between
from tests.support.harness import wait_until
from tests.support.stored import DEMO

KILLS = int(os.environ.get("SERVING_TEST_KILLS", "20"))
WEIGHTS = 24 << 20
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_0a1b2c3d4e5f6071"


def _tensors(path: Path, size: int) -> None:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + random.Random(1).randbytes(size))


@dataclass
class Puller:
    """A host that pulls, and the wire to the mirror."""

    home: Path
    wire: Between
    token_file: Path | None = None

    @property
    def store(self) -> Store:
        return Store(self.home / "perimeter" / "store")

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        named = {} if self.token_file is None else {"PERIMETER_STORE__TOKEN_FILE": str(self.token_file)}
        return {**kept, **named, "HOME": str(self.home), "XDG_DATA_HOME": str(self.home), "HF_ENDPOINT": self.wire.url}

    def argv(self, *more: str) -> list[str]:
        named = ("own", "--source", "acme/own", "--variant", "bf16")
        return [sys.executable, "-m", "serving", "models", "pull", *(more or named)]

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self.argv(), env=self.environment(), stderr=subprocess.PIPE, text=True)

    def run(self, *more: str) -> tuple[int, str]:
        done = subprocess.run(
            self.argv(*more), env=self.environment(), capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stderr


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mirror of one model with some megabytes of weights."""
    home = tmp_path_factory.mktemp("mirror")
    model = home / "model"
    shutil.copytree(DEMO / "hf", model)
    (model / "model.safetensors").unlink()
    (model / "LICENSE").write_text("Anybody may do anything.\n")
    _tensors(model / "model.safetensors", WEIGHTS)
    origin = Origin("own", "bf16", "huggingface.co/acme/own", COMMIT, publishable=True)
    bring_in(Store(home / "perimeter" / "store"), look_through(model)[0], origin)
    argv = [sys.executable, "-m", "serving", "mirror", "--open", "--port", "0"]
    environment = {**os.environ, "XDG_DATA_HOME": str(home), "HOME": str(home)}
    process = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    url = next(line.split()[1] for line in process.stderr if line.startswith("mirror"))
    yield url
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture
def puller(tmp_path: Path, mirror: str) -> Iterator[Puller]:
    wire = Between(mirror)
    yield Puller(tmp_path / "home", wire)
    wire.close()


def test_a_model_is_pulled_locked_and_not_pulled_twice(puller):
    """With its words and its commit; what is there already is hashed, and not asked for again."""
    status, said = puller.run()
    assert status == 0, said
    assert "7 files" in said
    (manifest,) = puller.store.manifests()
    assert (manifest.source, manifest.revision) == ("huggingface.co/acme/own", COMMIT)
    assert manifest.file("LICENSE") is not None
    assert puller.store.lock().entries == (manifest,)
    assert examine_store(puller.store).faults == ()
    first = puller.wire.passed
    assert first > WEIGHTS
    assert puller.run()[0] == 0
    assert puller.wire.passed - first < 100_000


def test_a_cut_is_told_and_the_next_pull_goes_on(puller):
    """Status 18 with what to do; what came is not asked for again."""
    puller.wire.cut_after = WEIGHTS // 2
    status, said = puller.run()
    assert status == 18, said
    assert "goes on from there" in said
    assert puller.store.manifests() == ()
    puller.wire.cut_after = None
    before = puller.wire.passed
    status, said = puller.run()
    assert status == 0, said
    assert puller.wire.passed - before < 0.75 * WEIGHTS
    assert examine_store(puller.store).faults == ()


def test_what_changes_on_the_way_is_refused(puller):
    """One bit of many millions: nothing becomes visible, and the next pull begins with what was right."""
    puller.wire.flip_at = WEIGHTS // 2
    status, said = puller.run()
    assert status == 17, said
    assert "`model.safetensors`" in said
    assert "SHA-256" in said
    assert puller.store.manifests() == ()
    status, said = puller.run()
    assert status == 0, said
    assert examine_store(puller.store).faults == ()


def _processes_of(pid: int) -> Iterator[Path]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if entry.name.isdecimal() and pid in (int(entry.name), int(stat[1])):
                yield entry


def test_the_token_stands_in_no_environment_and_on_no_command_line(puller, tmp_path):
    """Of neither process, while they run; nor in what is left on the disk."""
    puller.token_file = tmp_path / "token"
    puller.token_file.write_text(f"{TOKEN}\n")
    puller.token_file.chmod(0o600)
    puller.wire.bytes_per_s = 4e6
    process = puller.start()
    try:
        wait_until(lambda: puller.wire.passed > 1 << 20, "some of the download", 60)
        looked = [
            (entry / name).read_bytes() for entry in _processes_of(process.pid) for name in ("environ", "cmdline")
        ]
    finally:
        puller.wire.bytes_per_s = None
        said = process.communicate(timeout=60)[1]
    assert len(looked) >= 4, "the command and the process that downloads"
    assert not any(TOKEN.encode() in each for each in looked)
    assert TOKEN not in said
    left = [path for path in puller.home.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
    assert not any(TOKEN.encode() in path.read_bytes() for path in left)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("own", "--source", "acme/none", "--variant", "bf16"), 18, "is not there"),
        (("own", "--source", "acme/own@v9", "--variant", "bf16"), 18, "no revision `v9`"),
        (("own", "--source", "acme/own/none.gguf", "--variant", "q8_0"), 4, "no file `none.gguf`"),
        (("own", "--source", "acme own", "--variant", "bf16"), 2, "no repository"),
        (("own", "--source", "acme/own"), 2, "which variant"),
        (("nothing-like-it",), 3, "no model is called"),
        (("llama3-8b", "--variant", "q8_0"), 2, "has to be made first"),
    ],
)
def test_what_cannot_be_pulled_is_said(puller, arguments, status, told):
    """Each with its status and what to do."""
    found, said = puller.run(*arguments)
    assert found == status, said
    assert told in said
    assert "hint: " in said
    assert "Traceback" not in said


def test_a_hub_that_is_not_there_is_said(puller):
    """And nothing is half there."""
    puller.wire.close()
    status, said = puller.run()
    assert status == 18, said
    assert "cannot be had" in said


def test_two_that_pull_one_model_do_the_work_once(puller):
    """The second waits, says so, and finds it there."""
    puller.wire.bytes_per_s = 8e6
    first = puller.start()
    wait_until(lambda: puller.wire.passed > 1 << 20, "some of the download", 60)
    puller.wire.bytes_per_s = None
    status, said = puller.run()
    assert first.communicate(timeout=60)[0] is None
    assert first.returncode == status == 0, said
    assert puller.wire.passed < 1.2 * WEIGHTS
    assert examine_store(puller.store).faults == ()


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0, reason="no namespaces here"
)
@pytest.mark.parametrize("room", [WEIGHTS // 2, WEIGHTS + (1 << 20)])
def test_a_full_disk_is_said_and_room_is_all_it_takes(puller, room):
    """Before the download where it shows then, else when the disk is full; the next pull, with room, goes on."""
    puller.home.mkdir()
    # what others put on the disk meanwhile: room was there when the pull began
    others = 'sleep 1; head -c 2000000 /dev/zero > "$0/others" & ' if room > WEIGHTS else ""
    mounted = (
        f'mount -t tmpfs -o size={room} none "$0" && {{ {others}"$@"; }}; status=$?; cp -a "$0" "$0-left"; exit $status'
    )
    store = puller.home / "perimeter"
    store.mkdir()
    puller.wire.bytes_per_s = 10e6
    argv = ["unshare", "-rm", "sh", "-c", mounted]
    done = subprocess.run(
        [*argv, str(store), *puller.argv()], env=puller.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 6, done.stderr
    assert "full" in done.stderr or "free" in done.stderr
    assert "Traceback" not in done.stderr
    left = Store(store.with_name("perimeter-left") / "store")
    assert left.manifests() == ()
    assert examine_store(left).faults == ()
    store.rmdir()
    store.with_name("perimeter-left").rename(store)
    puller.wire.bytes_per_s = None
    status, said = puller.run()
    assert status == 0, said


@pytest.mark.parametrize("path", ["/api/models/", "/.well-known/perimeter/models.lock"])
def test_a_server_that_never_ends_its_answer_is_given_up(puller, endless, path):
    """A description or a lock without end fills no memory: the pull ends in words."""
    puller.wire.url = endless(path)
    status, said = puller.run()
    assert status == 18, said
    assert "MiB" in said
    assert "Traceback" not in said


@pytest.fixture
def endless(mirror: str) -> Iterator[Callable[[str], str]]:
    """A mirror whose answer for a path of that beginning goes on and on; all else comes from the real one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(Handler.begins):
                self.send_response(307)
                self.send_header("location", mirror + self.path)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"a": "')
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"a" * (1 << 20))

        def log_message(self, *_: object) -> None:
            pass

        do_HEAD = do_GET  # noqa: N815 - the name is the library's
        begins = ""

    def begin(path: str) -> str:
        Handler.begins = path
        return f"http://127.0.0.1:{server.server_address[1]}"

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield begin
        server.shutdown()


def test_kills_leave_nothing_half(puller):
    """At random moments of a download; the process that downloads ends with the command, and the next one goes on."""
    chance = random.Random(7)
    began = time.monotonic()
    assert puller.run()[0] == 0
    length_s = time.monotonic() - began
    puller.store.remove("own", "bf16", forget=True)
    puller.wire.bytes_per_s = 2 * WEIGHTS / length_s
    hit = 0
    for _ in range(KILLS):
        process = puller.start()
        time.sleep(chance.uniform(0, 1.5 * length_s))  # the moment is what is tried, nothing is waited for
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        hit += process.returncode == -signal.SIGKILL
        wait_until(lambda: not _downloads(puller.home), "the end of the process that downloads", 5)
        seen = puller.store.manifests()
        assert len(seen) <= 1
        faults = [fault.what for fault in examine_store(puller.store).faults if fault.models]
        assert all("its manifest is not" in what for what in faults), faults
        if seen:
            puller.store.remove("own", "bf16", forget=chance.random() < 0.5)
    assert hit >= KILLS / 3, f"only {hit} of {KILLS} kills came before the end"
    puller.wire.bytes_per_s = None
    status, said = puller.run()
    assert status == 0, said
    assert examine_store(puller.store).faults == ()


def _downloads(home: Path) -> list[Path]:
    """Processes that download into that home."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and re.search(b"HF_HOME=" + str(home).encode(), (entry / "environ").read_bytes()):
                found.append(entry)
    return found
