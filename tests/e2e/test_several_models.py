"""Chat, embeddings and a reranker resident together, as a bank's search needs them, started from one settings file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.stack import ROOT, Stack, serve
from tests.llamacpp.encoders.weights import ENCODERS, write_gguf


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models: the demo, and two tiny encoders with random weights."""
    directory = tmp_path_factory.mktemp("set")
    write_gguf(ENCODERS["xlmr-mean"], directory).rename(directory / "embedder.gguf")
    write_gguf(ENCODERS["xlmr-rank"], directory).rename(directory / "reranker.gguf")
    path = directory / "serving.toml"
    path.write_text(
        '[[models]]\nname = "demo"\nconcurrency = 4\n'
        f'[[models]]\nname = "{directory}/embedder.gguf"\n'
        f'[[models]]\nname = "{directory}/reranker.gguf"\n'
    )
    return path


@pytest.fixture(scope="module")
def stack(settings_file: Path) -> Iterator[Stack]:
    """`serve --config`, without a --model."""
    with serve(model="", config=settings_file) as running:
        yield running


def engines(stack: Stack) -> dict[str, int]:
    """Each model's engine: alias → pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == stack.process.pid:
                argv = (entry / "cmdline").read_bytes().decode().split("\0")
                found[argv[argv.index("--alias") + 1]] = int(entry.name)
    return found


def rerank(stack: Stack) -> list[float]:
    """Scores of two documents."""
    body = json.dumps({"model": "reranker", "query": "money", "documents": ["a bank", "a river"]}).encode()
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{stack.url}/v1/rerank", body, headers), timeout=30) as answer:
        return [result["relevance_score"] for result in json.load(answer)["results"]]


def test_each_is_served_by_its_name(stack: Stack) -> None:
    """All are listed; each answers what it is for, and refuses the rest by name."""
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["demo", "embedder", "reranker"]
        asked = [{"role": "user", "content": "Who are you?"}]
        assert client.chat.completions.create(model="demo", messages=asked, max_tokens=4).usage is not None
        assert len(client.embeddings.create(model="embedder", input=["a", "b"]).data) == 2
        assert len(rerank(stack)) == 2
        with pytest.raises(openai.BadRequestError, match="embedder"):
            client.chat.completions.create(model="embedder", messages=asked)


@pytest.mark.parametrize("victim", ["embedder", "reranker", "demo"])
def test_one_that_dies_takes_nobody_with_it(stack: Stack, victim: str) -> None:
    """Under load one engine is killed: the others' answers go on, each is whole, and the dead one comes back."""
    others = {"demo", "embedder", "reranker"} - {victim}
    before = engines(stack)
    broken: list[Exception] = []
    counted = dict.fromkeys(others, 0)
    stop = threading.Event()

    def load(model: str) -> None:
        with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
            while not stop.is_set():
                try:
                    if model == "demo":
                        extra = {"ignore_eos": True}
                        stream = client.completions.create(
                            model="demo", prompt="x", max_tokens=64, stream=True, extra_body=extra
                        )
                        chunks = list(stream)
                        assert chunks[-1].choices[0].finish_reason == "length"
                    elif model == "embedder":
                        client.embeddings.create(model="embedder", input=["some text"] * 4)
                    else:
                        rerank(stack)
                    counted[model] += 1
                except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                    broken.append(error)
                    return

    threads = [threading.Thread(target=load, args=(model,)) for model in others]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while not broken and min(counted.values()) < 3 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    os.kill(before[victim], signal.SIGKILL)
    stack.wait_for("engine ready", 30)
    reached = dict(counted)
    while not broken and any(counted[one] < reached[one] + 2 for one in others) and time.monotonic() < deadline + 30:
        threading.Event().wait(0.01)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not broken
    after = engines(stack)
    assert after[victim] != before[victim]
    assert all(after[model] == before[model] for model in others)


def refused(*flags: str) -> subprocess.CompletedProcess[str]:
    """`serve` with these flags, which ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "serving", *flags], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_set_that_cannot_be_served_is_refused_by_name(tmp_path: Path, settings_file: Path) -> None:
    """One named twice, flags meant for one, and the one that does not fit beside the others."""
    twice = refused("--model", "demo", "--model", "demo")
    assert twice.returncode == 2
    assert "`demo` is named twice" in twice.stderr
    flags = refused("--context", "100", "--config", str(settings_file))
    assert flags.returncode == 2
    assert "[[models]]" in flags.stderr
    large = tmp_path / "large.toml"
    directory = settings_file.parent
    large.write_text(f'[[models]]\nname = "{directory}/embedder.gguf"\n[[models]]\nname = "demo"\ncontext = 8192\n')
    unfit = refused("--config", str(large))
    assert unfit.returncode == 6
    assert "`demo`" in unfit.stderr
