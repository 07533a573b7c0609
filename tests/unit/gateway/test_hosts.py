"""Which `Host` headers are answered."""

import pytest

from serving.gateway.hosts import hosts_of

REBOUND = ["evil.example", "evil.example:8000", "127.0.0.1.nip.io", "localhost.evil.example:80", "a..localhost.b"]
NONE = ["", "a b", "[::1", "evil.example\r\nx: y", "[v1.x]", "h:1234567", "user@localhost", "h/x", "\xe4"]


@pytest.mark.parametrize("header", ["localhost", "LOCALHOST:8000", "127.0.0.1:80", "[::1]:8000", "h", "app.localhost"])
def test_names_of_loopback_are_answered(header: str) -> None:
    """Addresses, names without a dot, and what is under `localhost`: no public resolver gives these out."""
    assert hosts_of("127.0.0.1", ())(header.encode())


@pytest.mark.parametrize("header", [*REBOUND, *NONE])
@pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "::1"])
def test_a_public_name_is_not(bound: str, header: str) -> None:
    """A page of that name could have been led here."""
    assert not hosts_of(bound, ())(header.encode("latin-1"))


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
def test_names_that_are_given_are_the_only_ones(bound: str) -> None:
    """Beside addresses, which health checks use; in any letters, with any port."""
    is_ours = hosts_of(bound, ["llm.bank.example"])
    assert is_ours(b"LLM.bank.example:443")
    assert is_ours(b"llm.bank.example.")
    assert is_ours(b"10.0.0.5")
    assert not is_ours(b"localhost")
    assert not is_ours(b"other.bank.example")


def test_elsewhere_every_name_is_answered_until_some_are_given() -> None:
    """A server that is reached from elsewhere has a name that we do not know; nonsense is no name."""
    is_ours = hosts_of("10.0.0.5", ())
    assert is_ours(b"llm.bank.example")
    assert not is_ours(b"a b")
