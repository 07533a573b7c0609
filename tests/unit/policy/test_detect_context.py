"""What stands around a number says what it is: nearby, in a key, over a column; or that it is something else."""

from __future__ import annotations

import pytest

from serving.policy.detect import Part, Scanner, Verdict

SCANNER = Scanner()


def labels(text: str) -> set[str]:
    return set(SCANNER.scan([Part("/messages/0/content", text)]).labels)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Идентификационный номер налогоплательщика 7707083893", "ru.inn_company"),
        ("customerInn: 7707083893", "ru.inn_company"),
        ("реквизиты поставщика: 7707083893", "ru.inn_company"),
        ("taxNumber=7707083893", "ru.inn_company"),
        ("company_reg_no: 1027700132195", "ru.ogrn"),
        ("citizen service number 111222333", "nl.bsn"),
        ("Dutch tenant: 111222333", "nl.bsn"),
        ("health service number is 9434765919", "gb.nhs"),
        ("policyNumber: 7755123456789012", "ru.medical_policy"),
        ("Fahrerlaubnis 7714 123456", "ru.driving_licence"),
        ("driver's licence no. 7714 123456", "ru.driving_licence"),
        ("удостоверение личности 4510 123456", "ru.passport"),
        ("для связи с ней 030 901820123", "phone"),
    ],
)
def test_other_words_for_the_same_thing_are_known(text: str, label: str) -> None:
    """Of forms, of letters and of programs, in snake case and in camel case."""
    assert label in labels(text)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("передайте 500100732259 коллегам", "ru.inn_person"),
        ("11223344595", "ru.snils"),
        ("1027700132195 проверить", "ru.ogrn"),
        ("304500116000157", "ru.ogrnip"),
        ("44051401359", "pl.pesel"),
        ("86095742719", "de.tax_id"),
        ("12345678Z", "es.dni"),
        ("X1234567L", "es.nie"),
        ("AB123456C", "gb.nino"),
        ("77 АВ 123456", "ru.driving_licence"),
        ("4510 № 123456", "ru.passport"),
        ("call (212) 555-0198", "phone"),
    ],
)
def test_what_hardly_any_other_number_is_needs_no_word(text: str, label: str) -> None:
    """Two check digits, a date and a check digit, a form with letters."""
    assert label in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "Заказ 500100732259 передан",
        "Ticket 500100732259 is in progress",
        "seq=500100732259",
        "tracking no. 11223344595",
        "Sendungsnummer 11223344595",
        "Bestellung Nr. 44051401359",
        "article no. 12345678Z",
        "part no. AB123456C",
        "backup of 202501311242",
        "Filter, part no. 316-555-1935, 14 in stock",
        "sku,quantity\n316-555-1935,14",
        "Артикул 724-523-9556",
        "1700000000000",
        "Traceback (most recent call last):\nValueError: 5219197289",
        "Поставщик отгрузил заказ 7707083893",
        "2024.01.123",
    ],
)
def test_a_number_of_something_counted_is_no_identifier(text: str) -> None:
    """Orders, parts, parcels, moments: though a checksum is right, or a shape is that of a telephone number."""
    finding = SCANNER.scan([Part("/messages/0/content", text)])
    assert finding.verdict is Verdict.CLEAN, finding


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("row;inn;state\n" + "1;x;y\n" * 60 + "1;7707083893;new", "ru.inn_company"),
        ("| № | ИНН |\n| --- | --- |\n" + "| 1 | - |\n" * 60 + "| 1 | 7707083893 |", "ru.inn_company"),
        ("INSERT INTO t (row_id, bsn) VALUES " + "(1, 'x'), " * 60 + "(2, '111222333');", "nl.bsn"),
        ('{"columns": ["n", "bsn"], "rows": [' + '[1, "x"], ' * 60 + '[2, "111222333"]]}', "nl.bsn"),
        ("<tr><th>n</th><th>BSN</th></tr>" + "<tr><td>x</td></tr>" * 60 + "<tr><td>111222333</td></tr>", "nl.bsn"),
    ],
    ids=["csv", "markdown", "sql", "json", "html"],
)  # fmt: skip
def test_a_heading_says_what_is_under_it(text: str, label: str) -> None:
    """However many rows are between them."""
    assert label in labels(text)


