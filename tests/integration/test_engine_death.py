"""What clients see when the engine dies, hangs or talks nonsense, and that nothing of ours is left over."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.harness import Client, Gateway, chat, gateway, is_running, wait_until


def test_every_stream_in_flight_is_told(directory: Path) -> None:
    """`kill -9` of the engine during 16 streams: each ends with an error event within 2 s; 503 until it is back."""
    with gateway(directory, engine=["--load-s", "0.5"]) as served:
        clients = [served.client() for _ in range(16)]
        for client in clients:
            client.post("/v1/chat/completions", json.dumps(chat("tokens=1000 gap=0.02", stream=True)).encode())
        streams = [read_two(client) for client in clients]
        killed = served.engine_pid
        os.kill(killed, signal.SIGKILL)
        died = time.monotonic()
        for stream in streams:
            last = b"".join(stream).rstrip().rpartition(b"\n\n")[2]
            assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_unavailable"
        assert time.monotonic() - died < 2.0
        refused = served.chat("tokens=1")
        assert (refused.status, refused.error["code"]) == (503, "engine_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert served.get("/ready").status == 503
        assert served.metric("perimeter_engine_scraped{") == 0
        wait_until(lambda: served.chat("tokens=1").status == 200, "the engine is back")
        assert served.engine_pid != killed
        assert served.metric("perimeter_engine_scraped{") == 1
        assert served.metric("perimeter_engine_restarts_total") == 1
        wait_until(served.is_idle, "no place is lost")


def read_two(client: Client):
    assert client.head()[0] == 200
    chunks = client.chunks()
    next(chunks), next(chunks)
    return chunks


@pytest.mark.parametrize("then", ["die", "eof", "garbage"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_breaks_is_told(served: Gateway, then: str, stream: bool) -> None:
    """An engine that dies, hangs up or sends what is not HTTP: an error event in a stream, else a whole 503."""
    wait_until(lambda: served.get("/ready").status == 200, "the engine is ready")
    answer = served.chat(f"tokens=2 then={then}", stream=stream)
    if stream:
        assert [event["choices"][0]["delta"]["content"] for event in answer.events[:-1]] == ["t0 ", "t1 "]
        assert answer.events[-1]["error"]["code"] == "engine_unavailable"
    else:
        assert (answer.status, answer.error["code"]) == (503, "engine_unavailable")
        assert answer.headers["retry-after"]
    wait_until(lambda: served.chat("tokens=1").status == 200, "the engine is back")


@pytest.mark.parametrize("told", ["tokens=2 then=stall", "before=60"])
def test_silence_is_ended(directory: Path, told: str) -> None:
    """Time-outs count from the last byte: a slow stream lives, a silent one ends, before and inside the answer."""
    bounds = {"first_byte_timeout_s": 0.4, "idle_timeout_s": 0.4}
    with gateway(directory, config=bounds) as served:
        slow = served.chat("tokens=8 gap=0.2 comments=4", stream=True)
        assert slow.events[-1] == "[DONE]"
        began = time.monotonic()
        silent = served.chat(told, stream=True)
        assert time.monotonic() - began < 3
        error = silent.events[-1]["error"] if silent.status == 200 else silent.error
        assert error["code"] == "engine_unavailable"
        wait_until(served.is_idle, "the engine is idle")


def test_a_client_that_reads_nothing_is_cut(directory: Path) -> None:
    """A client that takes no bytes holds its place for no longer than an engine may be silent."""
    with gateway(directory, config={"idle_timeout_s": 0.5}) as served:
        client = served.client()
        client.post("/v1/chat/completions", json.dumps(chat("tokens=1000000", stream=True)).encode())
        wait_until(lambda: served.metric("perimeter_requests_in_flight{") == 1, "it runs")
        wait_until(served.is_idle, "it was cut", 20)
        client.close()


def test_an_engine_that_hangs_is_replaced(directory: Path) -> None:
    """A stopped process holds its socket and answers nothing: it is killed, its streams are told, a new one starts."""
    with gateway(directory, config={"hang_timeout_s": 1.0}) as served:
        client = served.client()
        client.post("/v1/chat/completions", json.dumps(chat("tokens=1000 gap=0.02", stream=True)).encode())
        chunks = read_two(client)
        stopped = served.engine_pid
        os.killpg(stopped, signal.SIGSTOP)
        assert b'"engine_unavailable"' in b"".join(chunks)
        wait_until(lambda: served.chat("tokens=1").status == 200, "a new engine is ready")
        assert not is_running(stopped)


def test_a_fatal_load_error_is_the_commands_error(directory: Path) -> None:
    """An engine that ends with a fatal line is not started again; its error is ours, with its exit status."""
    with gateway(directory, wait=False, engine=["--fatal", "bad_file"]) as served:
        assert served.process.wait(15) == 5
        assert "error: told to be fatal\nhint: a way out" in served.errors
        assert "Traceback" not in served.errors


def test_an_engine_that_exits_before_it_was_ready_is_given_up_on(directory: Path) -> None:
    """The error holds how it ended, its last words, and where the whole log is."""
    with gateway(directory, wait=False, engine=["--exit", "7"]) as served:
        assert served.process.wait(15) == 9
        assert "exit status 7" in served.errors
        assert "last words" in served.errors
        log = next(directory.glob("run/engine*.log"))
        assert log.stat().st_mode & 0o777 == 0o600
        assert log.parent.stat().st_mode & 0o777 == 0o700


def test_an_engine_taken_by_a_signal_while_loading_gets_another_chance(directory: Path) -> None:
    """A fault during the first load is a crash like any other."""
    with gateway(directory, engine=["--die-once", str(directory / "recorded" / "died")]) as served:
        assert served.chat("tokens=1").status == 200
        assert ["engine", "the engine of m died (signal SIGSEGV); starting it again in 0.05 s"] in served.heard


def test_repeated_crashes_end_the_command(directory: Path) -> None:
    """After `max_crashes` the gateway leaves with the engine's error, and clients were refused meanwhile."""
    with gateway(directory, restart={"max_crashes": 3}) as served:
        for _ in range(3):
            wait_until(lambda: served.process.poll() is not None or served.get("/ready").status == 200, "it is ready")
            os.kill(served.engine_pid, signal.SIGKILL)
            wait_until(lambda: served.process.poll() is not None or died(served), "its death is seen")
        assert served.process.wait(15) == 9
        assert "it crashed 3 times" in served.errors


