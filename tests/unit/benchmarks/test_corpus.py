"""`benchmarks.corpus`: identifiers by their published rules, spans that point at what they say, rows from a seed."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import unicodedata
from itertools import combinations, islice
from pathlib import Path
from random import Random
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.corpus import LABELS, PARTS, PUBLIC_NAME, Part, checks, identifiers, keys, people, row_of, rows
from benchmarks.corpus.carriers import BODIES, TEXTS
from benchmarks.corpus.clean import filled
from benchmarks.corpus.generator import value_of
from benchmarks.corpus.held_out import credentials
from benchmarks.corpus.held_out import people as held_out_people
from benchmarks.corpus.obfuscation import MANNERS, manners_of, written
from benchmarks.corpus.rows import Marks, strings_of
from benchmarks.corpus.templates import LANGUAGES, READABLE, SLOT, templates_of

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "benchmarks" / "corpus").rglob("*.*")) + sorted(Path(__file__).parent.glob("*.py"))
generators = st.integers(0, 2**32).map(Random)
parts = st.sampled_from(PARTS)

# Each from its issuer's own documentation, or the example that the literature on the number gives.
PUBLISHED = [
    (checks.snils, "112233445", "95"),
    (checks.snils, "087654303", "00"),
    (checks.inn_company, "770708389", "3"),
    (checks.inn_company, "783000229", "3"),
    (checks.inn_person, "5001007322", "59"),
    (checks.ogrn, "102770013219", "5"),
    (checks.ogrnip, "30450011600015", "7"),
    (checks.luhn, "411111111111111", "1"),
    (checks.luhn, "37828224631000", "5"),
    (checks.luhn, "7992739871", "3"),
    (checks.german_tax_id, "8609574271", "9"),
    (checks.german_tax_id, "4703689281", "6"),
    (checks.german_card, "L01X00T47", "1"),
    (checks.german_card, "T22000129", "3"),
    (checks.german_pension, "65170839J00", "3"),
    (checks.german_pension, "10010490A44", "3"),
    (checks.german_pension, "15070649C10", "3"),
    (checks.french_key, "2550814168025", "38"),
    (checks.french_key, "1841276451089", "46"),
    (checks.spanish_letter, "12345678", "Z"),
    (checks.spanish_letter, "01234567", "L"),
    (checks.italian_letter, "RSSMRA85T10A562", "S"),
    (checks.dutch_digit, "11122233", "3"),
    (checks.dutch_digit, "12345678", "2"),
    (checks.polish_digit, "4405140135", "9"),
    (checks.polish_digit, "0207080362", "8"),
    (checks.nhs_digit, "943476591", "9"),
    (checks.nhs_digit, "401023213", "7"),
]


@pytest.mark.parametrize(("rule", "body", "check"), PUBLISHED, ids=lambda value: getattr(value, "__name__", value))
def test_check_digits_are_those_of_published_examples(rule, body: str, check: str) -> None:
    """Whoever issues the number says so."""
    assert rule(body) == check


@pytest.mark.parametrize(
    ("bik", "account"), [("049805746", "40602810700000000025"), ("044030827", "40702810900000002851")]
)
def test_the_key_of_an_account_is_that_of_the_central_banks_example(bik: str, account: str) -> None:
    """Order 515 of the Bank of Russia, example 3, and an account of a public body."""
    assert checks.account_key(bik, account) == account[8]


@pytest.mark.parametrize(
    "number",
    ["DE89370400440532013000", "GB82WEST12345698765432", "FR1420041010050500013M02606", "NL91ABNA0417164300"],
)
def test_the_check_digits_of_an_iban_are_those_of_the_registry(number: str) -> None:
    """The examples of the countries in the registry of ISO 13616."""
    assert checks.iban_digits(number[:2], number[4:]) == number[2:4]


def bare(value: str) -> str:
    return "".join(sign for sign in value if sign.isalnum())


@given(generators, parts)
def test_numbers_pass_the_test_that_their_readers_make(rng: Random, part: Part) -> None:
    """Written the way round in which a number is verified, not made; in every part, however it is spelled."""
    language = "en"
    made = {label: bare(value_of(rng, label, language, part)[0]).upper() for label in identifiers.MAKERS}
    for label in ("card", "ru.medical_policy"):
        doubled = [int(d) * (1 + at % 2) for at, d in enumerate(reversed(made[label]))]
        assert sum(value // 10 + value % 10 for value in doubled) % 10 == 0
    turned = made["iban"][4:] + made["iban"][:4]
    assert int("".join(str(int(sign, 36)) for sign in turned)) % 97 == 1
    assert sum(int(d) * w for d, w in zip(made["nl.bsn"], (9, 8, 7, 6, 5, 4, 3, 2, -1), strict=True)) % 11 == 0
    assert sum(int(d) * w for d, w in zip(made["gb.nhs"], range(10, 0, -1), strict=True)) % 11 == 0
    assert sum(int(d) * (1, 3, 7, 9)[at % 4] for at, d in enumerate(made["pl.pesel"][:10] + "0")) % 10 == (
        -int(made["pl.pesel"][10]) % 10
    )
    nir = made["fr.nir"].replace("2A", "19").replace("2B", "18")
    assert (int(nir[:13]) + int(nir[13:])) % 97 == 0
    assert len(set(made["de.tax_id"][:10])) == 9
    assert made["de.tax_id"][0] != "0"
    assert int(made["ru.ogrn"][:12]) % 11 % 10 == int(made["ru.ogrn"][12])
    assert int(made["ru.ogrnip"][:14]) % 13 % 10 == int(made["ru.ogrnip"][14])
    snils = sum(int(d) * w for d, w in zip(made["ru.snils"][:9], range(9, 0, -1), strict=True)) % 101
    assert snils % 100 == int(made["ru.snils"][9:])
    assert made["es.dni"][8] == checks.DNI_LETTERS[int(made["es.dni"][:8]) % 23]
    for label, weights in (
        ("ru.inn_company", (2, 4, 10, 3, 5, 9, 4, 6, 8)),
        ("ru.inn_person", (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)),
    ):
        *body, last = map(int, made[label])
        assert sum(d * w for d, w in zip(body, weights, strict=True)) % 11 % 10 == last
    account, bik = value_of(rng, "ru.bank_account", language, part)
    account = bare(account)
    assert len(account) == 20
    assert sum(int(d) * (7, 1, 3)[at % 3] for at, d in enumerate(bik[6:] + account)) % 10 == 0
    area, group, serial = made["us.ssn"][:3], made["us.ssn"][3:5], made["us.ssn"][5:]
    assert area not in {"000", "666"}
    assert int(area) < 900
    assert group != "00"
    assert serial != "0000"


@given(generators, parts, st.sampled_from(LABELS), st.sampled_from(list(MANNERS)))
def test_a_manner_writes_the_same_value_otherwise(rng: Random, part: Part, label: str, manner: str) -> None:
    """What was added can be taken away again, and what the value is, is still there."""
    language = rng.choice(templates_of(part).languages_of(label))
    value, _ = value_of(rng, label, language, part)
    made, used = written(rng, value, label, language, manner)
    assert made != value
    assert used in manners_of(label)
    if used in {"zero_width", "soft_hyphen"}:
        assert "".join(sign for sign in made if unicodedata.category(sign) != "Cf") == value
    elif used == "base64":
        assert base64.b64decode(made).decode() == value
    elif used == "percent":
        assert unquote(made) == value
    elif used == "full_width":
        assert unicodedata.normalize("NFKC", made) == unicodedata.normalize("NFKC", value)
    elif used == "other_digits":
        folded = "".join(str(unicodedata.digit(sign, sign)) for sign in made)
        assert folded == value
    elif used in {"spaced", "dotted", "line_breaks", "nbsp"}:
        assert bare(made) == bare(value)
    elif used == "mixed_case":
        assert made.casefold() == value.casefold()
    elif used == "homoglyph":
        assert len(made) == len(value)
        assert any(a.isascii() != b.isascii() for a, b in zip(made, value, strict=True))
    else:
        assert used == "spelled"
        assert [sign for sign in made if sign.isdigit()] == [sign for sign in value if sign.isdigit()]


@pytest.mark.parametrize("part", PARTS)
def test_spans_point_at_what_they_say(part: Part) -> None:
    """At something whole, in a string that is there, under a label that is known; no mark is left behind."""
    for row in rows(7, 4_000, part):
        strings = strings_of(row.body) if row.body is not None else [("", row.text or "")]
        texts = dict(strings)
        assert (row.text is None) != (row.body is None)
        assert not any("\ue000" <= sign <= "\uf8ff" for _, text in strings for sign in text), row.id
        for span in row.spans:
            assert 0 <= span.start < span.end <= len(texts[span.where]), row
            assert row.value(span) == row.value(span).strip(), row
            assert span.label in {*LABELS, PUBLIC_NAME}
        assert row.is_sensitive == any(span.label in LABELS for span in row.spans) == (row.label is not None)
        if row.label is not None:
            assert (row.label, row.manner) in {(span.label, span.manner) for span in row.spans}


SHAPES = {
    "ru.snils": r"\d{3}[- ]?\d{3}[- ]?\d{3}[- ]?\d\d",
    "ru.inn_person": r"\d{12}",
    "ru.ogrnip": r"3\d{14}",
    "ru.bank_account": r"\d{20}|\d{5}([ .])\d{3}\1\d\1\d{4}\1\d{7}",
    "de.id_card": r"[A-Z0-9]{9}\d",
    "es.dni": r"(\d{8}|\d\d\.\d{3}\.\d{3})[- ]?[A-Z]",
    "it.codice_fiscale": r"(?i)[A-Z]{3} ?[A-Z]{3} ?\d\d[A-Z]\d\d ?[A-Z]\d{3}[A-Z]",
    "us.ssn": r"\d{3}[- ]?\d\d[- ]?\d{4}",
    "email": r"\S+@[a-z.]*example\.(com|net|org)",
    "secret.jwt": r"ey[\w-]+\.ey[\w-]+\.[\w-]+",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_plain_value_under_a_span_is_of_its_labels_shape(part: Part) -> None:
    """Through every carrier with all its quoting."""
    seen = set()
    for row in rows(3, 6_000, part):
        for span in row.spans:
            if span.label in SHAPES and span.manner == "plain":
                assert re.fullmatch(SHAPES[span.label], row.value(span)), row
                seen.add(span.label)
    assert seen == set(SHAPES)


@pytest.mark.parametrize("part", PARTS)
def test_every_label_manner_language_and_carrier_comes(part: Part) -> None:
    """And half of the rows are clean."""
    made = list(rows(1, 8_000, part))
    met = {(row.label, row.manner) for row in made if row.label}
    always = {"zero_width", "soft_hyphen", "percent", "base64"}
    assert {(label, manner) for label in LABELS for manner in {"plain", *always} & {"plain", *manners_of(label)}} <= met
    assert {row.manner for row in made} == {"plain", *MANNERS}
    assert {row.language for row in made} == {*LANGUAGES, "any"}
    frames = {
        name for of in (templates_of(part).shells, templates_of(part).scenes) for named in of.values() for name in named
    }
    assert {row.carrier for row in made if row.label} == {*TEXTS[part], *BODIES[part], *frames}
    assert sum(row.is_sensitive for row in made) == len(made) // 2


def test_a_row_is_the_same_in_every_run_and_however_many_are_made(tmp_path: Path) -> None:
    """Two processes that hash strings otherwise write the same bytes; a longer corpus begins with the shorter."""
    digests = []
    for salt in ("1", "2"):
        out = tmp_path / salt
        command = [sys.executable, "-m", "benchmarks.corpus", "--seed", "5", "--count", "300", "--part", "held-out"]
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, "--out", str(out)], env=environment, check=True, capture_output=True, text=True
        )
        assert done.stderr == "300 rows, 150 of them sensitive\n"
        digests.append(hashlib.sha256(out.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    lines = (tmp_path / "1").read_text(encoding="utf-8").splitlines()
    assert [row_of(line) for line in lines[:40]] == list(rows(5, 40, "held_out"))
    assert [row.line() for row in rows(6, 40, "held_out")] != lines[:40]


def test_a_row_is_read_back_from_its_line() -> None:
    """And the line says whether the row is sensitive, in one of `text` and `body`."""
    for row in rows(2, 200):
        assert row_of(row.line()) == row
        fields = json.loads(row.line())
        assert fields["is_sensitive"] == row.is_sensitive
        assert ("text" in fields) != ("body" in fields)


@pytest.mark.parametrize(("one", "other"), list(combinations(PARTS, 2)))
def test_no_two_parts_have_a_sentence_in_common(one: Part, other: Part) -> None:
    """Nor a frame, a vocabulary, a title, a key, a name or a carrier; in upper or in lower case."""
    first, second = templates_of(one), templates_of(other)

    def sentences(part: dict[str, dict[str, list[str]]]) -> set[str]:
        return {form.casefold() for by_label in part.values() for forms in by_label.values() for form in forms}

    def words(named: dict[str, list[str]]) -> set[str]:
        return {word for words in named.values() for word in words}

    for name in ("shells", "prose", "values", "clean"):
        assert not sentences(getattr(first, name)) & sentences(getattr(second, name))
    assert not words(first.keys) & words(second.keys)
    for language in LANGUAGES:
        assert not words(first.titles[language]) & words(second.titles[language]) - {"Token", "Mail"}
        assert set(first.titles[language]) == set(first.prose[language]) == set(second.prose[language])
        assert set(second.titles[language]) == set(second.prose[language])
    assert set(first.keys) == set(second.keys) == set(LABELS)
    assert not {*TEXTS[one], *BODIES[one]} & {*TEXTS[other], *BODIES[other]}
    shells = [{shell for language in LANGUAGES for shell in part.shells[language]} for part in (first, second)]
    assert not shells[0] & shells[1]
    rng = Random(1)
    for language in LANGUAGES:
        for label in ("name.person", "address", "email"):
            drawn = [{value_of(rng, label, language, part)[0] for _ in range(500)} for part in (one, other)]
            assert not drawn[0] & drawn[1]


def test_the_held_out_part_shares_no_name_street_or_mailbox_with_the_others() -> None:
    """Not a given name and not a surname: what one part taught about names is of no use in it."""
    names = {*held_out_people.MEN, *held_out_people.WOMEN, *held_out_people.SURNAMES, *held_out_people.FIXED_SURNAMES}
    names |= {
        name for of in (held_out_people.GIVEN, held_out_people.FAMILY) for listed in of.values() for name in listed
    }
    rng = Random(2)
    for part in READABLE:
        drawn = {
            word for language in LANGUAGES for _ in range(900) for word in people.name(rng, language, part).split()
        }
        assert not {word.strip(",") for word in drawn} & names
        streets = " ".join(people.address(rng, language, part) for language in LANGUAGES for _ in range(300))
        assert not [street for listed in held_out_people.STREETS.values() for street in listed if street in streets]
        mailboxes = {people.email(rng, part).partition("@")[0].rstrip("0123456789") for _ in range(300)}
        assert not mailboxes & {box.rstrip("0123456789") for box in held_out_people.MAILBOXES}


def test_the_held_out_part_says_each_thing_in_twice_as_many_ways() -> None:
    """As either of the others, for every label and language; and asks as much of what is clean."""
    held_out = templates_of("held_out")
    for language in LANGUAGES:
        for label, forms in held_out.prose[language].items():
            assert len(set(forms)) == len(forms)
            assert len(forms) >= 2 * max(len(templates_of(part).prose[language][label]) for part in READABLE), label
        most = [max(len(templates_of(part).shells[language]) for part in READABLE), len(held_out.shells[language])]
        assert most[1] > most[0]
    for language in (*LANGUAGES, "any"):
        said = [sum(map(len, templates_of(part).clean[language].values())) for part in PARTS]
        assert said[2] >= 2 * max(said[:2])
    assert len(TEXTS["held_out"]) >= 2 * max(len(TEXTS[part]) for part in READABLE)
    assert len(BODIES["held_out"]) >= 2 * max(len(BODIES[part]) for part in READABLE)


def test_scenes_ask_only_for_what_can_be_made() -> None:
    """For labels of their language, with one account at most, since one BIK stands beside it; and each label is met."""
    for part in PARTS:
        templates = templates_of(part)
        for language, scenes in templates.scenes.items():
            for name, scene in scenes.items():
                assert scene.format in {"text", "json", "xml", "sql"}
                assert scene.labels <= set(templates.prose[language]), name
                assert len(set(re.findall(r"\{@ru\.bank_account[^}]*\}", scene.text))) == scene.text.count("{bik}")
                assert "{@" not in SLOT.sub("", scene.text), name
    met = {
        label
        for scenes in templates_of("held_out").scenes.values()
        for scene in scenes.values()
        for label in scene.labels
    }
    assert met == set(LABELS)


@pytest.mark.parametrize(
    ("name", "case", "turned"),
    [
        ("Голубев Вадим Леонидович", "gen", "Голубева Вадима Леонидовича"),
        ("Голубева Мария Леонидовна", "dat", "Голубевой Мария Леонидовне"),
        ("Залесская Виктория Эдуардовна", "ins", "Залесской Викторией Эдуардовной"),
        ("Виталий Вишневский", "dat", "Виталию Вишневскому"),
        ("Матвей Гончаренко", "ins", "Матвеем Гончаренко"),
        ("Якушев Г.А.", "ins", "Якушевым Г.А."),
        ("БОНДАРЕНКО ЖАННА ДЕНИСОВНА", "gen", "БОНДАРЕНКО ЖАННЫ ДЕНИСОВНЫ"),
    ],
)
def test_russian_names_are_inflected_as_grammar_has_it(name: str, case: str, turned: str) -> None:
    """Words that are not in the lists, and surnames without cases, stay."""
    assert held_out_people.inflected(name, case) == turned


def test_clean_templates_know_all_that_they_ask_for() -> None:
    """And what is made up for them is no slot any more."""
    for part in PARTS:
        for kinds in templates_of(part).clean.values():
            for template in (template for forms in kinds.values() for template in forms):
                text, spans = (marks := Marks()).taken_out(filled(Random(1), template, marks))
                assert "{~" not in text
                assert {span.label for span in spans} <= {PUBLIC_NAME}


# As services that stop a push look for them.
PUSH_PROTECTION = re.compile(
    "A(?:KI|SI)A[A-Z2-7]{16}"
    "|AIza[\\w-]{35}"
    "|sk-(?:proj-|ant-)?[\\w-]{20}|xai-\\w{80}|nvapi-[\\w-]{64}"
    "|hf_[A-Za-z]{34}|gsk_\\w{52}|r8_\\w{37}|dop_v1_[a-f0-9]{64}|glpat-[\\w-]{20}|gh[pousr]_\\w{36}|AQVN[\\w-]{35}"
    "|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    "|ey[A-Za-z0-9_-]{17,}\\.ey[A-Za-z0-9_-]{17,}\\."
)


@pytest.mark.parametrize("source", [path for path in SOURCES if path.suffix in {".py", ".toml"}], ids=lambda p: p.name)
def test_no_source_holds_what_looks_like_a_key(source: Path) -> None:
    """Keys are drawn when the corpus is made, and not a prefix of one stands here in one piece."""
    assert not PUSH_PROTECTION.search(source.read_text(encoding="utf-8"))


def test_keys_of_the_corpus_have_the_shapes_that_are_looked_for() -> None:
    """So the search above would see one, if it stood in a source."""
    rng = Random(1)
    held_out = (credentials.private_key, credentials.cloud_key, credentials.model_key, credentials.jwt)
    for maker in (keys.private_key, keys.cloud_key, keys.model_key, keys.jwt, *held_out):
        assert all(PUSH_PROTECTION.search(maker(rng)) for _ in range(200)), maker


def test_the_corpus_knows_nothing_of_the_product() -> None:
    """It imports nothing of it, or its figures would be the product's own opinion of itself."""
    for path in (ROOT / "benchmarks" / "corpus").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "serving"], path


def test_rows_are_made_one_by_one() -> None:
    """Whoever wants the first of very many waits for no other."""
    assert len(list(islice(rows(1, 10**12), 3))) == 3
