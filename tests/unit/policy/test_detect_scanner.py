"""A scan tells where and why, and what went wrong is never CLEAN."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterator

import pytest

from serving.errors import BadSettings
from serving.policy.detect import DetectSettings, Part, Scanner, SiteVocabulary, Verdict, parts_of
from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import View
from serving.policy.detect.vocabulary import Pattern, Terms

SCANNER = Scanner()
SNILS = "112-233-445 95"


def scan(*texts: str, scanner: Scanner = SCANNER):
    return scanner.scan([Part(f"/messages/{index}/content", text) for index, text in enumerate(texts)])


def test_a_span_is_where_the_value_stands_in_the_original() -> None:
    """Though zero-width characters, other scripts' digits and wide spaces were undone before it was found."""
    text = "Мой но\u00adмер: СНИ\u200bЛС １１２‑２３３‑４４５\u2003٩٥."
    (span,) = scan(text).spans
    assert (span.where, span.label, span.detector) == ("/messages/0/content", "ru.snils", "numbers")
    assert text[span.start : span.end] == "１１２‑２３３‑４４５\u2003٩٥"


def test_no_value_is_in_a_finding() -> None:
    """Neither in what it holds nor in how a part or a finding is shown."""
    part = Part("/messages/0/content", f"снилс {SNILS}")
    finding = SCANNER.scan([part])
    assert finding.labels == {"ru.snils"}
    assert "112" not in repr(finding)
    assert "112" not in repr(part)


@pytest.mark.parametrize(
    "text",
    [
        "снилс 1 1 2 2 3 3 4 4 5 9 5",
        "снилс 112.233.445/95",
        "снилс 112_233_445_95",
        "снилс 112\n233\n445\n95",
        "c\u043dил\u0441 11223344595",
        "СНИЛС " + "11223344595".translate(dict(zip(range(48, 58), range(0x1D7CE, 0x1D7D8), strict=True))),
        "снилс ①①②②③③④④⑤⑨⑤",
        "снилс " + "".join(f"{digit}\ufe0f\u20e3" for digit in "11223344595"),
        json.dumps("снилс 112-233-445 95"),
        r"снилс \u0031\u0031\u0032-233-445\n95",
        urllib.parse.quote("снилс 112-233-445 95"),
        base64.b64encode(f"снилс {SNILS}".encode()).decode(),
        "data: " + base64.urlsafe_b64encode(f"Клиент, снилс {SNILS}, проживает".encode()).decode().rstrip("="),
        f"снилс {SNILS}".encode().hex(),
        "снилс &#49;&#49;2-233-445&nbsp;95",
        "снилс ll2-233-445 95",
        "СНИЛС II223344595",
        "снилс **112-233-445** 95",
        "{'snils': 11223344595}",
    ],
)
def test_another_way_of_writing_hides_nothing(text: str) -> None:
    """Separators, scripts, look-alikes, escapes and encodings."""
    assert "ru.snils" in scan(text).labels


def test_a_span_of_what_was_decoded_is_all_that_it_came_from() -> None:
    """An encoded stretch is named whole."""
    packed = base64.b64encode(f"снилс {SNILS}".encode()).decode()
    text = f"посмотри: {packed} спасибо"
    (span,) = scan(text).spans
    assert text[span.start : span.end] == packed


def test_parts_give_each_other_context() -> None:
    """A question in one message says what the number in the next one is; a number may be spread over two."""
    asked = scan("Назовите ваш ИНН", "7707083893")
    assert [(span.where, span.label) for span in asked.spans] == [("/messages/1/content", "ru.inn_company")]
    spread = scan("карта 4111 1111", "1111 1111")
    assert [(span.where, span.start, span.end) for span in spread.spans] == [
        ("/messages/0/content", 6, 15),
        ("/messages/1/content", 0, 9),
    ]
    assert scan("7707083893").verdict is Verdict.CLEAN


def test_a_date_beside_another_is_told_apart() -> None:
    """The one of birth stands before its word, and the next one is of something else."""
    text = "14.02.1979 г.р., паспорт выдан 12.05.2009"
    (span,) = scan(text).spans
    assert (text[span.start : span.end], span.label) == ("14.02.1979", "birth_date")


