"""`benchmarks.detection_quality`: what is counted, against detectors of which it is known what they find."""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.corpus import LABELS, PUBLIC_NAME, Row, Span, rows
from benchmarks.detection_quality import (
    MARKS,
    STRUCTURED,
    Scanner,
    Share,
    figures,
    into,
    judge,
    page,
    short_of,
    touches,
    verdict_of,
)
from tests.support import mail_scanner
from tests.support.mail_scanner import MAIL, Finding, Part, parts_of
from tests.support.mail_scanner import Span as Found

ROOT = Path(__file__).parents[3]
MAILS = Scanner(mail_scanner.Scanner().scan, Part, parts_of)


def row(text: str, *spans: Span, kind: str = "order", body: dict[str, Any] | None = None) -> Row:
    label = next((span.label for span in spans if span.label != PUBLIC_NAME), None)
    return Row(
        id="1",
        part="open",
        language="en",
        carrier="text",
        manner="plain",
        label=label,
        template=f"open/clean/en/{kind}",
        text=text if body is None else None,
        body=body,
        spans=spans,
    )


def at(text: str, value: str, label: str, manner: str = "plain", where: str = "") -> Span:
    return Span(where, text.index(value), text.index(value) + len(value), label, manner)


def of_all(spans: tuple[Found, ...], verdict: Any = "SENSITIVE") -> Scanner:
    """A detector that says the same of everything."""
    return Scanner(lambda _parts: Finding(verdict, spans), Part, parts_of)


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (99, 100, 0.9455, 0.9982)],
)
def test_the_interval_is_wilsons(hits: int, of: int, low: float, high: float) -> None:
    """As tables of it have it."""
    assert Share(hits, of).interval == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 5_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_a_share_lies_within_its_interval(counts: tuple[int, int]) -> None:
    """And the interval within 0 and 1; nothing of nothing has none."""
    share = Share(*counts)
    assert share.value is not None
    assert share.interval is not None
    assert 0 <= share.interval[0] <= share.value <= share.interval[1] <= 1
    assert Share(0, 0).interval is Share(0, 0).value is None


def test_four_rows_are_counted_as_by_hand() -> None:
    """One found, one hidden from the detector, one false alarm, one left alone."""
    plain, hidden = "write to a@example.com", "write to a\u200b@\u200bexample.com"
    alarm, calm = "see icon@2x.png", "nothing here"
    judged = judge(
        [
            row(plain, at(plain, "a@example.com", "email")),
            row(hidden, at(hidden, "a\u200b@\u200bexample.com", "email", "zero_width")),
            row(alarm, kind="code"),
            row(calm),
        ],
        MAILS,
    )
    found = figures(judged)
    assert found["rows"] == {"sensitive": 2, "clean": 2}
    assert found["labels"]["email"]["recall_plain"] == Share(1, 1).as_json()
    assert found["labels"]["email"]["recall_obfuscated"] == Share(0, 1).as_json()
    assert found["labels"]["email"]["manners"] == {"plain": Share(1, 1).as_json(), "zero_width": Share(0, 1).as_json()}
    assert found["document_recall"] == Share(1, 2).as_json()
    assert found["document_precision"] == Share(1, 2).as_json()
    assert found["false_alarms"] == Share(1, 2).as_json()
    assert found["false_alarms_by_kind"] == {"code": Share(1, 1).as_json(), "order": Share(0, 1).as_json()}
    assert found["precision"]["email"] == {**Share(1, 2).as_json(), "mislabelled": 0, "stray": 0}
    assert found["verdicts"] == {
        "clean_clean": 1, "clean_sensitive": 1, "sensitive_clean": 1, "sensitive_sensitive": 1,
    }  # fmt: skip


