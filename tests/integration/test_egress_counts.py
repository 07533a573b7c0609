"""What a running server counts of attempts to reach out: by its own tripwire, and by the kernel for its engines."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.demo import llamacpp, needs_demo
from tests.support.harness import SOURCE, gateway, wait_until

pytestmark = needs_demo
INTO = """
import os, sys
from serving.doctor.egress import namespace
namespace.enter()
os.execv(sys.argv[1], sys.argv[1:])
"""
PLANTED = """
import socket, sys, threading, time

def reach_out():
    while not getattr(sys.modules.get("serving.tripwire"), "_installed", None):
        time.sleep(0.01)
    for _ in range(3):
        try:
            socket.create_connection(("192.0.2.11", 443))
        except OSError:
            pass

threading.Thread(target=reach_out, daemon=True).start()
"""


def test_attempts_are_counted_while_it_serves(directory: Path) -> None:
    """In an engine with a namespace of its own, by its tripwire and by the kernel; the log names the line, once."""
    engine = llamacpp(directory)
    into = [sys.executable, "-c", INTO]
    environment = {**engine["env"], "PYTHONPATH": f"{directory}:{SOURCE}"}
    tried = subprocess.run(
        [*into, sys.executable, "-c", ""], cwd=SOURCE, capture_output=True, text=True, timeout=60, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"no network namespace can be made here: {tried.stderr.splitlines()[-1:]}")
    (directory / "sitecustomize.py").write_text(PLANTED)
    engine |= {"argv": [*into, *engine["argv"]], "env": environment, "sealed": "off"}
    with gateway(directory, **engine) as running:
        wait_until(lambda: running.metric("perimeter_engine_egress_attempts_total{") == 3, "the tripwire has counted")
        assert running.metric('perimeter_engine_unrouted_total{model="m"}') == 3
        assert running.metric('perimeter_egress_attempts_total{process="gateway"}') == 0
        assert running.chat("Who are you?").status == 200
        (log,) = directory.glob("run/*.d/engine.log")
        told = [line for line in log.read_text().splitlines() if "would leave this host" in line]
        assert len(told) == 1
        assert '"by": "sitecustomize:9"' in told[0]
        assert "192.0.2" not in told[0]


def test_attempts_that_walls_refuse_are_counted_too(directory: Path) -> None:
    """An engine that may have no socket for IP is caught at asking for one; nothing comes to the kernel's routes."""
    (directory / "sitecustomize.py").write_text(PLANTED)
    engine = llamacpp(directory)
    engine |= {"env": {**engine["env"], "PYTHONPATH": f"{directory}:{SOURCE}"}, "shown": [str(directory)]}
    with gateway(directory, **engine) as running:
        wait_until(lambda: running.metric("perimeter_engine_egress_attempts_total{") == 3, "the tripwire has counted")
        assert running.chat("Who are you?").status == 200
        assert not re.search(r"perimeter_engine_unrouted_total\{.*\} [1-9]", running.get("/metrics").body.decode())


@pytest.mark.parametrize("sealed", ["off", "best-effort"])
def test_a_server_that_stays_inside_counts_nothing(directory: Path, sealed: str) -> None:
    """From the first scrape on, for an alert on any increase; what the kernel does not count apart is not called 0."""
    with gateway(directory, **llamacpp(directory), sealed=sealed) as running:
        page = running.get("/metrics").body.decode()
        assert 'perimeter_egress_attempts_total{process="gateway"} 0.0' in page
        assert 'perimeter_engine_egress_attempts_total{model="m",engine="llamacpp"} 0' in page
        if sealed == "off":
            assert "perimeter_engine_unrouted_total{" not in page  # its engine shares the host's network
        else:
            assert 'perimeter_engine_unrouted_total{model="m"} 0.0' in page
