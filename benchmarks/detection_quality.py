"""How well a detector of sensitive data does on the labelled corpus: what it finds, and what it cries over for nothing.

    python -m benchmarks.detection_quality --seed 1 --count 40000 [--part open] [--gate] [--json FILE] [--document FILE]

All parts are judged, each for itself. The JSON goes to stdout where no file is named; `--document` puts the tables
into a page of Markdown, between its two marks. With `--gate` the exit status is 1 where a bar is missed.

`--scanner MODULE:NAME` names another detector: something that is called without arguments and gives an object with
`scan(parts)`; its module has `Part` and `parts_of` beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.corpus import PARTS, PUBLIC_NAME, Row, Span, rows
from benchmarks.corpus.identifiers import MAKERS
from benchmarks.machine import described

Z95: Final = 1.959964
"""The normal distribution's quantile for two-sided 95%."""
PRODUCT: Final = "serving.policy.detect:Scanner"
STRUCTURED: Final = (*MAKERS, "ru.bank_account", "email")
"""Labels whose values have a form of their own: the bars are for these."""
BARS: Final = {"recall_plain": 0.99, "recall_obfuscated": 0.95, "precision": 0.95}
"""Least shares of the structured labels, each label for itself; recall over all its manners but plain together."""
MARKS: Final = ("<!-- detection quality: from here on it is generated -->", "<!-- detection quality: up to here -->")


class Found(Protocol):
    """A span as a detector gives it."""

    @property
    def where(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def label(self) -> str: ...


class Finding(Protocol):
    """What a detector says of one request."""

    @property
    def verdict(self) -> Any:
        """CLEAN, SENSITIVE or UNKNOWN: an enumeration's member or its name, in any case."""

    @property
    def spans(self) -> Sequence[Found]: ...


@dataclass(frozen=True, slots=True)
class Scanner:
    """A detector with its own way of taking a request apart."""

    scan: Callable[[tuple[Any, ...]], Finding]
    part: Callable[[str, str], Any]
    """(where, text) to a part."""
    parts_of: Callable[[dict[str, Any]], tuple[Any, ...]]

    def parts(self, row: Row) -> tuple[Any, ...]:
        return self.parts_of(row.body) if row.body is not None else (self.part("", row.text or ""),)


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, with Wilson's interval of 95% confidence."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        """None of nothing."""
        return self.hits / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """E. B. Wilson, 1927: it holds near 0 and 1, where these shares are."""
        if not self.of:
            return None
        share, square = self.hits / self.of, Z95**2 / self.of
        middle = (share + square / 2) / (1 + square)
        half = Z95 / (1 + square) * ((share * (1 - share) + square / 4) / self.of) ** 0.5
        # Rounding must not leave the value outside its own interval.
        return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))

    def as_json(self) -> dict[str, Any]:
        low, high = self.interval or (None, None)
        return {"value": self.value, "low95": low, "high95": high, "hits": self.hits, "of": self.of}

    def __str__(self) -> str:
        if self.value is None or self.interval is None:
            return "–"
        return f"{self.value:.3f} ({self.interval[0]:.3f}–{self.interval[1]:.3f}; {self.of})"


class _Tally:
    """Hits and tries by key."""

    def __init__(self) -> None:
        self._hits: Counter[Any] = Counter()
        self._of: Counter[Any] = Counter()

    def add(self, key: Any, hit: bool) -> None:  # noqa: FBT001 - the count is of booleans
        self._of[key] += 1
        self._hits[key] += hit

    def share(self, *keys: Any) -> Share:
        """Of these keys together."""
        return Share(sum(self._hits[key] for key in keys), sum(self._of[key] for key in keys))

    def met(self) -> list[Any]:
        """The keys, in order."""
        return sorted(self._of)


