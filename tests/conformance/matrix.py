"""The support matrix: what came of each feature on each engine, kept beside the suite and shown in docs/engines.md.

`python -m tests.conformance.matrix` writes the page from what the last runs noted. A test fails where the page is not
what the notes say, or a run sees something else than the notes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

Outcome = Literal["served", "refused", "failed"]
NOTES: Final = Path(__file__).parent / "notes"
PAGE: Final = Path(__file__).parents[2] / "docs/engines.md"
BEGIN: Final = "<!-- matrix -->"
END: Final = "<!-- end of matrix -->"
_WORST: Final = ("served", "refused", "failed")
_seen: dict[str, dict[str, Outcome]] = {}


def record(engine: str, feature: str, outcome: Outcome) -> None:
    """Note an outcome; of several tests of one feature the worst counts."""
    known = _seen.setdefault(engine, {})
    known[feature] = max(known.get(feature, "served"), outcome, key=_WORST.index)


def seen(engine: str) -> dict[str, Outcome]:
    """What this run has seen of an engine so far."""
    return dict(_seen.get(engine, {}))


def noted() -> dict[str, dict[str, Outcome]]:
    """Engine → feature → outcome, as kept."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(NOTES.glob("*.json"))}


def keep(engine: str, outcomes: Mapping[str, Outcome]) -> None:
    """Write the notes of one engine."""
    NOTES.mkdir(exist_ok=True)
    text = json.dumps(dict(sorted(outcomes.items())), indent=2)
    (NOTES / f"{engine}.json").write_text(text + "\n", encoding="utf-8")


def table(notes: Mapping[str, Mapping[str, Outcome]]) -> str:
    """The matrix in Markdown."""
    engines = list(notes)
    features = sorted({feature for outcomes in notes.values() for feature in outcomes})
    lines = [f"| | {' | '.join(engines)} |", f"|---|{'---|' * len(engines)}"]
    for feature in features:
        cells = " | ".join(notes[engine].get(feature, "–") for engine in engines)
        lines.append(f"| {feature} | {cells} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the matrix of the notes in its place."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(noted())}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
