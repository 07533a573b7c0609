"""What is made up on the spot in clean rows: numbers, hashes, and names that are nobody's secret."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from random import Random
from typing import Final

from benchmarks.corpus.identifiers import digits
from benchmarks.corpus.rows import PUBLIC_NAME, Marks

_SLOT: Final = re.compile(r"\{~(\w+)\}")
_COUNTED: Final = re.compile(r"(digits|hex)(\d+)")
_CHOICES: Final = {
    "company_ru": ("Северный ветер", "ТехноСтрой", "Ромашка", "Альфа-Логистик"),
    "place_ru": ("Тула", "Иркутск", "Мурманск", "Суздаль"),
    "company_en": ("Northwind Traders", "Contoso Ltd", "Acme Corporation", "Blue Harbor Foods"),
    "place_en": ("Rotterdam", "Denver", "Newcastle", "Nashville"),
    "company_de": ("Nordlicht GmbH", "Musterbau AG", "Alpenfrisch KG", "Rheintal Logistik GmbH"),
    "place_de": ("Dortmund", "Dresden", "Kassel", "Freiburg"),
    "firm_ru": ("Уралмаш-Сервис", "Полюс", "Балтика-Трейд", "Камский бекон", "Вектор", "Заря"),
    "town_ru": ("Псков", "Череповец", "Магадан", "Елабуга", "Сызрань", "Кострома"),
    "firm_en": ("Granite Peak Energy", "Umbrella Foods plc", "Tidewater Rail", "Fabrikam Inc.", "Quill & Sons"),
    "town_en": ("Aberdeen", "Sacramento", "Cork", "Wolverhampton", "Savannah", "Halifax"),
    "firm_de": (
        "Hanseatische Seilerei AG",
        "Donauwerke GmbH",
        "Bäckerei Kornblume",
        "Eifel Energie eG",
        "Spreewald KG",
    ),
    "town_de": ("Göttingen", "Chemnitz", "Bielefeld", "Passau", "Flensburg", "Trier"),
}
_PUBLIC: Final = {
    "public_ru": ("Александр Пушкин", "Родион Раскольников", "Екатерина Вторая", "Андрей Болконский", "Лев Толстой"),
    "public_en": ("Jane Austen", "Sherlock Holmes", "Isaac Newton", "Elizabeth Bennet", "Charles Dickens"),
    "public_de": ("Johann Wolfgang von Goethe", "Immanuel Kant", "Friedrich Schiller", "Gregor Samsa", "Effi Briest"),
    "figure_ru": (
        "Михаил Ломоносов",
        "Анна Каренина",
        "Евгений Базаров",
        "Иван Грозный",
        "Дмитрий Менделеев",
        "Остап Бендер",
    ),
    "figure_en": (
        "Charles Darwin",
        "Oliver Twist",
        "Ada Lovelace",
        "Captain Ahab",
        "Florence Nightingale",
        "Huckleberry Finn",
    ),
    "figure_de": ("Ludwig van Beethoven", "Hans Castorp", "Clara Schumann", "Otto von Bismarck", "Till Eulenspiegel"),
}


def filled(rng: Random, template: str, marks: Marks) -> str:
    """The template with everything made up; public names are marked as such."""
    return _SLOT.sub(lambda slot: _made(rng, slot[1], marks), template)


def _made(rng: Random, name: str, marks: Marks) -> str:
    counted = _COUNTED.fullmatch(name)
    if counted:
        signs = "0123456789abcdef" if counted[1] == "hex" else "0123456789"
        return rng.choice(signs[1:]) + "".join(rng.choice(signs) for _ in range(int(counted[2]) - 1))
    if name in _CHOICES:
        return rng.choice(_CHOICES[name])
    if name in _PUBLIC:
        return marks.mark(rng.choice(_PUBLIC[name]), PUBLIC_NAME, "plain")
    return {
        "small": lambda: str(rng.randrange(2, 99)),
        "price": lambda: f"{rng.randrange(10, 9999)}.{rng.randrange(100):02}",
        "uuid": lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "version": lambda: f"{rng.randrange(12)}.{rng.randrange(40)}.{rng.randrange(20)}",
        "timestamp": lambda: _moment(rng),
        "isbn": lambda: _isbn(rng),
        "cas": lambda: _cas(rng),
        "coordinates": lambda: f"{rng.uniform(-60, 60):.5f}, {rng.uniform(-180, 180):.5f}",
        "partlike": lambda: _part_number(rng),
        "epoch_ms": lambda: f"17{digits(rng, 11)}",
        "snowflake": lambda: f"1{digits(rng, 18)}",
        "ean": lambda: _ean(rng),
    }[name]()


def _moment(rng: Random) -> str:
    when = dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=rng.randrange(60_000_000))
    return rng.choice(
        (f"{when:%Y-%m-%dT%H:%M:%SZ}", f"{when:%d.%m.%Y %H:%M}", f"{when:%Y-%m-%d %H:%M:%S},{rng.randrange(1000):03}")
    )


def _isbn(rng: Random) -> str:
    body = f"978{rng.choice('0135')}{digits(rng, 8)}"
    check = -sum(int(digit) * (1, 3)[at % 2] for at, digit in enumerate(body)) % 10
    return f"978-{body[3]}-{body[4:7]}-{body[7:]}-{check}"


def _ean(rng: Random) -> str:
    body = f"{rng.choice(('400', '460', '501', '871'))}{digits(rng, 9)}"
    check = -sum(int(digit) * (1, 3)[at % 2] for at, digit in enumerate(body)) % 10
    return f"{body}{check}"


def _cas(rng: Random) -> str:
    body = f"{rng.randrange(50, 9999)}{rng.randrange(100):02}"
    check = sum(int(digit) * weight for weight, digit in enumerate(reversed(body), 1)) % 10
    return f"{body[:-2]}-{body[-2:]}-{check}"


def _part_number(rng: Random) -> str:
    """Some look like telephone numbers, some like nothing else."""
    a, b, c = digits(rng, 3), digits(rng, 3), digits(rng, 4)
    return rng.choice((f"{a}-{b}-{c}", f"{a}.{b}.{c}", f"KX-{a}{b}", f"{a}/{b}-{c[:2]}", f"M{a}-{c}-{b[:2]}"))
