"""Whatever is scanned: an answer that holds, at a cost in proportion to the length."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from serving.policy.detect import Part, Scanner, Verdict, parts_of
from serving.policy.detect.fold import view_of

SCANNER = Scanner()
TEXT = st.text(max_size=300) | st.text(
    st.sampled_from("0123456789 -./@:\n\"'\\%=&;№паспортИННинн㎖½…\u200b\u0301sk-eyJAKIAulstr.straße<>(){}"),
    max_size=300,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["content", "type", "input", "prompt", "image_url", "properties"]) | st.text(max_size=9),
        inner, max_size=4 ),
    max_leaves=20,
)  # fmt: skip
IDENTIFIERS = [
    ("паспорт", "4510123456", "ru.passport"),
    ("снилс", "11223344595", "ru.snils"),
    ("инн", "7707083893", "ru.inn_company"),
    ("инн", "500100732259", "ru.inn_person"),
    ("огрн", "1027700132195", "ru.ogrn"),
    ("огрнип", "304500116000157", "ru.ogrnip"),
    ("полис", "7755123456789012", "ru.medical_policy"),
    ("счет", "40817810099910004312", "ru.bank_account"),
    ("тел.", "89161234567", "ru.phone"),
    ("карта", "4111111111111111", "card"),
    ("iban", "DE89370400440532013000", "iban"),
    ("ssn", "123456789", "us.ssn"),
    ("npi", "1234567893", "us.npi"),
    ("pesel", "44051401359", "pl.pesel"),
    ("bsn", "111222333", "nl.bsn"),
    ("nhs", "9434765919", "gb.nhs"),
    ("steuer-id", "86095742719", "de.tax_id"),
    ("nir", "255081416802538", "fr.nir"),
]
DIGITS = ["0123456789", "０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗"]
ALIKE = str.maketrans("аеорсухіАЕОРСУХ", "aeopcyxiAEOPCYX")
SEPARATORS = [" ", "-", ".", "/", "_", "\u00a0", "\n", " - ", "\u2009", "\u2011"]


@given(TEXT, TEXT)
@example("\ud800 \udfff", "İıſß")
@example("a" * 300 + "@", "0" * 300)
def test_a_finding_is_sound(first: str, second: str) -> None:
    """Spans lie in their parts, the verdict follows from what is there, nothing crashed, and it is repeatable."""
    parts = [Part("/a", first), Part("/b", second)]
    finding = SCANNER.scan(parts)
    sizes = {"/a": len(first), "/b": len(second)}
    assert all(0 <= span.start < span.end <= sizes[span.where] for span in finding.spans)
    assert (finding.verdict is Verdict.SENSITIVE) == bool(finding.spans)
    assert (finding.verdict is Verdict.CLEAN) == (not finding.spans and not finding.reasons)
    assert not [reason for reason in finding.reasons if reason.startswith("detector_failed")]
    assert SCANNER.scan(parts) == Scanner().scan(parts) == finding


@given(st.text(max_size=200))
def test_the_normal_forms_lead_back(text: str) -> None:
    """They are as long as each other, normal already, and each place of them comes from a place of the text."""
    view = view_of(text)
    assert len(view.plain) == len(view.folded)
    assert view_of(view.folded).folded == view.folded
    for place in range(len(view.plain)):
        start, end = view.origin(place, place + 1)
        assert 0 <= start < end <= len(text)
        assert view.plain[place] in view_of(text[start:end]).plain


@given(st.dictionaries(st.text(max_size=9), JSON, max_size=4))
def test_every_text_of_a_body_is_in_its_parts(body: dict) -> None:
    """But for what is said to be unread; and no body makes the walk raise."""
    parts = parts_of(body)
    finding = SCANNER.scan(parts)
    assert not [reason for reason in finding.reasons if reason.startswith("detector_failed")]
    assume(not any(part.unread for part in parts))
    read = {part.text for part in parts}

    def check(value: object) -> None:
        if isinstance(value, str):
            assert value in read
        elif isinstance(value, list):
            for item in value:
                check(item)
        elif isinstance(value, dict):
            for item in value.values():
                check(item)

    check(body)


@pytest.mark.parametrize(("word", "digits", "label"), IDENTIFIERS, ids=[label for *_, label in IDENTIFIERS])
@settings(max_examples=60)
@given(data=st.data())
def test_no_way_of_writing_hides_an_identifier(word: str, digits: str, label: str, data: st.DataObject) -> None:
    """Any separator anywhere, digits of any script, invisible characters, look-alike letters beside it."""
    separator = data.draw(st.sampled_from(SEPARATORS))
    places = data.draw(
        st.one_of(st.just(set(range(1, len(digits)))), st.sets(st.integers(1, len(digits) - 1), max_size=4))
    )
    script = str.maketrans("0123456789", data.draw(st.sampled_from(DIGITS)))
    invisible = data.draw(st.sampled_from(["", "\u200b", "\u00ad", "\ufeff", "\u2060"]))
    written = "".join(
        (separator if index in places else "") + digit.translate(script) + invisible
        for index, digit in enumerate(digits)
    )
    word = data.draw(st.sampled_from([word, word.upper(), word.translate(ALIKE)]))
    assert label in SCANNER.scan([Part("", f"{word}: {written}")]).labels


UNITS = [
    "1", "1 ", "12-", "4111 ", "1234567890", "12 34 ", "7 7 0 7", "a1", "1a", "12.03.", "12.03.1985 ", "@", "a@",
    "a@b.", "a.a@a.a",
    "(at) ", "a at a dot ", "+7", "+1 ", "04", "номер ", "№ ", "серия 4510 ", "инн ", "ул. ", "ул. д ", "str. ",
    "weg 1 ", "1 A ",
    "1 Street ", "born ", "г.р. ", "рожд", "1.1.", "jan ", "мая 1 ", "пароль", "пароль: ", "password=", "pass pass ",
    "token is ",
    "sk-", "eyJ", "eyJa.", "AKIA", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "://", "://a:", "://a:b",
    "key key ", "ФИО ", "ФИО: А",
    "Иванович ", "Аа", "А.", "Mr ", "Dr. Dr. ", "\\", "\\u00", "\\u0031", "%", "%31", "&#", "&#49;", "=3", "=\n",
    "A" * 12 + "\n", "MTIz",
    "deadbeef", "0a-", "GB82", "G B 8 2 ", "D E 8 9 3 7 ", "rssmra85t10", "пациент ", "диагноз ", "зарплата ",
    "счет ", "тайна ",
    "конфиденциально ", "ДСП ", "\u0301", "\u200b", "½", "㎖", "ﷺ", "漢", "\x00", "\ud800", "🙂", " ", "\n", "\t", "{",
    "[", '"', "'", "_", "login/pass: ", "креды: a / ",
    "curl -u a:", "mysql -p", "$2y$10$", "-----BEGIN\n", "c o n f ",
    "к о н ф и ", "anna ", "anna smith ", "smith, ", "иван петров ", "Иванович Петров ", "долг ", "5 руб ",
    "долг 5 руб ",
    "depression ", "ich depression ", "мне поставили ", "Am Markt 1, 12345 ", "Am Am Am ", "12 Oak Row ",
    "пл. ", "пл. Мира, ",
    "jahrgang ", "1971 г.р. ", "12.03.1985 zur welt ", "befund: ", "employee: ", "employee: a b ", ":*:", "a:5432:b:c:",
    "ВУ ", "ву 12 ", "00 ", "0044 20 ", "Иванов", "fooBar", "aB", "4510 № ", "4510 a b c ", "123456 series ", "ВУ РФ ",
    "1 + ", "12345678Z ", "0151 ", "4510;123456;", "12.345.678-", "ab 12 34 c\n", "T22-",
]  # fmt: skip


def seconds(text: str) -> float:
    """The least of three: a scan's own processor time."""
    parts = [Part("", text)]
    times = []
    for _ in range(3):
        begin = time.thread_time()
        SCANNER.scan(parts)
        times.append(time.thread_time() - begin)
    return min(times)


