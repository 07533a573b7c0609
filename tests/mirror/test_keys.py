"""Who may have files of a mirror: keys of a ledger that another process has, with the hub's real client."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.access import Access, Key
from serving.access.keys import write_key
from serving.cli import run
from serving.settings import Access as AccessSettings
from serving.store.cas import Store
from tests.mirror.conftest import Shelf
from tests.support.certificates import Authority
from tests.support.harness import Client, wait_until
from tests.support.mirror import DEMO, Mirror, hub, mirror, sha256_of

WANTED = Key("", "radiology", "hosts", b"", 0, scopes=frozenset({"mirror"}))
FILE = "/perimeter/demo-bf16/resolve/main/config.json"
BIG = "/acme/big/resolve/main/model.safetensors"


@pytest.fixture
def access(tmp_path: Path) -> Iterator[Access]:
    """The ledger, which this process has all the while."""
    opened = Access.open(AccessSettings(directory=tmp_path / "access"), {})
    yield opened
    opened.close()


def tables(directory: Path, burst: int = 10_000) -> str:
    """Where keys and record are, and how many wrong keys are a 401: enough to ask until a key is seen."""
    keys = f'signing_key = "{directory / "s.key"}"\nfingerprint_key = "{directory / "f.key"}"\n'
    access = f'directory = "{directory / "access"}"\nfailed_burst = {burst}\n'
    return f'[access]\n{access}[audit]\ndirectory = "{directory / "log"}"\n{keys}'


@pytest.fixture
def keyed(shelf: Shelf, access: Access, tmp_path: Path) -> Iterator[Mirror]:
    with mirror(shelf.store, tmp_path, more=tables(tmp_path), is_open=False) as one:
        yield one


def bearing(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def records(directory: Path, capsys: pytest.CaptureFixture[str]) -> list[dict]:
    """What the mirror's own log has, once it verifies."""
    config = str(directory / "mirror.toml")
    assert run(["audit", "verify", "--directory", str(directory / "log-mirror"), "--config", config]) == 0
    capsys.readouterr()
    run(["audit", "show", "--directory", str(directory / "log-mirror"), "--json", "--last", "0", "--config", config])
    return [entry["record"] for entry in json.loads(capsys.readouterr().out)]


def test_the_hubs_client_shows_its_key(keyed: Mirror, access: Access, tmp_path: Path) -> None:
    """As HF_TOKEN, on all that it asks; without one, or with one that is for something else, it is told."""
    _, text = access.create(WANTED)
    _, other = access.create(replace(WANTED, scopes=frozenset({"inference"})))
    wait_until(lambda: keyed.ask(FILE, **bearing(text)).status == 200, "the key is seen")
    here = Path(str(hub(keyed.url, tmp_path, "found = snapshot_download('perimeter/demo-bf16')", key=text)))
    assert all(sha256_of(here / path.name) == sha256_of(path) for path in DEMO.iterdir())
    assert hub(keyed.url, tmp_path, "found = [m.id for m in HfApi().list_models(author='acme')]", key=text)
    asked = """
found = []
try:
    hf_hub_download('acme/big', 'config.json')
except Exception as error:
    error = error if isinstance(error, HfHubHTTPError) else error.__cause__
    found = [type(error).__name__, error.response.status_code, str(error)]
"""
    for key, told in (
        (None, ["HfHubHTTPError", 401, "the request has no API key"]),
        (write_key("a" * 12, bytes(32)), ["HfHubHTTPError", 401, "the API key is not known here"]),
        (other, ["HfHubHTTPError", 403, "is not for `mirror`, but for `inference`"]),
    ):
        found = hub(keyed.url, tmp_path, asked, key=key)
        assert isinstance(found, list)
        assert found[:2] == told[:2], found
        assert told[2] in found[2]