def test_a_column_is_said_by_its_heading() -> None:
    """However many rows are between them; the other columns say nothing."""
    rows = "".join(f"{index};контора;7707083893;44051401358\n" for index in range(50))
    table = f"№;название;ИНН;заказ\n{rows}"
    finding = scan("Таблица:\n\n" + table)
    assert finding.labels == {"ru.inn_company"}
    assert len(finding.spans) == 50
    assert scan(table.replace("ИНН", "код")).verdict is Verdict.CLEAN


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("这份文件是关于客户的个人资料，请不要分享给任何人。", "language_not_covered:han"),
        ("هذه الوثيقة تحتوي على بيانات شخصية", "language_not_covered:arabic"),
        ("この文書には個人情報が含まれています", "language_not_covered:kana"),
        ("이 문서에는 개인 정보가 포함되어 있습니다", "language_not_covered:hangul"),
        ("\x00\x01\x02\x03PK\x04\x05\x06", "unreadable:binary"),
        ("caf\ufffd \ufffd\ufffd\ufffd", "unreadable:binary"),
        (base64.b64encode(bytes(range(256)) * 2).decode(), "unreadable:packed"),
        (base64.b64encode("这份文件是关于客户的个人资料".encode()).decode(), "language_not_covered:han"),
    ],
)
def test_what_cannot_be_judged_is_unknown(text: str, reason: str) -> None:
    """Scripts that are not covered, and what is no text."""
    finding = scan(text)
    assert finding.verdict is Verdict.UNKNOWN
    assert reason in finding.reasons


@pytest.mark.parametrize(
    "text", ["Grüße aus Köln, déjà vu, Привет, καλημέρα", "a few words: 你好, こんにちは", "🙂🎉👍🏽 ok"]
)
def test_a_foreign_word_is_no_foreign_text(text: str) -> None:
    """Covered scripts, a few words of another one, signs and emoji."""
    assert scan(text).verdict is Verdict.CLEAN


def test_too_long_is_unknown_and_not_scanned() -> None:
    """The bound is on all parts together."""
    scanner = Scanner(DetectSettings(most_chars=40))
    assert scan("a" * 39, scanner=scanner).verdict is Verdict.CLEAN
    assert scan("a" * 20, "b" * 20, scanner=scanner).reasons == ("too_long",)


def _detectors() -> list[str]:
    return list(Scanner(DetectSettings(site=SiteVocabulary(terms=(Terms("x", ("x",)),))))._detectors)


@pytest.mark.parametrize("name", _detectors())
def test_a_detector_that_raises_is_not_clean_and_stops_no_other(name: str) -> None:
    """Whichever it is; nor one that returns what is no place in the text, before or after it found something."""

    def raises(_: View) -> Iterator[Hit]:
        raise RecursionError

    def garbage(view: View) -> Iterator[Hit]:
        yield Hit(3, len(view.folded) + 1, "made.up")

    for broken in (raises, garbage, lambda _: None, lambda _: [1]):
        scanner = Scanner()
        scanner._detectors[name] = broken
        finding = scan("hello", scanner=scanner)
        assert (finding.verdict, finding.reasons) == (Verdict.UNKNOWN, (f"detector_failed:{name}",))
        other = scan("пароль: Qwerty123! и почта a@example.com", scanner=scanner)
        assert other.verdict is Verdict.SENSITIVE
        assert other.labels == {"secret.password", "email"} - (
            {"email"} if name == "emails" else {"secret.password"} if name == "secrets" else set()
        )


def test_required_names_without_a_model_are_unknown() -> None:
    """And a model that raises or returns garbage is not CLEAN either."""

    class Finder:
        def __init__(self, found) -> None:
            self._found = found

        def find(self, text: str):
            if self._found is None:
                raise OSError
            return self._found

    settings = DetectSettings(names=True)
    assert scan("hello", scanner=Scanner(settings)).reasons == ("not_installed:names",)
    for found in (None, [(0, 99)], [(3, 3)], [("a", "b")], 7):
        finding = scan("hello", scanner=Scanner(settings, Finder(found)))
        assert (finding.verdict, finding.reasons) == (Verdict.UNKNOWN, ("detector_failed:names",))
    assert scan("hello", scanner=Scanner(settings, Finder([]))).verdict is Verdict.CLEAN
    assert scan("hello", scanner=Scanner(settings, Finder([(0, 5)]))).labels == {"name.person"}


