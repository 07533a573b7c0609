"""What a request is answered with, as properties; pure."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from serving.mirror.hub import Request, answer, blob_id
from serving.mirror.ranges import Whole, is_named, read_range
from serving.mirror.repositories import offer_of
from serving.store.lock import lock_of
from serving.store.manifest import Manifest, StoredFile

FILES = tuple(StoredFile(name, digit * 64, 10) for name, digit in (("config.json", "1"), ("d/e/w.safetensors", "2")))
MODEL = Manifest("m", "v", "safetensors", FILES, "huggingface.co/org/name", "c" * 40, publishable=True)
OFFER = offer_of([MODEL], lock_of([MODEL]))


@given(st.integers(0, 10**13), st.integers(0, 10**13), st.integers(0, 10**13))
def test_a_range_is_inside_the_file(size: int, start: int, end: int) -> None:
    """What goes out is there, begins where it was asked to, and is no more than was asked for."""
    found = read_range(f"bytes={start}-{end}", size)
    if end < start:
        assert found == Whole(0, size)
    elif start >= size:
        assert found is None
    else:
        assert found is not None
        assert found.start == start
        assert 1 <= found.length <= end - start + 1
        assert start + found.length == min(end + 1, size)


@given(st.text(), st.integers(0, 1000))
def test_any_text_is_a_range_or_none(header: str, size: int) -> None:
    """Nothing raises, and nothing leads out of the file."""
    found = read_range(f"bytes={header}", size)
    assert found is None or 0 <= found.start <= found.start + found.length <= size


@given(st.text().filter(lambda text: text.strip() != "*"))
def test_a_tag_is_found_only_where_it_is(header: str) -> None:
    """A condition holds for the tag itself, or for `*`."""
    assert is_named(f'{header}, "tag"', '"tag"')
    assert not is_named(header, '"a tag that is not there"')
    assert is_named("*", '"tag"')


parts = st.sampled_from(
    ["api", "models", "org", "name", "resolve", "tree", "revision", "main", "paths-info", "..", "d"]
)
paths = st.lists(
    parts | st.sampled_from(["e", "config.json", "w.safetensors", "refs"]) | st.text(max_size=4), max_size=8
)


@given(paths, st.sampled_from(["GET", "HEAD", "POST", "PUT", ""]), st.text(max_size=30), st.binary(max_size=50))
def test_any_request_has_an_answer(segments: list[str], method: str, query: str, body: bytes) -> None:
    """Nothing raises; what is sent of a file is a file that is offered, by the path that it has."""
    path = "/" + "/".join(quote(part, safe="") for part in segments)
    found = answer(OFFER, Request(method, path, query, {}, body))
    assert found.status in (200, 400, 404, 405)
    assert all(name.isascii() and value.isascii() and value.isprintable() for name, value in found.headers)
    if found.part is not None:
        assert method in ("GET", "HEAD")
        assert found.part.file in FILES
        assert path.endswith("/".join(found.part.file.name.split("/")))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_path_or_none(raw: bytes) -> None:
    """Whatever is percent-encoded in a file's place finds that file or nothing."""
    path = "/org/name/resolve/main/" + "".join(f"%{byte:02x}" for byte in raw)
    found = answer(OFFER, Request("GET", path))
    if found.part is None:
        assert found.status == 404
    else:
        assert raw.decode() == found.part.file.name


def test_a_file_has_the_name_that_git_gives_its_pointer(tmp_path: Path) -> None:
    """The hub's `blobId` of a file in Git LFS is what `git hash-object` says of the pointer."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'1' * 64}\nsize 10\n"
    (tmp_path / "pointer").write_text(pointer)
    said = subprocess.run(["git", "hash-object", "pointer"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert blob_id(FILES[0]) == said.stdout.strip()


def test_a_query_without_end_is_refused() -> None:
    """More fields than anybody asks with."""
    assert answer(OFFER, Request("GET", "/api/models", "a=1&" * 100)).status == 400


def test_a_tree_has_its_directories() -> None:
    """From the top, from inside, and all at once."""

    def ask(rest: str, query: str = "") -> list[str]:
        found = answer(OFFER, Request("GET", f"/api/models/org/name/tree/main{rest}", query))
        return [entry["path"] for entry in json.loads(found.body)]

    assert ask("") == ["d", "config.json"]
    assert ask("/d") == ["d/e"]
    assert ask("", "recursive=True&expand=False") == ["d", "d/e", "config.json", "d/e/w.safetensors"]
    assert answer(OFFER, Request("GET", "/api/models/org/name/tree/main/no")).status == 404
