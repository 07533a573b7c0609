"""Where bytes may go at all, before anything is asked of a network."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_network

import pytest

from serving.egress.outbound import Outbound, Ways
from serving.egress.vendors import VendorRequest
from serving.errors import DestinationUnavailable
from tests.support.policies import OUT

INSIDE = replace(OUT, zone="perimeter", attestation=None, region="", prices=None)


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0X7F000001",
        "017700000001",
        "10.1",
        "127.0.0.1",
        "[::1]",
        "169.254.169.254",
    ],
)
def test_no_way_of_writing_an_address_leads_inside(host: str) -> None:
    """What a library may take for an address is one that is checked, or refused."""

    async def send() -> None:
        outbound = Outbound(Ways())
        try:
            to = replace(OUT, url=f"https://{host}/v1")
            request = VendorRequest("POST", "/v1/chat/completions", (), b"{}")
            async with outbound.send(to, request, (), lambda: None):
                pass
        finally:
            await outbound.close()

    with pytest.raises(DestinationUnavailable, match=r"several ways|not outside"):
        asyncio.run(send())


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    ["8.8.8.8", "[2606:4700:4700::1111]", "169.254.169.254", "[fd00:ec2::254]", "0.0.0.0", "127.1", "2130706433"],
)
def test_a_server_inside_is_at_no_other_address(scheme: str, host: str) -> None:
    """Whatever the policy says of its zone; and before a connection is begun."""

    async def send() -> None:
        outbound = Outbound(Ways(private_networks=(ip_network("0.0.0.0/0"), ip_network("::/0"))))
        try:
            to = replace(INSIDE, url=f"{scheme}://{host}/v1")
            request = VendorRequest("POST", "/v1/chat/completions", (), b"{}")
            async with outbound.send(to, request, (), lambda: None):
                pass
        finally:
            await outbound.close()

    with pytest.raises(DestinationUnavailable, match=r"several ways|not inside"):
        asyncio.run(send())
