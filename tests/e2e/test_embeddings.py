"""`serve --model encoder.gguf`: what a file is for is found, planned and served without a flag."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.stack import ROOT, serve
from tests.llamacpp.encoders.weights import ENCODERS, write_gguf


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("bert-cls", "/v1/embeddings", {"input": ["a", "b"]}),
        ("xlmr-rank", "/v1/rerank", {"query": "a", "documents": ["b", "c"]}),
    ],
)
def test_a_file_is_served_for_what_it_is(name: str, path: str, body: dict, tmp_path: Path) -> None:
    """The route answers, `/v1/models` says how long a text may be, and chat is refused."""
    model = write_gguf(ENCODERS[name], tmp_path)
    with serve(model=str(model)) as stack:
        (card,) = json.loads(stack.get("/v1/models"))["data"]
        assert card["max_model_len"] == 256

        def post(route: str, asked: dict) -> tuple[int, dict]:
            data = json.dumps({"model": card["id"], **asked}).encode()
            request = urllib.request.Request(stack.url + route, data, {"content-type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return response.status, json.load(response)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.load(error)

        status, answer = post(path, body)
        assert status == 200
        assert len(answer.get("data", answer.get("results"))) == 2
        status, answer = post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
        assert (status, answer["error"]["code"]) == (400, "unsupported_feature")


def test_the_engine_refuses_a_file_for_another_task(tmp_path: Path) -> None:
    """Run alone, with a flag that does not fit the file: one line that says so, and the exit status of a bad file."""
    for task, name in (("generate", "bert-cls"), ("rerank", "bert-cls"), ("embed", "xlmr-rank")):
        model = write_gguf(ENCODERS[name], tmp_path)
        argv = [sys.executable, "-m", "serving.llamacpp", "--model", str(model), "--task", task]
        done = subprocess.run(
            [*argv, "--uds", str(tmp_path / "s")], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 5
        assert json.loads(done.stderr.splitlines()[-1])["code"] == "bad_file"
