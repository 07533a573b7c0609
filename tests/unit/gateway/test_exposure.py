"""Whether a key is asked for: from what is served, where, and how the site is sealed."""

from __future__ import annotations

import itertools

import pytest

from serving.errors import UnsafeBind
from serving.gateway.exposure import Openness, asks_keys, is_loopback


def test_nobody_is_served_without_a_key_but_where_it_was_meant() -> None:
    """Over every case: never under `require`, never to strangers beyond this host, unasked for only the demo model."""
    hosts = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.1.2.3", "host.example")
    for host, wish, is_demo, is_sealed, knows in itertools.product(hosts, (None, True, False), *[(True, False)] * 3):
        given = Openness(host, wish, is_demo, is_sealed, knows)
        may_be_open = not is_sealed and (is_loopback(host) or knows)
        if wish and not may_be_open:
            with pytest.raises(UnsafeBind, match="without keys"):
                asks_keys(given)
        elif not asks_keys(given):
            assert may_be_open
            assert wish or (wish is None and is_demo and is_loopback(host))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_demo_model_is_served_to_this_host(host: str) -> None:
    """So that the first command that somebody tries just works."""
    assert not asks_keys(Openness(host, wish=None, is_demo=True, is_sealed=False, knows_clients=False))
    assert asks_keys(Openness(host, wish=None, is_demo=False, is_sealed=False, knows_clients=False))