@dataclass(slots=True)
class Tallies:
    """All counts of one part. Every figure is a share of two of them."""

    rows: Counter[str] = field(default_factory=Counter)
    """`sensitive`, `clean`, and `repeated`: those that were passed over."""
    verdicts: Counter[tuple[bool, str]] = field(default_factory=Counter)
    """By whether the row is sensitive, and the verdict."""
    spans: _Tally = field(default_factory=_Tally)
    """(label, manner): values that a span of their own label touches."""
    any_label: _Tally = field(default_factory=_Tally)
    """(label, manner): values that a span of any label touches."""
    documents: _Tally = field(default_factory=_Tally)
    """(label, manner): rows with values of this label alone, told SENSITIVE."""
    carriers: _Tally = field(default_factory=_Tally)
    """Carrier: plain values found under their own label."""
    languages: _Tally = field(default_factory=_Tally)
    """Language: plain values found under their own label."""
    unread: Counter[str] = field(default_factory=Counter)
    """Pointers, numbers as `*`, of values in strings that the scanner was never given."""
    said: _Tally = field(default_factory=_Tally)
    """Label: spans of this label, those that touch such a value; only clean rows count against it."""
    mislabelled: Counter[str] = field(default_factory=Counter)
    """Label: spans that touch something sensitive of other labels only."""
    stray: Counter[str] = field(default_factory=Counter)
    """Label: spans of sensitive rows that touch nothing labelled; for nobody and against nobody."""
    alarms: _Tally = field(default_factory=_Tally)
    """Kind: clean rows told SENSITIVE."""
    public_names: _Tally = field(default_factory=_Tally)
    """Names of fictional and historic persons that a span touches."""


def touches(found: Found, span: Span) -> bool:
    """They overlap. A place beneath the value's own (a string inside JSON inside a string) counts as touching.

    A detector that reads tool arguments as JSON says where in them, and its offsets are those of the inner string.
    """
    if found.where != span.where:
        return bool(span.where) and _is_in(found.where, span.where)
    return found.start < span.end and span.start < found.end


def _is_in(place: str, where: str) -> bool:
    return place == where or place.startswith((f"{where}/", f"{where}#"))


def verdict_of(finding: Finding) -> str:
    """`CLEAN`, `SENSITIVE` or `UNKNOWN`. Anything else is the detector's fault, and said so."""
    word = str(getattr(finding.verdict, "name", finding.verdict)).upper()
    if word not in {"CLEAN", "SENSITIVE", "UNKNOWN"}:
        raise ValueError(f"the verdict `{word}` is none of CLEAN, SENSITIVE, UNKNOWN")
    return word


def judge(corpus: Iterable[Row], scanner: Scanner) -> Tallies:
    """Scan every row and count. A row whose words were there before is passed over.

    Clean templates with nothing made up on the spot come again and again; counted each time, they would make the
    intervals too narrow.
    """
    tallies = Tallies()
    seen: set[str | None] = set()
    for row in corpus:
        content = row.text if row.body is None else json.dumps(row.body)
        if content in seen:
            tallies.rows["repeated"] += 1
            continue
        seen.add(content)
        parts = scanner.parts(row)
        _count(tallies, row, {part.where for part in parts}, scanner.scan(parts))
    return tallies


def _count(tallies: Tallies, row: Row, places: set[str], finding: Finding) -> None:
    verdict = verdict_of(finding)
    tallies.rows["sensitive" if row.is_sensitive else "clean"] += 1
    tallies.verdicts[row.is_sensitive, verdict] += 1
    truth = [span for span in row.spans if span.label != PUBLIC_NAME]
    for span in row.spans:
        near = {found.label for found in finding.spans if touches(found, span)}
        if span.label == PUBLIC_NAME:
            tallies.public_names.add(PUBLIC_NAME, bool(near))
            continue
        if not any(_is_in(place, span.where) for place in places):
            tallies.unread["/".join("*" if word.isdigit() else word for word in span.where.split("/"))] += 1
        tallies.spans.add((span.label, span.manner), span.label in near)
        tallies.any_label.add((span.label, span.manner), bool(near))
        if span.manner == "plain":
            tallies.carriers.add(row.carrier, span.label in near)
            tallies.languages.add(row.language, span.label in near)
    if len({(span.label, span.manner) for span in truth}) == 1:
        tallies.documents.add((truth[0].label, truth[0].manner), verdict == "SENSITIVE")
    if not row.is_sensitive:
        tallies.alarms.add(row.template.split("/")[-1], verdict == "SENSITIVE")
    _count_said(tallies, row, finding)


def _count_said(tallies: Tallies, row: Row, finding: Finding) -> None:
    for found in finding.spans:
        touched = {span.label for span in row.spans if touches(found, span)}
        if found.label in touched:
            tallies.said.add(found.label, hit=True)
        elif touched - {PUBLIC_NAME}:
            tallies.mislabelled[found.label] += 1
        elif row.is_sensitive:
            tallies.stray[found.label] += 1
        elif not touched:
            tallies.said.add(found.label, hit=False)


