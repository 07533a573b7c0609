"""Two keys before one real engine: what one that fills the queue does to the other."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.fair import Crowd, ask, one_round, options_of, request
from benchmarks.keyed import site
from tests.support.demo import MODEL, needs_demo

pytestmark = needs_demo
ENGINE = (sys.executable, "-m", "serving.llamacpp", "--model", str(MODEL), "--alias", "m", "--ctx", "512")
PASSIVE = {"OMP_WAIT_POLICY": "passive"}


def test_a_key_that_fills_the_queue_holds_another_up_by_one_place(directory: Path) -> None:
    """The next place that becomes free is the other key's; in the line of the first it would wait for all of them.

    Counted in requests that ended meanwhile, not in time: one is the place, and one more may end in the same step or
    while the request is on its way. More may where this process itself waits for a core: the best of three rounds.
    """
    options = options_of(["--model", str(MODEL), "--queue", "32", "--parallel", "2", "--asks", "20", "--tokens", "24"])
    argv = [*ENGINE, "--parallel", "2", "--threads", "2"]
    with site(directory, argv, model="m", keys=2, concurrency=2, environment=PASSIVE) as served:
        rounds = [asyncio.run(one_round(served, options))]
        while rounds[-1]["rounds_waited_p99"] > 3 and len(rounds) < 3:
            rounds.append(asyncio.run(one_round(served, options)))
    found = rounds[-1]
    assert found["rounds_waited_p50"] <= 1
    assert found["rounds_waited_p99"] <= 3
    assert found["rounds_waited_in_line_p50"] >= 20


def test_the_last_places_are_not_for_who_has_most(directory: Path) -> None:
    """A key that sends more than fit is refused itself; another one finds a place, and is served."""
    argv = [*ENGINE, "--parallel", "2", "--threads", "2", "--max-queue", "14"]
    limits = {"queue": 14}

    async def fill(address: tuple[str, int], busy: str, other: str) -> None:
        crowd = Crowd(may_be_refused=True)
        crowd.begin(address, busy, 20, model="m", tokens=100)
        while crowd.refused < 20:  # noqa: ASYNC110 - the crowd has no event for it
            await asyncio.sleep(0.01)
        for number in range(10):
            await ask(address, request(other, model="m", text=f"another {number}", tokens=2))
        assert crowd.ends
        await crowd.leave()

    with site(directory, argv, model="m", keys=2, concurrency=2, environment=PASSIVE, limits=limits) as served:
        asyncio.run(fill(served.address, *served.keys))
