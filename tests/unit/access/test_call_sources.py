"""Where a call is from, and how often a place may fail."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.access.sources import AttemptLimits, FailedAttempts, source_of

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # not a proxy of ours: what it says is its own invention
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7,10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.1"),
        ("10.0.0.1", ["unknown, 198.51.100.7"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7:443"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7,"], "10.0.0.1"),
        ("10.0.0.1", [",".join(["198.51.100.7"] * 65)], "10.0.0.1"),
        ("10.0.0.1", [" " * 5000 + "198.51.100.7"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("10.0.0.1", ["fe80::1%eth0"], "10.0.0.1"),
    ],
)
def test_the_source_is_the_last_address_that_is_no_proxy(peer: str, forwarded: list[str], source: str) -> None:
    """And the peer wherever that is in doubt."""
    assert source_of(peer, forwarded, PROXIES) == ip_address(source)


def test_a_unix_socket_has_no_address() -> None:
    """Nor does it get one from a header."""
    assert source_of(None, ["198.51.100.7"], PROXIES) is None


@given(st.lists(st.text(alphabet="0123456789abf.:, %\t", max_size=40), max_size=5))
def test_nothing_in_a_header_makes_somebody_else_a_proxy(forwarded: list[str]) -> None:
    """Whatever is sent, a peer that is no proxy stays the source, and no proxy of ours is taken from the header."""
    assert source_of("192.0.2.1", forwarded, PROXIES) == ip_address("192.0.2.1")
    source = source_of("10.0.0.1", forwarded, PROXIES)
    assert source == ip_address("10.0.0.1") or not any(
        source in each for each in PROXIES if each.version == source.version
    )


def test_a_source_may_fail_so_often() -> None:
    """The burst, then as many a minute; another one's failures are its own."""
    limits = AttemptLimits(burst=3, per_minute=6, sources=100)
    attempts = FailedAttempts(limits)
    one, other = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    assert [attempts.failed(one, 5.0) for _ in range(4)] == [None, None, None, 10]
    assert attempts.failed(other, 5.0) is None
    assert attempts.failed(one, 14.9) is not None
    assert attempts.failed(one, 15.1) is None


def test_a_subscribers_addresses_are_one_source() -> None:
    """A /64 of IPv6 has more addresses than any table."""
    attempts = FailedAttempts(AttemptLimits(burst=2, per_minute=1, sources=100))
    waits = [attempts.failed(ip_address(f"2001:db8::{number:x}"), 1.0) for number in range(4)]
    assert [wait is None for wait in waits] == [True, True, False, False]


def test_the_table_does_not_grow() -> None:
    """Ten thousand sources in a moment take no more room than was given, and buy no fresh start; time frees it."""
    attempts = FailedAttempts(AttemptLimits(burst=2, per_minute=60, sources=50))
    waits = [attempts.failed(ip_address(number), 1.0) for number in range(10_000)]
    assert len(attempts) == 51
    assert sum(wait is None for wait in waits) == 52
    assert attempts.failed(ip_address("192.0.2.1"), 10.0) is None
    assert len(attempts) == 1
