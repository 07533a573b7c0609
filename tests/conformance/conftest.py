"""Which servers the suite runs against, and what it saw of each.

- `llamacpp`: always, through the whole of `serve --model demo`.
- `vllm`: where SERVING_VLLM_PYTHON names a Python with vLLM (`make test-vllm`), through `serve --backend vllm`.
- `transformers`: by the same Python, through `serve --engine transformers`.
- any other server: CONFORMANCE_URL and CONFORMANCE_MODEL (and CONFORMANCE_KEY), whatever serves it.

A test is marked `feature("name")`. An engine that does not serve a feature has to say so in one clear 400; `served`
turns that into a skip, which the matrix shows as "refused". `python -m tests.conformance.matrix` writes the matrix.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest

from tests.conformance.matrix import Outcome, keep, record, seen
from tests.e2e.stack import serve
from tests.llamacpp.encoders.weights import ENCODERS, write_gguf, write_transformers
from tests.support.thinking import write_catalogue

Result = TypeVar("Result")
VLLM_PYTHON = os.environ.get("SERVING_VLLM_PYTHON")
URL = os.environ.get("CONFORMANCE_URL")
ENGINES = ["llamacpp", *(["vllm", "transformers"] if VLLM_PYTHON else []), *(["url"] if URL else [])]
POOLING = [engine for engine in ENGINES if engine in ("llamacpp", "vllm")]
"""Engines that embed, rank, and read a model's reasoning."""


@dataclass(frozen=True)
class Target:
    """A server under test."""

    name: str
    url: str
    """Without `/v1`."""
    model: str
    client: openai.OpenAI
    metric: Callable[[str], float] | None = None
    """Sum of one of the engine's metrics; None where they cannot be read."""
    ranker: str = ""
    """The model that ranks, where one is served beside `model`, which embeds then."""

    @property
    def is_ours(self) -> bool:
        """Served through this gateway, so that errors have our codes."""
        return self.name != "url"

    def chat(self, content: str, **more: Any) -> Any:
        """A chat of one message; greedy unless `more` says otherwise."""
        messages = more.pop("messages", None) or [{"role": "user", "content": content}]
        return self.client.chat.completions.create(
            model=self.model, messages=messages, **{"temperature": 0, "max_tokens": 64, **more}
        )

    def complete(self, prompt: str, **more: Any) -> Any:
        """A completion; greedy unless `more` says otherwise."""
        return self.client.completions.create(
            model=self.model, prompt=prompt, **{"temperature": 0, "max_tokens": 32, **more}
        )


@pytest.fixture(scope="session", params=POOLING)
def pooled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """An embedder and a reranker of each of our engines, made of the same numbers: by a directory, or by files."""
    directory = tmp_path_factory.mktemp("pooled")
    write = write_transformers if request.param == "vllm" else write_gguf
    embedder, ranker = (write(ENCODERS[name], directory) for name in ("xlmr-mean", "xlmr-rank"))
    lines = ["[paths]", f'cache_dir = "{directory / "cache"}"']
    if request.param == "vllm":
        lines += ["[engines.vllm]", f'python = "{VLLM_PYTHON}"']
    for path in (embedder, ranker):
        backend = 'backend = "vllm"' if request.param == "vllm" else ""
        lines += ["[[models]]", f'name = "{path}"', backend]
    config = directory / "pooled.toml"
    config.write_text("\n".join(lines) + "\n")
    with serve(model="", config=config, timeout_s=400) as stack:
        embeds, ranks = (name_of(path) for path in (embedder, ranker))
        with client_of(stack.url) as client:
            yield Target(request.param, stack.url, embeds, client, stack.metric, ranker=ranks)


@pytest.fixture(scope="session", params=POOLING)
def thinker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The demo model as one that thinks (`tests/support/thinking.py`), on each of our engines."""
    directory = tmp_path_factory.mktemp("thinker")
    config = directory / "thinker.toml"
    lines = ["[registry]", f'site_file = "{write_catalogue(directory)}"', "[paths]", f'cache_dir = "{directory}/cache"']
    if request.param == "vllm":
        lines += ["[engines.vllm]", f'python = "{VLLM_PYTHON}"']
    config.write_text("\n".join(lines) + "\n")
    flags = ["--backend", "vllm"] if request.param == "vllm" else []
    with serve(*flags, model="thinker", config=config, timeout_s=400) as stack, client_of(stack.url) as client:
        yield Target(request.param, stack.url, "thinker", client, stack.metric)


def client_of(url: str, key: str = "none") -> openai.OpenAI:
    """The official client; to be closed, for pytest fails a run that leaves a socket open."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120)


def name_of(path: Path) -> str:
    """What a model is called that was named by its path."""
    return path.stem if path.is_file() else path.name


def start(engine: str, directory: Path) -> contextlib.AbstractContextManager[Any]:
    """The product, serving the demo model with that engine."""
    if engine == "llamacpp":
        return serve(model="demo")
    config = directory / "engine.toml"
    config.write_text(f'[engines.{engine}]\npython = "{VLLM_PYTHON}"\n[paths]\ncache_dir = "{directory / "cache"}"\n')
    return serve("--engine", engine, model="demo", config=config, timeout_s=300)


@pytest.fixture(scope="session", params=ENGINES)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Each server in turn."""
    if request.param == "url":
        assert URL is not None
        base = URL.rstrip("/").removesuffix("/v1")
        with client_of(base, os.environ.get("CONFORMANCE_KEY", "none")) as client:
            yield Target("url", base, os.environ.get("CONFORMANCE_MODEL") or client.models.list().data[0].id, client)
        return
    started = start(request.param, tmp_path_factory.mktemp(request.param))
    with started as stack, client_of(stack.url) as client:
        yield Target(request.param, stack.url, "demo", client, stack.metric)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Note for the matrix what came of each test with a feature."""
    report = yield
    marker = item.get_closest_marker("feature")
    fixtures = getattr(item, "funcargs", {})
    target: Target | None = next((fixtures[name] for name in ("target", "pooled", "thinker") if name in fixtures), None)
    if marker is not None and target is not None and (report.when == "call" or report.failed):
        outcome: Outcome = "served" if report.passed else "refused" if report.skipped else "failed"
        record(target.name, marker.args[0], outcome)
    return report


def served(ask: Callable[[], Result]) -> Result:
    """What `ask` gives; skips where the engine refuses the feature plainly, which is a 400 that names the field."""
    refusal: openai.BadRequestError
    try:
        return ask()
    except openai.BadRequestError as error:
        if error.code != "unsupported_feature":
            raise
        refusal = error
    assert refusal.param
    pytest.skip(f"refused plainly: {refusal.message}")


def tokens_of(target: Target, body: dict[str, object]) -> list[int]:
    """/tokenize."""
    answer = target.client.post("/../tokenize", cast_to=object, body={"model": target.model, **body})
    assert isinstance(answer, dict)
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] > 0
    return list(answer["tokens"])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep what was seen, where that is asked for (CONFORMANCE_KEEP=1), of engines whose whole suite ran."""
    if os.environ.get("CONFORMANCE_KEEP") and not session.config.option.keyword:
        for engine in ENGINES:
            if seen(engine):
                keep(engine, seen(engine))
