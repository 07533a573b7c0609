"""`--dummy-weights`, as somebody sizing a machine meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.stack import ROOT, Stack, serve

SITE = """
[models.tiny]
title = "Tiny"
context = 2048

[models.tiny.architecture]
family = "qwen3"
layers = 4
embedding = 256
feed_forward = 768
heads = 4
kv_heads = 2
key_length = 64
value_length = 64
vocabulary = 8000

[[models.tiny.variants]]
name = "q4_k_m"
format = "gguf"
backends = ["llamacpp"]
source = "a hub"
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "models.toml").write_text(SITE)
    path = tmp_path / "serving.toml"
    path.write_text(
        f"[registry]\nsite_file = '{tmp_path / 'models.toml'}'\n[paths]\ncache_dir = '{tmp_path / 'cache'}'\n"
    )
    return path


def run(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving", *argv]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def card_after_an_answer(stack: Stack) -> dict[str, object]:
    """It answers as many tokens as asked; its entry in the list of models says that they are noise."""
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "aqa bqb"}],
            max_tokens=8,
            extra_body={"ignore_eos": True},
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    (card,) = json.loads(stack.get("/v1/models"))["data"]
    assert card["dummy_weights"] is True
    return dict(card)


def test_a_model_that_is_not_here_is_served_with_noise_and_says_so(config: Path, tmp_path: Path) -> None:
    """It answers, and the log, the list of models and the next start all know that it is noise."""
    with serve("--dummy-weights", model="tiny", config=config) as stack:
        card = card_after_an_answer(stack)
        assert "noise" in card["note"]
        by_event = {str(line["event"]): line for line in stack.log}
        assert by_event["plan"]["dummy_weights"] is True
        assert by_event["ready"]["dummy_weights"] is True
        assert any("noise" in str(line) for line in stack.log if line["event"] == "warning")
    (made,) = (tmp_path / "cache/dummy").iterdir()
    stamp = made.stat().st_mtime_ns
    # The file by itself is known for what it is, without the flag; and it is not written again.
    with serve(model=str(made)) as stack:
        assert json.loads(stack.get("/v1/models"))["data"][0]["dummy_weights"] is True
    with serve("--dummy-weights", model="tiny", config=config) as stack:
        assert not any("dummy" in str(line.get("stage")) for line in stack.log)
    assert made.stat().st_mtime_ns == stamp
    assert list((tmp_path / "cache/dummy").iterdir()) == [made]


def test_real_weights_say_nothing_of_noise() -> None:
    """The list of models has the field only where it holds."""
    with serve() as stack:
        (card,) = json.loads(stack.get("/v1/models"))["data"]
        assert "dummy_weights" not in card
        assert not any("noise" in str(line) for line in stack.log)


def test_without_the_flag_the_missing_weights_are_named(config: Path) -> None:
    """Status 4, with what to bring and the flag that goes without."""
    done = run("--model", "tiny", "--config", str(config))
    assert done.returncode == 4
    assert "the weights of `tiny` are not on this host: it would serve q4_k_m" in done.stderr
    assert "--dummy-weights" in done.stderr


def test_llama3_8b_without_weights_asks_no_network() -> None:
    """Not one socket is opened on the way to the refusal; it names the model's size and source."""
    program = (
        "import os, sys\n"
        "def refuse(event, arguments):\n"
        "    if event.startswith('socket.') and event not in ('socket.gethostname', 'socket.__new__'): os._exit(99)\n"
        "sys.addaudithook(refuse)\n"
        "from serving.cli import main\n"
        "sys.argv = ['serve', '--model', 'llama3-8b', '--port', '0']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (4, 6)  # 6 where this machine is too small for it
    if done.returncode == 4:
        assert "GiB" in done.stderr
        assert "huggingface.co/meta-llama/Meta-Llama-3-8B-Instruct" in done.stderr


def test_a_plan_for_a_machine_that_is_not_here(tmp_path: Path) -> None:
    """By name or by file; a file that is none is refused with how to make one."""
    done = run("plan", "llama3.1-70b", "--machine", "4xH100", "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["gpus"]) == 4
    described = tmp_path / "machine.json"
    described.write_text(run("hardware", "--json").stdout)
    assert run("plan", "demo", "--machine", str(described)).returncode == 0
    described.write_text("[]")
    bad = run("plan", "demo", "--machine", str(described))
    assert bad.returncode == 5
    assert "serve hardware --json" in bad.stderr
    missing = run("plan", "demo", "--machine", "4xH900")
    assert missing.returncode == 4
    assert "1xH100" in missing.stderr
