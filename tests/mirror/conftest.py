from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.store.bring import Origin
from serving.store.cas import Store
from tests.support.mirror import COMMIT, DEMO, Mirror, bring, mirror, write_model

BIG = 100 << 20


@dataclass
class Shelf:
    """A store: a demo, a big model with a commit, and one that nobody marked."""

    store: Store
    directory: Path
    weights: Path
    """The big model's, as they were brought in."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    directory = tmp_path_factory.mktemp("shelf")
    store = Store(directory / "store")
    bring(store, DEMO, Origin("demo", "bf16", licence="Apache-2.0", publishable=True))
    weights = write_model(directory / "big", BIG)
    source = Origin("big", "noise", "huggingface.co/acme/big", COMMIT, publishable=True)
    bring(store, directory / "big", source)
    shutil.copytree(DEMO, directory / "secret")
    (directory / "secret/README.md").write_text("not for others\n")
    bring(store, directory / "secret", Origin("secret", "bf16", "huggingface.co/acme/secret", COMMIT))
    return Shelf(store, directory, weights)


@pytest.fixture(scope="module")
def running(shelf: Shelf) -> Iterator[Mirror]:
    with mirror(shelf.store, shelf.directory) as one:
        yield one
