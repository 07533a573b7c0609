"""The stand-ins, one of each vendor for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.vendors.anthropic_api import AnthropicServer
from tests.support.vendors.gemini_api import GeminiServer
from tests.support.vendors.openai_api import AzureServer, OpenAIServer


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def azure_server() -> Iterator[AzureServer]:
    with AzureServer() as server:
        yield server


@pytest.fixture
def anthropic_server() -> Iterator[AnthropicServer]:
    with AnthropicServer() as server:
        yield server


@pytest.fixture
def gemini_server() -> Iterator[GeminiServer]:
    with GeminiServer() as server:
        yield server
