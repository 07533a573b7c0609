"""Hosts that forbid this and that, made out of this one: what is said of each is what is so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving.engines.confinement.means import swap_lacks, targets_of
from tests.support.harness import SOURCE

ASK = """
import json, sys, tempfile
from pathlib import Path
from serving.engines.confinement import means
with tempfile.TemporaryDirectory(dir=sys.argv[1]) as scratch:
    found = means.look(Path(scratch), use_bwrap=sys.argv[2] == "bwrap")
told = {"bwrap": found.bwrap is not None, "why": found.bwrap_lacks, "namespaces": sorted(found.namespaces)}
print(json.dumps({**told, "lacks": dict(found.lacks), "calls": found.machine, "proc": found.proc_lacks}))
"""
ALL = ["cgroup", "ipc", "mount", "net", "pid", "user", "uts"]
NO_MORE_USERS = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
NO_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


def works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_user_namespaces = pytest.mark.skipif(
    not works("unshare", "-Ur", "true"), reason="user namespaces cannot be made here (kernel.unprivileged_userns_clone)"
)
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


def asked(directory: Path, *prefix: str, bwrap: bool = False, python: str = sys.executable, source: Path = SOURCE):
    done = subprocess.run(
        [*prefix, python, "-c", ASK, str(directory), "bwrap" if bwrap else "own"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


@needs_user_namespaces
def test_without_user_namespaces_root_makes_the_others(tmp_path: Path) -> None:
    """A container's root, say: what can be had is had, and what cannot is named with the kernel's word."""
    found = asked(tmp_path, "unshare", "-Ur", "sh", "-c", NO_MORE_USERS, "sh")
    assert found["namespaces"] == [name for name in ALL if name != "user"]
    assert set(found["lacks"]) == {"user"}
    assert "unshare(user)" in found["lacks"]["user"]
    assert found["calls"] is not None


@needs_user_namespaces
def test_where_nothing_is_allowed_each_is_named(tmp_path: Path) -> None:
    """No user namespaces and no capabilities: only the filter and what needs no right are left."""
    found = asked(tmp_path, "unshare", "-Ur", "sh", "-c", NO_MORE_USERS, "sh", *NO_RIGHTS, bwrap=True)
    assert found["namespaces"] == []
    assert sorted(found["lacks"]) == ALL
    assert not found["bwrap"]
    assert found["why"]
    assert found["calls"] is not None


@needs_user_namespaces
def test_require_refuses_and_best_effort_does_not(tmp_path: Path) -> None:
    """The command ends with 14 and each missing layer; the same host serves where that is not asked for."""
    forbidden = ["unshare", "-Ur", "sh", "-c", NO_MORE_USERS, "sh", *NO_RIGHTS]
    serve = [sys.executable, "-m", "serving", "--model", "demo", "--port", "0"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PERIMETER_PATHS__RUNTIME_DIR": str(tmp_path / "r")}
    done = subprocess.run(
        [*forbidden, *serve, "--sealed", "require"],
        cwd=SOURCE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 14, done.stderr
    for name in ("users", "processes", "network", "files", "ipc", "hostname"):
        assert f"{name} (" in done.stderr
    with subprocess.Popen(
        [*forbidden, *serve], cwd=SOURCE, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("serving"):
                break
        process.terminate()
        rest = process.stderr.read()
    assert any(line.startswith("serving") for line in lines), (lines, rest)
    assert sum(line.startswith("sealed    not ") for line in lines) >= 6
    assert any(line.startswith("sealed    best-effort, by nothing") for line in lines)


@needs_root
@pytest.mark.parametrize("bwrap", [True, False])
def test_a_user_without_rights_gets_all_of_it(tmp_path_factory, bwrap: bool) -> None:
    """As a service does that does not run as root."""
    python = "/usr/bin/python3"
    if not works(python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"):
        pytest.skip("there is no Python for all users (apt install python3)")
    if bwrap and shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed (apt install bubblewrap)")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    if not works(*nobody, "unshare", "-U", "true"):
        pytest.skip("users may not make user namespaces here (kernel.unprivileged_userns_clone)")
    base = tmp_path_factory.getbasetemp().parent.parent / f"perimeter-nobody-{os.getpid()}-{bwrap}"
    try:
        shutil.copytree(SOURCE / "serving", base / "serving", ignore=shutil.ignore_patterns("models", "__pycache__"))
        (base / "scratch").mkdir()
        (base / "scratch").chmod(0o777)
        found = asked(base / "scratch", *nobody, bwrap=bwrap, python=python, source=base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    assert found["bwrap"] == bwrap, found
    assert bwrap or found["namespaces"] == ALL
    assert found["calls"] is not None


def test_swap_counts_where_this_service_may_use_it(tmp_path: Path) -> None:
    """A swap in use, unless it is in memory or a control group on the way up forbids it."""
    (tmp_path / "proc/self").mkdir(parents=True)
    assert swap_lacks(tmp_path) is None
    head = "Filename Type Size Used Priority\n"
    (tmp_path / "proc/swaps").write_text(head)
    assert swap_lacks(tmp_path) is None
    (tmp_path / "proc/swaps").write_text(head + "/dev/zram0 partition 1 0 5\n")
    assert swap_lacks(tmp_path) is None
    (tmp_path / "proc/swaps").write_text(head + "/dev/sda2 partition 1 0 -2\n")
    (tmp_path / "proc/self/cgroup").write_text("1:name=systemd:/\n0::/system.slice/perimeter.service\n")
    assert "/dev/sda2" in str(swap_lacks(tmp_path))
    group = tmp_path / "sys/fs/cgroup/system.slice"
    (group / "perimeter.service").mkdir(parents=True)
    (group / "perimeter.service" / "memory.swap.max").write_text("max\n")
    assert swap_lacks(tmp_path) is not None
    (group / "memory.swap.max").write_text("0\n")
    assert swap_lacks(tmp_path) is None


def test_links_in_a_model_directory_are_followed(tmp_path: Path) -> None:
    """A snapshot of the hub's cache is made of links to blobs: what they lead to is shown, and nothing beside it."""
    model, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    model.mkdir(parents=True)
    blobs.mkdir()
    blob = blobs / "abc"
    blob.write_text("weights")
    (blobs / "other").write_text("other weights")
    (model / "weights").symlink_to("../../blobs/abc")
    (model / "inside").symlink_to("weights")
    (model / "nowhere").symlink_to("gone")
    (model / "out").symlink_to("../..")
    assert set(targets_of([model])) == {model, blob}
    (tmp_path / "link").symlink_to(blob)
    assert set(targets_of([tmp_path / "link"])) == {tmp_path / "link", blob}
    assert targets_of([tmp_path / "gone"]) == ()


@needs_root
@pytest.mark.skipif(not works("unshare", "-m", "true"), reason="mount namespaces cannot be made here")
def test_where_proc_is_covered_processes_stay_in_sight(tmp_path: Path) -> None:
    """As in most containers: the kernel lets nobody mount a /proc that shows more; the walls stand all the same."""
    covered = 'mount --bind /dev/null /proc/kmsg && exec "$@"'
    found = asked(tmp_path, "unshare", "-m", "sh", "-c", covered, "sh")
    assert found["namespaces"] == ALL
    assert "mount proc" in found["proc"]
