"""What happens to a store while it is handed on: damage, changes, and clients that are slow."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from serving.store.bring import Origin
from serving.store.cas import Store
from tests.mirror.conftest import Shelf
from tests.support.harness import Client, wait_until
from tests.support.mirror import Mirror, bring, mirror, write_model

FILE = "/perimeter/small-noise/resolve/main/model.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    write_model(tmp_path / "small", 32 << 20)
    bring(store, tmp_path / "small", Origin("small", "noise", publishable=True))
    return store


def blob_of(store: Store, name: str = "model.safetensors") -> Path:
    manifest = store.find("small", "noise")
    assert manifest is not None
    file = manifest.file(name)
    assert file is not None
    return store.blob(file.sha256)


def flip(path: Path, at: int = 1 << 20) -> None:
    """One bit, with the times of the file put back as far as that can be done."""
    status = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swapped", "link"])
def test_a_file_that_is_damaged_meanwhile_is_not_served(store: Store, tmp_path: Path, damage: str) -> None:
    """It was served before; then it is a 500 that says so, and the log names it; the other files are served on."""
    with mirror(store, tmp_path) as one:
        assert one.ask(FILE).status == 200
        blob = blob_of(store)
        if damage == "flip":
            flip(blob)
        elif damage == "cut":
            os.truncate(blob, 1000)
        elif damage == "gone":
            blob.unlink()
        elif damage == "swapped":
            other = tmp_path / "other"
            other.write_bytes(b"\0" * blob.stat().st_size)
            other.replace(blob)
        else:
            moved = blob.with_name("moved")
            blob.rename(moved)
            blob.symlink_to(moved)
        for _ in range(2):
            refused = one.ask(FILE)
            assert refused.status == 500
            assert b"damaged" in refused.body
            assert blob.name in str(one.wait_for("refused"))
        assert one.ask(FILE.replace("model.safetensors", "config.json")).status == 200


def test_a_file_that_was_damaged_before_is_not_served(store: Store, tmp_path: Path) -> None:
    """Not once: it is hashed before its first byte goes out."""
    flip(blob_of(store))
    with mirror(store, tmp_path) as one:
        assert one.ask(FILE).status == 500
        assert one.ask(FILE, range="bytes=0-99").status == 500


def test_a_file_that_changes_while_it_is_sent_is_cut(store: Store, tmp_path: Path) -> None:
    """The rest of it is not sent, and the log has it as an error."""
    with mirror(store, tmp_path) as one:
        one.ask(FILE, range="bytes=0-0")
        client = Client(one.address)
        client.send(f"GET {FILE} HTTP/1.1\r\nhost: h\r\n\r\n".encode())
        client.head()
        blob = blob_of(store)
        blob.chmod(0o644)
        with blob.open("r+b") as file:
            file.seek(30 << 20)
            file.write(b"other")
        client.socket.settimeout(10)
        got = 0
        try:
            while data := client.socket.recv(1 << 20):
                got += len(data)
        except ConnectionError:
            pass
        client.close()
        assert got <= 16 << 20
        assert one.wait_for("download", start=0, outcome="unverified")["level"] == "error"


def test_what_is_published_and_withdrawn_meanwhile(store: Store, tmp_path: Path) -> None:
    """The next request sees it, and so does the lock."""
    with mirror(store, tmp_path) as one:
        assert one.ask(FILE).status == 200
        store.mark("small", "noise", publishable=False)
        assert one.ask(FILE).headers["x-error-code"] == "RepoNotFound"
        assert b"small" not in one.ask("/.well-known/perimeter/models.lock").body
        store.mark("small", "noise", publishable=True)
        assert one.ask(FILE).status == 200
        store.remove("small", "noise")
        assert one.ask(FILE).status == 404


def test_a_lock_that_was_changed_ends_all(store: Store, tmp_path: Path) -> None:
    """A letter of it differs: nothing is handed on, and each request says why."""
    with mirror(store, tmp_path) as one:
        assert one.ask(FILE).status == 200
        text = store.lock_file.read_text()
        store.lock_file.chmod(0o644)
        store.lock_file.write_text(text.replace("publishable = true", "publishable = false"))
        assert one.ask(FILE).status == 500
        assert one.ask("/api/models").status == 500
        store.lock_file.write_text(text)
        assert one.ask(FILE).status == 200


def slow_client(one: Mirror, path: str) -> Client:
    """Asks, and reads nothing; its own buffer is small."""
    client = Client(one.address)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send(f"GET {path} HTTP/1.1\r\nhost: h\r\n\r\n".encode())
    return client


def test_slow_clients_hold_no_memory_and_nobody_up(running: Mirror, shelf: Shelf) -> None:
    """Two hundred that take nothing: the mirror grows by nothing, serves others, and knows when they leave."""
    path = "/acme/big/resolve/main/model.safetensors"
    running.ask(path, range="bytes=0-0")
    before = running.resident_bytes
    clients = [slow_client(running, path) for _ in range(200)]
    try:
        wait_until(lambda: running.health["downloads"] == 200, "200 downloads under way")
        assert running.resident_bytes - before < 20 << 20
        whole = running.ask(path)
        assert whole.body == shelf.weights.read_bytes()
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: running.health["downloads"] == 0, "all have left")


def test_a_client_that_takes_nothing_is_cut(store: Store, tmp_path: Path) -> None:
    """After `stall_s`; its place is free then."""
    with mirror(store, tmp_path, stall_s=1) as one:
        client = slow_client(one, FILE)
        assert one.wait_for("download", within_s=20)["outcome"] == "cut"
        assert one.health["downloads"] == 0
        client.close()


def test_more_clients_than_may_come_are_told_so(store: Store, tmp_path: Path) -> None:
    """Those beyond `connections` get a 503 at once, and those before go on."""
    with mirror(store, tmp_path, connections=3) as one:
        clients = [slow_client(one, FILE) for _ in range(3)]
        for client in clients:
            assert client.head()[0] == 200
        assert one.ask("/health").status == 503
        for client in clients:
            client.close()
        wait_until(lambda: one.ask("/health").status == 200, "places are free again")
