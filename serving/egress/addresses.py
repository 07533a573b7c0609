"""Which addresses are outside, and which inside: a destination is in its zone, whatever its name resolves to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from serving.errors import DestinationUnavailable

_PLATFORM = IPv4Address("168.63.129.16")
"""Azure's own service for its machines; a public address that is on every one of them."""
_RELAY = IPv4Network("192.88.99.0/24")
"""The nearest relay of 6to4, whoever runs that (RFC 7526 ended it); some registries still call it global."""
_METADATA = tuple(map(IPv6Network, ("fd00:ec2::/32", "fd20:ce::/32", "fd00:42::/32")))
"""Where clouds (AWS, Google, Scaleway) serve credentials to whoever asks, in addresses that look private."""
_INSIDE = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1/128"))
)
"""Private use (RFC 1918, RFC 4193) and this host itself; nothing else is inside."""
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def is_outside(address: Address) -> bool:
    """Whether it belongs to somebody on the internet: not this host, its networks, or a service of the platform.

    `is_global` is IANA's registry of special-purpose addresses: private, shared, link-local (where clouds serve
    credentials to whoever asks), loopback, documentation, reserved. IPv6 that only carries an IPv4 address is that one.
    """
    if isinstance(address, IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or _behind(address)
        if carried is not None:
            return is_outside(carried)
        if address.is_site_local:
            return False
    if address == _PLATFORM or (address.version == 4 and address in _RELAY):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_inside(address: Address) -> bool:
    """Whether it is this host, or in a private network; never link-local, nor where a cloud gives out credentials.

    IPv6 that carries an IPv4 address through a tunnel or a translator is not: who runs that is not known.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_inside(address.ipv4_mapped)
        if _behind(address) is not None or any(address in each for each in _METADATA):
            return False
    return any(address.version == each.version and address in each for each in _INSIDE)


def _behind(address: IPv6Address) -> IPv4Address | None:
    """The address behind the well-known prefix 64:ff9b::/96 (RFC 6052), or in the last half of ISATAP's (RFC 5214)."""
    is_isatap = int(address) >> 32 & 0xFCFF_FFFF == 0x0000_5EFE  # either value of its two bits for who gave it out
    return IPv4Address(int(address) & 0xFFFF_FFFF) if is_isatap or address in IPv6Network("64:ff9b::/96") else None


def _addresses(name: str, found: Sequence[str]) -> Iterator[Address]:
    if not found:
        raise DestinationUnavailable(f"`{name}` has no address")
    return (ip_address(text.partition("%")[0]) for text in found)


def check_addresses(name: str, found: Sequence[str], allowed: Sequence[Network]) -> None:
    """See that every address of a name is outside, or in a network that the operator named.

    One of them inside is enough to refuse: who can answer for the name decides which one is taken. Raises
    DestinationUnavailable.
    """
    for address in _addresses(name, found):
        if not is_outside(address) and not any(address.version == each.version and address in each for each in allowed):
            raise DestinationUnavailable(
                f"`{name}` is at `{address}`, which is not outside",
                hint="egress.private_networks names the networks in which a provider may be reached privately",
            )


def check_inside(name: str, found: Sequence[str]) -> None:
    """See that every address of a name is inside: one that is not is enough to refuse.

    Raises DestinationUnavailable.
    """
    for address in _addresses(name, found):
        if not is_inside(address):
            raise DestinationUnavailable(
                f"`{name}` is at `{address}`, which is not inside",
                hint="a destination of zone `perimeter` is on this host or at a private address",
            )
