"""Whatever is changed in a store is found by `verify` and is not served, also where its times are put back."""

import os
import random
import shutil
from pathlib import Path

import pytest

from serving.errors import StartError
from serving.store.cas import Store
from serving.store.examine import examine_store
from serving.store.verify import DAY_S, opened
from tests.support.stored import with_demo

ROUNDS = 500


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("untouched") / "store"
    store, *manifests = with_demo(root)
    for manifest in manifests:
        with opened(store, manifest, rehash_s=7 * DAY_S):
            pass
    return root


def _serves(store: Store) -> list[str]:
    """The models that would be served, with what was hashed before taken for granted where a start would."""
    served = []
    for path in store.manifest_files():
        try:
            manifest = store.read_manifest(path)
            with opened(store, manifest, rehash_s=7 * DAY_S) as files:
                served.append(str(manifest))
                for file in files:
                    assert len(os.pread(file.descriptor, 1 << 30, 0)) == file.file.size
        except StartError:
            continue
    return served


def _tamper(store: Store, chance: random.Random) -> tuple[str, set[str]]:
    """Change something, with its times put back; what was done, and the models that it touches."""
    targets = [*store.blobs(), *store.manifest_files(), store.lock_file]
    path = chance.choice(targets)
    manifests = {str(manifest): manifest for manifest in store.manifests()}
    touched = {
        name
        for name, manifest in manifests.items()
        if path.name in {file.sha256 for file in manifest.files}
        or (path.parent.name, path.stem) == (manifest.model, manifest.variant)
        or path == store.lock_file
    }
    status = path.stat()
    content = bytearray(path.read_bytes())
    kind = chance.choice(["flip", "truncate", "swap"])
    if kind == "flip":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == "truncate":
        del content[chance.randrange(len(content)) :]
    else:
        other = chance.choice([each for each in targets if each != path and each.read_bytes() != content])
        content = bytearray(other.read_bytes())
    how = chance.choice(["in place", "replaced"])
    if how == "in place":
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(content)
            file.truncate(len(content))
    else:
        new = path.with_name("new")
        new.write_bytes(content)
        new.replace(path)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return f"{kind} of {path}, {how}", touched


def test_every_change_is_found_and_none_is_served(tmp_path, untouched):
    """Bit flips, truncations, files swapped: in blobs, manifests and the lock."""
    chance = random.Random(20)
    for number in range(ROUNDS):
        root = tmp_path / "store"
        shutil.copytree(untouched, root)
        store = Store(root)
        # a copy has other inodes: what was hashed before is hashed here once more, so that the record is of these files
        assert len(_serves(store)) == 2
        what, touched = _tamper(store, chance)
        assert examine_store(store).faults, f"not found ({number}): {what}"
        served = set(_serves(store))
        if "models.lock" in what:
            # a change in the words between entries touches no model; else none whose entry it is may be served
            assert served <= touched, what
        else:
            assert not served & touched, f"served ({number}): {what}"
        shutil.rmtree(root)
