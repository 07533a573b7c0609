"""`serve bench` with the real engine behind it: every kind of work, a search, several processes, and tuning."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.bench.record import Stage, read_result
from tests.e2e.stack import ROOT, Stack, serve

LENGTHS = """
[prompt]
kind = "normal"
mean = 60
deviation = 10
least = 40
most = 90
[output]
kind = "fixed"
tokens = 24
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The demo model, served."""
    with serve() as running:
        yield running


def bench(*argv: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`serve bench …`."""
    command = [sys.executable, "-m", "serving", "bench", *argv]
    env = {**os.environ, **(environment or {})}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, env=env)


def measured(directory: Path, url: str, tables: str, *flags: str) -> list[Stage]:
    """The stages of a run of this scenario."""
    path, output = directory / "s.toml", directory / "r.json"
    path.write_text(f'title = "t"\n{tables}')
    done = bench("run", str(path), "--url", url, "-o", str(output), *flags)
    assert done.returncode == 0, done.stderr + done.stdout
    result = read_result(output)
    assert result.prompts.exact or "file" in tables
    assert result.prompts.counted_by == "server"
    assert result.target.server is not None
    assert result.target.server.name == "perimeter"
    return list(result.stages)


CLOSED = '[load]\nkind = "closed"\nclients = 3\n'


@pytest.mark.parametrize(
    "tables",
    [
        "requests = 12\n" + CLOSED + LENGTHS,
        'route = "completions"\nrequests = 12\n' + CLOSED + LENGTHS,
        'requests = 12\n[work]\nkind = "conversation"\nturns = 4\n' + CLOSED + LENGTHS,
        'requests = 9\n[work]\nkind = "schema"\n' + CLOSED + LENGTHS.replace("tokens = 24", "tokens = 200"),
        'requests = 9\n[work]\nkind = "tools"\ntools = 3\n' + CLOSED + LENGTHS.replace("tokens = 24", "tokens = 200"),
        'requests = 9\n[work]\nkind = "rag"\ninstructions = 20\npassages = 20\npassage = 60\nquestion = 20\n'
        + CLOSED
        + LENGTHS.replace("mean = 60", "mean = 400").replace("most = 90", "most = 500"),
        'requests = 12\n[load]\nkind = "ramp"\nstart = 5\nend = 30\n' + LENGTHS,
        'requests = 12\nshared_prefix = 30\n[load]\nkind = "gamma"\nrate = 20\nburstiness = 0.5\n' + LENGTHS,
    ],
    ids=["chat", "completions", "conversation", "schema", "tools", "rag", "ramp", "gamma"],
)
def test_every_kind_of_work_is_answered_as_it_was_asked(stack: Stack, tmp_path: Path, tables: str) -> None:
    """All of it completed, at the lengths that were wanted, counted alike by server and harness."""
    (stage,) = measured(tmp_path, stack.url, tables)
    assert stage.requests.completed == stage.requests.total, stage.errors
    assert stage.is_whole
    if '"schema"' not in tables and '"tools"' not in tables:
        assert stage.tokens.output == 24 * stage.requests.completed
        assert stage.tokens.prompt_off == pytest.approx(0, abs=1e-9)
    if "conversation" in tables:
        assert (stage.tokens.cached or 0) > 0, f"what was said before is computed again: {facts_of_engine(stack)}"


def facts_of_engine(stack: Stack) -> list[str]:
    """What it counts, and how it was started: for whoever has to say why it did as it did."""
    counted = [line for line in stack.get("/metrics").splitlines() if line.startswith("perimeter_engine_")]
    return [*counted, *(str(line) for line in stack.log if "layout" in str(line))]


def test_a_trace_and_a_users_own_requests(stack: Stack, tmp_path: Path) -> None:
    """On their own routes, at their own times."""
    lines = (
        '{"at_s": 0, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}\n'
        '{"at_s": 0.5, "prompt": "Once", "output_tokens": 7}\n'
        '{"timestamp": 900, "input_length": 50, "output_length": 9}\n'
    )
    (tmp_path / "lines.jsonl").write_text(lines)
    tables = 'requests = 100\n[load]\nkind = "trace"\npath = "lines.jsonl"\n' + LENGTHS
    (stage,) = measured(tmp_path, stack.url, tables)
    assert stage.requests.completed == 3, stage.errors
    assert stage.seconds >= 0.9
    (tmp_path / "lines.jsonl").write_text('{"prompt": "Once", "max_tokens": 4, "ignore_eos": true}\n')
    tables = 'requests = 6\n[work]\nkind = "file"\npath = "lines.jsonl"\n' + CLOSED
    (stage,) = measured(tmp_path, stack.url, tables)
    assert stage.tokens.output == 24


def test_a_sweep_finds_where_it_ends(stack: Stack, tmp_path: Path) -> None:
    """Levels in the order of the search, and the result says between which two the end is."""
    tables = 'requests = 30\n[load]\nkind = "sweep"\nover = "clients"\nleast = 1\nmost = 8\ngain = 1.5\n' + LENGTHS
    stages = measured(tmp_path, stack.url, tables)
    assert [stage.level for stage in stages[:2]] == [1, 2]
    found = read_result(tmp_path / "r.json").saturation
    assert found is not None
    assert found.held in {stage.level for stage in stages}
    if found.failed is not None:
        assert found.failed in {stage.level for stage in stages}


