"""The settings of tokens and certificates: what is refused before anything starts, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import BadSettings
from serving.settings import load_settings

ISSUER = '[access.oidc]\nissuer = "https://id.example"\naudience = "perimeter"\n'
FILE = 'jwks_file = "/etc/keys.json"\n'
GROUP = '[[access.oidc.groups]]\ngroup = "staff"\n'
TLS = '[server.tls]\ncertificate = "/c"\nkey = "/k"\nclient_ca = "/a"\n'
CERTIFICATE = '[[access.certificates]]\nkey = "7Qd2kPz0aXeL"\n'
PRINT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

REFUSED = {
    "no signature": (ISSUER + FILE + 'algorithms = ["none"]\n' + GROUP, "access.oidc.algorithms.0"),
    "a secret for a key": (ISSUER + FILE + 'algorithms = ["RS256", "HS256"]\n' + GROUP, "access.oidc.algorithms.1"),
    "no algorithm": (ISSUER + FILE + "algorithms = []\n" + GROUP, "at least 1"),
    "no audience": ('[access.oidc]\nissuer = "https://id.example"\n' + FILE + GROUP, "audience"),
    "no issuer": ('[access.oidc]\naudience = "perimeter"\n', "issuer"),
    "groups of no issuer": (GROUP, "issuer"),
    "no keys": (ISSUER + GROUP, "jwks_file"),
    "keys from two places": (ISSUER + FILE + 'jwks_url = "https://id.example/k"\n' + GROUP, "either"),
    "no group": (ISSUER + FILE, "at least one"),
    "a group twice": (ISSUER + FILE + GROUP + GROUP, "two"),
    "a scope that is none": (ISSUER + FILE + GROUP + 'scopes = ["root"]\n', "access.oidc.groups.0.scopes.0"),
    "no scope": (ISSUER + FILE + GROUP + "scopes = []\n", "scopes"),
    "an empty list of models": (ISSUER + FILE + GROUP + "models = []\n", "models"),
    "a line in a cache domain": (ISSUER + FILE + GROUP + 'cache_domain = "a\\r\\nx: y"\n', "cache_domain"),
    "a limit below zero": (ISSUER + FILE + GROUP + "concurrency = -1\n", "at least 0"),
    "a budget without end": (ISSUER + FILE + GROUP + "budget = inf\n", "budget"),
    "a word that is none": (ISSUER + FILE + GROUP + "scope = 1\n", "did you mean `scopes`"),
    "looks without a pause": (ISSUER + FILE + "refresh_s = 1\n" + GROUP, "at least 60"),
    "a leeway of hours": (ISSUER + FILE + "leeway_s = 9000\n" + GROUP, "at most 300"),
    "a certificate that nobody asks for": (CERTIFICATE + f'sha256 = "{PRINT}"\n', "server.tls.client_ca"),
    "no name of a certificate": (TLS + CERTIFICATE, "exactly one"),
    "two names of one": (TLS + CERTIFICATE + 'dns = "a"\nuri = "b"\n', "exactly one"),
    "a short fingerprint": (TLS + CERTIFICATE + f'sha256 = "{PRINT[:-1]}"\n', "64"),
    "a fingerprint in other letters": (TLS + CERTIFICATE + f'sha256 = "{"g" * 64}"\n', "64"),
    "the same twice": (
        TLS + CERTIFICATE + f'sha256 = "{PRINT}"\n' + CERTIFICATE + f'sha256 = "{PRINT.upper()}"\n',
        "two of",
    ),
    "a subject as key": (TLS + '[[access.certificates]]\nkey = "oidc:abc"\ndns = "a"\n', "access.certificates.0.key"),
    "an empty name": (TLS + CERTIFICATE + 'common_name = ""\n', "access.certificates.0.common_name"),
}


def refused(text: str, tmp_path: Path) -> str:
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(BadSettings) as raised:
        load_settings(path)
    return raised.value.for_terminal()


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_would_let_in_the_wrong_or_nobody(case: str, tmp_path: Path) -> None:
    """Each is an error that names the place."""
    text, word = REFUSED[case]
    assert word in refused(text, tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1.example/keys",
        "http://localhost@id.example/keys",
        "https://user:word@id.example/keys",
        "https://id.example/keys#a",
        "https://id.example/ke ys",
        "https://id.example/keys\\r\\nx: y",
        "https:///keys",
        "https://id.example:0/keys",
        "https://id.example:99999/keys",
        "https://[::1/keys",
        "ftp://id.example/keys",
        "file:///etc/keys.json",
        "id.example/keys",
        "",
    ],
)
def test_urls_that_keys_are_not_fetched_from(url: str, tmp_path: Path) -> None:
    """Over the network only https; nothing that two readers take apart differently."""
    assert "access.oidc.jwks_url" in refused(ISSUER + f'jwks_url = "{url}"\n' + GROUP, tmp_path)


def test_settings_that_are_taken(tmp_path: Path) -> None:
    """Loopback without TLS, and openssl's way to write a fingerprint."""
    path = tmp_path / "site.toml"
    written = ":".join(PRINT[at : at + 2] for at in range(0, 64, 2)).upper()
    for url in (
        "https://id.example:8443/realms/a/certs?x=y",
        "http://127.0.0.1:9/k",
        "http://[::1]/k",
        "http://localhost/k",
    ):
        path.write_text(
            TLS + CERTIFICATE + f'sha256 = "{written}"\n' + CERTIFICATE + 'uri = "spiffe://a"\n'
            + ISSUER + f'jwks_url = "{url}"\n' + GROUP + "budget = 3\n"
        )  # fmt: skip
        access = load_settings(path).access
        assert access.oidc.jwks_url == url
        assert access.certificates[0].shown == ("sha256", PRINT)
        assert access.certificates[1].shown == ("uri", "spiffe://a")
        assert access.oidc.groups[0].budget == 3
