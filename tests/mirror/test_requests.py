"""`serve mirror` as it is asked by hand: methods, conditions, ranges, and paths that lead elsewhere."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.cli import run
from serving.errors import UnsafeBind
from serving.store.lock import parse_lock
from tests.mirror.conftest import Shelf
from tests.support.mirror import COMMIT, ROOT, Mirror, sha256_of

WEIGHTS = "/acme/big/resolve/main/model.safetensors"
CONFIG = "/acme/big/resolve/main/config.json"


def test_a_file_says_what_it_is(running: Mirror, shelf: Shelf) -> None:
    """ETag, commit, size and that ranges are served; the same to HEAD, without a byte of the file."""
    digest = sha256_of(shelf.weights)
    head = running.ask(WEIGHTS, "HEAD")
    assert head.status == 200
    assert head.body == b""
    assert head.headers["etag"] == head.headers["x-linked-etag"] == f'"{digest}"'
    assert head.headers["x-repo-commit"] == COMMIT
    size = str(shelf.weights.stat().st_size)
    assert head.headers["content-length"] == head.headers["x-linked-size"] == size
    assert head.headers["accept-ranges"] == "bytes"
    assert running.ask(CONFIG).body == (shelf.weights.parent / "config.json").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        CONFIG,
        "/api/models",
        "/api/models/acme/big",
        f"/api/models/acme/big/revision/{COMMIT}",
        "/api/models/acme/big/tree/main?recursive=true",
        "/api/models/acme/big/refs",
        "/.well-known/perimeter/models.lock",
        "/health",
        "/acme/no/resolve/main/config.json",
        "/acme/big/resolve/v2/config.json",
        "/acme/big/resolve/main/no.json",
        "/nowhere",
    ],
)
def test_head_tells_what_get_does(running: Mirror, path: str) -> None:
    """Status and headers are the same, and no body follows."""
    get, head = running.ask(path), running.ask(path, "HEAD")
    assert head.body == b""
    assert head.status == get.status
    changing = {"date", "content-length"} if path == "/health" else {"date"}
    kept = [{name: value for name, value in one.headers.items() if name not in changing} for one in (get, head)]
    assert kept[0] == kept[1]
    assert int(get.headers["content-length"]) == len(get.body)


def test_conditions(running: Mirror, shelf: Shelf) -> None:
    """What a client has is not sent again; a range of something else is the whole of what is there."""
    etag = f'"{sha256_of(shelf.weights.parent / "config.json")}"'
    whole = (shelf.weights.parent / "config.json").read_bytes()
    assert running.ask(CONFIG, if_none_match=etag).status == 304
    assert running.ask(CONFIG, if_none_match=f'"x", W/{etag}').status == 304
    assert running.ask(CONFIG, "HEAD", if_none_match="*").status == 304
    assert running.ask(CONFIG, if_none_match='"x"').body == whole
    assert running.ask(CONFIG, range="bytes=2-5", if_range=etag).body == whole[2:6]
    other = running.ask(CONFIG, range="bytes=2-5", if_range='"x"')
    assert (other.status, other.body) == (200, whole)


def test_ranges(running: Mirror, shelf: Shelf) -> None:
    """First bytes, last bytes, the rest from somewhere; one that is not there is a 416 that says how much is."""
    whole = (shelf.weights.parent / "config.json").read_bytes()
    size = len(whole)
    for asked, start, end in (
        ("0-0", 0, 1),
        ("3-", 3, size),
        ("-4", size - 4, size),
        ("5-999", 5, size),
        ("0-", 0, size),
    ):
        part = running.ask(CONFIG, range=f"bytes={asked}")
        assert (part.status, part.body) == (206, whole[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    for asked in (f"{size}-", "-0", "0-1,3-4"):
        refused = running.ask(CONFIG, range=f"bytes={asked}")
        assert refused.status == 416
        assert refused.headers["content-range"] == f"bytes */{size}"
    for header in ("lines=1-2", "bytes=x", "bytes=5-2", "bytes=-"):
        assert running.ask(CONFIG, range=header).status == 200


def test_many_ranges_at_once(running: Mirror, shelf: Shelf) -> None:
    """Each is what the file has there."""
    content = shelf.weights.read_bytes()
    dice = random.Random(7)
    spans = []
    for _ in range(200):
        start = dice.randrange(len(content))
        spans.append((start, min(len(content), start + dice.randrange(1, 1 << 20))))

    def fetch(span: tuple[int, int]) -> bool:
        part = running.ask(WEIGHTS, range=f"bytes={span[0]}-{span[1] - 1}")
        return part.status == 206 and part.body == content[span[0] : span[1]]

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(fetch, spans))


@pytest.mark.parametrize(
    "path",
    [
        "/acme/big/resolve/main/../../../secret/config.json",
        "/acme/big/resolve/main/%2e%2e/%2e%2e/config.json",
        "/acme/big/resolve/main/..%2f..%2fmodels.lock",
        "/acme/big/resolve/main//etc/passwd",
        "/acme/big/resolve/main/%2fetc%2fpasswd",
        "/acme/big/resolve/main/config.json%00",
        "/acme/big/resolve/main/%ff%fe",
        "/acme/big/resolve/main/..%5c..%5cconfig.json",
        "/acme/big/resolve/%2e%2e/config.json",
        "/acme/../acme/big/resolve/main/config.json",
        "//acme/big/resolve/main/config.json",
        "/acme/big/resolve/main/",
        "/acme/big/resolve/main",
        "/api/models/../models/acme/big",
        "/api/models/acme/big/tree/main/..",
        "/api/models/acme/secret",
        "/acme/secret/resolve/main/config.json",
        f"/acme/secret/resolve/{COMMIT}/config.json",
        "/perimeter/secret-bf16/resolve/main/config.json",
        "/manifests/secret/bf16.json",
        "/models.lock",
        "/",
    ],
)
def test_nothing_else_is_there(running: Mirror, path: str) -> None:
    """A path that leads out of a repository, and a model that is not for others, are not found."""
    found = running.ask(path)
    assert found.status == 404
    assert found.headers["x-error-code"] in ("RepoNotFound", "RevisionNotFound", "EntryNotFound")
    assert b"secret" not in found.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(running: Mirror, method: str) -> None:
    """Every method that would is a 405 which says what is allowed."""
    for path in (CONFIG, "/api/models/acme/big", "/api/repos/create", "/api/models/acme/big/commit/main"):
        refused = running.ask(path, method, content_length="0")
        assert refused.status == 405
        assert refused.headers["allow"] == "GET, HEAD"


def test_the_lock_has_what_is_handed_on_and_no_more(running: Mirror) -> None:
    """It is read by the store's own parser, and its entries are the store's."""
    answer = running.ask("/.well-known/perimeter/models.lock")
    lock = parse_lock(answer.body, "the mirror's lock")
    assert [entry.model for entry in lock.entries] == ["big", "demo"]
    assert all(running.store.lock().find(entry.model, entry.variant) == entry for entry in lock.entries)
    assert running.ask("/.well-known/perimeter/models.lock", if_none_match=answer.headers["etag"]).status == 304


def test_a_body_that_is_no_list_of_paths_is_refused(running: Mirror) -> None:
    """Too large, or of another form."""
    from tests.support.harness import Client

    for body, kind, status in (
        (b"{}", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"nothing", "application/x-www-form-urlencoded", 400),
        (b'{"paths": [1]}', "application/json", 400),
        (b'{"paths": ["config.json"]}', "application/json", 200),
        (b"paths=" + b"x" * (2 << 20), "application/x-www-form-urlencoded", 413),
    ):
        client = Client(running.address)
        client.post("/api/models/acme/big/paths-info/main", body, {"content-type": kind})
        assert client.answer().status == status
        client.close()


def test_logs_have_no_tokens(running: Mirror) -> None:
    """What a client sends to identify itself is in no line."""
    running.seen()
    running.ask(CONFIG + "?token=hf_hidden", authorization="Bearer hf_hidden", cookie="token=hf_hidden")
    running.ask("/nowhere?token=hf_hidden", authorization="Bearer hf_hidden")
    running.seen()
    assert "hf_hidden" not in str(running.log)


def test_it_is_not_open_to_others_unasked(shelf: Shelf) -> None:
    """There are no keys: an address that others reach is refused, as the gateway refuses it."""
    assert run(["mirror", "--host", "0.0.0.0", "--port", "0"]) == UnsafeBind.exit_status


def test_the_screen_says_what_is_offered_and_how_to_use_it(shelf: Shelf) -> None:
    """Address, names, what is kept back and why, and the variable that a client sets; nothing on stdout."""
    environment = {**os.environ, "PERIMETER_STORE__DIRECTORY": str(shelf.store.root)}
    argv = [sys.executable, "-m", "serving", "mirror", "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, text=True, **pipes) as process:
        assert process.stderr is not None
        said = ""
        while "stop " not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.terminate()
        out, rest = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == ""
    assert rest.endswith("stopped\n")
    for part in ("acme/big, 100 MiB, 4 files", "perimeter/demo-bf16", "keeps     secret (bf16): not publishable"):
        assert part in said
    assert "use       HF_ENDPOINT=http://127.0.0.1:" in said
