"""What a start does with weights: verified, held open, and refused where they are not what was locked."""

import os
import shutil
from pathlib import Path

import pytest

from serving.cli import run
from serving.cli.weights import Held, hold_weights, with_weights
from serving.engines.process import by_descriptor
from serving.engines.spec import EngineSpec
from serving.errors import Unverified
from serving.planner import LlamacppPlan, Wishes, plan
from serving.registry import load_catalogue
from serving.settings import Settings, load_settings
from serving.store.cas import Store
from tests.support.machines import GIB, machine
from tests.support.stored import DEMO, with_demo


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a store that has the demo's weights as a model of its own."""
    for name in ("DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    with_demo(tmp_path / "data" / "perimeter" / "store")
    return tmp_path


def _settings(**flags: object) -> Settings:
    return load_settings(None, environment={}, flags={name.replace("__", "."): value for name, value in flags.items()})


def _planned(name: str, data: Path, variant: str = "q8_0") -> LlamacppPlan:
    shelf = Store(data / "data" / "perimeter" / "store").shelf()
    outcome = plan(machine(8 * GIB), load_catalogue(shelf=shelf).find(name), Wishes(variant=variant))
    assert isinstance(outcome, LlamacppPlan)
    return outcome


def _close(held: list[Held]) -> None:
    for each in held:
        for descriptor, _ in each.files:
            os.close(descriptor)


def test_stored_weights_are_handed_over_as_descriptors(data):
    """The engine's path leads to the verified file, behind walls by a mount, without them by its command line."""
    planned = _planned("own", data)
    held = hold_weights([planned], _settings())
    ((descriptor, path),) = held[0].files
    assert path == planned.weights
    assert held[0].unlocked is None
    assert os.pread(descriptor, 4, 0) == b"GGUF"
    spec = EngineSpec("own", "llamacpp", ("python", "--model", str(planned.weights)), reads=(planned.weights,))
    sealed = with_weights(spec, held[0])
    assert sealed.reads == ()
    assert by_descriptor(sealed) == ("python", "--model", f"/proc/self/fd/{descriptor}")
    _close(held)


def test_the_demo_is_in_the_lock_that_ships(data):
    """Wherever its file lies: it is known by what is in it."""
    copy = data / "renamed.gguf"
    shutil.copy(DEMO / "demo-q8_0.gguf", copy)
    for name in ("demo", str(copy)):
        held = hold_weights([_planned(name, data)], _settings(sealed="require"))
        assert held[0].unlocked is None
        _close(held)


def test_what_nobody_has_accepted_is_told_or_refused(data):
    """By the mode: a sentence, or status 17; the same for a changed copy of what is locked."""
    copy = data / "own.gguf"
    shutil.copy(DEMO / "demo-q8_0.gguf", copy)
    with copy.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    planned = _planned(str(copy), data)
    (held,) = hold_weights([planned], _settings())
    assert held.files == ()
    assert held.unlocked is not None
    assert str(copy) in held.unlocked
    with pytest.raises(Unverified, match="`sealed` is `require`"):
        hold_weights([planned], _settings(sealed="require"))


@pytest.mark.parametrize("mode", ["off", "best-effort", "require"])
def test_a_changed_blob_is_never_served(data, mode, capsys):
    """In no mode, with its times put back, through its tree as through its blob; before anything is started."""
    store = Store(data / "data" / "perimeter" / "store")
    tree = _planned("own", data).weights
    assert tree is not None
    _close(hold_weights([_planned("own", data)], _settings()))
    status = tree.stat()
    tree.chmod(0o644)
    with tree.open("r+b") as file:
        file.seek(2_000_000)
        before = file.read(1)
        file.seek(2_000_000)
        file.write(bytes([before[0] ^ 1]))
    os.utime(tree, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(["--model", "own", "--variant", "q8_0", "--sealed", mode, "--port", "0"]) == 17
    said = capsys.readouterr().err
    assert "is not what was locked" in said
    assert "hint: " in said
    assert store.root.exists()


def test_a_required_signature_is_required_of_all(data, capsys):
    """Of what is in the store, and of what lies elsewhere, the demo that ships among it."""
    key = data / "key.pub"
    key.write_text("")
    flags = {"store__signing_key": key, "store__require_signature": True}
    for name in ("own", "demo"):
        with pytest.raises(Unverified, match="has no signature"):
            hold_weights([_planned(name, data)], _settings(**flags))


def test_paranoia_hashes_all_again(data, monkeypatch):
    """What was hashed a moment ago is hashed again."""
    told: list[tuple[str, float]] = []
    planned = _planned("own", data)
    for path in Path(str(planned.weights)).parent.iterdir():
        os.utime(path, (0, 0))
    _close(hold_weights([planned], _settings()))
    read: list[int] = []
    monkeypatch.setattr("serving.store.verify.digest_of", lambda *_: read.append(1) or "0" * 64)
    with pytest.raises(Unverified):
        hold_weights([planned], _settings(), paranoid=True, on_share=lambda *share: told.append(share))
    assert read == [1]
