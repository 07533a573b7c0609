"""`serve doctor --egress` finds what is planted, says what it cannot see, and finds nothing where nothing is.

Everything runs in a network namespace that has loopback and no route. What is planted sits in a copied environment as
a `.pth` file, as a trojaned package did it (tests/support/planted.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.doctor.egress.watchers import find_strace
from tests.support.demo import needs_demo
from tests.support.harness import wait_until

ROOT = Path(__file__).parents[2]
PLANTED = ROOT / "tests" / "support" / "planted.py"
INTO = """import os, sys
from serving.doctor.egress import namespace
namespace.enter()
os.execv(sys.argv[1], sys.argv[1:])"""
STRACE, REFUSAL = find_strace()
needs_strace = pytest.mark.skipif(STRACE is None, reason=f"{REFUSAL} (Debian: strace)")
needs_nft = pytest.mark.skipif(
    shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin") is None,
    reason="nft is not installed (Debian: nftables)",
)
LIMIT_S = 240


@pytest.fixture(scope="module", autouse=True)
def a_namespace_can_be_made() -> None:
    """Without one nothing here may run: what is planted would reach out."""
    argv = [sys.executable, "-c", INTO, shutil.which("true") or ""]
    tried = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no network namespace can be made here: {tried.stderr.splitlines()[-1:]}")


@dataclass
class Doctor:
    """What it came to."""

    status: int
    result: dict
    stderr: str

    @property
    def processes(self) -> list[dict]:
        return self.result["processes"]

    def attempts(self, **like: object) -> list[dict]:
        return [one for one in self.result["attempts"] if all(one[name] == value for name, value in like.items())]


def doctor(*flags: str, python: str = sys.executable, sealed: str = "off", limit_s: float = LIMIT_S) -> Doctor:
    """Run it on the demo model, away from every network; without walls, which hold up what is planted."""
    argv = [sys.executable, "-c", INTO, python, "-m", "serving", "doctor", "--egress", "--json", "--idle", "0s", *flags]
    here = {**os.environ, "PERIMETER_SEALED": sealed}
    done = subprocess.run(argv, cwd=ROOT, env=here, capture_output=True, text=True, timeout=limit_s, check=False)
    assert done.stdout, done.stderr[-2000:]
    return Doctor(done.returncode, json.loads(done.stdout), done.stderr)


@pytest.fixture
def planted(tmp_path: Path):
    """Makes an environment in whose processes something is planted; returns its Python."""

    def plant(*plants: str, module: str = "serving.llamacpp", outside: str = "") -> str:
        environment = tmp_path / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=120)
        (packages,) = environment.glob("lib/python*/site-packages")
        theirs = sysconfig.get_path("purelib")
        (packages / "beneath.pth").write_text(f"import site; site.addsitedir({theirs!r})\n")
        (packages / "zz_planted.pth").write_text("import planted\n")
        shutil.copy(PLANTED, packages / "planted.py")
        what = {"module": module, "plants": plants, "outside": outside}
        (packages / "planted.json").write_text(json.dumps(what))
        return str(environment / "bin" / "python")

    return plant


@needs_demo
@needs_strace
@pytest.mark.parametrize("sealed", ["off", "best-effort"])
def test_the_demo_reaches_out_for_nothing(sealed: str) -> None:
    """All processes watched from their first instruction to their end, all phases gone through, no attempt."""
    seen = doctor(sealed=sealed)
    assert (seen.status, seen.result["verdict"], seen.result["reasons"]) == (0, "passed", []), seen.stderr[-2000:]
    assert {one["watcher"] for one in seen.processes} == {"strace"}
    assert sum("serving.llamacpp" in one["process"]["command"] for one in seen.processes) == 2  # one was killed
    assert [one["name"] for one in seen.result["phases"]] == [
        "import", "load", "requests", "error", "idle", "shutdown",
    ]  # fmt: skip
    did = " ".join(done for one in seen.result["phases"] for done in one["did"])
    for what in ("chat, streamed: 200", "JSON schema: 200", "tools: 200", "picture by its URL: 400", "engine killed"):
        assert what in did


@needs_demo
@needs_strace
def test_everything_planted_is_found(planted, tmp_path: Path) -> None:
    """Each by its call, address, process and phase, refused by the kernel or not."""
    with socket.socket(socket.AF_UNIX) as running_before:
        outside = str(tmp_path / "outside.sock")
        running_before.bind(outside)
        running_before.listen()
        python = planted(
            "python_connect", "libc_connect", "c_getaddrinfo", "udp_from_a_grandchild", "daemon", "sendmmsg",
            "ipv6_connect", "name_service", "by_somebody_elses_hand", outside=outside,
        )  # fmt: skip
        seen = doctor(python=python)
    assert (seen.status, seen.result["verdict"]) == (15, "failed")
    for like in (
        {"call": "connect", "address": "192.0.2.11", "port": 443, "result": "ENETUNREACH"},
        {"call": "connect", "address": "192.0.2.12", "port": 443},
        {"call": "sendto", "address": "192.0.2.13", "port": 5000},
        {"call": "sendmmsg", "address": "192.0.2.14"},
        {"call": "connect", "address": "2001:db8::15", "family": "AF_INET6"},
        {"call": "sendto", "address": "192.0.2.16"},
        {"call": "connect", "address": "/var/run/nscd/socket", "family": "AF_UNIX"},
        {"call": "connect", "address": outside, "result": "0"},
    ):
        # the engine was started twice: before its load, and after it was killed
        phases = {one["phase"] for one in seen.attempts(**like)}
        assert phases == {"load", "error"}, (like, phases)
    assert any(one["port"] == 53 or "/run/" in one["address"] for one in seen.attempts()), "getaddrinfo from C"
    assert any("name" in one["why"] and one["address"] != "/var/run/nscd/socket" for one in seen.attempts())
    grandchild = seen.attempts(address="192.0.2.13")[0]
    engines = {one["process"]["pid"] for one in seen.processes if one["process"]["parent"] is not None}
    assert grandchild["pid"] in engines
    assert "serving.llamacpp" in grandchild["process"]


@needs_demo
@needs_strace
def test_what_walls_hold_up_is_found_too(planted) -> None:
    """Nothing of it takes place, and each is told: an attempt that was refused is one."""
    python = planted("python_connect", "libc_connect", "udp_from_a_grandchild", "daemon", "ipv6_connect", "sendmmsg")
    seen = doctor(python=python, sealed="best-effort")
    assert (seen.status, seen.result["verdict"]) == (15, "failed")
    refused = [one for one in seen.attempts(call="socket") if "walls refused" in one["why"]]
    if not refused:
        pytest.skip("this host cannot filter system calls")
    assert {one["family"] for one in refused} == {"AF_INET", "AF_INET6"}
    assert len(refused) >= 12  # each of six, in two engines
    assert not any(one["result"] == "0" for one in seen.attempts())


@needs_demo
@needs_strace
@pytest.mark.parametrize(
    ("plant", "module", "doubt"),
    [
        ("escape", "serving.llamacpp", "out of the watcher's sight"),
        ("ring", "serving", "io_uring"),
        ("kill_the_watcher", "serving.llamacpp", "strace did not end by itself"),
    ],
)
def test_what_cannot_be_seen_is_not_proven(planted, plant: str, module: str, doubt: str) -> None:
    """A process out of sight, one with a ring, and a watcher that died: no attempt was seen, and none is ruled out."""
    seen = doctor(python=planted(plant, module=module))
    assert (seen.status, seen.result["verdict"]) == (16, "not proven")
    assert any(doubt in reason for reason in seen.result["reasons"]), seen.result["reasons"]
    if plant != "kill_the_watcher":
        assert any(doubt in why for one in seen.processes for why in one["process"]["doubts"] if one["watcher"] is None)


@needs_demo
@needs_strace
def test_an_engine_cannot_make_a_ring(planted) -> None:
    """What the watcher could not see is refused to all that the gateway starts."""
    seen = doctor(python=planted("ring"))
    assert (seen.status, seen.result["verdict"]) == (0, "passed"), seen.result["reasons"]


@needs_demo
@needs_nft
def test_without_tracing_the_namespace_counts(planted) -> None:
    """Nobody is named, and nothing that asks for a way out is missed."""
    clean = doctor("--watch", "nftables")
    assert (clean.status, clean.result["verdict"], clean.result["watching"]["name"]) == (0, "passed", "nftables")
    seen = doctor("--watch", "nftables", python=planted("python_connect", "libc_connect", "sendmmsg", "daemon"))
    assert (seen.status, seen.result["verdict"]) == (15, "failed")
    assert sum(one["packets"] for one in seen.result["counted"]) >= 8  # each of four, in two engines


@needs_demo
@needs_strace
def test_a_doctor_that_is_killed_leaves_nothing_running() -> None:
    """The stack goes with it: watcher, gateway and engine."""
    with tempfile.TemporaryDirectory(prefix="eg-") as short:  # the name of a socket may have 107 bytes
        killed_in(Path(short))


def killed_in(directory: Path) -> None:
    argv = [sys.executable, "-c", INTO, sys.executable, "-m", "serving", "doctor", "--egress", "--idle", "10m"]
    here = {**os.environ, "TMPDIR": str(directory), "PERIMETER_SEALED": "off"}
    process = subprocess.Popen(argv, cwd=ROOT, env=here, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    with process.stderr:
        assert any("idle" in line for line in process.stderr)
        assert below(directory)
        process.kill()
        process.wait()
    wait_until(lambda: not below(directory), "everything is gone", within_s=60)


def below(directory: Path) -> list[str]:
    """Command lines that name a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and os.fsencode(directory) in (line := (entry / "cmdline").read_bytes()):
                found.append(line.decode(errors="replace"))
    return found
