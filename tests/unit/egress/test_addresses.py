"""Which addresses count as outside."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.egress.addresses import check_addresses, is_outside
from serving.errors import DestinationUnavailable

INSIDE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fc00::1",
    "fd00:ec2::254", "ff02::1", "2001:db8::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
    "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::", "2606:4700::5efe:a9fe:a9fe", "2606:4700::200:5efe:7f00:1",
    "192.88.99.1",
]  # fmt: skip
OUTSIDE = [
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2606:4700::5efe:808:808",
]


@pytest.mark.parametrize("text", INSIDE)
def test_what_is_inside_or_nobodys_is_not_outside(text: str) -> None:
    """However it is written."""
    assert not is_outside(ip_address(text))
    with pytest.raises(DestinationUnavailable):
        check_addresses("api.example", [text], ())


@pytest.mark.parametrize("text", OUTSIDE)
def test_what_is_outside_is(text: str) -> None:
    """Also behind a prefix that only carries it."""
    assert is_outside(ip_address(text))
    check_addresses("api.example", [text], ())


def test_one_address_inside_is_enough_to_refuse_a_name() -> None:
    """Which of them is taken is not ours to say; and a name without any is none."""
    with pytest.raises(DestinationUnavailable):
        check_addresses("api.example", ["8.8.8.8", "10.0.0.1"], ())
    with pytest.raises(DestinationUnavailable):
        check_addresses("api.example", [], ())


@given(st.ip_addresses(network="10.20.0.0/16"))
def test_a_network_that_the_operator_named_may_be_reached(address: object) -> None:
    """And no other one."""
    allowed = [ip_network("10.20.0.0/16"), ip_network("fd00::/8")]
    check_addresses("api.example", [str(address)], allowed)
    with pytest.raises(DestinationUnavailable):
        check_addresses("api.example", [str(address), "10.21.0.1"], allowed)


@given(st.integers(0, (1 << 32) - 1))
def test_an_address_that_carries_another_is_where_that_one_is(number: int) -> None:
    """IPv4 in IPv6 hides nothing."""
    plain = ip_address(number)
    mapped, translated = ip_address(f"::ffff:{plain}"), ip_address((0x64FF9B << 96) | number)
    assert is_outside(mapped) == is_outside(translated) == is_outside(plain)
