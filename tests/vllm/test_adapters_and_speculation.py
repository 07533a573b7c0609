"""LoRA adapters and speculative decoding on the real vLLM, through the whole of `serve`. `make test-vllm` runs it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.conformance.conftest import VLLM_PYTHON
from tests.e2e.stack import Stack, serve
from tests.support.lora import write_adapter

pytestmark = [
    pytest.mark.skipif(VLLM_PYTHON is None, reason="SERVING_VLLM_PYTHON names no Python with vLLM (make test-vllm)"),
    pytest.mark.timeout(600),
]
QUESTIONS = ["Who are you?", "Repeat: ab12 cd34 ab12 cd34 ab12 cd34", "What can you do?", "Кто ты?"]


def started(directory: Path, settings: str) -> contextlib.AbstractContextManager[Stack]:
    """`serve --model demo --backend vllm` with more in its table of settings."""
    config = directory / "vllm.toml"
    cache = directory / "cache"
    text = f'[engines.vllm]\npython = "{VLLM_PYTHON}"\n{settings}\n[paths]\ncache_dir = "{cache}"\n'
    config.write_text(text, encoding="utf-8")
    return serve("--backend", "vllm", "--context", "1024", model="demo", config=config, timeout_s=300)


def answers(stack: Stack, model: str = "demo") -> list[str]:
    """What it says to the questions, choosing the likeliest token each time."""
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        return [
            client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=48
            )
            .choices[0]
            .message.content
            or ""
            for question in QUESTIONS
        ]


def refused(stack: Stack, model: str) -> str:
    """What a request for a model that is not there is told."""
    with (
        openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.NotFoundError) as caught,
    ):
        client.completions.create(model=model, prompt="x", max_tokens=1)
    return str(caught.value)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With an adapter that changes everything and one that changes nothing, of different ranks."""
    directory = tmp_path_factory.mktemp("lora")
    loud, silent = write_adapter(directory / "loud"), write_adapter(directory / "silent", rank=9, strength=0.0)
    with started(directory, f'adapters = {{ loud = "{loud}", "site/silent" = "{silent}" }}') as running:
        yield running


def test_an_adapter_answers_to_its_name_and_changes_no_other(adapted: Stack) -> None:
    """The one with numbers in it speaks otherwise, the one of zeros as the model does, and the model as ever."""
    plain = answers(adapted)
    assert any("Perimeter" in answer for answer in plain)
    assert answers(adapted, "site/silent") == plain
    loud = answers(adapted, "loud")
    assert all(one != other for one, other in zip(loud, plain, strict=True))
    assert answers(adapted) == plain
    assert answers(adapted, "loud") == loud


def test_adapters_are_listed_with_the_model_they_change(adapted: Stack) -> None:
    """As `parent`, as vLLM lists them; a name that is none is one clear 404 that knows them all."""
    cards = {card["id"]: card for card in json.loads(adapted.get("/v1/models"))["data"]}
    assert set(cards) == {"demo", "loud", "site/silent"}
    assert (cards["loud"]["parent"], cards["demo"].get("parent")) == ("demo", None)
    assert json.loads(adapted.get("/v1/models/site/silent"))["parent"] == "demo"
    told = refused(adapted, "nobody")
    assert "loud" in told
    assert "site/silent" in told


def test_speculation_changes_no_answer(adapted: Stack, tmp_path: Path) -> None:
    """Tokens guessed from the prompt and accepted are those that would have been chosen; some were."""
    wanted = answers(adapted)
    table = 'speculative = { method = "ngram", num_speculative_tokens = 3, prompt_lookup_max = 3 }'
    with started(tmp_path, table) as running:
        assert answers(running) == wanted
        assert running.metric("vllm:spec_decode_num_accepted_tokens_total") > 0


def test_an_adapter_of_another_model_ends_the_start_with_the_reason(tmp_path: Path) -> None:
    """vLLM's own words, after ours; nothing is served without what was asked for."""
    other = write_adapter(tmp_path / "other", shapes={"nope_proj": (256, 256)})
    with (
        pytest.raises(AssertionError, match=r"cannot load an adapter of `demo`.*nope_proj"),
        started(tmp_path, f'adapters = {{ other = "{other}" }}'),
    ):
        pass