def test_a_label_that_is_not_wanted_is_left_out() -> None:
    """By its whole name, or by what stands before the dot."""
    text = f"снилс {SNILS}, диагноз: астма"
    assert scan(text).labels == {"ru.snils", "medical"}
    assert scan(text, scanner=Scanner(DetectSettings(without=frozenset({"ru"})))).labels == {"medical"}
    assert scan(text, scanner=Scanner(DetectSettings(without=frozenset({"medical"})))).labels == {"ru.snils"}


def test_what_is_not_wanted_takes_no_room_of_what_is() -> None:
    """However much of it one detector finds: the first places are counted of wanted labels alone."""
    text = "\n".join(f"phone 8 (495) 123-{number // 100:02}-{number % 100:02}" for number in range(10_000))
    scanner = Scanner(DetectSettings(without=frozenset({"ru.phone", "phone", "de"})))
    assert scan(text, scanner=scanner).verdict is Verdict.CLEAN
    assert "ru.snils" in scan(f"{text}\n\n\nснилс {SNILS}", scanner=scanner).labels


@pytest.mark.parametrize(
    "text",
    [
        "Проект «Мотылёк» в силе",
        "проект   МОТЫЛЁК",
        "прoект: мoтылёк",
        "о проекте Мотылёк",
        "проект-мо\u00adтылек",
        "КД-9000/17",
    ],
)
def test_a_sites_own_words_are_found(text: str) -> None:
    """In any case, with other spacing, with look-alike letters."""
    terms = (Terms("projects", ("Проект* Мотылёк", "кд 9000")),)
    finding = scan(text, scanner=Scanner(DetectSettings(site=SiteVocabulary(terms=terms))))
    assert finding.labels == {"site.projects"}
    assert (
        scan("мотылёк летит", scanner=Scanner(DetectSettings(site=SiteVocabulary(terms=terms)))).verdict
        is Verdict.CLEAN
    )


def test_a_sites_own_patterns_run_in_re2() -> None:
    """They find what they match; one that RE2 does not take is refused, and without RE2 the verdict is UNKNOWN."""
    pytest.importorskip("re2")
    site = SiteVocabulary(patterns=(Pattern("contract", r"К-\d{4}/[A-Z]{2}"),))
    text = "договор К-1234/AB"
    finding = scan(text, scanner=Scanner(DetectSettings(site=site)))
    assert [(span.label, text[span.start : span.end]) for span in finding.spans] == [("site.contract", "К-1234/AB")]
    with pytest.raises(BadSettings, match=r"site\.back"):
        Scanner(DetectSettings(site=SiteVocabulary(patterns=(Pattern("back", r"(a)\1"),))))


def test_a_pattern_without_re2_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not run by an engine that could take for ever, and not left out in silence."""
    monkeypatch.setitem(__import__("sys").modules, "re2", None)
    scanner = Scanner(DetectSettings(site=SiteVocabulary(patterns=(Pattern("any", "a"),))))
    assert scan("hello", scanner=scanner).reasons == ("not_installed:site_patterns",)


@pytest.mark.parametrize(
    "entry", [Terms("Bad Name", ("a",)), Terms("a", ("",)), Terms("a", ("***",)), Pattern("a", "")]
)
def test_a_vocabulary_that_cannot_be_is_refused(entry: Terms | Pattern) -> None:
    """Names that are no codes, terms that match nothing."""
    kind = "terms" if isinstance(entry, Terms) else "patterns"
    with pytest.raises(BadSettings):
        SiteVocabulary(**{kind: (entry,)})


def test_an_empty_request_is_clean() -> None:
    """No parts, and parts without text."""
    assert SCANNER.scan([]).verdict is Verdict.CLEAN
    assert scan("", "").verdict is Verdict.CLEAN
    assert SCANNER.scan(parts_of({})).verdict is Verdict.CLEAN