def test_serve_models_pull_shows_its_key(keyed: Mirror, access: Access, tmp_path: Path) -> None:
    """From `store.token_file`, for the lock too."""
    _, text = access.create(WANTED)
    wait_until(lambda: keyed.ask(FILE, **bearing(text)).status == 200, "the key is seen")
    token = tmp_path / "token"
    token.touch(mode=0o600)

    def pull(shown: str) -> subprocess.CompletedProcess[str]:
        token.write_text(shown)
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "serving",
                "models",
                "pull",
                "own",
                "--source",
                "perimeter/demo-bf16",
                "--variant",
                "bf16",
            ],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                "HOME": str(tmp_path / "home"),
                "HF_ENDPOINT": keyed.url,
                "PERIMETER_STORE__TOKEN_FILE": str(token),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    _, other = access.create(replace(WANTED, scopes=frozenset({"inference"})))
    wait_until(lambda: keyed.ask(FILE, **bearing(other)).status == 403, "the other key is seen")
    for wrong, said in ((write_key("a" * 12, bytes(32)), "status 401"), (other, "status 403")):
        refused = pull(wrong)
        assert refused.returncode == 18
        assert said in refused.stderr
        assert "store.token_file" in refused.stderr
    done = pull(text)
    assert done.returncode == 0, done.stderr
    assert [manifest.model for manifest in Store(tmp_path / "home/.local/share/perimeter/store").manifests()] == ["own"]


def test_every_route_but_one_wants_a_key(keyed: Mirror, access: Access) -> None:
    """401 with how to show one; /health says that it is there, and nothing of what."""
    paths = [FILE, BIG, "/api/models", "/api/models/acme/big", "/api/models/acme/big/tree/main", "/nowhere", "/"]
    for path in [*paths, "/.well-known/perimeter/models.lock", "/health/", "//health", "/health%2f"]:
        for method in ("GET", "HEAD", "DELETE"):
            answer = keyed.ask(path, method)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), path
    paths_info = keyed.ask("/api/models/acme/big/paths-info/main", "POST", content_length="0")
    assert (paths_info.status, paths_info.headers["connection"]) == (401, "close")
    assert keyed.health["status"] in {"ok", "verifying"}
    assert keyed.health.keys() == {"status"}
    _, text = access.create(WANTED)
    wait_until(lambda: keyed.ask(FILE, **bearing(text)).status == 200, "the key is seen")


