"""Kinds of sensitive text, each in sentences of its own: what a person writes, and what only looks like it."""

from __future__ import annotations

import pytest

from serving.policy.detect import Part, Scanner, Verdict
from serving.policy.detect.names import is_somebody

SCANNER = Scanner()


def labels(text: str) -> set[str]:
    return set(SCANNER.scan([Part("/messages/0/content", text)]).labels)


@pytest.mark.parametrize(
    "text",
    [
        "mysql -h db -u root -pS3cret99 app",
        "curl -u anna:Winter2031 https://host/x",
        "login/pass: anna / Winter-12",
        "логин/пароль: ivan / Zvezda12",
        "креды: admin / frosch2",
        "Zugangsdaten: max / Winter2031!",
        "pw=frosch22",
        "unser pw ist Winter-4411",
        "Losung (Passwort): biene_0101",
        "<tr><th>Kennwort</th><td>biene_0101</td></tr>",
        '{"set": "passwd", "to": "biene_0101"}',
        "- name: DB_PASSWORD\n  value: frosch22",
        "пасс QwNkaRRFIq, никому",
        "db.local:5432:shop:shop:Frosch-77",
        "anna:$apr1$k2nTz0aB$Qm0cH7lqJr3sVt5wXy8zA1",
        "Authorization: Basic YW5uYTpXaW50ZXI=",
        "ALTER USER anna IDENTIFIED BY 'Frosch77'",
        "machine x login anna password Frosch77",
        "Server=db;User Id=sa;Password=Frosch77;",
    ],
)
def test_a_password_is_found_however_it_is_written_down(text: str) -> None:
    """In letters, commands, tables, settings of programs, files of passwords."""
    assert "secret.password" in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        'password = os.environ["DB_PASSWORD"]',
        "const passwordField = form.querySelector('#password');",
        "docker run -p 8080:80 nginx:1.25.3",
        "pin the base image\n\nsku,quantity\nKX-177049,19",
        "access: user/read-only",
        "Login: the user name and password are required",
    ],
)
def test_a_word_of_programs_is_no_password(text: str) -> None:
    """A variable, a port, a requirement."""
    assert SCANNER.scan([Part("", text)]).verdict is Verdict.CLEAN


@pytest.mark.parametrize(
    "text",
    [
        "Her GP found rheumatoid arthritis last autumn.",
        "У моего сына нашли эпилепсию, прошу перевести его на домашнее обучение.",
        "Wegen einer Lungenentzündung war meine Kollegin drei Wochen weg.",
        "Он на больничном, у него язвенный колит.",
        "My brother takes sertraline and quetiapine.",
        "Sie nimmt seit Mai Escitalopram.",
        "healthStatus: relapsing leukaemia",
        '{"name": "clinicalFinding", "value": "ovarian cyst"}',
        "<th>Befund</th><td>Mammakarzinom links</td>",
        "заключение врача: ревматоидный артрит",
    ],
)
def test_an_illness_of_somebody_is_found(text: str) -> None:
    """Said of a person, or behind the label of a record."""
    assert "medical" in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "How does leukaemia differ from lymphoma?",
        "Что такое подагра?",
        "Was ist der Unterschied zwischen Arthrose und Rheuma?",
        "Обнови мои зависимости и собери проект.",
        "Die Abhängigkeiten meines Projekts sind veraltet.",
        "Add the row to my table, then bypass the cache.",
    ],
)
def test_a_question_about_an_illness_is_nobodys(text: str) -> None:
    """And words of programs are no illness."""
    assert "medical" not in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "He is £4,200 in arrears with his rent.",
        "Взял два микрокредита, теперь приходят коллекторы.",
        "У неё долг 85 000 ₽ по расписке.",
        "Autokredit über 18.000 €, Rate seit Mai offen.",
        "Gegen sie läuft ein Verbraucherinsolvenzverfahren.",
        "wage garnishment since June",
        '{"set": "annualIncome", "to": "48 300"}',
        "The takeover bid is to be made public on Friday.",
    ],
)
def test_somebodys_money_is_found(text: str) -> None:
    """Income, debt and ruin, the sum before or behind the word; and what the market does not know."""
    assert "financial" in labels(text)


@pytest.mark.parametrize(
    "text", ["What is the difference between a mortgage and a loan?", "Чем кредит отличается от займа?"]
)
def test_a_question_about_money_is_nobodys(text: str) -> None:
    """Where nobody is named and no sum."""
    assert "financial" not in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "classification: restricted",
        "<th>Гриф</th><td>ограниченного пользования</td>",
        "RESTRICTED\n\nMinutes of the board",
        "R e s t r i c t e d",
        "FIRMENVERTRAULICH",
        "Strictly internal",
        "Не подлежит передаче третьим лицам",
        "S T R E N G G E H E I M",
        "Con fid ent ial",
        "к о н ф и д е н ц и а л ь н о",
        "Comm erci alin conf iden ce",
        "Медицинская тайна",
    ],
)
def test_a_label_is_found_also_with_gaps(text: str) -> None:
    """Pieces of one length with spaces between them are read as the word that they are."""
    assert "document_label" in labels(text)


