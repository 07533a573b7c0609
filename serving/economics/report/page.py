"""A case as one page for people who decide: a single HTML file, which loads and runs nothing. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from serving.bench.report.markup import Html, Picture, page, picture, table, tag
from serving.economics.findings import Findings
from serving.economics.report.tables import Table, basis, movers, parts, verdict, warnings
from serving.economics.report.words import Speech


def report(found: Findings, pictures: Sequence[Picture], speech: Speech, version: str) -> str:
    """The page, in that language."""
    first, *others = parts(found, speech)
    head = tag("header", tag("h1", found.case.title), tag("p", ". ".join(basis(found, speech)), class_="sub"))
    moved = movers(found, speech)
    what = (
        verdict(found, speech)
        if len(found.statements) > 1
        else f"{first.head[2]}: {first.rows[0][2]} {found.case.currency}"
    )
    said = tag("div", tag("p", tag("strong", what)), *((tag("p", moved),) if moved else ()), class_="sound")
    charts = tag("section", tag("h2", speech("title.charts")), tag("div", *map(picture, pictures)))
    sections = [
        head,
        *_notice(found, speech),
        said,
        _tabled(Table(first.title, (), first.head, first.rows)),
        *((charts,) if pictures else ()),
        *map(_tabled, others),
        tag("footer", tag("p", f"Perimeter {version}, {found.today}", class_="note")),
    ]
    return page(found.case.title, *sections, language=speech.language)


def _notice(found: Findings, speech: Speech) -> list[Html]:
    said = warnings(found, speech)
    if not said:
        return []
    return [tag("div", tag("ul", *(tag("li", each) for each in said)), class_="notice")]


def _tabled(part: Table) -> Html:
    says = [tag("p", each) for each in part.says]
    return tag("section", tag("h2", part.title), *says, table(part.head, part.rows, class_=part.kind))
