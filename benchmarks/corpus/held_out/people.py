"""Names, addresses, dates of birth and e-mail addresses of nobody, for the held-out part.

As in `benchmarks.corpus.people`, a given name and a surname are drawn apart from each other, and e-mail addresses end
in domains that are kept for examples (RFC 2606). Russian names are inflected where a sentence asks for a case.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache
from random import Random
from typing import Final

from benchmarks.corpus.identifiers import born


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MEN: Final = _words(
    "Вадим Станислав Глеб Руслан Ильдар Арсений Валентин Герман Захар Матвей Рашид Степан Эдуард Ярослав "
    "Богдан Денис Леонид Анатолий Виталий Григорий"
)
WOMEN: Final = _words(
    "Людмила Надежда Валентина Лариса Маргарита Виктория Жанна Инна Эльвира Кристина Диана Гульнара "
    "Алевтина Раиса Регина Тамара Яна Карина Снежана Антонина"
)
FATHERS: Final = _words(
    "Вадимов Станиславов Русланов Валентинов Леонидов Эдуардов Денисов Степанов Геннадьев Анатольев "
    "Григорьев Рашидов Витальев Константинов"
)
"""Stems of patronymics: -ич and -на are put after."""
SURNAMES: Final = _words(
    "Голубев Виноградов Тарасов Белоусов Киселёв Ефимов Жуков Гаврилов Сидоркин Гарифуллин Ахметов "
    "Мамедов Пестряков Родионов Сухарев Щербинин Якушев Коновалов Дьячков Лаптев Чернышёв Завьялов "
    "Ермилов"
)
FIXED_SURNAMES: Final = ("Бондаренко", "Кравченко", "Седых", "Гончаренко")
"""Those that have no cases."""
_ADJECTIVAL: Final = ("Вишневск", "Залесск", "Дубровск")
GIVEN: Final = {
    "en": _words(
        "Declan Priya Marcus Siobhan Tyrone Fiona Rajesh Beatrice Callum Naomi Gareth Yasmin Douglas Imogen "
        "Leroy Maureen Desmond Rosalind Kwame Bridget Ahmed Olivia Trevor Gwendolyn"
    ),
    "de": _words(
        "Wolfgang Heike Torsten Gisela Markus Silke Dieter Annegret Florian Mehmet Aylin Sebastian Franziska "
        "Uwe Rainer Dörte Fatima Maximilian Ingrid Carsten Nadine Holger Leonie Karl-Heinz"
    ),
}
FAMILY: Final = {
    "en": _words(
        "Gallagher Okafor Sutherland Pemberton Whitaker Nakamura McAllister Delgado Fairbanks O'Rourke Patel "
        "Lindqvist Hawthorne Blackwood Ramirez Chaudhry Thornton Fitzgerald Abernathy Llewellyn Osborne "
        "Kaminski"
    ),
    "de": (
        *[
            "Schäfer",
            "Bauer",
            "Lorenz",
            "Vogel",
            "Kaiser",
            "Yilmaz",
            "Brandt",
            "Seidel",
            "Pfeiffer",
            "Haase",
            "Grünwald",
            "Oberhauser",
            "Dietrich",
        ],
        *[
            "Sommerfeld",
            "Kowalski",
            "Engelhardt",
            "Reuter",
            "Thiele",
            "Öztürk",
            "Stahlberg",
            "Wiedemann",
            "Weiß",
            "von&Hagen",
        ],
    ),
}
STREETS: Final = {
    "ru": (
        *("ул. Космонавтов", "ул. 8 Марта", "просп. Строителей", "Кленовая аллея", "пер. Кузнечный", "ул. Тургенева"),
        *("улица Маршала Жукова", "Сибирский тракт", "пр-т Октября", "ул. Верхняя Дуброва", "1-я Заречная ул."),
    ),
    "en": (
        *("Birchwood Court", "Larch Close", "Sycamore Terrace", "Quarry Hill", "Juniper Way", "Foxglove Crescent"),
        *("Kingsway", "Harrow Gardens", "W 14th St", "Old Post Rd", "Magnolia Blvd"),
    ),
    "de": (
        *("Rosenweg", "Ringstr.", "Kirchgasse", "An der Alten Ziegelei", "Beethovenstr.", "Hohenzollernring"),
        *("Ulmenweg", "Friedrich-Ebert-Platz", "Wiesengrund", "Lange Reihe", "Straße des Friedens"),
    ),
}
_RUSSIAN_TOWNS: Final = (
    *(("Тюмень", "Тюменская обл."), ("Саратов", "Саратовская обл."), ("Калуга", "Калужская обл.")),
    *(("Уфа", "Респ. Башкортостан"), ("Вологда", "Вологодская обл."), ("Барнаул", "Алтайский край")),
    *(("Рязань", "Рязанская область"), ("Ижевск", "Удмуртская Респ."), ("Подольск", "Московская обл.")),
)
_BRITISH_TOWNS: Final = (("Sheffield", "S"), ("Norwich", "NR"), ("Cardiff", "CF"), ("Exeter", "EX"), ("Glasgow", "G"))
_AMERICAN_TOWNS: Final = (
    *(("Boise", "ID", "837"), ("Tucson", "AZ", "857"), ("Duluth", "MN", "558")),
    *(("Albany", "NY", "122"), ("Spokane", "WA", "992")),
)
_GERMAN_TOWNS: Final = (
    *(("Stuttgart", "70"), ("Nürnberg", "90"), ("Hannover", "30"), ("Münster", "48"), ("Mainz", "55")),
    *(("Rostock", "18"), ("Erfurt", "99"), ("Potsdam", "14")),
)
_MONTHS: Final = {
    "ru": _words("января февраля марта апреля мая июня июля августа сентября октября ноября декабря"),
    "en": _words("January February March April May June July August September October November December"),
    "de": _words("Januar Februar März April Mai Juni Juli August September Oktober November Dezember"),
}
MAILBOXES: Final = (
    *("d.gallagher", "m_okafor", "torsten.seidel", "lyudmila1974", "heike-vogel", "vadim.golubev", "s.pemberton"),
    *("Uwe.Brandt", "imogen+claims", "r.garifullin", "naomi.whitaker88", "zhanna_k", "office.wiedemann", "gleb"),
    *("callum.mcallister", "kaiser.f", "t.efimova", "yasmin.chaudhry"),
)
_DOMAINS: Final = (
    *("corp.example.com", "mx.example.net", "klinik.example.org", "bank.example.net", "uni.example.org"),
    *("kanzlei.example.com", "pochta.example.org"),
)
_WORD: Final = re.compile(r"[^\W\d_]+")


def _endings(words: tuple[str, ...], *endings: str, cut: int = 0) -> dict[str, tuple[str, ...]]:
    """A word to its genitive, dative and instrumental."""
    return {word: tuple(word[: len(word) - cut] + ending for ending in endings) for word in words}


@lru_cache
def _cases() -> dict[str, tuple[str, ...]]:
    """Every word of a Russian name that has cases."""
    soft = tuple(word for word in MEN if word.endswith("й"))
    iya = tuple(word for word in WOMEN if word.endswith("ия"))
    other = tuple(word for word in WOMEN if word not in iya)
    sibilant = tuple(word for word in other if word[-2] in "гкх")
    hard = tuple(word for word in other if word not in sibilant)
    return {
        **_endings(tuple(word for word in MEN if word not in soft), "а", "у", "ом"),
        **_endings(soft, "я", "ю", "ем", cut=1),
        **_endings(iya, "и", "и", "ей", cut=1),
        **_endings(sibilant, "и", "е", "ой", cut=1),
        **_endings(hard, "ы", "е", "ой", cut=1),
        **_endings(tuple(f"{stem}ич" for stem in FATHERS), "а", "у", "ем"),
        **_endings(tuple(f"{stem}на" for stem in FATHERS), "ы", "е", "ой", cut=1),
        **_endings(SURNAMES, "а", "у", "ым"),
        **_endings(tuple(f"{name}а" for name in SURNAMES), "ой", "ой", "ой", cut=1),
        **_endings(tuple(f"{stem}ий" for stem in _ADJECTIVAL), "ого", "ому", "им", cut=2),
        **_endings(tuple(f"{stem}ая" for stem in _ADJECTIVAL), "ой", "ой", "ой", cut=2),
    }


def inflected(value: str, case: str) -> str:
    """A Russian name in the genitive (`gen`), dative (`dat`) or instrumental (`ins`); other words stay."""
    at = ("gen", "dat", "ins").index(case)

    def turned(word: re.Match[str]) -> str:
        forms = _cases().get(word[0].capitalize() if word[0].isupper() and len(word[0]) > 1 else word[0])
        if forms is None:
            return word[0]
        return forms[at].upper() if word[0].isupper() else forms[at]

    return _WORD.sub(turned, value)


def name(rng: Random, language: str) -> str:
    """Somebody's name as letters, forms, lists and payment orders write it."""
    if language == "ru":
        return _russian_name(rng)
    first, last = rng.choice(GIVEN[language]), rng.choice(FAMILY[language]).replace("&", " ")
    forms = [f"{first} {last}"] * 4 + [f"{last}, {first}", f"{last.upper()}, {first}", f"{first} {last.upper()}"]
    if language == "en":
        forms += [f"{first} {rng.choice('ABCDEJLMR')}. {last}"]
    return rng.choice(forms)


