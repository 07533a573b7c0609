"""What stands on the screens: whole sentences, true numbers, and lines that fit."""

from __future__ import annotations

import json
import sys

import pytest

from serving.cli import run
from serving.cli.plan import no_fit, serves, table
from serving.cli.show import align, ranges, tabled
from serving.planner import Engines, LlamacppPlan, NoFit, Plan, Wishes, plan
from serving.planner.text import counted
from serving.registry import load_catalogue
from tests.support.machines import GIB, llama_8b, machine


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((), ""), ((3,), "3"), ((0, 1, 2, 3), "0-3"), ((0, 2, 3, 8), "0,2-3,8"), (tuple(range(64)), "0-63")],
)
def test_runs_are_drawn_together(numbers: tuple[int, ...], text: str) -> None:
    """So that 64 cores are one word."""
    assert ranges(numbers) == text


def test_columns_fit_the_screen() -> None:
    """The last one goes on beneath itself; a word is never cut; where lines are for programs, each is one."""
    rows = [("name", "a b c " * 10), ("longer", "x" * 50)]
    assert align(rows, None).count("\n") == 2
    lines = align(rows, 40).splitlines()
    assert all(len(line) <= 40 or "x" * 50 in line for line in lines)
    assert all(line.startswith(("name", "longer", " " * 8)) for line in lines)
    assert align([], 40) == ""


@pytest.mark.parametrize("command", [["models", "list"], ["plan", "gemma3-4b", "--machine", "1xL4"]])
def test_screens_fit_a_hundred_columns(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the terminal has as many."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(command) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_lists_for_programs_have_all_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, and as JSON the number of parameters that the table shows."""
    assert run(["models", "list"]) == 0
    assert "Llama 3.2 1B Instruct" in capsys.readouterr().out
    assert run(["models", "list", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in models if model["parameters"] is None and model["architecture"]] == []


def test_what_a_pool_serves_is_said_as_it_is() -> None:
    """Not as if each sequence had its whole context at once."""
    pool = plan(machine(24 * GIB), llama_8b(), Wishes())
    assert isinstance(pool, LlamacppPlan)
    assert pool.kv_layout == "unified"
    assert serves(pool) == f"16 at a time, up to 8192 tokens each, {pool.kv_tokens} in all"
    own = plan(machine(24 * GIB), llama_8b(), Wishes(context=1, concurrency=1))
    assert isinstance(own, Plan)
    assert serves(own) == "1 at a time, 1 token each"


@pytest.mark.parametrize(("number", "text"), [(0, "0 GPUs"), (1, "1 GPU"), (8, "8 GPUs")])
def test_one_is_not_many(number: int, text: str) -> None:
    """One noun, two forms."""
    assert counted(number, "GPU") == text


def test_an_unknown_limit_is_said_as_a_sentence() -> None:
    """A machine whose memory cannot be read."""
    outcome = plan(machine(None), llama_8b(), Wishes())
    assert isinstance(outcome, Plan)
    assert table(outcome)[-1][-1] == "what there is could not be read"


def test_memory_is_to_be_freed_only_where_there_is_enough_in_all() -> None:
    """A machine that is too small as a whole is called so, with its size."""
    model = llama_8b()
    small = machine(2 * GIB)
    outcome = plan(small, model, Wishes())
    assert isinstance(outcome, NoFit)
    hint = str(no_fit(outcome, small, model).hint)
    assert "this machine has 2.0 GiB in all" in hint
    assert "free " not in hint
    busy = type(small)(cpu=small.cpu, memory=type(small.memory)(64 * GIB, 2 * GIB))
    outcome = plan(busy, model, Wishes())
    assert isinstance(outcome, NoFit)
    assert str(no_fit(outcome, busy, model).hint).startswith("free ")


def test_more_threads_than_cores_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    """The plan keeps to the wish and says what it costs."""
    outcome = plan(machine(24 * GIB, cores=2), llama_8b(), Wishes(threads=64))
    assert isinstance(outcome, LlamacppPlan)
    assert outcome.threads == 64
    assert any(reason.startswith("64 threads on 2 cores") for reason in outcome.reasons)
    outcome = plan(machine(24 * GIB, cores=2), llama_8b(), Wishes(threads=2))
    assert isinstance(outcome, LlamacppPlan)
    assert not any("threads on" in reason for reason in outcome.reasons)


def test_a_wish_that_vllm_does_not_know_is_called_by_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """That one, not all that there could be."""
    assert run(["plan", "llama3-8b", "--gpu-layers", "10", "--machine", "1xH100"]) == 6
    assert "`--gpu-layers` can be asked of llama.cpp only" in capsys.readouterr().err


def test_reasons_say_what_comfort_is() -> None:
    """Which limit was kept, and how to pass it."""
    model = load_catalogue().find("llama3.1-8b")
    outcome = plan(machine(24 * GIB), model, Wishes(), Engines())
    assert isinstance(outcome, Plan)
    said = " ".join(outcome.reasons)
    assert "comfortabl" not in said
    assert "over half of the memory that the weights leave" in said


def test_a_machine_by_name_says_what_is_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    """The GPUs were named; cores and memory were not."""
    assert run(["plan", "llama3-8b", "--machine", "4xH100"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("machine  4 × NVIDIA H100 80GB HBM3; assumed beside them: 64 cores, 512.0 GiB")


def test_a_small_model_has_millions(capsys: pytest.CaptureFixture[str]) -> None:
    """Not 0.00 billion."""
    assert run(["models", "show", "demo"]) == 0
    assert "2.90 million" in capsys.readouterr().out


def test_a_table_that_is_too_wide_becomes_a_list_of_its_rows() -> None:
    """Each under its first cell, with the titles; nothing is cut, and no line is longer than the screen."""
    head = ("", "per month", "saved")
    rows = [("API", "19,136.67 USD", ""), ("Own machines", "13,712.29 USD", "18.3% – 53.2% of what the API costs")]
    assert tabled(head, rows, 200) == tabled(head, rows, None)
    assert len(tabled(head, rows, None).splitlines()) == 3
    narrow = tabled(head, rows, 40)
    assert max(map(len, narrow.splitlines())) <= 40
    assert narrow.splitlines()[:4] == [
        "API",
        "  per month: 19,136.67 USD",
        "Own machines",
        "  per month: 13,712.29 USD",
    ]
    assert narrow.split()[-3:] == ["the", "API", "costs"]
