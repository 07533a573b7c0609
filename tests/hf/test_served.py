"""`serve --model demo --engine transformers`: the oracle behind the gateway, as the other engines are."""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pytest

from tests.e2e.stack import serve

pytestmark = pytest.mark.transformers


def test_the_oracle_is_served_like_the_others(hf_python: str, tmp_path: Path) -> None:
    """It answers, streams the same text, and says plainly what it does not do."""
    config = tmp_path / "serving.toml"
    config.write_text(f"[engines.transformers]\npython = '{hf_python}'\n")
    flags = ("--engine", "transformers", "--context", "512")
    with (
        serve(*flags, model="demo", config=config, timeout_s=120) as stack,
        openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client,
    ):
        asked = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0}
        whole = client.chat.completions.create(**asked, max_tokens=24)
        streamed = client.chat.completions.create(**asked, max_tokens=24, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
        assert text == whole.choices[0].message.content
        assert "Perimeter" in text
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**asked, n=2)
        assert refused.value.param == "n"
        plan = next(line for line in stack.log if line["event"] == "plan")
        assert plan["engine"] == "transformers"
        assert json.loads(stack.get("/v1/models"))["data"][0]["id"] == "demo"
