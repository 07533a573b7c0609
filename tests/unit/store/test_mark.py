"""Marking a model as publishable: in manifest and lock, whoever is killed between the two."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from serving.cli import run
from serving.errors import UnknownModel, Unverified
from serving.store.bring import Origin, bring_in, look_through
from serving.store.cas import Store
from serving.store.lock import format_lock
from serving.store.verify import opened

DEMO = Path(__file__).parents[3] / "serving/models/demo/hf"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    files, _ = look_through(DEMO)
    bring_in(store, files, Origin("demo", "bf16"))
    return store


def test_a_model_is_marked_in_manifest_and_lock(store: Store) -> None:
    """It can be opened as before, under the mark and without it; of its tree there is one."""
    before = store.find("demo", "bf16")
    for publishable in (True, True, False):
        marked = store.mark("demo", "bf16", publishable=publishable)
        assert marked.publishable is publishable
        assert store.find("demo", "bf16") == store.lock().find("demo", "bf16") == marked
        assert [tree.name for tree in (store.root / "trees/demo").iterdir()] == [store.tree(marked).name]
        assert store.astray(marked) == []
        with opened(store, marked, rehash_s=0) as files:
            assert len(files) == 6
    assert store.find("demo", "bf16") == before


def test_a_mark_that_was_cut_off_is_made_again(store: Store) -> None:
    """The lock has it and the manifest has it not: the next one goes through, to either side."""
    manifest = store.find("demo", "bf16")
    assert manifest is not None
    for publishable in (True, False):
        store.lock_file.chmod(0o644)
        store.lock_file.write_bytes(format_lock(store.lock().with_entry(replace(manifest, publishable=True))))
        marked = store.mark("demo", "bf16", publishable=publishable)
        assert store.find("demo", "bf16") == store.lock().find("demo", "bf16") == marked
        store.mark("demo", "bf16", publishable=False)


def test_what_is_not_there_or_not_locked_is_not_marked(store: Store) -> None:
    """A name of nothing, and a manifest that the lock does not have."""
    with pytest.raises(UnknownModel):
        store.mark("demo", "q8", publishable=True)
    store.lock_file.unlink()
    with pytest.raises(Unverified):
        store.mark("demo", "bf16", publishable=True)


def test_publish_and_withdraw(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command marks each variant, verifies before, and names what it did; a variant that is not there is named."""
    config = tmp_path / "serving.toml"
    config.write_text(f'[store]\ndirectory = "{store.root}"\n')
    flags = ["--config", str(config)]
    assert run(["models", "publish", "demo", *flags]) == 0
    assert "demo (bf16)" in capsys.readouterr().out
    assert [entry.publishable for entry in store.lock().entries] == [True]
    assert run(["models", "publish", "demo", "--withdraw", "--variant", "bf16", *flags]) == 0
    assert [entry.publishable for entry in store.lock().entries] == [False]
    assert run(["models", "publish", "demo", "--variant", "q8", *flags]) == UnknownModel.exit_status
    assert "bf16" in capsys.readouterr().err
    shutil.rmtree(store.root / "blobs/sha256")
    assert run(["models", "publish", "demo", *flags]) != 0
    assert [entry.publishable for entry in store.lock().entries] == [False]
