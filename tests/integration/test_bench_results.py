"""`serve bench report` and `serve bench compare` as they are run: files in, a page and a status out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving.bench.record import Result, Trust
from tests.support.bench_results import result, stage, sweep


def serve(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """`serve bench` with these arguments."""
    command = [sys.executable, "-W", "error", "-m", "serving", "bench", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with results."""
    found: dict[str, Result] = {
        "a": result("a"), "b": result("b", stage(ttft=0.4, speed=500)), "same": result("a"), "nameless": result(""),
        "sweep": sweep("s"), "few": result("few", stage(count=100)),
    }  # fmt: skip
    for name, one in found.items():
        (tmp_path / f"{name}.json").write_text(one.to_json(), encoding="utf-8")
    return tmp_path


def test_a_report_is_one_file_and_its_charts(files: Path) -> None:
    """Their names go to stdout, and nothing to stderr."""
    done = serve("report", "sweep.json", "-o", "page.html", "--png", "charts", directory=files)
    assert (done.returncode, done.stderr) == (0, "")
    written = [files / line for line in done.stdout.splitlines()]
    assert written[0].name == "page.html"
    assert written[0].read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert len(written) == 7
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in written[1:])


def test_a_report_of_several_compares_them(files: Path) -> None:
    """Into report.html where nothing else is said."""
    assert serve("report", "a.json", "b.json", directory=files).returncode == 0
    page = (files / "report.html").read_text(encoding="utf-8")
    assert "Which is best" in page
    assert "Side by side" in page


def test_a_comparison_is_readable_text(files: Path) -> None:
    """On stdout, without colour; a bound that holds changes nothing."""
    done = serve("compare", "a.json", "b.json", "--fail-if", "ttft_p99 > 3x", directory=files)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "At 16 clients"
    (line,) = [each for each in lines if each.split()[:2] == ["b", "400"]]
    assert "2.00x" in line
    assert line.endswith("worse")
    assert "\x1b" not in done.stdout
    assert "price" not in done.stdout


def test_a_broken_bound_ends_with_13_and_the_comparison_is_there(files: Path) -> None:
    """Also in JSON, which names what broke."""
    done = serve("compare", "a.json", "b.json", "--fail-if", "ttft_p99 > 1.05x", directory=files)
    assert done.returncode == 13
    assert done.stdout.startswith("At 16 clients")
    assert "`b` breaks `ttft_p99 > 1.05x`: 2.00x" in done.stderr
    done = serve("compare", "a.json", "few.json", "--fail-if", "ttft_p99 > 9s", "--json", directory=files)
    assert done.returncode == 13
    told = json.loads(done.stdout)
    assert told["broken"] == ["`few` breaks `ttft_p99 > 9s`: cannot tell: not enough data at 16 clients"]
    assert told["matched"][0]["rows"][0]["cells"][0]["figure"]["value"] == 0.2
    assert json.loads(done.stderr)["code"] == "bound_broken"


def test_text_of_a_result_moves_no_cursor(files: Path) -> None:
    """What a server or a file calls itself comes to the terminal as one printable line."""
    doubts = Trust(doubts=("\x1b[2J\nAt 1 client",))
    (files / "hostile.json").write_text(result("x\x1b]0;", stage(trust=doubts)).to_json(), encoding="utf-8")
    done = serve("compare", "a.json", "hostile.json", "--fail-if", "ttft_p50 > 1ms", directory=files)
    assert done.returncode == 13
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.startswith("WARNING: `x?]0;` is not to be trusted: ?[2J?At 1 client.\n")


def test_a_home_that_cannot_be_written_to_is_no_matter(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a window system that somebody asked matplotlib for."""
    monkeypatch.setenv("MPLCONFIGDIR", str(files / "a.json" / "none"))
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    done = serve("report", "a.json", directory=files)
    assert (done.returncode, done.stdout, done.stderr) == (0, "report.html\n", "")


def test_prices_go_by_name(files: Path) -> None:
    """The result's own, or its file's; two of one name are told apart."""
    priced = ("--price", "a=1.5", "--price", "a (2)=3", "--price", "nameless=2", "--currency", "CHF")
    done = serve("compare", "a.json", "same.json", "nameless.json", *priced, "-o", "page.html", directory=files)
    assert (done.returncode, done.stderr) == (0, "")
    assert "price per million output tokens  a         0.521 CHF" in done.stdout
    assert "CHF" in (files / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("compare", "a.json"), 2, "one result alone"),
        (("compare", "a.json", "b.json", "--price", "c=1"), 2, "the results are `a`, `b`"),
        (("compare", "a.json", "b.json", "--price", "a=free"), 2, "is not a number"),
        (("compare", "a.json", "b.json", "--price", "a=0"), 2, "more than nothing"),
        (("compare", "a.json", "b.json", "--price", "a=nan"), 2, "more than nothing"),
        (("compare", "a.json", "b.json", "--fail-if", "ttft > 1x"), 2, "at character 1"),
        (("compare", "a.json", "none.json"), 4, "cannot read `none.json`"),
        (("report", "a.json", "-o", "a.json"), 2, "is one of the results"),
        (("report", "a.json", "-o", "no/such/page.html"), 2, "cannot be written"),
        (("report", "a.json", "--png", "a.json"), 2, "cannot be written"),
        (("report", "broken.json"), 5, "is not a result"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    files: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """With a hint and the documented status; the results stay as they were."""
    (files / "broken.json").write_text('{"format": 1}', encoding="utf-8")
    before = (files / "a.json").read_bytes()
    done = serve(*arguments, directory=files)
    assert done.returncode == status
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert (files / "a.json").read_bytes() == before