def test_the_generated_corpus_is_counted_as_the_expression_itself_does() -> None:
    """Recall of plain addresses is 1, of each manner what the expression finds, and of all other labels 0."""
    made = list(rows(4, 6_000))
    found = figures(judge(made, MAILS))
    expected: dict[str, list[bool]] = {}
    distinct = {tuple(strings(each)): each for each in made}
    for each in distinct.values():
        texts = dict(strings(each))
        for span in each.spans:
            if span.label == "email":
                hit = any(m.start() < span.end and span.start < m.end() for m in MAIL.finditer(texts[span.where]))
                expected.setdefault(span.manner, []).append(hit)
    assert {manner: (sum(hits), len(hits)) for manner, hits in expected.items()} == {
        manner: (entry["hits"], entry["of"]) for manner, entry in found["labels"]["email"]["manners"].items()
    }
    assert found["labels"]["email"]["recall_plain"]["value"] == 1
    assert found["labels"]["email"]["manners"]["base64"]["value"] == 0
    assert all(found["labels"][label]["recall_plain"]["hits"] == 0 for label in LABELS if label != "email")
    assert found["false_alarms"]["hits"] == 0
    assert set(found["precision"]) == {"email"}
    assert found["places_not_read"] == {}


def strings(each: Row) -> list[tuple[str, str]]:
    return [(part.where, part.text) for part in MAILS.parts(each)]


def test_a_right_place_under_a_wrong_label_is_not_a_find_of_the_label() -> None:
    """It is told apart: the row is kept inside, the label was not found, and nothing was made up."""
    text = "SNILS 112-233-445 95"
    judged = figures(judge([row(text, at(text, "112-233-445 95", "ru.snils"))], of_all((Found("", 6, 20, "phone"),))))
    snils = judged["labels"]["ru.snils"]
    assert snils["recall_plain"]["hits"] == 0
    assert snils["any_label_plain"]["hits"] == snils["document_plain"]["hits"] == 1
    assert "phone" not in judged["precision"]


def test_a_row_with_two_labels_says_nothing_of_either_labels_rows() -> None:
    """What kept it inside may be the other."""
    text = "a@example.com, SNILS 112-233-445 95"
    spans = at(text, "a@example.com", "email"), at(text, "112-233-445 95", "ru.snils")
    judged = figures(judge([row(text, *spans)], MAILS))
    assert judged["labels"]["ru.snils"]["document_plain"]["of"] == 0
    assert judged["document_recall"] == Share(1, 1).as_json()


def test_a_row_that_was_there_before_is_not_counted_again() -> None:
    """Forty recipes that are the same recipe say no more of a detector than one."""
    made = [row("two eggs, 200 g of flour", kind="recipe")] * 40
    judged = figures(judge(made, of_all(())))
    assert judged["rows"] == {"clean": 1, "repeated": 39}
    assert judged["false_alarms"] == Share(1, 1).as_json()


def test_unknown_is_neither_found_nor_a_false_alarm() -> None:
    """A detector that gives up on everything keeps everything inside and finds nothing."""

    class Verdict(enum.Enum):
        UNKNOWN = 3

    text = "write to a@example.com"
    made = [row(text, at(text, "a@example.com", "email")), row("nothing")]
    judged = figures(judge(made, of_all((), Verdict.UNKNOWN)))
    assert judged["document_recall"]["hits"] == judged["false_alarms"]["hits"] == 0
    assert (
        judged["labels"]["email"]["document_plain"] == judged["false_alarms_by_kind"]["order"] == Share(0, 1).as_json()
    )
    assert judged["verdicts"] == {"clean_unknown": 1, "sensitive_unknown": 1}


def test_a_verdict_that_is_none_is_refused() -> None:
    """Rather than taken for clean."""
    with pytest.raises(ValueError, match="the verdict `FINE`"):
        verdict_of(Finding("fine", ()))


def test_public_names_are_for_nobody_and_against_nobody() -> None:
    """A detector that marks one is told so, and its precision stays."""
    text = "a novel by Jane Austen"
    public = row(text, at(text, "Jane Austen", PUBLIC_NAME), kind="public_name")
    judged = figures(judge([public], of_all((Found("", 11, 22, "name.person"),))))
    assert judged["public_names_marked"] == Share(1, 1).as_json()
    assert judged["precision"] == {}
    assert judged["rows"] == {"clean": 1}


def test_what_a_scanner_says_of_a_sensitive_rows_own_words_is_left_out() -> None:
    """Prose around a value may hold what nobody labelled."""
    text = "Diagnosis: epilepsy, ward 4"
    judged = figures(judge([row(text, at(text, "epilepsy", "medical"))], of_all((Found("", 21, 27, "address"),))))
    assert judged["precision"] == {}


