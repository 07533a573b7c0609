"""What is written is what the scenario asks for, and shares what it is meant to share."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from serving.bench.counting import Counting
from serving.bench.prepare import Job, Turn, prepare
from serving.bench.scenario import Scenario, timetable

FRAME = 5


async def count(text: str) -> int:
    """A token for each three letters, and the frame."""
    return FRAME + -(-len(text) // 3)


EXACT = Counting("server", count, None)


def written(counting: Counting = EXACT, **tables: object) -> tuple[list[Job], bool]:
    """The jobs of a scenario."""
    fixed = {"kind": "fixed", "tokens": 80}
    more = {"title": "t", "load": {"kind": "closed", "clients": 2}, "prompt": fixed, "output": {**fixed, "tokens": 7}}
    scenario = Scenario.model_validate({"requests": 12, **more, **tables})
    return asyncio.run(prepare(scenario, timetable(scenario), "m", counting))


def body(job: Job, at: int = 0) -> dict[str, Any]:
    """What a request of it sends."""
    raw = job.requests[at].body
    assert isinstance(raw, bytes)
    found = json.loads(raw)
    assert found["stream"] is True
    assert found["stream_options"] == {"include_usage": True}
    assert isinstance(found, dict)
    return found


def text_of(job: Job) -> str:
    """Its first prompt."""
    found = body(job)
    return str(found["prompt"] if "prompt" in found else found["messages"][-1]["content"])


@pytest.mark.parametrize("route", ["chat", "completions"])
def test_prompts_are_of_their_length_and_none_like_another(route: str) -> None:
    """The same again from the same seed; others from another."""
    jobs, is_exact = written(route=route)
    texts = [text_of(job) for job in jobs]
    assert is_exact
    assert all(asyncio.run(count(text)) == 80 for text in texts)
    assert len({text[:20] for text in texts}) == 12
    assert [text_of(job) for job in written(route=route)[0]] == texts
    assert text_of(written(route=route, seed=2)[0][0]) != texts[0]
    assert all(body(job)["max_tokens"] == 7 and body(job)["ignore_eos"] for job in jobs)
    assert {job.requests[0].route for job in jobs} == {route}


def test_a_shared_prefix_is_shared_and_the_rest_is_not() -> None:
    """To the token that was wished for."""
    texts = [text_of(job) for job in written(shared_prefix=40)[0]]
    common = len(texts[0])
    for text in texts[1:]:
        while not text.startswith(texts[0][:common]):
            common -= 1
    assert asyncio.run(count(texts[0][:common])) in (40, 41)


def test_documents_share_their_instructions_and_come_out_of_one_corpus() -> None:
    """Each passage whole, none twice in a prompt, some of them in several."""
    work = {"kind": "rag", "instructions": 20, "passages": 8, "passage": 25, "question": 10}
    jobs, _ = written(work=work, prompt={"kind": "fixed", "tokens": 150})
    parts = [text_of(job).split("\n\n") for job in jobs]
    assert len({part[0] for part in parts}) == 1
    passages = [passage for part in parts for passage in part[1:-1]]
    assert len(set(passages)) <= 8 < len(passages)
    assert all(len(set(part[1:-1])) == len(part[1:-1]) for part in parts)
    assert len({part[-1] for part in parts}) == 12, "each has a question of its own"


def test_turns_follow_from_each_other() -> None:
    """Three jobs of four turns, whose later ones wait for the answers."""
    jobs, _ = written(work={"kind": "conversation", "turns": 4, "think_s": 0.5})
    assert [len(job.requests) for job in jobs] == [4, 4, 4]
    assert all(job.pause_s == 0.5 for job in jobs)
    first, *later = jobs[1].requests
    assert isinstance(first.body, bytes)
    for at, request in enumerate(later, 1):
        assert isinstance(request.body, Turn)
        assert len(request.body.questions) == at + 1
    assert [request.keeps_text for request in jobs[1].requests] == [True, True, True, False]


@pytest.mark.parametrize(("kind", "field"), [("schema", "response_format"), ("tools", "tools")])
def test_a_form_is_asked_for_and_ends_by_itself(kind: str, field: str) -> None:
    """Its length is a bound, and no more."""
    found = body(written(work={"kind": kind})[0][0])
    assert field in found
    assert found["max_tokens"] == 7
    assert "ignore_eos" not in found


def test_a_guessed_length_is_not_held_against_the_server() -> None:
    """Nobody counted: the prompt says nothing of its tokens."""
    jobs, is_exact = written(Counting("usage", count, None))
    assert not is_exact
    assert {job.requests[0].prompt_tokens for job in jobs} == {None}
    assert {job.requests[0].prompt_tokens for job in written()[0]} == {80}
