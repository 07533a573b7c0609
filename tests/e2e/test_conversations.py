"""Many conversations at once, each with its own code: any mix-up of cells, batches or prefixes is a wrong answer."""

from __future__ import annotations

import asyncio
import os
import random
import re
from pathlib import Path

import openai
import pytest

from tests.e2e.stack import Stack, serve

CONVERSATIONS = 64
ROUNDS = int(os.environ.get("CONVERSATION_ROUNDS", "1"))
"""The acceptance run repeats it three times; the gate once per layout."""
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
FILLER = [
    "the",
    "door",
    "of",
    "the",
    "old",
    "mill",
    "stood",
    "open",
    "and",
    "a",
    "cold",
    "wind",
    "came",
    "over",
    "the",
    "river",
    "from",
    "the",
    "north",
]

LAYOUTS = {
    # about a quarter of what the conversations need, so that running ones are preempted
    "unified": ("--kv-layout", "unified", "--context", "1024", "--kv-tokens", "1536"),
    "streams": ("--kv-layout", "streams", "--context", "1024"),
}


def conversation(seed: int) -> tuple[str, list[dict[str, str]]]:
    """A code, and a conversation that tells it and asks for it."""
    rng = random.Random(seed)
    code = "".join(rng.choices(ALPHABET, k=4)) + "-" + "".join(rng.choices(ALPHABET, k=4))
    filler = " ".join(rng.choices(FILLER, k=rng.randrange(10, 60)))
    if rng.random() < 0.5:
        system = f"The client's code is {code}. {filler}"
        return code, [{"role": "system", "content": system}, {"role": "user", "content": "What is my code?"}]
    return code, [
        {"role": "user", "content": f"My code is {code}. {filler}"},
        {"role": "assistant", "content": "I will remember it."},
        {"role": "user", "content": "What is my code?"},
    ]


def told(text: str) -> str:
    """The code that an answer names."""
    found = re.search(rf"[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}", text)
    return found[0] if found else text


def options_of(number: int, messages: list[dict[str, str]]) -> dict[str, object]:
    """Every third one goes on past its end, so that running ones outgrow the cells they were let in with."""
    more = {"max_tokens": 150, "extra_body": {"ignore_eos": True}} if number % 3 == 0 else {"max_tokens": 40}
    return {"model": "demo", "messages": messages, "temperature": 0, **more}


async def answer(client: openai.AsyncOpenAI, options: dict[str, object], *, stream: bool) -> str:
    if not stream:
        return (await client.chat.completions.create(**options)).choices[0].message.content or ""
    parts = []
    async for chunk in await client.chat.completions.create(**options, stream=True):
        if chunk.choices:
            parts.append(chunk.choices[0].delta.content or "")
    return "".join(parts)


async def leave_early(client: openai.AsyncOpenAI, options: dict[str, object], chunks: int) -> None:
    stream = await client.chat.completions.create(**options, stream=True)
    async for _ in stream:
        chunks -= 1
        if chunks <= 0:
            break
    await stream.close()


async def crowd(stack: Stack, seed: int) -> None:
    """All conversations at once, arriving and leaving at random, against the same ones run alone."""
    rng = random.Random(seed)
    cases = [conversation(seed * 1000 + number) for number in range(CONVERSATIONS)]
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
        asked = [options_of(number, messages) for number, (_, messages) in enumerate(cases)]
        alone = [await answer(client, options, stream=False) for options in asked]

        async def one(number: int) -> str | None:
            await asyncio.sleep(rng.random() * 1.5)  # the arrival is the subject of the test, not a wait for anything
            if number % 5 == 0:
                await leave_early(client, asked[number], rng.randrange(1, 8))
                return None
            return await answer(client, asked[number], stream=number % 2 == 0)

        together = await asyncio.gather(*(one(number) for number in range(CONVERSATIONS)))
    for number, text in enumerate(together):
        if text is None:
            continue
        code = cases[number][0]
        for other, (foreign, _) in enumerate(cases):
            if other != number:
                shared = [foreign[at : at + 4] for at in range(6) if foreign[at : at + 4] in text]
                assert all(part in code for part in shared), f"answer {number} holds {shared} of conversation {other}"
        assert told(text) == told(alone[number]), f"conversation {number}"
    right = sum(case[0] in text for case, text in zip(cases, alone, strict=True))
    assert right >= 0.9 * CONVERSATIONS, f"the model itself recalls only {right} of {CONVERSATIONS}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_conversation_ever_sees_another(layout: str, tmp_path: Path) -> None:
    """64 at once answer as each does alone, and no answer holds four characters of another's code."""
    with serve(*LAYOUTS[layout]) as stack:
        for number in range(ROUNDS):
            asyncio.run(crowd(stack, seed=number + 1))
        assert stack.metric("perimeter_engine_waiting") == 0
        assert stack.metric("perimeter_engine_running") == 0
        if layout == "unified":
            assert stack.metric("perimeter_engine_preemptions_total") > 0
