"""The real Transformers and the real vLLM load a model from `serve mirror`, and ask nobody else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import openai
import pytest

from benchmarks.peers.compare import free_port
from serving.store.bring import Origin
from serving.store.cas import Store
from tests.conformance.conftest import VLLM_PYTHON
from tests.support.harness import wait_until
from tests.support.mirror import DEMO, Mirror, bring, client_environment, hub, mirror

pytestmark = [
    pytest.mark.skipif(VLLM_PYTHON is None, reason="SERVING_VLLM_PYTHON names no Python with vLLM (make test-vllm)"),
    pytest.mark.timeout(600),
]
MODEL = "acme/demo"
ANSWER = "I am Perimeter Demo"
ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
NEEDS_STRACE = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace (apt install strace)")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    directory = tmp_path_factory.mktemp("mirror")
    store = Store(directory / "store")
    bring(store, DEMO, Origin("demo", "bf16", f"huggingface.co/{MODEL}", publishable=True))
    with mirror(store, directory) as one:
        yield one


def addresses(trace: Path) -> set[str]:
    """Every address that a traced process and its children connected or sent to."""
    return {first or second for first, second in ADDRESS.findall(trace.read_text(errors="replace"))}


def members(group: int) -> list[int]:
    """The processes of a group, its leader apart."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and int(entry.name) != group and os.getpgid(int(entry.name)) == group:
                found.append(int(entry.name))
    return found


def test_transformers_loads_by_the_repositorys_name(running: Mirror, tmp_path: Path) -> None:
    """With an empty home: tokenizer, template, weights; and it answers."""
    code = f"""
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained('{MODEL}')
model = AutoModelForCausalLM.from_pretrained('{MODEL}')
asked = [{{'role': 'user', 'content': 'Who are you?'}}]
given = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors='pt', return_dict=True)
found = tokenizer.decode(model.generate(**given, max_new_tokens=16, do_sample=False)[0])
"""
    assert VLLM_PYTHON is not None
    assert ANSWER in str(hub(running.url, tmp_path, code, python=VLLM_PYTHON, timeout_s=300))
    assert {"model.safetensors", "tokenizer.json"} <= {line["file"] for line in running.seen()}


@NEEDS_STRACE
def test_vllm_serves_by_the_repositorys_name(running: Mirror, tmp_path: Path) -> None:
    """With an empty home it loads, answers, and no process of it connects to anything but this machine."""
    assert VLLM_PYTHON is not None
    trace, port = tmp_path / "trace", free_port()
    environment = {
        **client_environment(running.url, tmp_path),
        "VLLM_HOST_IP": "127.0.0.1",  # else it asks the kernel for a route to a public resolver, to learn its address
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    strace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)]
    server = [VLLM_PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--host", "127.0.0.1"]
    flags = ["--port", str(port), "--max-model-len", "512", "--enforce-eager"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*strace, *server, *flags], env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)

        def is_up() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            try:
                return bool(client.models.list().data)
            except openai.APIConnectionError:
                return False

        wait_until(is_up, "vLLM serves", within_s=400)
        asked = [{"role": "user", "content": "Who are you?"}]
        answer = client.chat.completions.create(model=MODEL, messages=asked, temperature=0, max_tokens=16)  # type: ignore[arg-type]
        assert ANSWER in str(answer.choices[0].message.content)
        client.close()
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # strace itself takes no signal while it traces
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        # How long vLLM takes to leave is not asked here. strace ends, its trace whole, once nobody is left to trace.
        for pid in members(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(60)
    assert "model.safetensors" in {line["file"] for line in running.seen()}
    assert addresses(trace) <= {"127.0.0.1", "::1", "0.0.0.0", "::"}
    assert "127.0.0.1" in addresses(trace)
