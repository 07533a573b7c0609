"""What docs/economics.md works out by hand, worked out twice more: by its own arithmetic, and by the product."""

from __future__ import annotations

import ast
import operator
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from serving.economics.currencies import to_cents
from serving.economics.statement import Option, statement
from tests.support.cases import ROOT, load, market

DOCUMENT = ROOT / "docs" / "economics.md"
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@dataclass(frozen=True)
class Worked:
    """A table by hand, and the case above it."""

    content: dict[str, Any]
    option: Option
    currency: str
    rows: tuple[tuple[str, str, str], ...]


def worked() -> Iterator[Worked]:
    content: dict[str, Any] = {}
    for found in re.finditer(r"```toml\n(.*?)```|((?:^\|[^\n]*\n)+)", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE):
        if found[1] is not None:
            content = tomllib.loads(found[1], parse_float=Decimal)
            continue
        head, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in found[2].splitlines()]
        if head[1:2] == ["by hand"]:
            cells = tuple((row[0].strip("`"), row[1], row[2]) for row in rows)
            yield Worked(content, head[0], head[2], cells)  # type: ignore[arg-type]


def by_hand(arithmetic: str) -> Decimal:
    def value(node: ast.expr) -> Decimal:
        if isinstance(node, ast.BinOp):
            return Decimal(OPERATIONS[type(node.op)](value(node.left), value(node.right)))
        assert isinstance(node, ast.Constant)
        return Decimal(str(node.value))

    return value(ast.parse(arithmetic, mode="eval").body)


@pytest.mark.parametrize("each", list(worked()), ids=lambda each: f"{each.content['title']}, {each.option}")
def test_what_is_worked_by_hand_is_what_the_product_says(each: Worked) -> None:
    """Line by line to the cent, no line on one side alone, and the total is the sum of the lines."""
    found = statement(load(each.content, market()).case, each.option)
    assert found.currency == each.currency
    *lines, total = each.rows
    assert {line.name: line.per_month for line in found.lines} == {name: Decimal(cents) for name, _, cents in lines}
    assert found.total == Decimal(total[2]) == sum(Decimal(cents) for _, _, cents in lines)
    for name, arithmetic, cents in each.rows:
        assert to_cents(by_hand(arithmetic)) == Decimal(cents), name


def test_there_are_examples() -> None:
    """Of an API and of machines; a document that lost its tables would otherwise pass."""
    options = [each.option for each in worked()]
    assert options.count("api") >= 4
    assert options.count("own") >= 4