def figures(tallies: Tallies) -> dict[str, Any]:
    """Everything that is published of one part, as JSON."""
    keys = tallies.spans.met()
    manners = defaultdict(list)
    for label, manner in keys:
        manners[label].append(manner)
    labels = {}
    for label, names in manners.items():
        plain = [(label, "plain")]
        hidden = [(label, name) for name in names if name != "plain"]
        labels[label] = {
            "recall_plain": tallies.spans.share(*plain).as_json(),
            "recall_obfuscated": tallies.spans.share(*hidden).as_json(),
            "any_label_plain": tallies.any_label.share(*plain).as_json(),
            "any_label_obfuscated": tallies.any_label.share(*hidden).as_json(),
            "document_plain": tallies.documents.share(*plain).as_json(),
            "document_obfuscated": tallies.documents.share(*hidden).as_json(),
            "manners": {name: tallies.spans.share((label, name)).as_json() for name in names},
        }
    precision = {label: tallies.said.share(label).as_json() for label in tallies.said.met()}
    for label, entry in precision.items():
        entry.update(mislabelled=tallies.mislabelled[label], stray=tallies.stray[label])
    told, cried = tallies.verdicts[True, "SENSITIVE"], tallies.verdicts[False, "SENSITIVE"]
    plain = [key for key in keys if key[1] == "plain"]
    hidden = [key for key in keys if key[1] != "plain"]
    return {
        "rows": dict(tallies.rows),
        "verdicts": {
            f"{'sensitive' if is_sensitive else 'clean'}_{word.lower()}": count
            for (is_sensitive, word), count in sorted(tallies.verdicts.items())
        },
        "recall_plain": tallies.spans.share(*plain).as_json(),
        "recall_obfuscated": tallies.spans.share(*hidden).as_json(),
        "document_recall": Share(told, tallies.rows["sensitive"]).as_json(),
        "document_precision": Share(told, told + cried).as_json(),
        "false_alarms": Share(cried, tallies.rows["clean"]).as_json(),
        "labels": labels,
        "precision": precision,
        "false_alarms_by_kind": {kind: tallies.alarms.share(kind).as_json() for kind in tallies.alarms.met()},
        "recall_plain_by_carrier": {name: tallies.carriers.share(name).as_json() for name in tallies.carriers.met()},
        "recall_plain_by_language": {name: tallies.languages.share(name).as_json() for name in tallies.languages.met()},
        "public_names_marked": tallies.public_names.share(PUBLIC_NAME).as_json(),
        "places_not_read": dict(sorted(tallies.unread.items())),
    }


def short_of(found: dict[str, Any]) -> list[str]:
    """The bars that one part's figures miss, as sentences."""
    missed = []
    for label in STRUCTURED:
        shares = {**found["labels"].get(label, {}), "precision": found["precision"].get(label)}
        for name, bar in BARS.items():
            share = shares.get(name)
            if share is not None and share["value"] is not None and share["value"] < bar:
                missed.append(f"{name} of `{label}` is {_shown(share)}, below {bar}")
    return missed


def into(document: str, tables: str) -> str:
    """The page with the tables in place of what stood between its marks. ValueError where a mark is not there."""
    begin, end = MARKS
    before, opened, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ValueError(f"the page lacks the mark `{end if opened else begin}`")
    return f"{before}{begin}\n\n{tables.strip()}\n\n{end}{after}"


def _shown(entry: dict[str, Any] | None) -> str:
    return str(Share(entry["hits"], entry["of"])) if entry else "–"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines)]