def test_a_place_that_is_never_scanned_is_named() -> None:
    """A scanner that is not given tool arguments is not merely bad at them."""
    body = {"messages": [{"role": "user", "content": "hi"}, {"args": "a@example.com"}]}
    made = row("", Span("/messages/1/args", 0, 13, "email", "plain"), body=body)
    blind = Scanner(MAILS.scan, Part, lambda given: (Part("/messages/0/content", given["messages"][0]["content"]),))
    assert figures(judge([made], blind))["places_not_read"] == {"/messages/*/args": 1}
    assert figures(judge([made], MAILS))["places_not_read"] == {}


@pytest.mark.parametrize(
    ("where", "start", "end", "does"),
    [
        ("/a", 4, 6, True),
        ("/a", 0, 3, False),
        ("/a", 8, 9, False),
        ("/b", 4, 6, False),
        ("/ab", 4, 6, False),
        ("/a/inn", 0, 1, True),
        ("/a#/inn", 0, 1, True),
    ],
)
def test_what_touches(where: str, start: int, end: int, does: bool) -> None:
    """The same string and a character in common, or a string inside that string."""
    assert touches(Found(where, start, end, "email"), Span("/a", 3, 8, "email", "plain")) is does


def test_the_page_states_every_label_with_its_interval() -> None:
    """And how many values it stands on."""
    found = figures(judge(rows(4, 2_000), MAILS))
    text = page({"seed": 4, "count": 2_000, "scanner": "x", "parts": {"open": found}})
    assert all(f"| `{label}` |" in text for label in LABELS)
    share = found["labels"]["email"]["recall_plain"]
    assert f"1.000 ({share['low95']:.3f}–1.000; {share['of']})" in text


def test_the_command_judges_both_parts_and_writes_both_tables(tmp_path: Path) -> None:
    """With a detector that is named, as it is used for the product's own."""
    out, table = tmp_path / "quality.json", tmp_path / "quality.md"
    table.write_text(f"# Page\n{MARKS[0]}\nold\n{MARKS[1]}\nrest\n", encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.detection_quality", "--seed", "1", "--count", "400"]
    named = ["--scanner", "tests.support.mail_scanner:Scanner", "--json", str(out), "--document", str(table)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *named], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    results = json.loads(out.read_text(encoding="utf-8"))
    assert set(results["parts"]) == {"open", "second", "held_out"}
    for part in results["parts"].values():
        assert sum(part["rows"].values()) == 400
        assert 190 <= part["rows"]["sensitive"] <= 200
    assert {"date", "machine", "versions"} <= set(results)
    text = table.read_text(encoding="utf-8")
    assert "### The second part" in text
    assert "### The held-out part" in text
    assert text.startswith("# Page\n")
    assert text.endswith("\nrest\n")
    assert "\nold\n" not in text
    gated = subprocess.run(
        [*command, *named, "--gate"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert gated.returncode == 1
    assert "open: recall_plain of `ru.snils` is 0.000" in gated.stderr
    assert "recall_plain of `email`" not in gated.stderr


def test_a_page_without_marks_is_left_as_it_is() -> None:
    """And the mark that it lacks is named."""
    with pytest.raises(ValueError, match="from here on"):
        into("# Page\n", "table")
    with pytest.raises(ValueError, match="up to here"):
        into(f"# Page\n{MARKS[0]}\n", "table")


def test_the_published_page_has_both_marks() -> None:
    """So that the command can write the tables into it."""
    document = (ROOT / "docs" / "detection-quality.md").read_text(encoding="utf-8")
    assert "| x |" in into(document, "| x |")


def test_the_bars_are_met_by_whoever_knows_all_and_missed_by_whoever_sees_nothing() -> None:
    """Each structured label for itself, and no other label."""
    made = list(rows(9, 4_000))
    truth = {tuple(MAILS.parts(each)): each for each in made}

    def all_knowing(parts: tuple[Part, ...]) -> Finding:
        spans = tuple(Found(s.where, s.start, s.end, s.label) for s in truth[parts].spans if s.label != PUBLIC_NAME)
        return Finding("SENSITIVE" if spans else "CLEAN", spans)

    best = figures(judge(made, Scanner(all_knowing, Part, parts_of)))
    assert short_of(best) == []
    assert best["document_recall"]["value"] == best["document_precision"]["value"] == 1
    missed = short_of(figures(judge(made, of_all((), "CLEAN"))))
    assert len(missed) == 2 * len(STRUCTURED)
    assert not [said for said in missed if "name.person" in said]
