"""What hubs, directories and wheels may say of themselves, and what of it does harm."""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

from serving.cli.weights import hold_weights
from serving.errors import BadFile, FetchFailed, Unverified
from serving.store.accepted import MAX_VALUES, is_words
from serving.store.bring import Found, Origin, bring_in, look_through
from serving.store.cas import Store
from serving.store.examine import examine_store
from serving.store.hub import Order, _Bounded, _TooMuch
from serving.store.manifest import MAX_FILES
from serving.store.pull import Offered, _is_stored, _licence, _read
from serving.store.shipped import files_of
from serving.store.verify import DAY_S, Record, open_locked, opened
from tests.support.stored import DEMO, found, with_demo
from tests.unit.cli.test_weights import _close, _planned, _settings

ORDER = Order("look", "https://hub", "a/b", "main")
COMMIT = "0" * 40


@pytest.mark.parametrize("licence", ["x" * 500, "a\nb", "\ud800"])
def test_what_could_not_be_read_again_is_not_written(tmp_path, licence):
    """A licence's name that no lock can hold: the model is refused, and the lock stays as it was."""
    store, *before = with_demo(tmp_path / "store")
    with pytest.raises(BadFile):
        bring_in(store, [found(DEMO / "demo-f16.gguf")], Origin("other", "f16", licence=licence))
    assert store.lock().entries == tuple(before)
    assert _licence(licence) is None
    assert _licence("Apache-2.0") == "Apache-2.0"


def test_a_model_has_not_thousands_of_files(tmp_path):
    """It is said before any is copied."""
    file = found(DEMO / "demo-f16.gguf")
    many = [Found(f"n{number}.json", file.path, 1, 1) for number in range(MAX_FILES)]
    with pytest.raises(BadFile, match=r"it has \d+ files"):
        bring_in(Store(tmp_path / "store"), [file, *many], Origin("own", "f16"))
    with pytest.raises(BadFile, match="twice"):
        bring_in(Store(tmp_path / "store"), [file, file], Origin("own", "f16"))


@pytest.mark.parametrize(
    "name", ["readme.safetensors", "notice.gguf", "LICENSE.json", "readme.jinja", "a/copying.json"]
)
def test_weights_are_not_words_by_their_name(name):
    """Nor tables or templates: an engine reads them."""
    assert not is_words(name)


def test_a_file_added_to_a_locked_directory_is_in_no_lock(tmp_path, monkeypatch):
    """Whatever it is called, and whatever its size."""
    store, tensors, _ = with_demo(tmp_path / "store")
    directory = tmp_path / "copy"
    shutil.copytree(DEMO / "hf", directory)
    shutil.copy(DEMO / "hf" / "model.safetensors", directory / "readme.safetensors")
    with pytest.raises(Unverified):
        open_locked(files_of(directory), store.lock(), tmp_path / "record", rehash_s=0)
    assert tensors in store.lock().entries


