"""Writes the page of a case."""

from __future__ import annotations

from pathlib import Path

import serving
from serving.bench.report.markup import Picture
from serving.cli.pages import prepare_drawing, writing
from serving.economics.findings import Findings
from serving.economics.report.page import report
from serving.economics.report.words import Speech
from serving.errors import UsageError


def write_page(found: Findings, speech: Speech, path: Path) -> None:
    """One HTML file. Raises UsageError."""
    if path.suffix not in (".html", ".htm"):
        raise UsageError(f"`-o {path}`: what is written is HTML", hint="a name that ends in `.html`")
    prepare_drawing()
    from serving.economics.report.charts import draw_charts  # noqa: PLC0415 - matplotlib takes time to import

    pictures = [
        Picture(chart.title, chart.caption, chart.to_svg(), is_long=True) for chart in draw_charts(found, speech)
    ]
    with writing(path):
        path.write_text(report(found, pictures, speech, serving.__version__), encoding="utf-8")
