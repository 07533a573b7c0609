"""The shipped demonstration model, loaded once for each of its files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The training code is no part of the package: it is importable only from the root of the checkout.
sys.path.insert(0, str(ROOT))

from demo.generate import LlamaCpp  # noqa: E402  (needs the path above)

SHIPPED = ROOT / "serving" / "models" / "demo"


@pytest.fixture(scope="session")
def shipped() -> Path:
    """Folder of the files that ship."""
    return SHIPPED


@pytest.fixture(scope="session", params=["demo-f16.gguf", "demo-q8_0.gguf"])
def model(request: pytest.FixtureRequest) -> Iterator[LlamaCpp]:
    """Each GGUF file in llama.cpp."""
    loaded = LlamaCpp(SHIPPED / request.param)
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def f16() -> Iterator[LlamaCpp]:
    """The F16 file in llama.cpp."""
    loaded = LlamaCpp(SHIPPED / "demo-f16.gguf")
    yield loaded
    loaded.close()
