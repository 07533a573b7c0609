"""The tripwire counts what would leave, tells of each line once, and never says where to."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from serving.tripwire import Tripwire, attempts, beyond

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "host",
    [None, "", b"", "localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "::1%lo", "0.0.0.0", "::",
     "::ffff:127.0.0.1", b"127.0.0.1"],
)  # fmt: skip
def test_what_stays_here(host: object) -> None:
    """Loopback in every spelling, and nothing at all."""
    assert beyond(host) is None


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0", "::ffff:192.0.2.1", "Host.Invalid", b"x.invalid", 5]
)
def test_what_leaves(host: object) -> None:
    """Anything else, names included."""
    assert beyond(host) is not None


@pytest.mark.parametrize(
    ("event", "arguments", "count"),
    [
        ("socket.connect", (None, ("192.0.2.1", 80)), 1),
        ("socket.connect", (None, ("127.0.0.1", 80)), 0),
        ("socket.connect", (None, "/run/some.sock"), 0),
        ("socket.connect", (None, b"\0abstract"), 0),
        ("socket.connect", (None, ("2001:db8::1", 80, 0, 0)), 1),
        ("socket.sendto", (None, ("192.0.2.1", 53)), 1),
        ("socket.sendmsg", (None, None), 0),
        ("socket.sendmsg", (None, ("192.0.2.1", 53)), 1),
        ("socket.getaddrinfo", ("host.invalid", 80, 0, 0, 0), 1),
        ("socket.getaddrinfo", ("192.0.2.1", 80, 0, 0, 0), 0),
        ("socket.getaddrinfo", (None, 80, 0, 0, 0), 0),
        ("socket.gethostbyname", ("host.invalid",), 1),
        ("socket.gethostbyaddr", ("192.0.2.1",), 1),
        ("socket.getnameinfo", (("192.0.2.1", 80),), 1),
        ("socket.connect", (None, ("wanted.invalid", 80)), 0),
        ("socket.getaddrinfo", ("Wanted.Invalid", 80, 0, 0, 0), 0),
        ("socket.bind", (None, ("192.0.2.1", 80)), 0),
        ("open", ("/etc/passwd", "r", 0), 0),
        ("socket.connect", (), 0),
    ],
)
def test_which_events_count(event: str, arguments: tuple[object, ...], count: int) -> None:
    """A look-up of a name, and a connection or datagram beyond this host that nobody announced."""
    tripwire = Tripwire(["Wanted.Invalid"])
    tripwire.hook()(event, arguments)
    assert tripwire.attempts == count


def test_each_line_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Counted every time; the log has the module and the line, and neither name nor address."""
    tripwire = Tripwire()
    watch = tripwire.hook()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            watch("socket.getaddrinfo", ("secret-name.invalid", 80, 0, 0, 0))
    assert tripwire.attempts == 3
    (record,) = caplog.records
    assert record.facts["by"].startswith(f"{__name__}:")
    assert "secret" not in f"{record.getMessage()}{record.facts}"


def test_it_names_the_caller_of_the_library_that_connects() -> None:
    """A real process: http.client is asked by our line, and our line is named. A second hook stops the call."""
    script = (
        "import http.client, logging, sys\n"
        "from serving import tripwire\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s %(facts)s')\n"
        "tripwire.install(); tripwire.install()\n"
        "def stop(event, arguments):\n"
        "    if event == 'socket.connect': raise OSError\n"
        "sys.addaudithook(stop)\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        http.client.HTTPConnection('192.0.2.1', 9).connect()\n"
        "    except OSError: pass\n"
        "print(tripwire.attempts())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    told, count = done.stdout.strip().splitlines()
    assert "'__main__:10'" in told
    assert count == "2"


def test_nothing_is_counted_where_none_is_set() -> None:
    """This process, for one."""
    assert attempts() == 0
