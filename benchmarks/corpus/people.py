"""Names, addresses, dates of birth and e-mail addresses of nobody.

A name is a common given name and a common surname drawn apart from each other, so that whoever bears it is met by
chance. The parts of the corpus draw from different lists; those of the held-out part stand with it. E-mail addresses
end in domains that are kept for examples (RFC 2606).
"""

from __future__ import annotations

from random import Random
from typing import Final

from benchmarks.corpus.identifiers import born

# Given names of men, of women; patronymics of men, of women; surnames of men, of women.
_RUSSIAN: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "open": (
        ("Александр", "Дмитрий", "Сергей", "Андрей", "Михаил", "Никита", "Павел", "Олег"),
        ("Анна", "Мария", "Елена", "Ольга", "Наталья", "Татьяна", "Ирина", "Дарья"),
        ("Иванович", "Петрович", "Сергеевич", "Андреевич", "Михайлович"),
        ("Ивановна", "Петровна", "Сергеевна", "Андреевна", "Михайловна"),
        ("Смирнов", "Кузнецов", "Попов", "Соколов", "Лебедев", "Морозов", "Волков", "Зайцев"),
    ),
    "second": (
        ("Владимир", "Игорь", "Евгений", "Роман", "Артём", "Кирилл", "Георгий", "Тимур"),
        ("Светлана", "Юлия", "Ксения", "Галина", "Вера", "Алина", "Полина", "Зоя"),
        ("Олегович", "Викторович", "Юрьевич", "Николаевич", "Борисович"),
        ("Олеговна", "Викторовна", "Юрьевна", "Николаевна", "Борисовна"),
        ("Новиков", "Фёдоров", "Егоров", "Крылов", "Макаров", "Гусев", "Титов", "Беляев"),
    ),
}
_WESTERN: Final[dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]]] = {
    ("en", "open"): (
        ("James", "Mary", "Robert", "Patricia", "John", "Jennifer", "Michael", "Linda", "David", "Susan"),
        ("Smith", "Johnson", "Williams", "Brown", "Jones", "Miller", "Davis", "Wilson", "Taylor", "Clark"),
    ),
    ("en", "second"): (
        ("Oliver", "Charlotte", "Harry", "Amelia", "George", "Isla", "Thomas", "Emily", "Samuel", "Grace"),
        ("Walker", "Hughes", "Edwards", "Green", "Turner", "Baker", "Harris", "Cooper", "Morris", "Ward"),
    ),
    ("de", "open"): (
        ("Peter", "Sabine", "Michael", "Petra", "Thomas", "Monika", "Andreas", "Claudia", "Stefan", "Birgit"),
        ("Müller", "Schmidt", "Schneider", "Fischer", "Weber", "Meyer", "Wagner", "Becker", "Schulz", "Hoffmann"),
    ),
    ("de", "second"): (
        ("Lukas", "Hannah", "Jonas", "Lea", "Felix", "Katharina", "Jürgen", "Ursula", "Matthias", "Anke"),
        ("Koch", "Richter", "Klein", "Wolf", "Schröder", "Neumann", "Braun", "Zimmermann", "Krüger", "Hartmann"),
    ),
}
_STREETS: Final = {
    ("ru", "open"): ("ул. Ленина", "ул. Садовая", "проспект Мира", "Лесной переулок", "ул. Гагарина"),
    ("ru", "second"): ("Набережная ул.", "бульвар Победы", "ш. Энтузиастов", "ул. Чехова", "пл. Труда"),
    ("en", "open"): ("Oak Street", "Maple Avenue", "Church Road", "High Street", "Elm Drive"),
    ("en", "second"): ("Station Road", "Cedar Lane", "Mill Lane", "Park Boulevard", "Victoria Road"),
    ("de", "open"): ("Hauptstraße", "Gartenstraße", "Bahnhofstraße", "Schulstraße", "Lindenweg"),
    ("de", "second"): ("Bergstr.", "Am Markt", "Goethestraße", "Mühlenweg", "Kastanienallee"),
}
_CITIES: Final = {
    "ru": ("Москва", "Казань", "Самара", "Екатеринбург", "Пермь", "Воронеж"),
    "en": ("Springfield, IL", "Portland, OR", "Leeds", "Bristol", "Austin, TX"),
    "de": ("Berlin", "Hamburg", "München", "Leipzig", "Köln", "Bremen"),
}
_MONTHS: Final = {
    "ru": (
        "января",
        "февраля",
        "марта",
        "апреля",
        "мая",
        "июня",
        "июля",
        "августа",
        "сентября",
        "октября",
        "ноября",
        "декабря",
    ),
    "en": (
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ),
    "de": (
        "Januar",
        "Februar",
        "März",
        "April",
        "Mai",
        "Juni",
        "Juli",
        "August",
        "September",
        "Oktober",
        "November",
        "Dezember",
    ),
}
_MAILBOXES: Final = {
    "open": ("a.smirnova", "j.miller", "petra.weber", "ivan_popov", "mary-j", "s.brown84", "olga.k", "thomas.meyer"),
    "second": ("k.gusev", "amelia.ward", "lukas_koch", "vera.titova", "h.hughes", "anke-wolf77", "roman.e", "g.ward"),
}
_DOMAINS: Final = {
    "open": ("example.com", "mail.example.com", "example.org"),
    "second": ("example.net", "post.example.net", "staff.example.org"),
}


