"""The server that a command starts for itself, on a host whose settings are for a site."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import pytest

from serving.bench.served import served
from tests.support.certificates import Authority


def status_of(url: str, key: str | None) -> int:
    host, _, port = url.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("GET", "/v1/models", headers={} if key is None else {"authorization": f"Bearer {key}"})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_an_own_server_has_its_own_key_and_nothing_of_the_sites_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No TLS, no client certificates, no look at the identity provider: who has the key is served, and nobody else."""
    site = Authority(tmp_path / "tls")
    certificate, key = site.issue("server")
    with socket.create_server(("127.0.0.1", 0)) as provider:
        provider.setblocking(False)
        config = tmp_path / "serving.toml"
        config.write_text(
            f'[server.tls]\ncertificate = "{certificate}"\nkey = "{key}"\nclient_ca = "{site.ca}"\n'
            f'[access]\ndirectory = "{tmp_path / "site"}"\n'
            '[[access.certificates]]\nkey = "7Qd2kPz0aXeL"\ncommon_name = "reports"\n'
            '[access.oidc]\nissuer = "https://id.example"\naudience = "perimeter"\n'
            f'jwks_url = "http://127.0.0.1:{provider.getsockname()[1]}/keys"\n'
            '[[access.oidc.groups]]\ngroup = "all"\n'
        )
        monkeypatch.setenv("PERIMETER_CONFIG", str(config))
        with served(["--model", "demo"], 120) as running:
            assert running.url.startswith("http://127.0.0.1:")
            assert status_of(running.url, running.key) == 200
            assert status_of(running.url, None) == 401
        with pytest.raises(BlockingIOError):
            provider.accept()
    assert not (tmp_path / "site").exists()
