"""`serve bench report` and `serve bench compare`: results as a page, as charts, and side by side."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from serving.bench.record import Result, read_result
from serving.bench.report.bounds import breaks, read_bound
from serving.bench.report.compare import Comparison, Row, compare
from serving.bench.report.figures import NOT_ENOUGH, interval, ratio_text, shown, unit_name
from serving.bench.report.markup import Picture
from serving.bench.report.page import report
from serving.cli.hardware import rows as machine_rows
from serving.cli.pages import prepare_drawing, writing
from serving.cli.show import align, terminal_columns
from serving.errors import BoundBroken, UsageError
from serving.hardware import Machine

_TOLD_OF_A_MACHINE = ("host", "cpu", "cores", "memory", "limit", "driver")
"""Rows of `serve hardware` that a report shows, beside those of the GPUs."""


def show_report(paths: Sequence[Path], output: Path, png: Path | None) -> int:
    """Write a page about the results, and its charts as PNG files where a directory is named; print what was written.

    Raises ServingError.
    """
    _refuse_overwriting(output, paths)
    results = _read(paths)
    written = _write_page(results, output, compare(results, {}) if len(results) > 1 else None, png)
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0


def show_comparison(
    paths: Sequence[Path],
    prices: Sequence[str],
    currency: str,
    fail_if: Sequence[str],
    output: Path | None,
    *,
    as_json: bool,
) -> int:
    """Print results side by side; raises BoundBroken, after that, where one breaks a bound."""
    bounds = [read_bound(text) for text in fail_if]
    if len(paths) < 2:
        raise UsageError("one result alone cannot be compared", hint="name two; for one there is `serve bench report`")
    if output is not None:
        _refuse_overwriting(output, paths)
    results = _read(paths)
    comparison = compare(results, _prices(prices, results), currency)
    broken = [found for bound in bounds for found in breaks(bound, results)]
    if output is not None:
        _write_page(results, output, comparison, None)
    if as_json:
        facts = {**dataclasses.asdict(comparison), "broken": [str(found) for found in broken]}
        sys.stdout.write(json.dumps(facts, indent=2, ensure_ascii=False, default=_plain) + "\n")
    else:
        sys.stdout.write(page(comparison, terminal_columns()))
    if broken:
        raise BoundBroken(_printable("; ".join(map(str, broken))), hint="the first result is what ratios are against")
    return 0


def page(comparison: Comparison, columns: int | None = None) -> str:
    """A comparison as lines for a person, as wide as the terminal is; warnings come first."""
    parts = [f"WARNING: {_printable(warning)}.\n" for warning in comparison.warnings]
    parts += ["\n"] if parts else []
    for matched in comparison.matched:
        parts += [f"At {_printable(matched.load)}\n", align(_lines(matched.rows, comparison), columns), "\n"]
    if comparison.saturation:
        parts += ["Where the sweeps ended\n", align(_lines(comparison.saturation, comparison), columns), "\n"]
    if comparison.unmatched:
        alone = _printable(", ".join(comparison.unmatched))
        parts.append(f"Not compared, for want of the same load: {alone}.\n\n")
    for condition, verdicts in groupby(comparison.verdicts, lambda verdict: verdict.condition):
        told = [(verdict.question, verdict.said) for verdict in verdicts]
        parts += [f"Which is best{', ' if condition else ''}{condition}\n", align(told, columns)]
    parts.append(
        f"\nIn brackets: 95% intervals. Ratios are to `{comparison.names[0]}`; one whose interval holds 1 tells no "
        "difference.\n"
    )
    return "".join(parts)


def _lines(rows: Sequence[Row], comparison: Comparison) -> list[tuple[str, str, str, str, str]]:
    lines = []
    for row in rows:
        quantity, title = row.quantity, row.quantity.title
        unit = unit_name(quantity.unit, comparison.currency)
        for name, cell in zip(comparison.names, row.cells, strict=True):
            if cell.figure is None:
                lines.append((title, name, NOT_ENOUGH, "", ""))
            else:
                told = interval(cell.figure, quantity.unit)
                value = f"{shown(cell.figure.value, quantity.unit)} {unit}{f' ({told})' if told else ''}"
                ratio = "" if cell.ratio is None else ratio_text(cell.ratio)
                lines.append((title, name, value, ratio, "" if cell.ratio is None else cell.judged(quantity)))
            title = ""
    return lines


def _read(paths: Sequence[Path]) -> list[Result]:
    """The results, each with a name of its own: what it calls itself, or its file's."""
    found: list[Result] = []
    for path in paths:
        result = read_result(path)
        name, taken = _printable(result.name or path.stem), {other.name for other in found}
        if name in taken:
            name = next(each for number in range(2, len(paths) + 2) if (each := f"{name} ({number})") not in taken)
        found.append(result.model_copy(update={"name": name}))
    return found


def _prices(written: Sequence[str], results: Sequence[Result]) -> dict[str, float]:
    """Prices of an hour by result, from NAME=PRICE. Raises UsageError."""
    names, found = [result.name for result in results], {}
    for text in written:
        name, _, price = text.rpartition("=")
        if name not in names:
            hint = "write it as NAME=PRICE; the results are " + ", ".join(f"`{each}`" for each in names)
            raise UsageError(f"`--price {text}` names no result", hint=hint)
        try:
            found[name] = float(price)
        except ValueError:
            raise UsageError(f"`--price {text}`: `{price}` is not a number", hint="give what an hour costs") from None
        if not 0 < found[name] < float("inf"):
            raise UsageError(f"`--price {text}`: a price is more than nothing", hint="give what an hour costs")
    return found


def _write_page(results: Sequence[Result], output: Path, comparison: Comparison | None, png: Path | None) -> list[Path]:
    prepare_drawing()
    from serving.bench.report.charts import draw_charts  # noqa: PLC0415 - matplotlib takes time to import

    charts = draw_charts(results)
    pictures = [
        Picture(chart.title, chart.caption, chart.to_svg(), is_long=chart.name.startswith("time-line"))
        for chart in charts
    ]
    machines = {result.name: _machine(result) for result in results}
    written = [output]
    with writing(output):
        output.write_text(report(results, pictures, machines, comparison), encoding="utf-8")
        if png is not None:
            png.mkdir(exist_ok=True)
            for chart in charts:
                written.append(png / f"{chart.name}.png")
                written[-1].write_bytes(chart.to_png())
    return written


def _machine(result: Result) -> list[tuple[str, str]]:
    """The server's machine in words; nothing where it is not told, or not in a way that this version knows."""
    if result.machine is None:
        return []
    try:
        told = machine_rows(Machine.from_json(json.dumps(result.machine)))
    except ValidationError:
        return []
    return [(name, value) for name, value in told if name in _TOLD_OF_A_MACHINE or name.startswith("gpu")]


def _refuse_overwriting(output: Path, paths: Sequence[Path]) -> None:
    if any(output.resolve() == path.resolve() for path in paths):
        raise UsageError(f"`{output}` is one of the results", hint="name another file with -o")


def _printable(text: str) -> str:
    """One line: what a server calls itself moves no cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _plain(value: object) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else str(value)