def test_several_processes_drive_one_load(stack: Stack, tmp_path: Path) -> None:
    """Each request once, on one clock, by as many clients as there are to be."""
    tables = "requests = 40\n" + CLOSED.replace("3", "6") + LENGTHS
    (stage,) = measured(tmp_path, stack.url, tables, "--processes", "2", "--samples", str(tmp_path / "s.jsonl"))
    assert stage.requests.completed == 40
    assert read_result(tmp_path / "r.json").client.processes == 2
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(40))
    moments = sorted([(line["sent"], 1) for line in lines] + [(line["ended"], -1) for line in lines])
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    assert 4 <= most <= 6
    assert stage.tokens.recounted > 0


def test_without_a_url_the_model_is_served_and_described(tmp_path: Path) -> None:
    """Plan, machine, digest; nothing of it left running, and no path of this host in the result."""
    path, output = tmp_path / "s.toml", tmp_path / "r.json"
    path.write_text('title = "t"\nrequests = 10\n' + CLOSED + LENGTHS)
    done = bench("run", str(path), "--model", "demo", "--threads", "1", "-o", str(output))
    assert done.returncode == 0, done.stderr
    result = read_result(output)
    started = result.target.started
    assert started is not None
    assert started.command == ("serve", "--model", "demo", "--threads", "1")
    assert started.plan["threads"] == 1
    assert started.weights is not None
    assert len(started.weights_sha256 or "") == 64
    assert result.machine is not None
    assert result.machine["cpu"]["usable"]
    assert str(ROOT) not in output.read_text()
    assert str(tmp_path) not in output.read_text()
    with pytest.raises(OSError):
        urllib.request.urlopen(result.target.url, timeout=2)


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["run", "chat"], 2, "nothing to measure"),
        (["run", "chat", "--model", "no-such-model"], 9, "no-such-model"),
        (["run", "chat", "--url", "http://127.0.0.1:9", "--threads", "2"], 2, "flags that shape a plan"),
        (["run", "chat", "--model", "demo", "--key-file", "k"], 2, "go with `--url`"),
        (["run", "chat", "--model", "demo", "--context", "9999999"], 9, "9999999"),
        (["autotune", "demo", "--scenario", "server"], 2, "is a sweep"),
        (["autotune", "no-such-model"], 3, "no-such-model"),
    ],
)
def test_what_makes_no_sense_is_said(argv: list[str], status: int, words: str) -> None:
    """With what to do about it."""
    done = bench(*argv)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "hint:" in done.stderr


def answered(stack: Stack) -> float:
    """Conversations that it has answered; prompts that were only counted are none."""
    lines = [line for line in stack.get("/metrics").splitlines() if line.startswith("perimeter_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'route="chat.completions"' in line)


def test_a_server_that_dies_on_the_way_leaves_what_was_measured(tmp_path: Path) -> None:
    """Its death is said, with a status of its own."""
    path, output = tmp_path / "s.toml", tmp_path / "r.json"
    path.write_text('title = "t"\nrequests = 4000\n' + CLOSED + LENGTHS)
    samples = tmp_path / "s.jsonl"
    with serve() as stack:
        command = [sys.executable, "-m", "serving", "bench", "run", str(path), "--url", stack.url, "-o", str(output)]
        with subprocess.Popen(
            [*command, "--samples", str(samples)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            deadline = time.monotonic() + 60
            while answered(stack) < 150:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            stack.process.send_signal(signal.SIGKILL)
            _, err = process.communicate(timeout=120)
    assert process.returncode == 9, err
    assert "died on the way" in err
    (stage,) = read_result(output).stages
    assert stage.requests.completed > 0
    assert stage.requests.failed > 0
    assert len(samples.read_text().splitlines()) == 4000


def test_what_was_tuned_is_used(tmp_path: Path) -> None:
    """A search within its time; the plan has what it found, a flag has its way, and it can be left out."""
    path = tmp_path / "s.toml"
    path.write_text('title = "t"\nrequests = 60\n' + CLOSED + LENGTHS)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    began = time.monotonic()
    flags = ("--scenario", str(path), "--budget", "60", "-o", str(tmp_path / "t.json"), "--threads", "1")
    done = bench("autotune", "demo", *flags, environment=cache)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 105
    told = json.loads((tmp_path / "t.json").read_text())
    assert told["trials"][0]["choice"] == {}
    assert len(told["trials"]) > 2
    assert all("threads" not in trial["choice"] for trial in told["trials"])
    kept = tmp_path / "cache" / "perimeter" / "profiles" / "demo.json"
    assert kept.exists() == (len(told["profile"]["wishes"]) > 1)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({**told["profile"], "wishes": {"ubatch": 64, "concurrency": 3}}))
    command = [sys.executable, "-m", "serving", "plan", "demo", "--json"]
    env = {**os.environ, **cache}

    def plan(*flags: str) -> tuple[int, int]:
        done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, check=True, env=env)
        found = json.loads(done.stdout)
        return found["n_ubatch"], found["concurrency"]

    assert plan() == (64, 3)
    assert plan("--concurrency", "2") == (64, 2)
    assert plan("--variant", "f16") == (512, 16)
