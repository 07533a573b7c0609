"""Contexts and passes smaller than what the engine warms up with."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from tests.e2e.stack import serve


@pytest.mark.parametrize(("context", "concurrency", "ubatch"), [(1, 16, 512), (8, 1, 512), (512, 1, 16)])
def test_an_engine_with_little_room_serves_what_fits(
    context: int, concurrency: int, ubatch: int, tmp_path: Path
) -> None:
    """It comes up, answers what fits, and refuses what does not with the numbers; nothing aborts."""
    config = tmp_path / "serving.toml"
    config.write_text(f"[engines.llamacpp]\nubatch = {ubatch}\n")
    flags = ("--context", str(context), "--concurrency", str(concurrency))
    with (
        serve(*flags, config=config) as stack,
        openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="demo", prompt="word " * 2 * context, max_tokens=1)
        assert caught.value.code == "context_length_exceeded"
        if context > 1:
            answer = client.completions.create(model="demo", prompt="a" * (context // 4), max_tokens=2)
            assert answer.usage is not None
            assert answer.usage.completion_tokens in (1, 2)
        assert not any(line["event"] in ("engine", "engine died") for line in stack.log)
