"""What comes into the store is whole, is what it says it is, and stays what was locked."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.errors import BadFile, BadSettings, FileMissing, NoFitError, StartError, Unverified, UsageError
from serving.registry import load_catalogue
from serving.store.accepted import refuse_name
from serving.store.bring import Origin, bring_in, look_through, template_text
from serving.store.cas import Store
from serving.store.examine import examine_store
from serving.store.lock import NOTHING, Accepted
from serving.store.manifest import StoredFile, canonical, parse_manifest
from serving.store.shipped import FILE, format_lock, read_shipped
from serving.store.verify import DAY_S, Look, Seen, is_trusted, open_locked, opened
from tests.support.stored import DEMO, found, with_demo

WEEK_S = 7 * DAY_S


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    """A directory as a person would carry it in."""
    directory = tmp_path / "carried"
    shutil.copytree(DEMO / "hf", directory)
    return directory


def _import(store: Store, directory: Path, accepted: Accepted = NOTHING, **origin: object):
    return bring_in(store, look_through(directory)[0], Origin("own", "bf16", **origin), accepted)  # type: ignore[arg-type]


def test_a_model_comes_in_as_blobs_a_tree_a_lock_and_a_manifest(tmp_path):
    """Each file lies once, read-only, under its digest; the tree has it under its own name; the lock has all of it."""
    store, tensors, gguf = with_demo(tmp_path / "store")
    assert store.manifests() == (tensors, gguf)
    assert store.lock().entries == (tensors, gguf)
    for manifest in (tensors, gguf):
        for file in manifest.files:
            blob = store.blob(file.sha256)
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == file.sha256
            assert blob.stat().st_mode & 0o777 == 0o444
            assert (store.tree(manifest) / file.name).samefile(blob)
    assert not list(store.incoming.rglob("*.part"))
    assert parse_manifest(canonical(tensors), "it") == tensors
    assert examine_store(store).faults == ()


def test_what_two_models_share_lies_once(tmp_path, carried):
    """A second model with the same weights takes only what differs, and removing one leaves the other whole."""
    store = Store(tmp_path / "store")
    one = _import(store, carried)
    (carried / "config.json").write_text((carried / "config.json").read_text() + "\n")
    other = bring_in(store, look_through(carried)[0], Origin("other", "bf16"))
    shared = {file.sha256 for file in one.files} & {file.sha256 for file in other.files}
    assert len(shared) == len(one.files) - 1
    assert [usage.own_bytes for usage in store.usage()] == [
        manifest.file("config.json").size for manifest in store.manifests()
    ]
    freed = store.remove("own", "bf16")
    assert freed == one.file("config.json").size
    assert examine_store(store).faults == ()
    assert store.lock().find("own", "bf16") == one, "the lock keeps what it was"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pytorch_model.bin", "pickle"),
        ("model.pt", "pickle"),
        ("modeling_own.py", "code"),
        ("lib.so", "code"),
        ("weights.npz", "pickle"),
        ("../config.json", "leads elsewhere"),
        ("/etc/passwd", "leads elsewhere"),
        ("a/../b.json", "leads elsewhere"),
        ("a//b.json", "leads elsewhere"),
        (".hidden.json", "leads elsewhere"),
        ("a\nb.json", "leads elsewhere"),
        ("a" * 300 + ".json", "characters"),
        ("model.zip", "archive"),
        ("model", "neither"),
        ("model.safetensors.exe", "code"),
    ],
)
def test_only_names_of_weights_words_and_tables_are_taken(name, why):
    """Each is refused by what it stands for."""
    assert why in (refuse_name(name) or "taken")


@pytest.mark.parametrize(
    "name",
    [
        "model-00001-of-00004.safetensors",
        "model.safetensors.index.json",
        "tokenizer.model",
        "merges.txt",
        "LICENSE",
        "LICENCE.txt",
        "USE_POLICY.md",
        "chat_template.jinja",
        "1_Pooling/config.json",
        "Llama-3.2-1B-Instruct-Q8_0.gguf",
    ],
)
def test_what_models_are_published_with_is_taken(name):
    """The names of real repositories."""
    assert refuse_name(name) is None


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (lambda d: (d / "pytorch_model.bin").write_bytes(b"x"), "pickle"),
        (lambda d: (d / "modeling.py").write_text("print()"), "code"),
        (lambda d: (d / "model-2.safetensors").write_bytes(b"\x80\x04\x95"), "pickle"),
        (lambda d: (d / "model-2.safetensors").write_bytes(b"PK\x03\x04rest"), "archive"),
        (lambda d: (d / "extra.json").write_text("{"), "not JSON"),
        (lambda d: (d / "extra.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}'), "code of its own"),
        (lambda d: (d / "notes.md").write_bytes(b"\xff\xfe"), "not text"),
        (lambda d: (d / "link.json").symlink_to("/etc/passwd"), "symbolic link"),
        (lambda d: (d / "sub").symlink_to("/etc"), "symbolic link"),
        (lambda d: os.mkfifo(d / "pipe.json"), "neither a file"),
    ],
)
def test_an_import_refuses_and_leaves_nothing(tmp_path, carried, plant, why):
    """Pickles by name or by content, code, links, devices: refused by name, and no model is there after it."""
    plant(carried)
    store = Store(tmp_path / "store")
    with pytest.raises(BadFile, match=why):
        _import(store, carried)
    assert store.manifests() == ()
    assert store.lock().entries == ()


def test_what_is_not_taken_may_be_left_out(carried):
    """With the operator's word what cannot be taken is passed over, and named."""
    (carried / "pytorch_model.bin").write_bytes(b"x")
    files, passed = look_through(carried, leave_out=True)
    assert "pytorch_model.bin" not in {file.name for file in files}
    assert passed == ("`pytorch_model.bin` is left out: it is a pickle",)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("config.json",), "no weights"),
        (("model.safetensors",), "no `config.json`"),
    ],
)
def test_a_directory_must_be_a_model(tmp_path, carried, names, why):
    """What lacks its weights or its configuration is refused."""
    for path in carried.iterdir():
        if path.name not in names:
            path.unlink()
    with pytest.raises(BadFile, match=why):
        _import(Store(tmp_path / "store"), carried)


