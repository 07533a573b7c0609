"""Many conversations at once, each with its own code: any mix-up of cells, batches or prefixes is a wrong answer.

Batching changes roundings, and where the model is torn between two tokens a rounding decides. So the conversations are
those that the model answers surely: run by itself in llama.cpp, not through the server, every token of its answer has
nine tenths of the probability. What it is not sure of is left out before, not excused after.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

import serving
from demo.generate import LlamaCpp
from demo.judge import Writer
from tests.e2e.stack import Stack, serve

CONVERSATIONS = 64
SURE = 0.9
MOST_TRIED = 100
"""Conversations of which 64 must be answered surely: a model that is rarely sure is no instrument."""
WEIGHTS = Path(serving.__file__).parent / "models/demo/demo-q8_0.gguf"
ROUNDS = int(os.environ.get("CONVERSATION_ROUNDS", "1"))
"""The acceptance run repeats it three times; the gate once per layout."""
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
CODE = re.compile(rf"[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}")
DISTANCES = (0, 60, 250, 1000)
"""Tokens of filler between a code and the question for it."""
CHARACTERS_PER_TOKEN = 1.6
"""Of filler; a little less than measured, so that the distances are not shorter than they say."""

LAYOUTS = {
    # less than half of what sixteen conversations need, so that running ones are preempted
    "unified": ("--kv-layout", "unified", "--context", "2048", "--kv-tokens", "4096"),
    "streams": ("--kv-layout", "streams", "--context", "2048"),
}


@dataclass(frozen=True)
class Conversation:
    """Messages that tell a code among three others and unseen words, and the code that must come back."""

    messages: list[dict[str, str]]
    code: str
    codes: frozenset[str]
    """All codes in it."""


def conversation(seed: int) -> Conversation:
    """Told by the user or the system turn, in English or Russian, at one of the distances."""
    rng = random.Random(seed)
    writer = Writer(seed, lambda text: int(len(text) / CHARACTERS_PER_TOKEN))
    case = writer.recall(rng.choice(DISTANCES), rng.choice(("en", "ru")), rng.choice(("user", "system")))
    messages = [dict(message) for message in case.messages]
    codes = CODE.findall(" ".join(message["content"] for message in messages))
    return Conversation(messages, CODE.search(case.expected)[0], frozenset(codes))


def told(text: str) -> str:
    """The code that an answer names."""
    found = CODE.search(text)
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


def sure_conversations(seed: int) -> list[Conversation]:
    """The first of the seed's conversations that the model answers surely."""
    model = LlamaCpp(WEIGHTS)
    try:
        found: list[Conversation] = []
        for number in range(MOST_TRIED):
            case = conversation(seed * 1000 + number)
            if model.reply(case.messages, most=40).least_probability > SURE:
                found.append(case)
            if len(found) == CONVERSATIONS:
                return found
    finally:
        model.close()
    raise AssertionError(f"the model is sure of {len(found)} of {MOST_TRIED} conversations")


async def crowd(stack: Stack, cases: list[Conversation], seed: int) -> None:
    """All conversations at once, arriving and leaving at random, against the same ones run alone."""
    rng = random.Random(seed)
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
        asked = [options_of(number, case.messages) for number, case in enumerate(cases)]
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
        own = " ".join(cases[number].codes)
        for other, case in enumerate(cases):
            if other != number:
                windows = {code[at : at + 4] for code in case.codes for at in range(6)}
                foreign = [window for window in windows if window in text and window not in own]
                assert not foreign, f"answer {number} holds {foreign} of conversation {other}"
        assert told(text) == told(alone[number]), f"conversation {number}"
    right = sum(told(text) == case.code for case, text in zip(cases, alone, strict=True))
    assert right >= 0.9 * CONVERSATIONS, f"the model itself recalls only {right} of {CONVERSATIONS}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_conversation_ever_sees_another(layout: str, tmp_path: Path) -> None:
    """64 at once answer as each does alone, and no answer holds four characters of another's code."""
    with serve(*LAYOUTS[layout]) as stack:
        for number in range(ROUNDS):
            asyncio.run(crowd(stack, sure_conversations(number + 1), seed=number + 1))
        assert stack.metric("perimeter_engine_waiting") == 0
        assert stack.metric("perimeter_engine_running") == 0
        if layout == "unified":
            assert stack.metric("perimeter_engine_preemptions_total") > 0
