"""`serve plan --last`: the plan that was followed, against what the engine then held."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from serving.cli import run
from serving.cli.last import FILE, Held, LastStart, read_last
from serving.errors import UsageError
from serving.planner import Engines, LlamacppPlan, TransformersPlan, VllmPlan, Wishes, plan
from serving.registry import load_catalogue
from tests.support.machines import GIB, machine

ALL = Engines(vllm_cpu=True, transformers=True)


def planned(backend: str) -> LlamacppPlan | VllmPlan | TransformersPlan:
    made = plan(machine(16 * GIB), load_catalogue().find("demo"), Wishes(backend=backend), ALL)  # type: ignore[arg-type]
    assert isinstance(made, LlamacppPlan | VllmPlan | TransformersPlan)
    return made


@pytest.mark.parametrize("backend", ["llamacpp", "vllm", "transformers"])
def test_what_is_noted_is_read_back(backend: str, tmp_path: Path) -> None:
    """For every engine, the plan as it was; the cache's size against it."""
    made = planned(backend)
    last = LastStart(tmp_path / "state" / FILE, [made])
    last.note("another", {"kv_tokens": 1}, 0.1)
    assert not (tmp_path / "state").exists()
    last.note(made.model, {"kv_tokens": made.kv_tokens // 2, "n_ctx_seq": 512}, 1.5)
    (held,) = read_last(tmp_path / "state" / FILE)
    assert (held.plan, held.kv_tokens, held.context, held.load_s) == (made, made.kv_tokens // 2, 512, 1.5)
    assert held.ratio == pytest.approx(0.5)
    assert [path.name for path in (tmp_path / "state").iterdir()] == [FILE]


def test_an_engine_that_does_not_say_is_not_compared(tmp_path: Path) -> None:
    """None is kept as such; a later start of the same engine takes its place."""
    made = planned("vllm")
    last = LastStart(tmp_path / FILE, [made, dataclasses.replace(made, model="b")])
    last.note("demo", {"kv_tokens": None}, None)
    last.note("b", {"kv_tokens": 16, "n_ctx_seq": 16}, 1.0)
    last.note("demo", {"kv_tokens": True, "n_ctx_seq": "many"}, 2.0)
    demo, other = read_last(tmp_path / FILE)
    assert (demo.kv_tokens, demo.context, demo.ratio, demo.load_s) == (None, None, None, 2.0)
    assert other.plan.model == "b"


def test_a_place_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    """A server serves all the same."""
    (tmp_path / "file").write_text("")
    made = planned("llamacpp")
    LastStart(tmp_path / "file" / FILE, [made]).note("demo", {}, None)


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '[{"ratio": 1, "plan": {}}]', '[{"ratio": 1}]'])
def test_a_file_that_is_not_ours_is_refused(text: str, tmp_path: Path) -> None:
    """In one sentence, whatever it holds."""
    path = tmp_path / FILE
    path.write_text(text)
    with pytest.raises(UsageError):
        read_last(path)
    with pytest.raises(UsageError, match="nothing has been served"):
        read_last(tmp_path / "none")


def test_it_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """For people and for programs; and it goes with no new plan."""
    monkeypatch.setenv("PERIMETER_PATHS__RUNTIME_DIR", str(tmp_path))
    made = planned("vllm")
    LastStart(tmp_path / FILE, [made]).note("demo", {"kv_tokens": made.kv_tokens, "n_ctx_seq": made.context}, 39.4)
    assert run(["plan", "--last"]) == 0
    shown = capsys.readouterr().out
    assert f"{made.kv_tokens} tokens planned, {made.kv_tokens} held (1.00 × the plan)" in shown
    assert "after 39.4 s" in shown
    assert run(["plan", "--last", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["ratio"], entry["plan"]["engine"]) == (1.0, "vllm")
    for more in (["demo"], ["--context", "5"], ["--machine", "1xH100"]):
        assert run(["plan", "--last", *more]) == 2
    assert run(["plan"]) == 2
    assert "no model named" in capsys.readouterr().err


def test_the_set_of_the_settings_is_planned_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its facts, what all of them take, and the one that does not fit by name."""
    config = tmp_path / "serving.toml"
    config.write_text('[[models]]\nname = "demo"\n[[models]]\nname = "multilingual-e5-base"\n')
    assert run(["plan", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "demo, q8_0, served by llamacpp" in shown
    assert "multilingual-e5-base" in shown
    assert "memory of all" in shown
    assert run(["plan", "--config", str(config), "--json"]) == 0
    assert [entry["model"] for entry in json.loads(capsys.readouterr().out)] == ["demo", "multilingual-e5-base"]
    assert run(["plan", "--config", str(config), "--context", "5"]) == 2
    capsys.readouterr()
    config.write_text("".join(f'[[models]]\nname = "{name}"\n' for name in ("demo", "llama3.1-405b", "deepseek-r1")))
    assert run(["plan", "--config", str(config), "--machine", "1xL4"]) == 6
    assert "deepseek-r1" in capsys.readouterr().err


def test_held_says_nothing_of_a_cache_that_is_none() -> None:
    """Encoders keep none."""
    encoder = plan(machine(16 * GIB), load_catalogue().find("multilingual-e5-base"), Wishes(), ALL)
    assert isinstance(encoder, LlamacppPlan)
    assert Held(encoder, 0.0, 0, 512, None).ratio is None
