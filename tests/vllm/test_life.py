"""The real vLLM behind the gateway, and what happens when parts of it die. `make test-vllm` runs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.conformance.conftest import VLLM_PYTHON, start
from tests.e2e.stack import Stack

pytestmark = [
    pytest.mark.skipif(VLLM_PYTHON is None, reason="SERVING_VLLM_PYTHON names no Python with vLLM (make test-vllm)"),
    pytest.mark.timeout(600),
]
TOLD_S = 2.0
GONE_S = 5.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`serve --model demo --backend vllm`."""
    with start("vllm", tmp_path_factory.mktemp("vllm")) as running:
        yield running


def processes(stack: Stack) -> dict[int, str]:
    """vLLM's processes that descend from this gateway: pid → name."""
    session = stack.engine_pid()
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if entry.name.isdigit() and int(fields[3]) == session and fields[0] != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def alive(pids: list[int]) -> list[int]:
    """Those that still run."""
    running = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                running.append(pid)
    return running


async def streams_cut_by(stack: Stack, victim: int) -> tuple[list[str], float]:
    """Eight streams while `victim` is killed: how each ended, and how long until the last was told."""
    client = openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=30)
    begun = asyncio.Semaphore(0)
    killed_at = 0.0

    async def one(at: int) -> tuple[str, float]:
        first = True
        try:
            stream = await client.completions.create(
                model="demo", prompt=f"{at}", max_tokens=3500, stream=True, extra_body={"ignore_eos": True}
            )
            async for _ in stream:
                if first:
                    begun.release()
                    first = False
        except openai.APIError as error:
            return str(error.code), time.monotonic() - killed_at
        return "ended", time.monotonic() - killed_at

    tasks = [asyncio.create_task(one(at)) for at in range(8)]
    for _ in tasks:
        await begun.acquire()
    killed_at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    ends = await asyncio.gather(*tasks)
    await client.close()
    return [end for end, _ in ends], max(after for _, after in ends)


@pytest.mark.parametrize("part", ["api_server", "EngineCore"])
def test_a_part_that_is_killed_is_told_and_replaced(stack: Stack, part: str) -> None:
    """Streams get an error event, requests a 503 that says when to come back, and nothing of the old life stays."""
    before = processes(stack)
    victim = next(pid for pid, name in before.items() if part in name)
    cold_s = next(float(str(line["load_s"])) for line in stack.log if line.get("event") == "engine ready")
    ends, told_s = asyncio.run(streams_cut_by(stack, victim))
    killed_at = time.monotonic() - told_s
    assert set(ends) == {"engine_unavailable"}
    assert told_s < TOLD_S
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(model="demo", prompt="x", max_tokens=1)
        assert caught.value.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) > 0
        while alive(list(before)) and time.monotonic() - killed_at < GONE_S:
            pass
        assert not alive(list(before))
        stack.wait_for("engine ready", 1.5 * cold_s + TOLD_S)
        assert client.completions.create(model="demo", prompt="x", max_tokens=1).usage is not None


def test_nothing_of_it_outlives_the_gateway(tmp_path: Path) -> None:
    """kill -9 of the gateway in the middle of a stream: every process of vLLM's is gone within five seconds."""
    with start("vllm", tmp_path) as running:
        theirs = list(processes(running))
        assert len(theirs) >= 2
        asyncio.run(streams_cut_by(running, running.process.pid))
        killed_at = time.monotonic()
        while alive(theirs) and time.monotonic() - killed_at < GONE_S:
            pass
        assert not alive(theirs)


def test_cache_domains_do_not_see_each_other(stack: Stack) -> None:
    """The salt that reaches vLLM is the gateway's: a client's own is refused."""
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="demo", prompt="x", max_tokens=1, extra_body={"cache_salt": "theirs"})
        prompt = "one two three " * 100
        for expected in (False, True):
            usage = client.completions.create(model="demo", prompt=prompt, max_tokens=1).usage
            assert usage is not None
            assert usage.prompt_tokens_details is not None
            assert bool(usage.prompt_tokens_details.cached_tokens) == expected
