"""Weight files that our readers accepted and llama.cpp may not survive: started for real, behind the gateway."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.engines.runtime import socket_in
from serving.errors import BadFile, StartError
from serving.gguf import read_header
from serving.registry.local import check_servable, model_of
from tests.support.harness import SOURCE, Gateway, gateway
from tests.support.hostile import Mutant, gguf_mutant, models

EVERY = os.environ.get("SERVING_TEST_SLOW") == "1"
COUNT = 200 if EVERY else 20
GROUP = 20
"""Mutants of one test."""
SEED = 5
LIMIT_S = 60.0
"""For one engine to be ready or to be given up on; it takes about 2."""
PROMPTS = ["a b", "Zz 7 \n\t\U0001f600 я", "<|end|>" * 40]


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant."""

    ended: str
    """`served`, or the error that the command left with."""
    signals: tuple[str, ...] = ()
    """How the engine died, where it was by a signal."""


def accepted(folder: Path) -> Iterator[Mutant]:
    """Mutants that pass everything that is checked before an engine is started, each of another sound model."""
    bases = list(models(folder).values())
    number = 0
    while True:
        mutant = gguf_mutant(random.Random(SEED * 1_000_003 + number), bases[number % len(bases)], raw=number % 4 == 0)
        number += 1
        try:
            header = read_header(mutant.write(folder / "mutant.gguf"))
            check_servable(header)
            model_of(header)
        except BadFile:
            continue
        yield mutant


def start(weights: Path, directory: Path) -> Outcome:
    """Serve the file as `serve --model` would; asserts that the gateway answers, or leaves with an error for people."""
    socket = socket_in(directory / "run", "engine")
    argv = [sys.executable, "-m", "serving.llamacpp", "--model", str(weights), "--uds", str(socket), "--alias", "m"]
    argv += ["--parallel", "2", "--ctx", "256", "--threads", "1", "--ubatch", "64"]
    environment = {"PYTHONPATH": str(SOURCE), "OMP_WAIT_POLICY": "passive", "GGML_NO_BACKTRACE": "1"}
    with gateway(
        directory, wait=False, argv=argv, env=environment, socket=str(socket), restart={"max_crashes": 2}
    ) as served:
        ended = ask(served) if is_ready(served) else error_of(served)
        died = [line["how"] for line in served.log if line.get("event") == "engine died"]
        return Outcome(ended, tuple(how for how in died if "signal" in how))


def is_ready(served: Gateway) -> bool:
    """Wait until it takes requests (True) or has left (False)."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if served.process.poll() is not None:
            return False
        while not served.said.empty():
            kind, text = served.said.get()
            served.heard.append([kind, text])
            if kind == "ready":
                host, _, port = text.removeprefix("http://").partition(":")
                served.address = (host, int(port))
                return True
        time.sleep(0.02)
    raise AssertionError(f"neither ready nor given up on within {LIMIT_S} s: {served.heard} {served.errors[-2000:]}")


def ask(served: Gateway) -> str:
    """Prompts of all sorts, plain and as a conversation: each is answered, or refused with a code."""
    for prompt in PROMPTS:
        for stream in (False, True):
            asked = {"model": "m", "prompt": prompt, "max_tokens": 4, "stream": stream}
            try:
                answer = served.post("/v1/completions", asked)
            except (ConnectionError, TimeoutError):
                # Between two crashes of its engine it may leave for good, but not without a word.
                return error_of(served)
            assert answer.status in {200, 400, 500, 503}
            assert answer.status == 200 or answer.error["code"]
    answer = served.chat("hello", max_tokens=2)
    assert answer.status == 200 or answer.error["code"]
    assert served.process.poll() is None
    return "served"


def error_of(served: Gateway) -> str:
    """The gateway has left, or is about to: with an error for a person, and no traceback."""
    try:
        status = served.process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it hangs: {served.errors[-2000:]}") from None
    kinds = {kind.exit_status: kind.code for kind in (*StartError.__subclasses__(), StartError)} | {
        70: "internal_error"
    }
    assert status in kinds, f"exit status {status}: {served.errors[-2000:]}"
    assert "\nerror: " in "\n" + served.errors
    assert "Traceback" not in served.errors
    return kinds[status]


@pytest.mark.timeout(GROUP * LIMIT_S)
@pytest.mark.parametrize("group", range(COUNT // GROUP))
def test_no_accepted_file_takes_the_gateway_along(group: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Mutants that were accepted are served, or refused by the command with an error that says why.

    The engine may die of one: that is why it is a process of its own. None is known of, so a death by a signal fails
    here too; its cause belongs into `serving.registry.servable`.
    """
    folder = tmp_path_factory.mktemp("weights")
    outcomes: Counter[str] = Counter()
    killed = []
    for number, mutant in zip(range((group + 1) * GROUP), accepted(folder), strict=False):
        if number < group * GROUP:
            continue
        weights = mutant.write(folder / "mutant.gguf", whole=True)
        outcome = start(weights, tmp_path_factory.mktemp("g"))
        outcomes[outcome.ended] += 1
        if outcome.signals:
            killed.append((number, outcome.signals, mutant.changes))
    print(dict(outcomes))  # noqa: T201 - shown with `pytest -rP`
    assert not killed
