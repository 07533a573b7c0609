"""Measure the stated figures again and say what no longer holds.

    python -m benchmarks.claims [NAME …] [--write]

Exit status 0: all hold; 1: some do not; 2: some could not be measured here (a tool or file is missing).
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "benchmarks" / "claims.toml"
RESULTS = ROOT / "benchmarks" / "results"
TOOLS = {
    "llama_server": "BENCH_LLAMA_SERVER",
    "batched_bench": "BENCH_BATCHED_BENCH",
    "gguf": "BENCH_GGUF",
    "litellm": "BENCH_LITELLM",
    "vllm_python": "SERVING_VLLM_PYTHON",
    "guidellm": "BENCH_GUIDELLM",
}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of a result and the bar it must meet, such as `throughput_ratio.median >= 0.97`."""

    path: str
    comparison: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Check:
        path, comparison, bound = text.split()
        if comparison not in COMPARISONS:
            raise ValueError(f"`{text}`: the comparison must be one of {' '.join(COMPARISONS)}")
        return cls(path, comparison, float(bound))

    def value(self, result: dict[str, Any]) -> float:
        """The figure in a result."""
        found: Any = result
        for key in self.path.split("."):
            found = found[key]
        return float(found)

    def holds(self, result: dict[str, Any]) -> bool:
        return COMPARISONS[self.comparison](self.value(result), self.bound)


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence that the documents state, and how it is measured."""

    name: str
    sentence: str
    command: str
    checks: tuple[Check, ...]
    falls_short: str | None = None
    """Why the bar is not met yet, where it is not; the sentence then states what is."""

    @property
    def result_path(self) -> Path:
        """Where the last measurement is kept."""
        return RESULTS / f"{self.name}.json"


def load(path: Path = CLAIMS) -> list[Claim]:
    """All claims in the order of the file."""
    entries = tomllib.loads(path.read_text())["claims"]
    return [
        Claim(
            entry["name"],
            entry["sentence"],
            entry["command"],
            tuple(Check.parse(text) for text in entry["checks"]),
            entry.get("falls_short"),
        )
        for entry in entries
    ]


def missing_tools(claim: Claim) -> list[str]:
    """Environment variables that the command needs and that are not set."""
    return [name for tool, name in TOOLS.items() if f"{{{tool}}}" in claim.command and name not in os.environ]


def measure(claim: Claim) -> dict[str, Any] | None:
    """Run the command; its JSON, or None where it failed."""
    values = {tool: os.environ.get(name, "") for tool, name in TOOLS.items()}
    command = claim.command.format(python=shlex.quote(sys.executable), **values)
    result = subprocess.run(shlex.split(command), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        return None
    return dict(json.loads(result.stdout)) if claim.checks else {"exit": 0}


def main() -> int:
    """Measure, report, and with --write keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true", help="keep what was measured under benchmarks/results/")
    options = parser.parse_args()
    claims = [claim for claim in load() if not options.names or claim.name in options.names]
    unknown = set(options.names) - {claim.name for claim in claims}
    if unknown:
        print(f"error: no claim named {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    status = 0
    for claim in claims:
        missing = missing_tools(claim)
        if missing:
            print(f"not measured  {claim.name}: set {' and '.join(missing)}", file=sys.stderr)
            status = max(status, 2) if status != 1 else 1
            continue
        result = measure(claim)
        broken = result is None or [check for check in claim.checks if not check.holds(result)]
        shown = (
            "" if result is None else ", ".join(f"{check.path} = {check.value(result):.4g}" for check in claim.checks)
        )
        word = "holds" if not broken else "falls short, as stated" if claim.falls_short else "does not hold"
        print(f"{word:<22} {claim.name}: {shown or 'the command failed'}")
        if broken and claim.falls_short is None:
            status = 1
        if result is not None and options.write:
            claim.result_path.write_text(json.dumps(result, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
