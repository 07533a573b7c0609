"""The kernel's counts of ways out that are not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.reaching_out import descendants, unrouted_of
from serving.telemetry.metrics import Metrics
from serving.unrouted import namespace_of, read_unrouted
from serving.unrouted import unrouted_of as parse

ROOT = Path(__file__).parents[2]
SNMP = "Ip: Forwarding OutRequests OutNoRoutes\nIp: 1 200 7\nIcmp: InMsgs\nIcmp: 3\n"
SNMP6 = "Ip6OutRequests                  \t9\nIp6OutNoRoutes                  \t5\n"
ASKS = """
import socket, sys
from serving.doctor.egress import namespace
namespace.enter()
for family, host in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.sendto(b"x", (host, 9))
    except OSError:
        pass
print("asked", flush=True)
sys.stdin.read()
"""


def test_both_protocols_are_added() -> None:
    """A kernel without one of them has the other's."""
    assert parse(SNMP, SNMP6) == 12
    assert parse(SNMP, "") == 7
    assert parse("", SNMP6) == 5


@pytest.mark.parametrize("text", ["", "Ip: OutNoRoutes\n", "Ip: Forwarding\nIp: 1\n", "Ip: OutNoRoutes\nIp: x\n"])
def test_what_is_not_there_is_not_nought(text: str) -> None:
    """None is "not known"."""
    assert parse(text, "") is None


@given(first=st.text(max_size=200), second=st.text(max_size=200))
def test_any_text_is_read(first: str, second: str) -> None:
    """The parser never fails."""
    assert parse(first, second) is None or parse(first, second) >= 0


def test_a_namespace_of_its_own_is_counted_from_outside() -> None:
    """What a grandchild asks in there is seen by its parent's pid; our own namespace counts for nothing."""
    child = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ASKS!r}])"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        if child.stdout.readline() != "asked\n":
            assert child.stderr is not None
            pytest.skip(f"no network namespace can be made here: {child.communicate(timeout=30)[1].splitlines()[-1:]}")
        assert len(descendants(child.pid)) == 2
        ((namespace, count),) = unrouted_of(child.pid).items()
        assert namespace != namespace_of("self")
        assert count == 2
    finally:
        child.communicate(timeout=30)
    assert unrouted_of(child.pid) == {}
    assert read_unrouted(child.pid) is None


def test_a_count_follows_its_sources() -> None:
    """It grows by what each has grown; a source that begins again is added, and never taken away from."""
    metrics = Metrics()
    for source, total in (("a", 2), ("a", 5), ("b", 1), ("a", 5), ("b", 0), ("b", 3)):
        metrics.unrouted.look("m", source, total)
    assert metrics.unrouted.counter.labels("m")._value.get() == 5 + 1 + 3