def name(rng: Random, language: str, part: str) -> str:
    """Somebody's name as letters and forms write it."""
    if language != "ru":
        given, surnames = _WESTERN[language, part]
        first, last = rng.choice(given), rng.choice(surnames)
        return rng.choice((f"{first} {last}", f"{first} {last}", f"{last}, {first}"))
    men, women, fathers, daughters, surnames = _RUSSIAN[part]
    woman = rng.random() < 0.5
    first = rng.choice(women if woman else men)
    middle = rng.choice(daughters if woman else fathers)
    last = rng.choice(surnames) + ("а" if woman else "")
    return rng.choice((f"{last} {first} {middle}", f"{first} {last}", f"{last} {first[0]}. {middle[0]}."))


def address(rng: Random, language: str, part: str) -> str:
    """Somebody's address: the streets are in nearly every town."""
    street, city = rng.choice(_STREETS[language, part]), rng.choice(_CITIES[language])
    house, flat = rng.randrange(1, 150), rng.randrange(1, 300)
    if language == "ru":
        index = f"{rng.randrange(101_000, 690_000)}"
        return rng.choice(
            (f"{index}, г. {city}, {street}, д. {house}, кв. {flat}", f"г. {city}, {street}, {house}-{flat}")
        )
    if language == "de":
        return f"{street} {house}, {rng.randrange(10_000, 99_000)} {city}"
    if city in {"Leeds", "Bristol"}:
        letters = rng.choice(("LS", "BS"))
        return f"{house} {street}, {city} {letters}{rng.randrange(1, 20)} {rng.randrange(1, 10)}{rng.choice('ABDEH')}T"
    return f"{house} {street}, Apt {flat}, {city} {rng.randrange(10_000, 99_000)}"


def birth_date(rng: Random, language: str) -> str:
    """A date of birth as the language writes it, or as machines do."""
    when = born(rng)
    month = _MONTHS[language][when.month - 1]
    numbers = f"{when:%m/%d/%Y}" if language == "en" else f"{when:%d.%m.%Y}"
    words = {
        "ru": f"{when.day} {month} {when.year} г.",
        "en": f"{month} {when.day}, {when.year}",
        "de": f"{when.day}. {month} {when.year}",
    }
    return rng.choice((numbers, numbers, when.isoformat(), words[language]))


def email(rng: Random, part: str) -> str:
    """A mailbox at a domain that is kept for examples."""
    return (
        f"{rng.choice(_MAILBOXES[part])}{rng.choice(('', '', str(rng.randrange(10, 99))))}@{rng.choice(_DOMAINS[part])}"
    )
