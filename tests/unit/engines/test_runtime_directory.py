"""The runtime directory: private, exclusive, and safe to clean up."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from serving.engines import runtime
from serving.engines.supervisor import fatal_error
from serving.errors import AddressUnavailable, BadFile, BadSettings, EngineFailed, NoFitError


@pytest.fixture
def sleeper(tmp_path: Path):
    """A process that leads a session of its own and works in an engine's directory."""
    directory = runtime.state_directory(runtime.socket_in(tmp_path, "a"))
    directory.mkdir(mode=0o700)
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(99)"], cwd=directory, start_new_session=True
    )
    yield process, directory
    process.kill()
    process.wait()


def record(directory: Path, owner: runtime.ProcessId, engine: runtime.ProcessId) -> None:
    (directory / "engine.json").write_text(json.dumps({"owner": asdict(owner), "engine": asdict(engine)}))


def dead() -> runtime.ProcessId:
    """A process that is gone."""
    process = subprocess.Popen(["sleep", "99"])
    identity = runtime.identify(process.pid)
    process.kill()
    process.wait()
    return identity


def test_leftovers_of_a_dead_gateway_are_killed(sleeper, tmp_path: Path) -> None:
    """A recorded engine whose owner is gone is killed, and its directory removed."""
    process, directory = sleeper
    record(directory, dead(), runtime.identify(process.pid))
    assert runtime.reap_leftovers(tmp_path) == [process.pid]
    assert process.wait(5) == -signal.SIGKILL
    assert not directory.exists()


def test_an_engine_of_a_live_gateway_is_left_alone(sleeper, tmp_path: Path) -> None:
    """Two gateways may share a runtime directory."""
    process, directory = sleeper
    record(directory, runtime.identify(os.getpid()), runtime.identify(process.pid))
    assert runtime.reap_leftovers(tmp_path) == []
    assert process.poll() is None
    assert directory.exists()


def test_a_pid_that_was_used_again_is_left_alone(sleeper, tmp_path: Path) -> None:
    """The start time tells an engine from a stranger that got its pid later, and works elsewhere."""
    _, directory = sleeper
    stranger = subprocess.Popen(["sleep", "99"], start_new_session=True)
    try:
        identity = runtime.identify(stranger.pid)
        earlier = runtime.ProcessId(identity.pid, identity.start_time - 1, identity.boot_id)
        record(directory, dead(), earlier)
        assert runtime.reap_leftovers(tmp_path) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_record_of_an_earlier_boot_kills_nobody(sleeper, tmp_path: Path) -> None:
    """After a reboot pids and start times mean nothing."""
    process, directory = sleeper
    identity = runtime.identify(process.pid)
    record(directory, dead(), runtime.ProcessId(identity.pid, identity.start_time, "another boot"))
    assert runtime.reap_leftovers(tmp_path) == []
    assert process.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"owner": 1, "engine": 2}', '{"owner": {"pid": 1}}', "\x00"])
def test_a_broken_record_kills_nobody(tmp_path: Path, text: str) -> None:
    """What cannot be read proves nothing."""
    directory = tmp_path / "x.d"
    directory.mkdir()
    (directory / "engine.json").write_text(text)
    assert runtime.reap_leftovers(tmp_path) == []


def test_a_worker_whose_leader_is_gone_is_killed(tmp_path: Path) -> None:
    """What a dead engine started is known by its session and its directory."""
    directory = tmp_path / "a.d"
    directory.mkdir()
    code = "import os, time\nif os.fork(): os._exit(0)\ntime.sleep(99)"
    leader = subprocess.Popen(["sleep", "99"], start_new_session=True, cwd=directory)
    identity = runtime.identify(leader.pid)
    leader.kill()
    leader.wait()
    leader = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, cwd=directory)
    identity = runtime.ProcessId(leader.pid, identity.start_time, identity.boot_id)
    leader.wait()
    (worker,) = runtime.session_members(leader.pid)
    record(directory, dead(), identity)
    assert runtime.reap_leftovers(tmp_path) == [worker]
    deadline = time.monotonic() + 5
    while runtime.identify(worker) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_directory_is_claimed_by_one(sleeper) -> None:
    """A second live owner is refused, with its pid; a dead one is succeeded."""
    process, directory = sleeper
    me = runtime.identify(os.getpid())
    record(directory, runtime.identify(process.pid), me)
    with pytest.raises(AddressUnavailable, match=str(process.pid)):
        runtime.claim(runtime.socket_in(directory.parent, directory.stem))
    record(directory, dead(), me)
    assert runtime.claim(runtime.socket_in(directory.parent, directory.stem)) == directory


def test_a_directory_is_made_private_and_one_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    """Ours is 0700; one that others may enter, a link or a path that is too long is refused, and not changed."""
    runtime.private_directory(tmp_path / "a/b")
    assert (tmp_path / "a/b").stat().st_mode & 0o7777 == 0o700
    runtime.private_directory(tmp_path / "a/b")
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o755)
    with pytest.raises(BadSettings, match="mode 0755") as caught:
        runtime.private_directory(loose)
    assert "paths.runtime_dir" in str(caught.value.hint)
    assert f"chmod 700 {loose}" in str(caught.value.hint)
    (loose / "theirs").write_text("")
    with pytest.raises(BadSettings) as caught:
        runtime.private_directory(loose)
    assert "chmod" not in str(caught.value.hint)
    assert loose.stat().st_mode & 0o7777 == 0o755
    (tmp_path / "link").symlink_to(tmp_path / "a/b")
    with pytest.raises(BadSettings):
        runtime.private_directory(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSettings):
        runtime.private_directory(tmp_path / "file/x")
    with pytest.raises(BadSettings, match="longer"):
        runtime.claim(runtime.socket_in(tmp_path / ("x" * 100), "engine"))


def test_a_fatal_line_becomes_its_error() -> None:
    """The code picks the class; an unknown one is EngineFailed; anything else is no fatal line."""
    line = {"event": "fatal", "code": "no_fit", "message": "too big", "hint": "smaller"}
    error = fatal_error(["noise", json.dumps(line)])
    assert isinstance(error, NoFitError)
    assert (error.message, error.hint) == ("too big", "smaller")
    assert isinstance(fatal_error([json.dumps({**line, "code": "bad_file", "hint": None})]), BadFile)
    assert type(fatal_error([json.dumps({**line, "code": "?"})])) is EngineFailed
    for words in ([], ["x"], ["[]"], ['{"event": "fatal"}'], ["[" * 5000], [json.dumps(line), "later noise"]):
        assert fatal_error(words) is None


def test_the_newest_logs_of_failures_are_kept(tmp_path: Path) -> None:
    """What an engine wrote before it died is there after the next start, and the tenth time it is not ten files."""
    for number in range(8):
        directory = tmp_path / f"engine-{number}.d"
        directory.mkdir()
        (directory / "engine.log").write_text(f"last words {number}")
        os.utime(directory / "engine.log", (number, number))
        kept = runtime.keep_log(directory)
        assert kept == tmp_path / f"engine-{number}.log"
        runtime.release(directory)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"engine-{number}.log" for number in range(3, 8)]
    empty = tmp_path / "engine-9.d"
    empty.mkdir()
    assert runtime.keep_log(empty) is None
