"""No document states a measured figure that nobody can measure again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.claims import load
from benchmarks.memory import table
from serving.registry.catalogue import load_catalogue

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", ROOT / "benchmarks/gpu/README.md"]
MARK = re.compile(r"<!-- claim: ([a-z0-9-]+) -->")
ONCE = "*Figures measured once, for this choice: "
FIGURE = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?\s?(?:×|%|ms\b|µs\b|s\b|times\b|tokens/s|requests/s|MiB/s|minutes?\b)")


def lines_of(document: Path) -> list[str]:
    """Lines outside code fences."""
    lines, inside = [], False
    for line in document.read_text().splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            lines.append(line)
    return lines


@pytest.mark.parametrize("document", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_a_figure_in_the_docs_says_what_it_is(document: Path) -> None:
    """A claim, a constant, or, in a decision, measured once for it: when, where and how."""
    lines = lines_of(document)
    is_record = document.parent.name == "decisions" and any(line.startswith(ONCE) for line in lines)
    claims = {claim.name for claim in load()}
    for line in lines:
        marks = set(MARK.findall(line))
        assert marks <= claims, f"not in claims.toml: {marks - claims}"
        said = marks or "<!-- a constant -->" in line or is_record
        assert said or not FIGURE.search(line), f"a figure that nobody can measure again: {line}"
        for name in re.findall(r"claims? ((?:`[a-z0-9-]+`(?:, | and )?)+)", line if line.startswith(ONCE) else ""):
            assert set(re.findall(r"`([a-z0-9-]+)`", name)) <= claims, line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_stated_figure_is_a_claim(document: Path) -> None:
    """A line with a measured figure carries the mark of a claim, and the claim has the same sentence."""
    claims = {claim.name: claim for claim in load()}
    for line in lines_of(document):
        marks = MARK.findall(line)
        assert marks or not FIGURE.search(line), f"a figure without a claim: {line}"
        for name in marks:
            assert name in claims, f"`{name}` is not in claims.toml"
            assert claims[name].sentence in MARK.sub("", line), f"`{name}` reads otherwise in claims.toml: {line}"


def test_every_claim_holds_by_its_last_result() -> None:
    """What was measured last and is kept under benchmarks/results/ meets the bar that the claim states."""
    for claim in load():
        if claim.checks:
            result = json.loads(claim.result_path.read_text())
            assert {"date", "machine", "versions"} <= result.keys(), claim.name
            failed = [check for check in claim.checks if not check.holds(result)]
            if claim.falls_short is None:
                assert not failed, f"{claim.name}: {failed}"
            else:
                assert failed, f"{claim.name} meets its bar now: remove `falls_short` and state the figure"


def test_the_memory_page_is_the_last_result() -> None:
    """`python -m benchmarks.memory table > docs/memory.md` writes it again."""
    result = json.loads((ROOT / "benchmarks/results/memory-resident.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs/memory.md").read_text(encoding="utf-8") == table(result)


def test_the_readme_counts_the_models_that_there_are() -> None:
    """Those of the catalogue that ships, but for the demonstration model."""
    told = re.search(r"The catalogue knows (\d+) published models", (ROOT / "README.md").read_text())
    assert told is not None
    assert int(told[1]) == len(load_catalogue().models) - 1
