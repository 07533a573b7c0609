"""HTML built so that text cannot become markup: whatever is not `Html` already is escaped on its way in. Pure."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final


class Html(str):
    """Markup that was built here."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: str) -> Html:
    """An element; `class_` is the attribute `class`. Characters that do not print are shown as `?`."""
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{told}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Html:
    """Several, one after the other."""
    return Html("".join(child if isinstance(child, Html) else _escaped(str(child)) for child in children))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, class_: str = "") -> Html:
    """A table whose rows begin with what they are of; without a head where all titles are empty."""
    lines = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    titles = [tag("thead", tag("tr", *(tag("th", title, scope="col") for title in head)))] if any(head) else []
    body = tag("table", *titles, tag("tbody", *lines), class_=class_)
    return tag("div", body, class_="wide")


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart, drawn."""

    title: str
    caption: str
    svg: bytes
    is_long: bool = False
    """It wants the whole width."""


def picture(drawn: Picture) -> Html:
    """A chart with its title and caption, inside the page itself."""
    source = f"data:image/svg+xml;base64,{base64.b64encode(drawn.svg).decode()}"
    image = Html(f'<img alt="{tag("i", drawn.title)[3:-4]}" src="{source}">')
    caption = tag("figcaption", drawn.caption)
    return tag("figure", tag("h3", drawn.title), image, caption, class_="long" if drawn.is_long else "half")


def page(title: str, *sections: Html, language: str = "en") -> Html:
    """A whole document, which loads nothing and runs nothing."""
    body = "\n".join(sections)
    return Html(
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{tag('title', title)}\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _escaped(text: str) -> str:
    return html.escape("".join(letter if letter.isprintable() or letter == _NO_BREAK else "?" for letter in text))


_NO_BREAK: Final = "\u00a0"
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE: Final = """
:root { --ink: #1d2329; --faint: #5b6670; --line: #dde2e7; --blue: #0b5a94; color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 66rem; color: var(--ink); background: #fff;
  font: 15px/1.5 "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem; padding-bottom: .3rem; border-bottom: 2px solid var(--ink); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.sub, figcaption, .note { color: var(--faint); }
.note, figcaption { font-size: .87rem; }
.notice { border-left: 5px solid #b3261e; background: #fcefee; padding: .8rem 1.1rem; margin: 1.3rem 0; }
.notice h2 { border: 0; margin: 0 0 .3rem; padding: 0; font-size: 1.05rem; color: #8c1d18; }
.notice ul { margin: .2rem 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
.sound { border-left: 5px solid #1a7f52; background: #eef7f2; padding: .5rem 1.1rem; margin: 1.3rem 0;
  max-width: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); gap: .8rem;
  margin: 1.3rem 0; }
.tile { border: 1px solid var(--line); border-top: 3px solid var(--blue); padding: .7rem .9rem; }
.tile .what { color: var(--faint); font-size: .85rem; }
.tile .value { font-size: 1.55rem; font-weight: 600; line-height: 1.25; white-space: nowrap; }
.tile .value small { font-size: .85rem; font-weight: 400; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 1.5px solid var(--ink); font-size: .85rem; vertical-align: bottom; }
tbody th { text-align: left; font-weight: 500; min-width: 9.5rem; }
thead th:first-child { text-align: left; }
summary { cursor: pointer; font-weight: 600; margin: .6rem 0; }
td .of { display: block; color: var(--faint); font-size: .8rem; white-space: nowrap; }
.facts td, .facts thead th, .said td, .said thead th { text-align: left; overflow-wrap: anywhere; }
.facts tbody th { width: 11rem; color: var(--faint); }
.money td { white-space: nowrap; } .worded td:nth-of-type(1) { text-align: left; white-space: normal; }
.better { color: #0d6b43; font-weight: 600; }
.worse { color: #a5281f; font-weight: 600; }
.same { color: var(--faint); }
figure { display: inline-block; vertical-align: top; width: 48.5%; margin: 0 1% 1.6rem 0; break-inside: avoid; }
figure.long { display: block; width: 100%; max-width: 50rem; }
figure img { width: 100%; height: auto; display: block; }
figure h3 { margin: 0 0 .4rem; }
figcaption { overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: 11rem 1fr; gap: .35rem 1rem; margin: .5rem 0; font-size: .92rem; }
dt { font-weight: 600; } dd { margin: 0; }
footer { margin-top: 3rem; padding-top: .6rem; border-top: 1px solid var(--line); }
@media (max-width: 44rem) { figure { width: 100%; } dl { display: block; } }
@page { size: A4; margin: 16mm 14mm; }
@media print {
  .money td, .money th { white-space: normal; padding: .3rem .25rem; }
  body { padding: 0; max-width: none; font-size: 9.5pt; }
  h2, h3 { break-after: avoid; } tr, .notice, .tile, dd { break-inside: avoid; }
  .wide { overflow: visible; }
  .notice, .sound, .tile { print-color-adjust: exact; }
}
"""