@pytest.fixture
def data(tmp_path, monkeypatch):
    for name in ("DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    with_demo(tmp_path / "data" / "perimeter" / "store")
    return tmp_path


def test_a_tree_that_leads_elsewhere_is_mended_or_refused(data):
    """What an engine opens by its name is what was verified by its digest."""
    planned = _planned("own", data)
    assert planned.weights is not None
    other = data / "other"
    other.write_bytes(planned.weights.read_bytes())
    other.replace(planned.weights)
    (planned.weights.parent / "extra.json").write_text("{}")
    held = hold_weights([planned], _settings())
    ((descriptor, path),) = held[0].files
    assert os.fstat(descriptor).st_ino == path.stat().st_ino
    assert not (planned.weights.parent / "extra.json").exists()
    _close(held)


def test_a_directory_of_links_is_known_by_what_they_lead_to(data):
    """As the hub's cache is made; a link that leads nowhere is in no lock."""
    snapshot, blobs = data / "snapshots" / "abc", data / "blobs"
    shutil.copytree(DEMO / "hf", blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    planned = dataclasses.replace(_planned("own", data), weights=snapshot)
    held = hold_weights([planned], _settings(sealed="require"))
    assert held[0].unlocked is None
    assert {path.parent for _, path in held[0].files} == {snapshot}
    _close(held)
    (snapshot / "gone.json").symlink_to(data / "gone.json")
    (held,) = hold_weights([planned], _settings())
    assert held.unlocked is not None


def test_a_damaged_blob_is_not_taken_for_stored(tmp_path):
    """So a pull fetches it anew."""
    store, _, gguf = with_demo(tmp_path / "store")
    (file,) = gguf.files
    offered = Offered(file.name, file.size, file.sha256)
    assert _is_stored(store, offered)
    blob = store.blob(file.sha256)
    blob.chmod(0o644)
    with blob.open("r+b") as opened_blob:
        opened_blob.write(b"X")
    assert not _is_stored(store, offered)


@pytest.mark.parametrize(
    "file",
    [
        {"name": "a.json", "size": 1, "sha256": "/etc/passwd", "git_sha1": None},
        {"name": "a.json", "size": 1, "sha256": 7, "git_sha1": None},
        {"name": "a.json", "size": -1, "sha256": None, "git_sha1": None},
        {"name": "a.json", "size": None, "sha256": None, "git_sha1": None},
        {"name": ["a"], "size": 1, "sha256": None, "git_sha1": None},
        {"name": "a.json", "size": 1 << 60, "sha256": None, "git_sha1": None},
        {"name": "a.json", "size": 1, "sha256": None, "git_sha1": "x"},
    ],
)
def test_what_a_hub_says_of_its_files_is_checked(file):
    """A digest becomes a path, a size room on the disk."""
    with pytest.raises(FetchFailed):
        _read({"commit": COMMIT, "files": [file]}, ORDER)
    sound = {"name": "a.json", "size": 1, "sha256": None, "git_sha1": "0" * 40}
    assert _read({"commit": COMMIT, "files": [sound]}, ORDER)[1][0].name == "a.json"
    with pytest.raises(FetchFailed, match="twice"):
        _read({"commit": COMMIT, "files": [sound, sound]}, ORDER)


def test_a_download_takes_no_more_than_was_said(tmp_path):
    """One byte more ends it; a part that is too long begins anew."""
    part = tmp_path / "part"
    with _Bounded(part, 10) as file:
        file.write(b"12345")
    with _Bounded(part, 10) as file:
        assert file.tell() == 5
        file.write(b"67890")
        with pytest.raises(_TooMuch):
            file.write(b"1")
    with _Bounded(part, 9) as file:
        assert file.tell() == 0


def test_json_that_fills_memory_is_refused(tmp_path):
    """Counted before it is parsed."""
    directory = tmp_path / "model"
    shutil.copytree(DEMO / "hf", directory)
    (directory / "extra.json").write_text("[" + "{}," * MAX_VALUES + "{}]")
    with pytest.raises(BadFile, match="has more than"):
        bring_in(Store(tmp_path / "store"), look_through(directory)[0], Origin("own", "bf16"))


def test_a_lock_that_is_a_link_stays_one(tmp_path):
    """It is the file under version control that is written."""
    kept = tmp_path / "git" / "models.lock"
    kept.parent.mkdir()
    kept.write_text("version = 1\n")
    link = tmp_path / "models.lock"
    link.symlink_to(kept)
    store = Store(tmp_path / "store", link)
    bring_in(store, [found(DEMO / "demo-q8_0.gguf")], Origin("own", "q8_0"))
    assert link.is_symlink()
    assert "demo-q8_0.gguf" in kept.read_text()


MANY = """
import json, resource, sys
from pathlib import Path
from serving.store.bring import Origin, bring_in, look_through
from serving.store.cas import Store
from serving.store.verify import opened
store = Store(Path(sys.argv[1]))
manifest = bring_in(store, look_through(Path(sys.argv[2]))[0], Origin("own", "bf16"))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
with opened(store, manifest, rehash_s=0) as files:
    print(len(files))
"""


def test_more_files_than_are_allowed_open_are_opened(tmp_path):
    """As far as the hard limit lets."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1024:
        pytest.skip("the hard limit is lower")
    directory = tmp_path / "model"
    shutil.copytree(DEMO / "hf", directory)
    for number in range(100):
        (directory / f"n{number}.json").write_text(json.dumps(number))
    argv = [sys.executable, "-c", MANY, str(tmp_path / "store"), str(directory)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "106\n", done.stderr


def test_a_record_nested_deep_counts_as_none(tmp_path):
    """And the files are hashed."""
    import hashlib

    body = '{"a": ' + "[" * 5000 + "]" * 5000 + "}"
    path = tmp_path / "verified.json"
    path.write_text(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n")
    assert Record(path).get(tmp_path) is None


def test_words_called_like_weights_are_not_their_place(tmp_path):
    """The shelf finds the weights by their suffix, its dot included."""
    directory = tmp_path / "model"
    directory.mkdir()
    shutil.copy(DEMO / "demo-q8_0.gguf", directory / "z.gguf")
    (directory / "LICENSE_gguf").write_text("words")
    store = Store(tmp_path / "store")
    bring_in(store, look_through(directory)[0], Origin("own", "q8_0"))
    assert store.shelf()["own", "q8_0"].name == "z.gguf"
    assert examine_store(store).faults == ()
    with opened(store, store.manifests()[0], rehash_s=7 * DAY_S) as files:
        assert len(files) == 2
