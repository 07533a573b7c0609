"""Answers of which the egress process does not hear: what is not known stays inside, in its domain, not for ever."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from serving.egress.asking import ASKED
from serving.egress.judge import Judge, PolicyFile
from serving.egress.workers import Scanners
from serving.errors import EngineUnavailable
from serving.gateway.outside import Outside as WayOut
from serving.gateway.outside import Way
from serving.openai import serialise
from serving.policy.facts import Taint
from serving.policy.taint_store import TaintStore, begin
from tests.egress.conftest import ASK, CLEAN, SENSITIVE, Outside, body_of, policy_for
from tests.support.harness import wait_until

JUDGE = {"x-egress-path": "/v1/chat/completions"}
OTHER = "Our lunch menu of next week has lentil soup on Monday, dumplings on Tuesday and baked potatoes on Wednesday."
ANSWER = b'{"choices": [{"index": 0, "message": {"content": "%s"}}]}'


def rule(vendor: Outside, domain: str, text: str = CLEAN) -> str:
    """By which a clean request of the domain stays, or leaves."""
    told = vendor.ask("/explain", body_of(text), replace(ASK, domain=domain), JUDGE)
    return told.json["explained"]["rule"]


def begins(vendor: Outside, domain: str, asked: str) -> None:
    told = vendor.ask("/judge", body_of(SENSITIVE), replace(ASK, domain=domain), {**JUDGE, ASKED: asked})
    assert told.json["answer"]


def never_heard(vendor: Outside, domain: str, asked: str) -> None:
    assert vendor.ask("/remember", {}, replace(ASK, domain=domain), {ASKED: asked}).status == 200


def test_an_answer_that_nobody_heard_of_is_not_waited_for(vendor: Outside) -> None:
    """Who asked says so; a question of another mark, or of another domain, is not meant by it."""
    begins(vendor, "unheard", "one")
    assert rule(vendor, "unheard") == "taint"
    never_heard(vendor, "unheard", "two")
    never_heard(vendor, "elsewhere", "one")
    assert rule(vendor, "unheard") == "taint"
    never_heard(vendor, "unheard", "one")
    assert rule(vendor, "unheard") == "passed"
    assert rule(vendor, "unheard", SENSITIVE) == "data"


def test_it_may_be_said_before_the_question_is_answered(vendor: Outside) -> None:
    """Who has given up says so at once, and the scan may take longer than that."""
    never_heard(vendor, "early", "one")
    begins(vendor, "early", "one")
    assert rule(vendor, "early") == "passed"
    begins(vendor, "early", "two")
    assert rule(vendor, "early") == "taint"


@contextmanager
def stopped(vendor: Outside) -> Iterator[None]:
    """It hears nothing meanwhile."""
    assert vendor.process is not None
    vendor.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        vendor.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def way_out(vendor: Outside, **more: object) -> AsyncIterator[tuple[WayOut, list[None]]]:
    """The gateway's end, and what it has counted as lost."""
    lost: list[None] = []
    made = WayOut(vendor.socket, on_lost=lambda: lost.append(None), **more)  # type: ignore[arg-type]
    try:
        yield made, lost
    finally:
        await made.close()


async def test_a_gateway_that_gave_up_keeps_nothing_inside(vendor: Outside) -> None:
    """The egress process judged a sensitive request, but nobody waited for its word: no answer was given."""
    ask = replace(ASK, domain="gave-up")
    async with way_out(vendor, judge_s=0.3) as (out, _):
        with stopped(vendor), pytest.raises(EngineUnavailable):
            await out._judged(ask, serialise(body_of(SENSITIVE)), JUDGE["x-egress-path"], "mark")
        await told(out)
        assert await asyncio.to_thread(rule, vendor, "gave-up") == "passed"


async def told(out: WayOut) -> None:
    """All of it has been heard."""
    await asyncio.to_thread(wait_until, lambda: not out._untold, "all is told", 20)


async def test_answers_that_wait_to_be_told_have_a_bound(vendor: Outside) -> None:
    """What is beyond is not told, which is counted, and its domain is not known from then on; others go on."""
    judged = {domain: vendor.judge(SENSITIVE, replace(ASK, domain=domain)) for domain in ("first", "second")}
    async with way_out(vendor, untold_bytes=2_000) as (out, lost):
        with stopped(vendor):
            for domain, filling in (("first", b"a " * 600), ("second", b"b " * 600)):
                way = Way(replace(ASK, domain=domain), "data", None, None, judged[domain]["answer"])
                out.remember(way, ANSWER % filling)
            assert sum(len(each.answer) for each in out._untold) <= 2_000
        await told(out)
        assert len(lost) == 1
        assert await asyncio.to_thread(rule, vendor, "first") == "passed"
        assert await asyncio.to_thread(rule, vendor, "second") == "taint"
        assert await asyncio.to_thread(rule, vendor, "third") == "passed"
        more = await asyncio.to_thread(vendor.judge, SENSITIVE, replace(ASK, domain="first"))
        out.remember(Way(replace(ASK, domain="first"), "data", None, None, more["answer"]), ANSWER % (b"c " * 600))
        await told(out)
        assert len(lost) == 1, "what was told makes room"


class Clock:
    now = 1_780_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_an_answer_whose_end_nobody_tells_is_lost_and_not_for_ever(tmp_path: Path) -> None:
    """A gateway that was killed tells nothing: its domain is not known until what was said would have expired."""
    clock = Clock()
    begin(tmp_path / "taint", bytes(32))
    store = TaintStore(tmp_path / "taint", bytes(32), keep_s=86_400, most=1 << 16, clock=clock)
    (tmp_path / "policy.toml").write_text(policy_for("https://vendor.example"))
    policy = PolicyFile(tmp_path / "policy.toml")
    scanners = Scanners(1, 10.0, 100_000)
    await scanners.start(policy.read())
    judge = Judge(
        policy, scanners, store, (), tmp_path / "closed", tmp_path / "drill", answer_s=600.0, clock=clock
    )  # fmt: skip

    async def taint(text: str = CLEAN, domain: str = "team") -> tuple[Taint, bool]:
        judged = await judge.judge("/v1/chat/completions", body_of(text), replace(ASK, domain=domain))
        return judged.facts.taint, judged.doubt is not None

    try:
        lost = await judge.await_answer("team")
        judged = await judge.judge("/v1/chat/completions", body_of(OTHER), replace(ASK, domain="team"))
        beside = await judge.await_answer("team", judged.doubt)
        await judge.remember_answer(("An answer that was given beside it, and is long enough.",), "team", beside)
        assert await taint() == (Taint.UNKNOWN, True), "it is being given"
        clock.now += 601
        assert await taint() == (Taint.UNKNOWN, False), "nobody waits for it"
        assert await taint("An answer that was given beside it, and is long enough.") == (Taint.TAINTED, False)
        assert await taint(domain="other") == (Taint.NONE, False)
        assert not judge._heard
        assert not judge._doubts
        late = await judge.await_answer("late")
        clock.now += 601
        assert await taint(domain="late") == (Taint.UNKNOWN, False)
        await judge.remember_answer(("What was said is told at last, and so it is known.",), "late", late)
        assert await taint(domain="late") == (Taint.NONE, False)
        assert await taint("What was said is told at last, and so it is known.", "late") == (Taint.TAINTED, False)
        clock.now += 90_000
        assert await taint() == (Taint.NONE, False)
        assert lost not in judge._answering["team"]
    finally:
        await scanners.close()
        store.close()
