"""Which addresses count as outside."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.egress.addresses import check_addresses, check_inside, is_inside, is_outside
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


OURS = [
    "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.9.9.9", "::1", "fd00::1", "fc12::7",
    "::ffff:10.0.0.1",
]  # fmt: skip
NOT_OURS = [
    *OUTSIDE, "169.254.169.254", "fe80::1", "0.0.0.0", "::", "100.64.0.1", "100.100.100.200", "192.0.0.192",
    "168.63.129.16", "172.32.0.1", "224.0.0.1", "255.255.255.255", "fec0::1", "ff02::1", "fd00:ec2::254",
    "fd20:ce::254", "fd00:42::42", "::ffff:169.254.169.254", "64:ff9b::a00:1", "2002:a00:1::", "fd00::5efe:808:808",
    "192.0.2.1", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("text", OURS)
def test_private_addresses_and_this_host_are_inside(text: str) -> None:
    """Nothing of it is outside."""
    assert is_inside(ip_address(text))
    assert not is_outside(ip_address(text))
    check_inside("ollama.site", [text])


@pytest.mark.parametrize("text", NOT_OURS)
def test_what_is_public_or_gives_out_credentials_is_not_inside(text: str) -> None:
    """Nor what is link-local, or behind a tunnel."""
    assert not is_inside(ip_address(text))
    with pytest.raises(DestinationUnavailable, match="not inside"):
        check_inside("ollama.site", [text])


def test_one_address_outside_is_enough_to_refuse_a_name_that_is_to_be_inside() -> None:
    """And a name without any is none."""
    with pytest.raises(DestinationUnavailable):
        check_inside("ollama.site", ["10.0.0.1", "8.8.8.8"])
    with pytest.raises(DestinationUnavailable):
        check_inside("ollama.site", [])


@given(st.ip_addresses())
def test_no_address_is_both(address: IPv4Address | IPv6Address) -> None:
    """Some are neither."""
    assert not (is_inside(address) and is_outside(address))
