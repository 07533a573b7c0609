from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.demo import llamacpp
from tests.support.harness import Gateway, gateway


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway in front of a scripted engine, for tests that leave it as they found it."""
    with gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway in front of the real engine with the demo model."""
    directory = tmp_path_factory.mktemp("g")
    with gateway(directory, **llamacpp(directory)) as running:
        yield running


@pytest.fixture
def client(demo: Gateway) -> Iterator[openai.OpenAI]:
    """The official client of `demo`."""
    host, port = demo.address
    with openai.OpenAI(base_url=f"http://{host}:{port}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: Unix sockets take 107 bytes."""
    return tmp_path_factory.mktemp("g")