def test_two_gguf_files_are_two_variants(tmp_path):
    """Which one is meant must be said."""
    with pytest.raises(BadFile, match="several GGUF files"):
        bring_in(Store(tmp_path), [found(path) for path in sorted(DEMO.glob("*.gguf"))], Origin("own", "q8_0"))


@pytest.mark.parametrize("name", ["", "../own", "a b", "-x", "ä"])
def test_a_name_becomes_a_file_name(tmp_path, carried, name):
    """Names that would not are refused before anything is written."""
    with pytest.raises(UsageError):
        bring_in(Store(tmp_path / "store"), look_through(carried)[0], Origin(name, "bf16"))
    assert not (tmp_path / "store" / "blobs").exists()


def test_what_differs_from_the_lock_is_refused(tmp_path, carried):
    """The model that is there stays; the change is taken when the operator says that it is meant."""
    store = Store(tmp_path / "store")
    before = _import(store, carried)
    (carried / "config.json").write_text((carried / "config.json").read_text() + " ")
    with pytest.raises(Unverified, match=r"not what was locked: `config.json`"):
        _import(store, carried)
    assert store.manifests() == (before,)
    assert examine_store(store).models == (before,)
    after = _import(store, carried, Accepted(change=True))
    assert after != before
    assert store.manifests() == store.lock().entries == (after,)
    store.collect()
    assert examine_store(store).faults == ()


