"""Starting, stopping and being full."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.harness import SOURCE, chat, gateway, wait_until


def test_sigterm_drains(directory: Path) -> None:
    """After SIGTERM what runs is finished, nothing new is taken, and the exit status is 0."""
    with gateway(directory) as served:
        idle = served.client()
        idle.post("/v1/chat/completions", json.dumps(chat("tokens=1")).encode())
        idle.answer()
        client = served.client()
        client.post("/v1/chat/completions", json.dumps(chat("tokens=20 gap=0.05", stream=True)).encode())
        client.head()
        served.signal(signal.SIGTERM)
        served.wait_for("drain")
        body = b"".join(client.chunks())
        assert body.endswith(b"data: [DONE]\n\n")
        assert body.count(b"choices") == 20
        with pytest.raises(OSError):
            served.client()
        assert served.process.wait(10) == 0
    assert [left.name for left in directory.glob("run/*")] == ["load.lock"]  # empty, and others may wait on it


def test_the_drain_has_an_end(directory: Path) -> None:
    """What still runs after `drain_s` is cut with an error event, and the exit status is still 0."""
    with gateway(directory, config={"drain_s": 0.3}) as served:
        client = served.client()
        client.post("/v1/chat/completions", json.dumps(chat("tokens=1000 gap=0.05", stream=True)).encode())
        client.head()
        served.signal(signal.SIGTERM)
        body = b"".join(client.chunks())
        assert json.loads(body.rstrip().rpartition(b"\n\ndata: ")[2])["error"]["code"] == "shutting_down"
        assert served.process.wait(10) == 0


def test_a_second_signal_stops_at_once(directory: Path) -> None:
    """Ctrl-C twice does not wait for the drain."""
    with gateway(directory) as served:
        client = served.client()
        client.post("/v1/chat/completions", json.dumps(chat("tokens=1000 gap=0.05", stream=True)).encode())
        client.head()
        served.signal(signal.SIGINT)
        served.wait_for("drain")
        began = time.monotonic()
        served.signal(signal.SIGINT)
        assert served.process.wait(10) == 0
        assert time.monotonic() - began < 6


def test_a_stop_while_the_engine_loads_is_clean(directory: Path) -> None:
    """Ctrl-C during the load ends the engine too, with its own exit status and no traceback."""
    with gateway(directory, wait=False, engine=["--load-s", "60"]) as served:
        served.wait_for("progress")
        served.signal(signal.SIGINT)
        assert served.process.wait(10) == 130
        assert "Traceback" not in served.errors


def test_requests_are_refused_with_a_time_while_the_engine_loads(directory: Path) -> None:
    """Before the engine is ready the API is there, says so, and says when to come back."""
    port = free_port()
    with gateway(directory, wait=False, engine=["--load-s", "1.5"], config={"port": port}) as served:
        served.wait_for("progress")
        served.address = ("127.0.0.1", port)
        answer = served.chat("tokens=1")
        assert (answer.status, answer.error["code"]) == (503, "engine_unavailable")
        assert answer.headers["retry-after"]
        assert served.get("/health").status == 200
        assert served.get("/ready").json["engines"]["m"]["stage"] == "weights"
        served.wait_for("ready")
        assert served.chat("tokens=1").status == 200


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_full_house_refuses(directory: Path) -> None:
    """Beyond `most_in_flight` a request gets 503 `overloaded` with Retry-After, and places come back."""
    with gateway(directory, config={"most_in_flight": 2}) as served:
        clients = [served.client() for _ in range(2)]
        for client in clients:
            client.post("/v1/chat/completions", json.dumps(chat("tokens=1000 gap=0.05")).encode())
        wait_until(lambda: served.metric("perimeter_requests_in_flight{") == 2, "two run")
        answer = served.chat("tokens=1")
        assert (answer.status, answer.error["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"]
        for client in clients:
            client.close()
        wait_until(lambda: served.chat("tokens=1").status == 200, "a place is free")


def test_a_taken_port_is_refused_before_an_engine_starts(directory: Path) -> None:
    """The error names the address and the exit status is that of the class."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with gateway(directory, wait=False, config={"port": taken.getsockname()[1]}) as served:
            assert served.process.wait(10) == 7
            assert "cannot listen on `127.0.0.1:" in served.errors
    assert not list(directory.glob("run/*.d"))


def test_binding_beyond_loopback_is_refused(directory: Path) -> None:
    """Without keys another address than loopback takes an explicit wish."""
    with gateway(directory, wait=False, config={"host": "0.0.0.0"}) as served:
        assert served.process.wait(10) == 10
        assert "--allow-insecure-bind" in served.errors
    allowed = {"host": "0.0.0.0", "allow_insecure_bind": True}
    with gateway(directory, config=allowed) as served:
        assert served.chat("tokens=1").status == 200


def test_two_gateways_do_not_share_an_engine_directory(directory: Path) -> None:
    """A second gateway on the same socket is refused, and the first one goes on."""
    with gateway(directory) as first:
        with gateway(directory, wait=False) as second:
            assert second.process.wait(10) == 7
        assert first.chat("tokens=1").status == 200


def test_a_memory_of_many_requests_is_flat(directory: Path) -> None:
    """Thousands of requests, good, refused and abandoned, leave no more than noise in the gateway's memory."""
    with gateway(directory, log="warning") as served:

        def churn(count: int) -> None:
            for place in range(count):
                client = served.client()
                kind = place % 4
                body = json.dumps(chat("tokens=2", stream=kind == 1, **({"n": 99} if kind == 2 else {}))).encode()
                client.post("/v1/chat/completions", body)
                if kind != 3:
                    client.answer()
                client.close()

        churn(400)
        before = resident(served.process.pid)
        churn(2000)
        assert resident(served.process.pid) - before < 4 << 20
        wait_until(served.is_idle, "no place is lost")


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_importing_the_gateway_starts_nothing() -> None:
    """The modules can be imported anywhere, also off the main thread."""
    code = "import threading; t=threading.Thread(target=lambda: __import__('serving.gateway.run')); t.start(); t.join()"
    done = subprocess.run([sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_connections_have_a_bound(directory: Path) -> None:
    """Beyond it a connection is told so and closed at once; when others close, there is room again."""
    with gateway(directory, config={"connections": 4}) as served:
        idle = [served.client() for _ in range(4)]
        refused = served.client()
        status, headers = refused.head()
        assert (status, headers["connection"]) == (503, "close")
        assert int(headers["retry-after"]) > 0
        busy = idle[0]
        busy.post("/v1/chat/completions", json.dumps(chat("tokens=1")).encode())
        assert busy.answer().status == 200
        for client in idle:
            client.close()
        wait_until(lambda: served.chat("tokens=1").status == 200, "there is room again")


def test_sigterm_while_the_engine_loads_is_a_stop_as_asked(directory: Path) -> None:
    """A service manager that stops what has not come up yet sees no failure."""
    with gateway(directory, wait=False, engine=["--load-s", "60"]) as served:
        served.wait_for("progress")
        served.signal(signal.SIGTERM)
        assert served.process.wait(10) == 0
