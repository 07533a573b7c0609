"""docs/destinations.md says what the connectors do."""

from __future__ import annotations

from pathlib import Path

from tests.support.vendors.matrix import COLUMNS, FIELDS, table

PAGE = Path(__file__).parents[3] / "docs" / "destinations.md"


def test_the_table_is_what_is_sent() -> None:
    """`python -m tests.support.vendors.matrix` prints it again, between the two marks."""
    text = PAGE.read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- matrix -->\n")
    printed, _, _ = rest.partition("<!-- end of matrix -->")
    assert printed.strip() == table().strip()


def test_every_field_goes_somewhere() -> None:
    """Each line of the table but the one of images has a vendor that takes it: the probes are sound."""
    lines = [line for line in table().splitlines() if line.startswith(("| `", "| s", "| n", "| l"))]
    assert len(lines) == len(FIELDS) - 1
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 1 + len(COLUMNS)
        assert any(cell not in {"refused", ""} for cell in cells[1:]), line
        assert "" not in cells, line
