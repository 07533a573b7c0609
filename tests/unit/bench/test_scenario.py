"""A scenario and its seed make one timetable, and a wrong file says what is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.bench.load import Open
from serving.bench.prompts import Writer
from serving.bench.scenario import SHIPPED, Scenario, load_scenario, timetable
from serving.errors import BadSettings, FileMissing

FIXED = {"kind": "fixed", "tokens": 10}
lengths = st.one_of(
    st.builds(lambda tokens: {"kind": "fixed", "tokens": tokens}, st.integers(1, 500)),
    st.builds(
        lambda mean, deviation: {"kind": "normal", "mean": mean, "deviation": deviation, "least": 5, "most": 400},
        st.integers(1, 500),
        st.floats(0, 100),
    ),
    st.builds(
        lambda median, sigma: {"kind": "lognormal", "median": median, "sigma": sigma, "most": 400},
        st.integers(1, 500),
        st.floats(0, 2),
    ),
    st.builds(lambda seen: {"kind": "empirical", "tokens": seen}, st.lists(st.integers(1, 500), min_size=1)),
)
loads = st.one_of(
    st.builds(lambda clients: {"kind": "closed", "clients": clients}, st.integers(1, 64)),
    st.builds(
        lambda kind, rate: {"kind": kind, "rate": rate},
        st.sampled_from(["constant", "poisson", "gamma"]),
        st.floats(0.01, 1000),
    ),
)
scenarios = st.builds(
    lambda seed, requests, warm_up, shared, load, prompt, output: Scenario.model_validate(
        {
            "title": "t", "seed": seed, "requests": requests, "warm_up": warm_up, "shared_prefix": shared,
            "load": load, "prompt": prompt, "output": output,
        }
    ),
    st.integers(0, 99), st.integers(1, 60), st.integers(0, 20), st.integers(0, 50), loads, lengths, lengths,
)  # fmt: skip


@given(scenarios)
def test_a_timetable_is_the_same_every_time(scenario: Scenario) -> None:
    """In order, within its bounds, and the prompts leave room for a word of their own."""
    found = timetable(scenario)
    assert found == timetable(scenario)
    assert [one.number for one in found] == list(range(scenario.warm_up + scenario.requests))
    assert all((one.prompt_tokens or 0) > scenario.shared_prefix for one in found)
    assert all(1 <= (one.output_tokens or 0) <= 500 for one in found)
    due = [one.due for one in found]
    if isinstance(scenario.load, Open):
        times = [moment for moment in due if moment is not None]
        assert len(times) == len(due)
        assert times == sorted(times)
        assert times[0] == 0.0
    else:
        assert set(due) == {None}


@pytest.mark.parametrize(
    ("kind", "burstiness", "spread"), [("poisson", 1.0, 1.0), ("gamma", 0.25, 2.0), ("gamma", 4.0, 0.5)]
)
def test_arrivals_have_their_rate_and_their_burstiness(kind: str, burstiness: float, spread: float) -> None:
    """The mean wait is one over the rate; its spread is one over the root of the burstiness."""
    load = Open.model_validate({"kind": kind, "rate": 5.0, "burstiness": burstiness})
    waits = np.diff(load.due(40_000, np.random.default_rng(1)))
    assert waits.mean() == pytest.approx(0.2, rel=0.03)
    assert waits.std() / waits.mean() == pytest.approx(spread, rel=0.03)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_what_ships_can_be_run(path: Path) -> None:
    """By its name."""
    loaded = load_scenario(path.stem)
    assert len(loaded.sha256) == 64
    assert len(timetable(loaded.scenario)) == loaded.scenario.warm_up + loaded.scenario.requests


WHOLE = 'title = "t"\nrequests = 5\nload = {kind = "closed", clients = 2}\n'
PROMPT, OUTPUT = 'prompt = {kind = "fixed", tokens = 9}\n', 'output = {kind = "fixed", tokens = 9}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = ", "is not TOML"),
        (WHOLE + PROMPT, "`output`"),
        (WHOLE + PROMPT + OUTPUT + "request = 5\n", "`request`"),
        (WHOLE.replace("5", "0") + PROMPT + OUTPUT, "`requests`"),
        (WHOLE.replace("closed", "open") + PROMPT + OUTPUT, "`load`"),
        (WHOLE.replace("clients", "rate") + PROMPT + OUTPUT, "`load.closed.clients`"),
        (WHOLE + PROMPT + OUTPUT.replace("fixed", "sometimes"), "`output`"),
        (WHOLE + PROMPT + 'output = {kind = "normal", mean = 5, deviation = 1, least = 9, most = 3}\n', "least (9)"),
        (
            WHOLE.replace('"closed", clients = 2', '"poisson", rate = 2, burstiness = 3') + PROMPT + OUTPUT,
            "burstiness goes with `gamma`",
        ),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    """The field, before anything is sent."""
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(BadSettings) as caught:
        load_scenario(str(path))
    assert words in caught.value.message


def test_a_name_that_does_not_ship_names_those_that_do() -> None:
    """As a hint."""
    with pytest.raises(FileMissing) as caught:
        load_scenario("nonesuch")
    assert "`chat`" in (caught.value.hint or "")


@settings(deadline=None)
@given(
    tokens=st.integers(1, 600),
    shared=st.integers(0, 60),
    each=st.sampled_from([1, 2, 3, 4]),
    around=st.integers(0, 40),
)
def test_a_text_has_exactly_the_tokens_that_were_asked_for(tokens: int, shared: int, each: int, around: int) -> None:
    """By whatever tokenizer: so many characters each, and a template around it."""

    async def count(text: str) -> int:
        return around + -(-len(text) // each)

    async def write() -> None:
        writer = Writer("1")
        start = await writer.text(("", await count("")), around + shared, count)
        wanted = around + shared + tokens
        text, found = await writer.text(start, wanted, count)
        assert text.startswith(start[0])
        assert found == await count(text) == wanted

    asyncio.run(write())


def test_no_two_texts_are_alike() -> None:
    """Within a run; with the same seed the run is the same."""
    one, other = Writer("3"), Writer("3")
    texts = [one.words(12) for _ in range(1000)]
    assert len(set(texts)) == 1000
    assert texts == [other.words(12) for _ in range(1000)]