def test_a_key_that_is_revoked_ends_its_downloads(
    keyed: Mirror, access: Access, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within about a second, in the midst of a file; another's goes on. Both are on record, by key and by what."""
    (gone, text), (kept, other) = access.create(WANTED), access.create(WANTED)
    wait_until(lambda: keyed.ask(FILE, **bearing(other)).status == 200, "the keys are seen")
    size = int(keyed.ask(BIG, "HEAD", **bearing(text)).headers["content-length"])
    with contextlib.closing(Client(keyed.address)) as one, contextlib.closing(Client(keyed.address)) as two:
        for client, key in ((one, text), (two, other)):
            client.send(f"GET {BIG} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {key}\r\n\r\n".encode())
            assert client.head()[0] == 200
        began = time.monotonic()
        access.revoke(gone.id)
        # neither takes anything until the first was cut
        line = keyed.wait_for("download", key=gone.id, outcome="key-ended")
        assert time.monotonic() - began < 3
        assert int(line["sent_bytes"]) < size
        assert keyed.ask(FILE, **bearing(text)).status == 401
        taken = len(two.buffer)
        while taken < size:
            taken += len(two.socket.recv(1 << 20))
        assert taken == size
    keyed.wait_for("download", key=kept.id, outcome="complete", asked_bytes=size)
    keyed.stop()
    found = [record for record in records(tmp_path, capsys) if record["kind"] == "download"]
    assert {(record["key"], record["outcome"]) for record in found if record["file"] == "model.safetensors"} == {
        (gone.id, "key-ended"),
        (kept.id, "complete"),
    }
    whole = next(record for record in found if record["key"] == kept.id and record["sent_bytes"] == size)
    assert (whole["principal"], whole["repository"], whole["source"]) == ("radiology", "acme/big", "127.0.0.1")


def test_a_flood_of_wrong_keys_is_one_line_of_the_record(
    shelf: Shelf, access: Access, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """401 and then 429, which the hub's client waits after; nothing of it in the log; a right key still gets in."""
    _, text = access.create(WANTED)
    wrong = write_key("b" * 12, bytes(32))
    with mirror(shelf.store, tmp_path, more=tables(tmp_path, 20), is_open=False) as keyed:
        answers = [keyed.ask(FILE, **bearing(wrong)) for _ in range(40)]
        assert [answer.status for answer in answers[:20]] == [401] * 20
        assert answers[-1].status == 429
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert keyed.ask(FILE, **bearing(text)).status == 200
    assert wrong not in json.dumps(keyed.log)
    assert text not in json.dumps(keyed.log)
    found = [record for record in records(tmp_path, capsys) if record["kind"] == "authentication-failed"]
    assert 1 <= len(found) <= 3  # a minute may have ended meanwhile
    assert {record["source"] for record in found} == {"127.0.0.1"}
    assert sum(record["count"] for record in found) >= 40


def started(directory: Path, store: Store, *flags: str, more: str = "") -> tuple[int, str]:
    """`serve mirror` that is to be refused: its status and last words."""
    config = directory / "mirror.toml"
    config.write_text(f'{more}[store]\ndirectory = "{store.root}"\n{tables(directory)}')
    done = subprocess.run(
        [sys.executable, "-m", "serving", "mirror", "--port", "0", "--config", str(config), *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def test_no_key_is_asked_for_on_loopback_and_by_word_alone(shelf: Shelf, tmp_path: Path) -> None:
    """Beyond loopback, or where everything is to be sealed, `--open` is refused; with keys TLS or a word is wanted."""
    status, said = started(tmp_path, shelf.store, "--open", "--host", "0.0.0.0")
    assert (status, "without keys" in said) == (10, True)
    status, said = started(tmp_path, shelf.store, "--open", "--host", "0.0.0.0", "--allow-insecure-bind")
    assert (status, "without keys" in said) == (10, True)
    status, said = started(tmp_path, shelf.store, "--open", more='sealed = "require"\n')
    assert (status, "without keys" in said) == (10, True)
    status, said = started(tmp_path, shelf.store, "--host", "0.0.0.0")
    assert (status, "without TLS" in said) == (10, True)


def test_with_keys_and_tls_it_may_be_reached_from_elsewhere(shelf: Shelf, access: Access, tmp_path: Path) -> None:
    """Without a further word; what is asked for without a key is refused there too."""
    certificate, key = Authority(tmp_path / "tls").issue("server")
    shown = {"host": "0.0.0.0", "tls.certificate": str(certificate), "tls.key": str(key)}
    _, text = access.create(WANTED)
    with mirror(shelf.store, tmp_path, more=tables(tmp_path), is_open=False, **shown) as one:
        context = ssl.create_default_context(cafile=tmp_path / "tls" / "site-ca.pem")
        for headers, status in (("", 401), (f"authorization: Bearer {text}\r\n", 200)):
            with contextlib.closing(Client(("127.0.0.1", one.address[1]), context=context)) as client:
                client.send(f"GET {FILE} HTTP/1.1\r\nhost: anything.example\r\n{headers}\r\n".encode())
                assert client.head()[0] == status


def test_the_start_says_who_may_come_in(shelf: Shelf, access: Access, tmp_path: Path) -> None:
    """That nobody is asked, or that there is no key yet and how to make one."""
    with mirror(shelf.store, tmp_path, more=tables(tmp_path)) as one:
        assert any("no key is asked for: whoever is on this host" in entry["event"] for entry in one.log)
        assert one.ask(FILE).status == 200
        client = Client(one.address)
        client.send(f"GET {FILE} HTTP/1.1\r\nhost: rebound.example\r\n\r\n".encode())
        assert client.head()[0] == 421
        client.close()
    with mirror(shelf.store, tmp_path, more=tables(tmp_path), is_open=False) as one:
        assert any("--scope mirror" in entry["event"] for entry in one.log)
        assert one.ask(FILE).status == 401
    access.create(WANTED)
    with mirror(shelf.store, tmp_path, more=tables(tmp_path), is_open=False) as one:
        assert not any("--scope mirror" in entry["event"] for entry in one.log)


def test_a_store_with_another_process_at_the_keys_is_no_obstacle(shelf: Shelf, tmp_path: Path) -> None:
    """The mirror starts before any key was made, and takes no lock: a server can be started after it."""
    with mirror(shelf.store, tmp_path, more=tables(tmp_path), is_open=False) as one:
        assert not (tmp_path / "access").exists()
        with contextlib.closing(Access.open(AccessSettings(directory=tmp_path / "access"), {})) as access:
            _, text = access.create(WANTED)
            wait_until(lambda: one.ask(FILE, **bearing(text)).status == 200, "the key is seen")
        with contextlib.closing(Access.open(AccessSettings(directory=tmp_path / "access"), {})) as access:
            assert len(access.all_keys()) == 1
        assert one.ask(FILE, **bearing(text)).status == 200