def ratio(piece: str, length: int, head: str = "") -> float:
    """How much more twice the length costs, behind a head; a hundredth of a second is nothing."""
    text = (piece * (length // len(piece) + 1))[:length]
    short, long = seconds(head + text[: length // 2]), seconds(head + text)
    return (long + 0.01) / (short + 0.01)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: re.sub(r"\W", "_", unit.encode("unicode-escape").decode()))
def test_repeats_cost_in_proportion(unit: str) -> None:
    """Twice as much of anything that a detector begins with takes about twice as long."""
    piece = unit
    assert min(ratio(piece, 32_000) for _ in range(2)) < 2.6 or min(ratio(piece, 64_000) for _ in range(3)) < 2.6


WOKEN = "passport 4510 123456, id T220001293, ДНИ 12345678Z, +49 30 1234567, пациент Иванов, order 9, серия\n\n"
"""For what many detectors read more closely: they look at words only where there is a number."""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: re.sub(r"\W", "_", unit.encode("unicode-escape").decode()))
def test_repeats_behind_identifiers_cost_in_proportion(unit: str) -> None:
    """So do they where all detectors are awake."""
    assert (
        min(ratio(unit, 32_000, WOKEN) for _ in range(2)) < 2.6
        or min(ratio(unit, 64_000, WOKEN) for _ in range(3)) < 2.6
    )


@settings(max_examples=30)
@given(st.lists(st.sampled_from(UNITS), min_size=1, max_size=5))
def test_mixtures_cost_in_proportion(units: list[str]) -> None:
    """And so do mixtures of them."""
    piece = "".join(units)
    assert min(ratio(piece, 32_000) for _ in range(2)) < 2.6 or min(ratio(piece, 64_000) for _ in range(3)) < 2.6
