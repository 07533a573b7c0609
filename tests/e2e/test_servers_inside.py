"""A Perimeter behind another one, as a server inside: what a client of the first sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.stack import Stack, serve
from tests.egress.conftest import SENSITIVE, outside
from tests.support.harness import wait_until
from tests.support.vendors.openai_api import OpenAIServer

POLICY = """
version = 1
[destinations.hall]
zone = "perimeter"
vendor = "openai-compatible"
url = "{url}/v1"
models = {{ "far" = "demo" }}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The first one, without keys; the second has no process that sends."""
    directory: Path = tmp_path_factory.mktemp("e")
    with serve() as behind, outside(directory, OpenAIServer()) as way:
        way.write_policy(POLICY.format(url=behind.url))
        way.start()
        config = directory / "site.toml"
        config.write_text(
            f'[egress]\npolicy = "{way.policy}"\ndirectory = "{directory}"\n'
            f'[paths]\nruntime_dir = "{directory / "run"}"\n'
        )
        with serve(config=config) as first:
            yield first


@pytest.fixture
def client(stack: Stack) -> openai.OpenAI:
    """One that shows nothing, once the models are known."""
    made = openai.OpenAI(api_key="none", base_url=f"{stack.url}/v1", max_retries=0)
    wait_until(lambda: [each.id for each in made.models.list()] == ["demo", "far"], "both models are listed", 20)
    return made


def test_the_answer_is_the_one_that_the_other_server_gives(client: openai.OpenAI) -> None:
    """Whole and as a stream, the same words and the same usage as of the model here, which is the same."""
    said = []
    for model in ("demo", "far"):
        raw = client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": SENSITIVE}], max_tokens=24, temperature=0
        )
        whole = raw.parse()
        assert raw.headers.get("x-perimeter-route") == (
            "perimeter; destination=hall; rule=switch" if model == "far" else None
        )
        chunks = list(
            client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": SENSITIVE}],
                max_tokens=24,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        words = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
        assert words == whole.choices[0].message.content
        assert whole.usage is not None
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        said.append((words, whole.choices[0].finish_reason, whole.usage.prompt_tokens, whole.usage.completion_tokens))
    assert said[0] == said[1]
    assert said[0][0]


def test_what_only_the_engines_understand_is_passed_on(client: openai.OpenAI) -> None:
    """Its own fields, and its refusals as they are."""
    told = client.chat.completions.create(
        model="far",
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=4,
        extra_body={"top_k": 1, "min_p": 0.1},
    )
    assert told.choices
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="far", messages=[{"role": "user", "content": "word " * 40_000}])
    assert refused.value.code in ("context_length_exceeded", "destination_refused")
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="far", input="text")