def died(served: Gateway) -> bool:
    try:
        return not is_running(served.engine_pid) or served.get("/ready").status == 503
    except (OSError, StopIteration):
        return True


def test_a_restart_kills_the_whole_group_first(directory: Path) -> None:
    """What the engine started, and what ignores SIGTERM, is gone before the next engine starts."""
    with gateway(directory, engine=["--worker"]) as served:
        first = served.engine_pid
        workers = session(first) - {first}
        assert workers
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: served.get("/ready").status == 200 and served.engine_pid != first, "a new engine is ready")
        assert not any(is_running(pid) for pid in workers)
        second = session(served.engine_pid)
    assert not any(is_running(pid) for pid in second)


def engine_of(leader: int) -> int:
    """The engine itself, behind its launcher's processes."""
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in session(leader)}
    return next(pid for pid in parents if pid not in parents.values())


def session(leader: int) -> set[int]:
    found = subprocess.run(["ps", "-o", "pid=", "-s", str(leader)], capture_output=True, text=True, check=False)
    return {int(word) for word in found.stdout.split()}


def test_a_killed_gateway_takes_all_of_its_engine_along(directory: Path) -> None:
    """`kill -9` of the gateway ends the engine's process namespace, and with it everything that the engine started."""
    with gateway(directory, engine=["--worker"]) as served:
        everything = session(served.engine_pid)
        assert len(everything) >= 4
        served.process.kill()
        served.process.wait()
        wait_until(lambda: not any(map(is_running, everything)), "all died with their gateway", 5.0)


def test_where_nothing_is_sealed_a_killed_gateway_takes_its_engine_along(directory: Path) -> None:
    """`kill -9` of the gateway: no engine alive 5 s later; what it left is reaped by the next run."""
    with gateway(directory, engine=["--worker"], sealed="off") as served:
        engine = served.engine_pid
        everything = session(engine)
        served.process.kill()
        served.process.wait()
        wait_until(lambda: not is_running(engine), "the engine died with its gateway", 5.0)
        left = {pid for pid in everything if is_running(pid)}
    assert left, "a worker outlives the engine here, or the test shows nothing"
    with gateway(directory, engine=[]) as again:
        assert not any(is_running(pid) for pid in left)
        assert again.chat("tokens=1").status == 200


def test_the_engine_gets_exactly_the_environment_of_its_spec(directory: Path) -> None:
    """Nothing of the gateway's environment reaches an engine; it leads a session, and leaves no core files."""
    with gateway(directory) as served:
        proc = Path(f"/proc/{engine_of(served.engine_pid)}")
        environment = set((proc / "environ").read_text().strip("\0").split("\0"))
        assert {line for line in environment if not line.startswith("LC_CTYPE=")} == {
            "PATH=/usr/bin:/bin",
            "MARK=from-the-spec",
        }
        assert served.engine_pid in session(served.engine_pid)
        limits = (proc / "limits").read_text().splitlines()
        core = next(line for line in limits if "core file" in line)
        assert core.split()[4:6] == ["0", "0"]
        assert (proc / "fd/0").readlink() == Path("/dev/null")
