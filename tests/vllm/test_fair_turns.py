"""Two keys before the real vLLM: what one that fills its queue does to the other. `make test-vllm` runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.fair import one_round, options_of
from benchmarks.keyed import Site as Served
from tests.conformance.conftest import VLLM_PYTHON
from tests.e2e.stack import serve
from tests.e2e.test_keys import Site

pytestmark = [
    pytest.mark.skipif(VLLM_PYTHON is None, reason="SERVING_VLLM_PYTHON names no Python with vLLM (make test-vllm)"),
    pytest.mark.timeout(600),
]


def test_a_key_that_fills_the_queue_holds_another_up_by_one_place(tmp_path: Path) -> None:
    """vLLM starts whose turn it is, not who came first; in the line of the other it would wait for all of them.

    The best of three rounds: while the disk takes its time with a record, what is in the engine's queue goes on.
    """
    site = Site(tmp_path)
    (tmp_path / "run").mkdir(mode=0o700)
    cache = f'cache_dir = "{tmp_path / "cache"}"\n'
    site.write(f'{cache}[engines.vllm]\npython = "{VLLM_PYTHON}"\n')
    given = ["--model", "-", "--alias", "demo", "--queue", "24", "--parallel", "2", "--asks", "20", "--tokens", "24"]
    with serve("--engine", "vllm", "--concurrency", "2", config=site.config, timeout_s=300, is_open=False) as stack:
        site.stack = stack
        keys = (site.key(), site.key())
        where = urlsplit(stack.url)
        served = Served((where.hostname or "", where.port or 0), keys, stack.process.pid, tmp_path / "audit")
        rounds = [asyncio.run(one_round(served, options_of(given)))]
        while rounds[-1]["rounds_waited_p99"] > 4 and len(rounds) < 3:
            rounds.append(asyncio.run(one_round(served, options_of(given))))
    found = rounds[-1]
    assert found["rounds_waited_p50"] <= 2
    assert found["rounds_waited_p99"] <= 4
    assert found["rounds_waited_in_line_p50"] >= 16
