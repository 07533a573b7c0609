from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import Gateway, gateway


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway in front of a scripted engine, for tests that leave it as they found it."""
    with gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: Unix sockets take 107 bytes."""
    return tmp_path_factory.mktemp("g")
