"""`serve mirror` over TLS, with the real huggingface_hub as `serve models pull` uses it."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
from pathlib import Path

from serving.store.bring import Origin
from serving.store.cas import Store
from serving.store.examine import examine_store
from tests.support.certificates import Authority
from tests.support.harness import Client
from tests.support.mirror import Mirror, bring, mirror, write_model


def pull(home: Path, url: str, ca: Path | None) -> tuple[int, str]:
    named = {} if ca is None else {"PERIMETER_STORE__CA_FILE": str(ca)}
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "serving", "models", "pull", "own", "--source", "acme/own", "--variant", "bf16"],
        env={**kept, **named, "HOME": str(home), "XDG_DATA_HOME": str(home), "HF_ENDPOINT": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_model_is_pulled_over_tls(tmp_path: Path) -> None:
    """Against the site's authority, whole and verified; against another not a byte. A stranger's client is refused."""
    site = Authority(tmp_path / "tls")
    certificate, key = site.issue("server")
    store = Store(tmp_path / "store")
    write_model(tmp_path / "model", 3 << 20)
    bring(store, tmp_path / "model", Origin("own", "bf16", "huggingface.co/acme/own", publishable=True))
    shown = {"tls.certificate": str(certificate), "tls.key": str(key)}
    with mirror(store, tmp_path, **shown) as running:
        assert running.url.startswith("https://")
        url = f"https://localhost:{running.address[1]}"
        status, said = pull(tmp_path / "stranger", url, Authority(tmp_path / "other").ca)
        assert status == 18, said
        assert "CERTIFICATE_VERIFY_FAILED" in said
        status, said = pull(tmp_path / "home", url, site.ca)
        assert status == 0, said
        brought = Store(tmp_path / "home" / "perimeter" / "store")
        assert [manifest.model for manifest in brought.manifests()] == ["own"]
        assert examine_store(brought).faults == ()
        assert not Store(tmp_path / "stranger" / "perimeter" / "store").manifests()
    with mirror(store, tmp_path, **shown, **{"tls.client_ca": str(site.ca)}) as running:
        context = ssl.create_default_context(cafile=site.ca)
        assert not is_served(running, context)
        context.load_cert_chain(*site.issue("host", client=True))
        assert is_served(running, context)


def is_served(running: Mirror, context: ssl.SSLContext) -> bool:
    with contextlib.closing(Client(running.address, context=context)) as client:
        try:
            client.send(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n")
            return client.head()[0] == 200
        except (ssl.SSLError, ConnectionError):
            return False