def test_a_column_of_orders_is_not_one_of_people() -> None:
    """Though the column beside it is."""
    finding = SCANNER.scan([Part("", "inn;order\n" + "-;-\n" * 60 + "-;7707083893\n" * 9)])
    assert finding.verdict is Verdict.CLEAN, finding


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("СНИЛС 112 тире 233 тире 445 пробел 95", "ru.snils"),
        ("NHS number 943 dash 476 dash 5919", "gb.nhs"),
        ("Steuer-ID 86 Leerzeichen 095 Leerzeichen 742 Leerzeichen 719", "de.tax_id"),
        ("ivan точка petrov собака mail точка ru", "email"),
        ("anna dot schmidt at mail dash server dot de", "email"),
        ("anna Punkt schmidt ät mail Punkt de", "email"),
        ("телефон плюс 7 пробел 916 пробел 123 тире 45 тире 67", "ru.phone"),
        ("RSSM.RA85.T10A.562S", "it.codice_fiscale"),
        ("R S S M R A 8 5 T 1 0 A 5 6 2 S", "it.codice_fiscale"),
        ("RSSMRA\n85T10A562S", "it.codice_fiscale"),
        ("12 34 56 78 Z", "es.dni"),
        ("1234\n5678Z", "es.dni"),
        ("15.07.06.49.C1.03", "de.pension"),
        ("+ 4 9 3 0 9 0 1 8 2 0", "phone"),
        ("+33 6\n79 09 93 62", "phone"),
        ("ИНН: NzcwNzA4Mzg5Mw==", "ru.inn_company"),
        ("| 17 | 11 22 33 44 59 5 | снилс |", "ru.snils"),
        ("1. снилс 11 22 33 44 59 5. 2. дальше", "ru.snils"),
        ("AKIAIOSFOD\nNN7EXAMPLE", "secret.cloud_key"),
        ("родился 12/03\n/1985", "birth_date"),
    ],
)
def test_a_number_is_found_however_it_is_cut(text: str, label: str) -> None:
    """Signs as words, groups of any length, the end of a line in the midst, base64 in its place."""
    assert label in labels(text)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Personalausweis L01X00T478", "de.id_card"),
        ("Ausweis: L 0 1 X 0 0 T 4 7 8", "de.id_card"),
        ("L01X00T471", "de.id_card"),
    ],
)
def test_an_identity_card_has_few_digits_and_is_seen(text: str, label: str) -> None:
    """In capitals by its check digit; otherwise with a word."""
    serial = "".join(letter for letter in text.rpartition(":")[2] if letter.isalnum())[-10:]
    check = sum(int(letter, 36) * weight for letter, weight in zip(serial[:9], (7, 3, 1) * 3, strict=True)) % 10
    assert label in labels(text[:-1] + str(check))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Диагноз: редкая штука", "medical"),
        ("У пациентки псориаз", "medical"),
        ("she was prescribed warfarin", "medical"),
        ("Patient, E11.9", "medical"),
        ("Er leidet an Migräne", "medical"),
        ("Befund: Verdacht auf etwas", "medical"),
        ("the tenant owes 4,200 EUR", "financial"),
        ("Zahlungsrückstand von 1.400 €", "financial"),
        ("кредитный рейтинг 480", "financial"),
        ("Privatinsolvenz", "financial"),
        ("Not to be disclosed", "document_label"),
        ("Ограниченного доступа", "document_label"),
        ("Streng geheim", "document_label"),
        ("classification=CONFIDENTIAL", "document_label"),
        ("yesterday I spoke to Martin Kowalk about it", "name.person"),
        ("Kowalk, Martin", "name.person"),
        ("INSERT INTO t (n, password, state) VALUES ('9', 'O0!rUx%Ki5#GF', 'new')", "secret.password"),
        ("log in with anna / Tr0ub4dor&3", "secret.password"),
        ("д/р 12.03.1985", "birth_date"),
        ("DOB 07/22/1979", "birth_date"),
    ],
)
def test_wordings_beyond_the_usual_ones_are_found(text: str, label: str) -> None:
    """Illnesses told of somebody, money, labels, names by given names, passwords at a distance, dates month first."""
    assert label in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "What are the causes of psoriasis and asthma?",
        "Чем грипп отличается от бронхита?",
        "Is warfarin soluble in water?",
        "diagnosis: str | None = None",
        "Charles Dickens wrote it",
        "Martin Street is closed",
        "the charge: international",
        "log in with your account and press enter",
        "schema login: {id: integer, next-step: string}",
    ],
)
def test_what_is_told_of_nobody_is_clean(text: str) -> None:
    """An encyclopaedia's question, code, persons of history, streets."""
    finding = SCANNER.scan([Part("/messages/0/content", text)])
    assert finding.verdict is Verdict.CLEAN, finding