def test_another_chat_template_has_to_be_accepted(tmp_path, carried):
    """One that differs from the catalogue's is refused at the first import already, one that was changed later too."""
    ours = load_catalogue().find("demo").template_sha256
    store = Store(tmp_path / "store")
    first = _import(store, carried, known_template=ours)
    assert first.template_sha256 == ours
    assert template_text(store, first.files) == (carried / "chat_template.jinja").read_text()
    (carried / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(Unverified, match=r"chat template of other .* is not the catalogue's"):
        bring_in(store, look_through(carried)[0], Origin("other", "bf16", known_template="0" * 64))
    with pytest.raises(Unverified, match="chat template"):
        _import(store, carried, Accepted(change=True))
    assert _import(store, carried, Accepted(change=True, template=True)).template_sha256 != ours


def test_what_may_be_handed_on_stays_so_when_it_comes_in_again(tmp_path, carried):
    """The same files; others are for nobody else until that is said of them."""
    store = Store(tmp_path / "store")
    _import(store, carried, publishable=True)
    assert _import(store, carried).publishable
    (carried / "config.json").write_text((carried / "config.json").read_text() + " ")
    assert not _import(store, carried, Accepted(change=True)).publishable


def test_a_damaged_blob_is_not_served_and_comes_in_anew(tmp_path):
    """A new import replaces it, in the trees of the other models that have it, too."""
    store, _, gguf = with_demo(tmp_path / "store")
    twin = bring_in(store, [found(DEMO / "demo-q8_0.gguf")], Origin("twin", "q8_0"))
    blob = store.blob(gguf.files[0].sha256)
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\0\1\2\3")
    with pytest.raises(Unverified, match="not what was locked"), opened(store, twin, rehash_s=WEEK_S):
        pass
    assert {model for fault in examine_store(store).faults for model in fault.models} == {str(gguf), str(twin)}
    bring_in(store, [found(DEMO / "demo-q8_0.gguf")], Origin("own", "q8_0"))
    assert examine_store(store).faults == ()
    with opened(store, twin, rehash_s=WEEK_S) as files:
        assert os.pread(files[0].descriptor, 4, 0) == b"GGUF"


def test_the_descriptor_is_the_verified_file_whatever_happens_to_its_path(tmp_path):
    """What is exchanged after the check is not what is read."""
    store, _, gguf = with_demo(tmp_path / "store")
    with opened(store, gguf, rehash_s=WEEK_S) as files:
        other = tmp_path / "other"
        other.write_bytes(b"another file")
        other.replace(store.blob(gguf.files[0].sha256))
        content = os.pread(files[0].descriptor, gguf.files[0].size, 0)
    assert hashlib.sha256(content).hexdigest() == gguf.files[0].sha256


def test_what_was_hashed_lately_and_looks_the_same_is_not_hashed_again(tmp_path):
    """The second time nothing is read; with a limit of no time, or on demand, everything is."""
    store, tensors, _ = with_demo(tmp_path / "store")
    for file in tensors.files:  # so that no file is younger than the grain of the clock allows
        os.utime(store.blob(file.sha256), (time.time() - 60,) * 2)
    record = store.root / "verified.json"
    with opened(store, tensors, rehash_s=WEEK_S):
        pass
    first = record.read_bytes()
    with opened(store, tensors, rehash_s=WEEK_S, paranoid=True):
        pass
    assert record.read_bytes() != first, "its time is a new one"


def test_trust_ends_with_any_change_of_look_and_with_time():
    """Size, times, inode, device: each by itself; a time in the future; a file changed as it was hashed."""
    look = Look(10, 1_000_000_000, 1_000_000_000, 5, 6)
    seen = Seen(look, 100.0, "0" * 64)
    assert is_trusted(seen, look, 200.0, 1000.0)
    assert not is_trusted(None, look, 200.0, 1000.0)
    for field, value in (("size", 11), ("mtime_ns", 0), ("ctime_ns", 0), ("inode", 4), ("device", 7)):
        changed = Look(**{name: getattr(look, name) for name in Look.__slots__} | {field: value})
        assert not is_trusted(seen, changed, 200.0, 1000.0)
    assert not is_trusted(seen, look, 1200.0, 1000.0)
    assert not is_trusted(seen, look, 50.0, 1000.0)
    fresh = Look(10, 99_500_000_000, 99_500_000_000, 5, 6)
    assert not is_trusted(Seen(fresh, 100.0, "0" * 64), fresh, 200.0, 1000.0)


def test_a_damaged_record_means_hashing_again(tmp_path):
    """It is a note of what was hashed, never a reason to trust."""
    store, _, gguf = with_demo(tmp_path / "store")
    with opened(store, gguf, rehash_s=WEEK_S):
        pass
    for damage in (b"", b"{}", b"x\n{}\n", (store.root / "verified.json").read_bytes()[:-3]):
        (store.root / "verified.json").write_bytes(damage)
        with opened(store, gguf, rehash_s=WEEK_S):
            pass
    blob = store.blob(gguf.files[0].sha256)
    blob.unlink()
    with pytest.raises(FileMissing), opened(store, gguf, rehash_s=WEEK_S):
        pass
    blob.symlink_to(DEMO / "demo-q8_0.gguf")
    with pytest.raises(BadFile), opened(store, gguf, rehash_s=WEEK_S):
        pass


def test_a_manifest_without_the_lock_is_not_served(tmp_path):
    """Neither where the lock has gone, nor where it says something else."""
    store, tensors, _ = with_demo(tmp_path / "store")
    store.lock_file.unlink()
    with pytest.raises(Unverified, match="not in"), opened(store, tensors, rehash_s=WEEK_S):
        pass


def test_files_elsewhere_are_known_by_their_content(tmp_path):
    """The shipped lock has the demo's files, wherever they lie; a changed or added file is in no entry."""
    record = tmp_path / "verified.json"
    directory = tmp_path / "copy"
    shutil.copytree(DEMO / "hf", directory)
    files = {path.name: path for path in sorted(directory.iterdir())}
    entry, held = open_locked(files, read_shipped(), record, rehash_s=WEEK_S)
    assert (entry.model, entry.variant, len(held)) == ("demo", "bf16", len(files))
    for each in held:
        os.close(each.descriptor)
    lacking = {name: path for name, path in files.items() if name != "generation_config.json"}
    with pytest.raises(Unverified):
        open_locked(lacking, read_shipped(), record, rehash_s=WEEK_S)
    swapped = {**files, "config.json": files["tokenizer_config.json"], "tokenizer_config.json": files["config.json"]}
    with pytest.raises(Unverified):
        open_locked(swapped, read_shipped(), record, rehash_s=WEEK_S)
    (directory / "config.json").write_text("{}")
    with pytest.raises(Unverified, match=r"config.json"):
        open_locked(files, read_shipped(), record, rehash_s=WEEK_S)


def test_the_shipped_lock_is_that_of_the_shipped_weights():
    """`python -m serving.store.shipped` writes it."""
    assert FILE.read_bytes() == format_lock(read_shipped())


def test_a_full_disk_is_said_before_anything_is_copied(tmp_path, carried, monkeypatch):
    """With what is needed and what is free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(NoFitError, match="1 are free"):
        _import(Store(tmp_path / "store"), carried)


def test_a_store_that_cannot_be_written_is_said(tmp_path, carried):
    """With the setting that names another."""
    (tmp_path / "store").write_text("a file")
    with pytest.raises(BadSettings, match="cannot be used"):
        _import(Store(tmp_path / "store"), carried)


WAITER = """
import sys
from pathlib import Path
from serving.store.cas import Store
with Store(Path(sys.argv[1])).alone("import-x", lambda: print("waits", flush=True)) as work:
    print(work, flush=True)
"""


def test_two_at_once_wait_for_each_other(tmp_path):
    """One piece of work is held by one; the other is told that it waits, and then goes on."""
    store = Store(tmp_path / "store")
    with store.alone("import-x") as work:
        argv = [sys.executable, "-c", WAITER, str(store.root)]
        other = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        assert store.collect() == 0, "nothing is cleaned away while somebody works"
    assert other.communicate(timeout=20)[0] == f"{work}\n"
    assert other.returncode == 0


def test_an_expected_file_must_be_just_that(tmp_path):
    """What a hub or bundle said of a file is held against what came."""
    wanted = {"demo-q8_0.gguf": StoredFile("demo-q8_0.gguf", "0" * 64, (DEMO / "demo-q8_0.gguf").stat().st_size)}
    store = Store(tmp_path / "store")
    with pytest.raises(Unverified, match="SHA-256"):
        bring_in(store, [found(DEMO / "demo-q8_0.gguf")], Origin("own", "q8_0"), expected=wanted)
    more = {"LICENSE": StoredFile("LICENSE", "0" * 64, 1)}
    with pytest.raises(StartError, match="LICENSE"):
        bring_in(store, [found(DEMO / "demo-q8_0.gguf")], Origin("own", "q8_0"), expected=more)
    assert store.manifests() == ()