def test_short_words_in_a_row_are_no_label() -> None:
    """As prose has them."""
    assert "document_label" not in labels(
        "He is at it as he is to do so. Was it on the map, or did the cat get the hat?"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Am Anger 12, 99084 Erfurt",
        "Kastanienhof 7a, 10435 Berlin",
        "г. Тверь, пл. Победы, 12-44",
        "Сосновый переулок, 14-2",
        "14 Primrose Gardens, Leeds LS6 2AB",
        "220 Broadway, New York, NY 10038",
        "Altstadtring 5",
    ],
)
def test_an_address_is_found_whatever_the_street_is_called(text: str) -> None:
    """A house beside a street, or beside a postcode and a town."""
    assert "address" in labels(text)


@pytest.mark.parametrize("text", ["Bearing 083-869-9979 replaces it.", "Engineering 101", "Spring 2031 begins."])
def test_a_word_that_ends_as_streets_do_is_no_address(text: str) -> None:
    """English words in -ring, and numbers that go on."""
    assert "address" not in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "Er kam am 4.6.1971 zur Welt.",
        "Д. р. – 04.06.1971",
        "customerDob=1971-06-04",
        "id;dob;state\n" + "1;x;y\n" * 20 + "2;04.06.1971;new",
        "born June 4, 19\n71",
        "1971 г.р.",
        "Jahrgang 1971",
        "<th>Geburtsdatum</th><td>4. Juni 1971</td>",
    ],
)
def test_a_date_of_birth_is_found(text: str) -> None:
    """Before and behind its word, in a column, cut by a line's end; a year with `г.р.`."""
    assert "birth_date" in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "Bitte Imke Vogel anrufen.",
        "please call rhys sutton",
        "mARTHA GiBbs hat angerufen",
        "employeeName: tADEK nOWAK",
        "передайте ирИНе СмиРНОвой",
        "VALUES ('7112', 'Thomas Becker')",
        "Sаndrа Неss called",
        "Wagner, Sabine",
    ],
)
def test_a_name_is_found_in_any_case(text: str) -> None:
    """A usual given name beside a usual surname; with look-alike letters; in quotes."""
    assert "name.person" in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "Johann Wolfgang von Goethe schrieb ihn.",
        "Who was Marie Curie?",
        "Richard Wagner composed it.",
        "I will cook on a summer day; may the price rise?",
        "Mark long lines and bill the client.",
    ],
)
def test_a_name_that_everybody_knows_is_nobodys_secret(text: str) -> None:
    """Nor are words of prose that are names too."""
    assert "name.person" not in labels(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Заявка-6440088476 закрыта", "Заявка-6440088476"),
        ("Объясни разницу", "Объясни"),
        ("Расскажи про Льва Толстого", "Льва Толстого"),
    ],
)
def test_what_the_model_takes_for_a_name_is_looked_at(text: str, name: str) -> None:
    """Numbers, requests and persons of history are none."""
    at = text.index(name)
    assert not is_somebody(text, at, at + len(name))


def test_a_name_of_the_model_stands() -> None:
    """Where it may be one."""
    assert is_somebody("Смирнова уволена", 0, 8)
    assert is_somebody("Звонил Тимур Ахметзянов", 7, 23)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("ausgewiesen mit Perso, Seriennummer M9M947MKX2", "de.id_card"),
        ("he gave me his social: 51.94.92.24.9", "us.ssn"),
        ("В/у, серия и номер – 4527 186292", "ru.driving_licence"),
        ("серия и номер: 4527 186292", "ru.passport"),
        ("passport 2418 space № space 706561", "ru.passport"),
        ("passport 5209 № 6853\n79", "ru.passport"),
        ("тел. 8 пробел (962) пробел 361 тире 06 тире 23", "ru.phone"),
        ("Rentenversicherungsnummer: 28 240574 G 2\n25; Status", "de.pension"),
        ("-----BEGIN EC PRI\nVATE KEY-----\nabc", "secret.private_key"),
    ],
)
def test_an_identifier_is_found_beside_the_words_of_its_document(text: str, label: str) -> None:
    """Serial numbers of documents, the words that documents share, and the end of a line anywhere."""
    assert label in labels(text)


@pytest.mark.parametrize(
    "text",
    ["Bearing serial no. M9M947MKX2 replaced", "29.02.2031 13:36 node75 kernel", "Frachtbrief 4527186292 quittiert"],
)
def test_a_serial_number_of_a_thing_is_none(text: str) -> None:
    """Nor is a moment."""
    assert SCANNER.scan([Part("", text)]).verdict is Verdict.CLEAN


@pytest.mark.parametrize(
    "text",
    [
        "ВУ 99 12 345678",
        "стаж с 2005, ву №7712345678",
        "ВУ серии 77 12 № 654321",
        "удост. водителя 9912 345678",
        "prava: 9912345678",
    ],
)
def test_a_licence_stands_behind_its_short_name(text: str) -> None:
    """Which reads as an English word once letters that look alike are one."""
    assert "ru.driving_licence" in labels(text)
    assert "ru.driving_licence" not in labels(f"sorted by {text[-9:]}")


@pytest.mark.parametrize("text", ["ring 0044 20 7946 0958", "Telefon 00 49 30 1234567", "fax 0033.1.23.45.6789"])
def test_a_telephone_is_dialled_with_two_noughts_too(text: str) -> None:
    """Near a word that says so."""
    assert "phone" in labels(text)


@pytest.mark.parametrize(
    "text", ["00 10 20 30 40 50 60", "1.00 2000 3000", "00 12 13 14 15", "00 49 30 1234567", "2026-00 49 30"]
)
def test_a_row_of_figures_is_no_telephone(text: str) -> None:
    """Though it has two noughts."""
    assert "phone" not in labels(text)
