"""The Makefile: what it says of itself, and what it does with a path."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> str:
    """What make prints."""
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_help_names_every_target() -> None:
    """Each that can be asked for, with a sentence."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    told = dict(line.removeprefix("make ").split(None, 1) for line in make("--silent", "help").splitlines())
    assert sorted(told) == sorted(phony[1].split())


def test_a_path_with_a_blank_is_one_argument() -> None:
    """As a shell would have it."""
    assert '--model "my models/a.gguf"' in make("--dry-run", "serve", "MODEL=my models/a.gguf")