def _russian_name(rng: Random) -> str:
    woman = rng.random() < 0.5
    first = rng.choice(WOMEN if woman else MEN)
    middle = rng.choice(FATHERS) + ("на" if woman else "ич")
    drawn = rng.random()
    if drawn < 0.75:
        last = rng.choice(SURNAMES) + ("а" if woman else "")
    elif drawn < 0.88:
        last = rng.choice(_ADJECTIVAL) + ("ая" if woman else "ий")
    else:
        last = rng.choice(FIXED_SURNAMES)
    forms = [f"{last} {first} {middle}"] * 3 + [f"{first} {last}"] * 2
    forms += [f"{first} {middle} {last}", f"{last} {first[0]}.{middle[0]}.", f"{first[0]}. {middle[0]}. {last}"]
    return rng.choice([*forms, f"{last} {first}", f"{last.upper()} {first.upper()} {middle.upper()}"])


def address(rng: Random, language: str) -> str:
    """Somebody's address, as the country's post, an office or the person writes it."""
    street, house, flat = rng.choice(STREETS[language]), rng.randrange(1, 150), rng.randrange(1, 300)
    if language == "ru":
        town, region = rng.choice(_RUSSIAN_TOWNS)
        index = rng.randrange(140_000, 690_000)
        return rng.choice(
            (
                f"{index}, Россия, {region}, г. {town}, {street}, д. {house}, корп. {rng.randrange(1, 5)}, кв. {flat}",
                f"{region}, г. {town}, {street}, дом {house}, квартира {flat}",
                f"г.{town}, {street}, д.{house}/{rng.randrange(1, 6)}, кв.{flat}",
                f"{town}, {street} {house}, кв {flat}",
            )
        )
    if language == "de":
        town, zone = rng.choice(_GERMAN_TOWNS)
        code = f"{zone}{rng.randrange(100, 999)}"
        number = f"{house}{rng.choice(('', '', 'a', 'b'))}"
        return rng.choice(
            (
                f"{street} {number}, {code} {town}",
                f"{code} {town}, {street} {number}",
                f"{street} {number}, D-{code} {town}",
            )
        )
    if rng.random() < 0.5:
        town, letters = rng.choice(_BRITISH_TOWNS)
        code = f"{letters}{rng.randrange(1, 20)} {rng.randrange(1, 10)}{rng.choice('ABDEH')}{rng.choice('JLNPQ')}"
        return rng.choice((f"{house} {street}, {town}, {code}", f"Flat {flat}, {house} {street}, {town} {code}"))
    town, state, zone = rng.choice(_AMERICAN_TOWNS)
    code = f"{zone}{rng.randrange(1, 99):02}"
    house = rng.randrange(100, 9900)
    return rng.choice(
        (f"{house} {street}, {town}, {state} {code}", f"{house} {street} Apt {flat}, {town} {state} {code}")
    )


def birth_date(rng: Random, language: str) -> str:
    """A date of birth as people, forms and machines write it."""
    when = born(rng)
    month = _MONTHS[language][when.month - 1]
    forms = {
        "ru": (_dotted(when), f"{when:%d.%m.%y}", f"{when.day} {month} {when.year} года", f"{when:%d/%m/%Y}"),
        "en": (
            f"{when:%d/%m/%Y}",
            f"{when:%m/%d/%Y}",
            f"{when.day} {month} {when.year}",
            f"{when:%d}-{month[:3]}-{when:%Y}",
        ),
        "de": (
            _dotted(when),
            f"{when.day}.{when.month}.{when.year}",
            f"{when:%d.%m.%y}",
            f"{when.day}. {month} {when.year}",
        ),
    }
    return rng.choice((*forms[language], when.isoformat()))


def _dotted(when: dt.date) -> str:
    return f"{when:%d.%m.%Y}"


def email(rng: Random, _language: str) -> str:
    """A mailbox at a domain that is kept for examples."""
    return f"{rng.choice(MAILBOXES)}@{rng.choice(_DOMAINS)}"