def page(results: dict[str, Any]) -> str:
    """The tables in Markdown. Each cell: the share, its interval of 95%, and how many it is a share of."""
    made = [f"Seed {results['seed']}, {results['count']} rows in each part, scanner `{results['scanner']}`.", ""]
    for part, found in results["parts"].items():
        made += [f"### The {part.replace('_', '-')} part", ""]
        names = ("recall_plain", "recall_obfuscated", "document_recall", "document_precision", "false_alarms")
        whole = [(name.replace("_", " "), _shown(found[name])) for name in names]
        whole.append(("public names marked", _shown(found["public_names_marked"])))
        made += [*_table(("over all", "share"), whole), ""]
        lines = [
            (
                f"`{label}`",
                *(_shown(entry[name]) for name in ("recall_plain", "recall_obfuscated")),
                *(_shown(entry[name]) for name in ("document_plain", "document_obfuscated")),
                _shown(found["precision"].get(label)),
            )
            for label, entry in found["labels"].items()
        ]
        head = ("label", "found, plain", "found, obfuscated", "row kept, plain", "row kept, obfuscated", "precision")
        made += [*_table(head, lines), ""]
        manners = sorted({name for entry in found["labels"].values() for name in entry["manners"]})
        by_manner = []
        for manner in manners:
            cells = [entry["manners"][manner] for entry in found["labels"].values() if manner in entry["manners"]]
            total = Share(sum(cell["hits"] for cell in cells), sum(cell["of"] for cell in cells))
            worst = min(found["labels"].items(), key=lambda item: _least(item[1]["manners"].get(manner)))
            by_manner.append((f"`{manner}`", str(total), f"`{worst[0]}` {_shown(worst[1]['manners'][manner])}"))
        made += [*_table(("manner", "found", "worst label"), by_manner), ""]
        alarms = [(kind, _shown(entry)) for kind, entry in found["false_alarms_by_kind"].items()]
        made += [*_table(("clean rows of", "told sensitive"), alarms), ""]
        if found["places_not_read"]:
            unread = [(f"`{where}`", str(count)) for where, count in found["places_not_read"].items()]
            made += [*_table(("place never given to the scanner", "values"), unread), ""]
    return "\n".join(made)


def _least(entry: dict[str, Any] | None) -> float:
    return 2.0 if entry is None or entry["value"] is None else float(entry["value"])


def plugged(name: str) -> Scanner:
    """The detector of that name, imported only now: `module:factory`."""
    module_name, _, factory = name.partition(":")
    module = importlib.import_module(module_name)
    return Scanner(getattr(module, factory)().scan, module.Part, module.parts_of)


def recall_of(results: dict[str, Any]) -> dict[str, Any]:
    """By label, the lower end of the interval of what is found of plain values in the held-out part; ten-thousandths.

    A label that has no value there is left out: nothing is known of it.
    """
    labels = results["parts"]["held_out"]["labels"]
    found = {label: each["recall_plain"]["low95"] for label, each in sorted(labels.items())}
    recall = {label: int(low * 10_000) for label, low in found.items() if low is not None}
    about = {name: results[name] for name in ("date", "seed", "count", "scanner")}
    return (
        {"what": "recall by label, held-out part, lower ends of 95% intervals, ten-thousandths"}
        | about
        | {"recall": recall}
    )


def main() -> int:
    """Judge, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40_000, help="rows of each part, half of them sensitive")
    parser.add_argument("--part", choices=[*(part.replace("_", "-") for part in PARTS), "all"], default="all")
    parser.add_argument("--scanner", default=PRODUCT, metavar="MODULE:NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--document", type=Path, metavar="FILE")
    parser.add_argument(
        "--recall", type=Path, metavar="FILE", help="write what a policy compares with: serving/policy/recall.json"
    )
    parser.add_argument("--gate", action="store_true", help="say which bars are missed, and exit with 1 where one is")
    options = parser.parse_args()
    scanner = plugged(options.scanner)
    wanted = [part for part in PARTS if options.part in {"all", part.replace("_", "-")}]
    results: dict[str, Any] = {
        **described(),
        "seed": options.seed,
        "count": options.count,
        "scanner": options.scanner,
        "parts": {part: figures(judge(rows(options.seed, options.count, part), scanner)) for part in wanted},
    }
    text = json.dumps(results, ensure_ascii=False, indent=2) + "\n"
    if options.json:
        options.json.write_text(text, encoding="utf-8")
    if options.document:
        document = options.document.read_text(encoding="utf-8")
        options.document.write_text(into(document, page(results)), encoding="utf-8")
    if options.recall:
        options.recall.write_text(json.dumps(recall_of(results), indent=1) + "\n", encoding="utf-8")
    if not options.json:
        print(text, end="")
    missed = [f"{part}: {said}" for part, found in results["parts"].items() for said in short_of(found)]
    for said in missed if options.gate else ():
        print(said, file=sys.stderr)
    return int(bool(missed)) if options.gate else 0


if __name__ == "__main__":
    sys.exit(main())
