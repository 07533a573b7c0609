"""Many at once, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from demo.questions import ENGLISH
from tests.conformance.conftest import Target

RUNNING = {
    "llamacpp": "perimeter_engine_running",
    "vllm": "vllm:num_requests_running",
    "transformers": "perimeter_engine_running",
}
AT_A_TIME = {"transformers": 1}
"""Requests that an engine computes at the same time, where that is fewer than the suite's ten."""
SURE = ["What is the capital of France?", "What is your name?", "What is two plus two?", "Who are you?"]


@pytest.mark.feature("concurrency")
def test_each_gets_its_own_answer(target: Target) -> None:
    """Forty at once, streamed and not, of different lengths: nobody gets a word of another's."""
    asked = [SURE[at % len(SURE)] for at in range(40)]

    def one(at: int) -> str:
        if at % 2:
            return target.chat(asked[at]).choices[0].message.content or ""
        chunks = target.chat(asked[at], stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, range(len(asked))))
    assert answers == [ENGLISH[question] for question in asked]


@pytest.mark.feature("cancellation frees the engine")
def test_clients_that_leave_free_the_engine(target: Target) -> None:
    """Ten leave in the middle of long answers; the engine itself reports within a second that nothing runs."""
    if target.metric is None or target.name not in RUNNING:
        pytest.skip("this server's metrics are not known here")
    name = RUNNING[target.name]
    metric = target.metric

    async def leave() -> float:
        client = openai.AsyncOpenAI(base_url=f"{target.url}/v1", api_key="none", max_retries=0)
        streams = [
            await client.completions.create(
                model=target.model,
                prompt=f"{at}",
                max_tokens=3000,
                temperature=1.0,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            for at in range(10)
        ]
        for stream in streams[: AT_A_TIME.get(target.name)]:
            await anext(aiter(stream))
        assert await asyncio.to_thread(metric, name) > 0
        for stream in streams:
            with contextlib.suppress(Exception):
                await stream.response.aclose()
        left = time.monotonic()
        await client.close()
        return left

    left = asyncio.run(leave())
    while metric(name) > 0 and time.monotonic() - left < 10:
        pass
    assert metric(name) == 0
    assert time.monotonic() - left < 1.0
