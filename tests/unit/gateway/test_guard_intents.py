"""What the gateway records of a request that ends while its intent waits for the disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.audit import Audit, Patience
from serving.audit.reading import read_lines, verify_log
from serving.engines.spec import EngineSpec
from serving.errors import ShuttingDown, Unwritable
from serving.gateway.engine import Engine
from serving.gateway.exchange import Exchange
from serving.gateway.guard import Guard
from serving.gateway.routes import Call
from tests.support.audit_logs import open_audit, places_in, public

ENGINE = Engine(EngineSpec(model="m", backend="llamacpp"), None, None, None)  # type: ignore[arg-type] - only told of
CALL = Call(stream=False, include_usage=False, body={})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another process has no event for it
            await asyncio.sleep(0.01)


async def request(guard: Guard, name: str, begun: list[Exchange]) -> None:
    """What the pipeline does of it, without an engine."""
    exchange = Exchange("chat.completions", name)
    exchange.model = "m"
    begun.append(exchange)
    try:
        await guard.intend(exchange, CALL, ENGINE)
        exchange.end("completed")
    except asyncio.CancelledError:
        reason = exchange.take_reason()
        assert reason is not None
        exchange.end("cancelled", reason.code)
    except Unwritable as error:
        exchange.end("refused", error.code)
    finally:
        guard.close(exchange, None)


@pytest.mark.parametrize("death", [signal.SIGCONT, signal.SIGKILL])
@pytest.mark.parametrize("mode", ["refuse", "serve"])
async def test_every_intent_on_the_disk_has_its_outcome(tmp_path: Path, mode: str, death: signal.Signals) -> None:
    """Whether it was cancelled, refused or served meanwhile, and whether the writer goes on or another one does."""
    places = places_in(tmp_path)
    audit: Audit = open_audit(places, on_failure=mode, patience=Patience(wait_s=0.5))
    guard, begun = Guard(audit=audit), list[Exchange]()
    await request(guard, "first", begun)
    writer = audit.writer_pid
    os.kill(writer, signal.SIGSTOP)
    tasks = [asyncio.create_task(request(guard, f"req-{number}", begun)) for number in range(6)]
    await asyncio.sleep(0)
    for exchange in begun[1:4]:
        exchange.interrupt(ShuttingDown("enough"))
    await asyncio.gather(*tasks)
    os.kill(writer, death)
    await until(lambda: audit.failure is None and (death == signal.SIGCONT or audit.writer_pid != writer))
    with contextlib.suppress(Unwritable):
        await request(guard, "last", begun)
    assert audit.close() is None
    entries = [json.loads(line) for line in read_lines(places.directory)]
    intents = {entry["seq"]: entry["record"]["request"] for entry in entries if entry["record"]["kind"] == "intent"}
    outcomes = [entry["record"] for entry in entries if entry["record"]["kind"] == "outcome"]
    assert {record["intent"]: record["request"] for record in outcomes} == intents
    assert sorted(intents.values()) == sorted(exchange.request_id for exchange in begun)
    ends = {record["request"]: record["outcome"] for record in outcomes}
    assert [ends[f"req-{number}"] for number in range(6)] == ["cancelled"] * 3 + [
        "refused" if mode == "refuse" else "completed"
    ] * 3
    assert not verify_log(places.directory, [public(places)]).open_intents
