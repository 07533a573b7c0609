"""Identifiers with letters in them, and cards: those whose form or checksum is strong, and those that need a word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import Near, View
from serving.policy.detect.numbers import AFTER, BEFORE, Rule, distance_of, luhn, weighted
from serving.policy.detect.russian import ORDER

_IBAN_CHARS: Final = {
    code: int(length)
    for code, length in (
        pair.split(":")
        for pair in (
            "ad:24 ae:23 al:28 at:20 az:28 ba:20 be:16 bg:22 bh:22 bi:27 br:29 by:28 ch:21 cr:22 cy:28 cz:24 de:22 "
            "dj:27 "
            "dk:18 do:28 ee:20 eg:29 es:24 fi:18 fk:18 fo:18 fr:27 gb:22 ge:22 gi:23 gl:18 gr:27 gt:28 hr:21 hu:28 "
            "ie:22 "
            "il:23 iq:23 is:26 it:27 jo:30 kw:30 kz:20 lb:28 lc:32 li:21 lt:20 lu:20 lv:21 ly:25 mc:27 md:24 me:22 "
            "mk:19 "
            "mn:20 mr:27 mt:31 mu:30 ni:28 nl:18 no:15 om:23 pk:24 pl:28 ps:29 pt:25 qa:29 ro:24 rs:22 ru:33 sa:24 "
            "sc:31 "
            "sd:18 se:24 si:19 sk:24 sm:27 so:23 st:25 sv:28 tl:23 tn:24 tr:26 ua:29 va:22 vg:24 xk:20 ye:30"
        ).split()
    )
}
"""SWIFT's IBAN registry, release 99: the length of a country's numbers."""
_IBAN: Final = re.compile(r"(?:(?<![a-z0-9])|(?<=iban))[a-z]{S}[a-z](?:{S}[0-9]){2}".replace("{S}", r"[ \n./_-]{0,3}"))
_SEPARATED: Final = re.compile(r"[ \t\n./_-]{0,3}+([a-z0-9])")


def find_ibans(view: View) -> Iterator[Hit]:
    """ISO 13616: country, two check digits, as many characters as the country has; the whole modulo 97 is 1."""
    folded = view.folded
    for match in _IBAN.finditer(folded):
        start = match.start()
        head = "".join(filter(str.isalnum, match[0]))
        length = _IBAN_CHARS.get(head[:2])
        if length is None:
            continue
        collected, at = [head], match.end()
        for _ in range(length - 4):
            letter = _SEPARATED.match(folded, at)
            if letter is None:
                break
            collected.append(letter[1])
            at = letter.end()
        number = "".join(collected)
        if len(number) == length and is_iban(number) and not (at < len(folded) and folded[at].isalnum()):
            yield Hit(start, at, "iban")


def is_iban(number: str) -> bool:
    """ISO/IEC 7064, MOD 97-10, over the number with its first four characters last, letters as 10 to 35."""
    return int("".join(str(int(letter, 36)) for letter in number[4:] + number[:4])) % 97 == 1


_ISSUERS: Final = (
    (4000, 4999, (13, 16, 19)),  # Visa
    (5100, 5599, (16,)),  # Mastercard
    (2221, 2720, (16,)),
    (2200, 2204, (16, 17, 18, 19)),  # Mir
    (3400, 3499, (15,)),  # American Express
    (3700, 3799, (15,)),
    (6200, 6299, (16, 17, 18, 19)),  # UnionPay
    (8100, 8199, (16, 17, 18, 19)),
    (6011, 6011, (16, 17, 18, 19)),  # Discover
    (6440, 6599, (16, 17, 18, 19)),
    (3528, 3589, (16,)),  # JCB
    (3000, 3059, (14,)),  # Diners Club
    (3600, 3699, (14,)),
    (3800, 3999, (14,)),
    (5000, 5099, (16, 18, 19)),  # Maestro
    (5600, 5899, (16, 18, 19)),
    (6300, 6399, (16, 18, 19)),
    (6700, 6799, (16, 18, 19)),
    (6000, 6099, (16,)),  # RuPay
    (8200, 8299, (16,)),
    (9112, 9112, (16,)),  # Belkart
    (9860, 9860, (16,)),  # Humo
)
"""First four digits, from and to, and how many there are (ISO/IEC 7812; the schemes' published ranges)."""


def is_card(digits: str) -> bool:
    """Luhn, and an issuer's range that is given for this length."""
    if not luhn(digits) or len(set(digits)) < 2:
        return False
    first = int(digits[:4])
    return any(low <= first <= high and len(digits) in sizes for low, high, sizes in _ISSUERS)


_CARD_WORDS: Final = Near(
    "карт card pan$ visa mastercard maestro мир$ mir$ kreditkart karte carte tarjeta cc$ cvv cvc amex оплат payment"
)
CARDS: Final = (
    Rule("card", (15, 16), is_card, own=frozenset({(4, 4, 4, 4), (4, 6, 5), (8, 8), (4, 12), (6, 10)})),
    Rule("card", (15, 16), is_card, _CARD_WORDS, alone=True, unless=ORDER),
    Rule("card", (13, 14, 18, 19), is_card, _CARD_WORDS, frozenset({(4, 6, 4), (6, 13)}),
         frozenset({(4, 4, 4, 4, 3), (4, 4, 4, 4, 2)})),
)  # fmt: skip


class Form(NamedTuple):
    """An identifier with letters: its pattern over folded text without separators at its ends."""

    label: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool]
    """Given letters and digits alone."""
    near: Near | None = None
    """None: the form and the check are enough."""
    own: re.Pattern[str] | None = None
    """A way to write it with separators that needs no word."""


_EDGE: Final = r"(?<![a-z0-9])"
_END: Final = r"(?![a-z0-9])"
_S: Final = r"[ ./_-]{0,2}"


def _form(parts: str) -> re.Pattern[str]:
    """Character classes with repeats, blanks between them: separators may stand there, and digits may be spread."""
    return re.compile(_EDGE + _S.join(parts.split()) + _END)


_CF_ODD: Final = dict(
    zip(
        "0123456789abcdefghijklmnopqrstuvwxyz",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16,
        10, 22, 25, 24, 23),
        strict=True,
    )
)  # fmt: skip


def is_it_fiscal(code: str) -> bool:
    """Codice fiscale: odd places by a table, even ones by their value, modulo 26 (decree of 23 December 1976)."""
    total = sum(_CF_ODD[letter] for letter in code[0:15:2])
    total += sum(int(letter) if letter.isdigit() else ord(letter) - 97 for letter in code[1:15:2])
    return chr(97 + total % 26) == code[15]


def is_es_dni(code: str) -> bool:
    """DNI and NIE: the number modulo 23 chooses the letter; X, Y, Z count as 0, 1, 2 (Real Decreto 1553/2005)."""
    body = code[:-1]
    if body[0] in "xyz":
        body = str("xyz".index(body[0])) + body[1:]
    return "trwagmyfpdxbnjzsqvhlcke"[int(body) % 23] == code[-1]


def is_gb_nino(code: str) -> bool:
    """National Insurance number: prefixes that are not given (HMRC, NIM39110)."""
    return code[:2] not in {"bg", "gb", "kn", "nk", "nt", "tn", "zz"}


def is_de_pension(code: str) -> bool:
    """Rentenversicherungsnummer: birth date, a letter as two digits, weights 2 1 2 5 7 1 2 1 2 1 2 1 (VKVV, § 2)."""
    digits = f"{code[:8]}{ord(code[8]) - 96:02d}{code[9:11]}"
    total = 0
    for digit, weight in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=True):
        product = int(digit) * weight
        total += product // 10 + product % 10
    return total % 10 == int(code[11]) and "01" <= code[4:6] <= "12"


def is_de_health(code: str) -> bool:
    """Krankenversichertennummer: the letter as two digits, weights 1 2, digit sums, modulo 10 (§ 290 SGB V)."""
    total = 0
    for digit, weight in zip(f"{ord(code[0]) - 96:02d}{code[1:9]}", (1, 2) * 5, strict=True):
        product = int(digit) * weight
        total += product // 10 + product % 10
    return total % 10 == int(code[9])


def is_de_document(code: str) -> bool:
    """Identity card and passport: letters as 10 to 35, weights 7 3 1 (ICAO 9303), where the check digit is written."""
    if not any(map(str.isdigit, code)):
        return False
    if len(code) == 9:
        return True
    return sum(int(letter, 36) * weight for letter, weight in zip(code[:9], (7, 3, 1) * 3, strict=True)) % 10 == int(
        code[9]
    )


def is_fr_corsican(code: str) -> bool:
    """NIR of Corsica: 2A counts as 19, 2B as 18."""
    number = int(code[:13].replace("2a", "19").replace("2b", "18"))
    return int(code[13:]) == 97 - number % 97


def is_fi_hetu(code: str) -> bool:
    """Henkilötunnus: nine digits modulo 31 choose the last character (Digital and Population Data Services Agency)."""
    digits = code[:6] + code[-4:-1]
    return "0123456789abcdefhjklmnprstuvwxy"[int(digits) % 31] == code[-1] and "01" <= code[2:4] <= "12"


def is_ie_pps(code: str) -> bool:
    """PPS number: weights 8…2 and 9 for the second letter, modulo 23."""
    total = weighted(code[:7], (8, 7, 6, 5, 4, 3, 2)) + (9 * (ord(code[8]) - 96) if len(code) > 8 else 0)
    return "wabcdefghijklmnopqrstuv"[total % 23] == code[7]


def _anything(_: str) -> bool:
    return True


_DOCUMENT: Final = "passport pass$ ausweis reisepass personalausweis perso$ паспорт identity document dokument"
_VAT: Final = Near("vat$ vatin ust ust-id ustid umsatzsteuer btw$ iva$ tva$ tax mwst uid$ moms$ alv$ nip$ steuer")

FORMS: Final = (
    Form("it.codice_fiscale", _form("[a-z]{3} [a-z]{3} [0-9]{2}[abcdehlmprst][0-9]{2} [a-z][0-9]{3}[a-z]"),
    is_it_fiscal), Form("es.dni", _form("[0-9]{2} [0-9]{3} [0-9]{3} [a-hj-np-tv-z]"), is_es_dni,
         Near("dni$ nif$ documento identidad d.n.i"),
         re.compile(r"[0-9]{2}[. ][0-9]{3}[. ][0-9]{3}[ -]?[a-z]|[0-9]{8}-[a-z]")),
    Form("es.nie", _form("[xyz] [0-9]{7} [a-hj-np-tv-z]"), is_es_dni, Near("nie$ extranjer nif$ dni$"),
         re.compile("[xyz][ -][0-9]{7}[ -][a-z]")),
    Form("gb.nino", _form("[a-ceghj-prstw-z][a-ceghj-nprstw-z] [0-9]{2} [0-9]{2} [0-9]{2} [a-d]"), is_gb_nino,
         Near("nino$ ni$ national_insurance insurance nin$"),
         re.compile("[a-z]{2}[ -][0-9]{2}[ -][0-9]{2}[ -][0-9]{2}[ -][a-d]")),
    Form("de.pension", _form("[0-9]{2} [0-9]{6} [a-z] [0-9]{3}"), is_de_pension),
    Form("de.health_insurance", _form("[a-z][0-9]{3} [0-9]{3} [0-9]{3}"), is_de_health,
         Near("krankenversicher versichertennummer kvnr$ krankenkasse gkv$ versicherten egk$")),
    Form("de.id_card", _form("[cfghjk-npr-tv-z0-9]{9}[0-9]?"), is_de_document, Near(_DOCUMENT)),
    Form("fr.nir", _form("[12] [0-9]{2} [0-9]{2} 2[ab] [0-9]{3} [0-9]{3} [0-9]{2}"), is_fr_corsican),
    Form("fi.hetu", re.compile(_EDGE + r"[0-9]{6}[-+a-f][0-9]{3}[0-9a-y]" + _END), is_fi_hetu),
    Form("ie.pps", _form("[0-9]{7} [a-w] [a-i]?"), is_ie_pps, Near("pps$ ppsn$ ppsno$ personal_public")),
    Form("us.mbi", _form("[1-9][ac-hj-kmnp-rt-y][ac-hj-kmnp-rt-y0-9][0-9] [ac-hj-kmnp-rt-y][ac-hj-kmnp-rt-y0-9][0-9] "
                         "[ac-hj-kmnp-rt-y]{2}[0-9]{2}"), _anything, Near("medicare mbi$ beneficiary")),
    Form("eu.vat", _form("(?:atu|be|bg|cy|cz|de|dk|ee|el|es|fi|fr|hr|hu|ie|it|lt|lu|lv|mt|nl|pl|pt|ro|se|si|sk) "
                         "[a-z0-9]{2} [a-z0-9]{3} [a-z0-9]{2,7}"),
         lambda code: sum(map(str.isdigit, code)) > 6, _VAT),
    Form("passport", _form("[a-z]{0,2}[0-9]{7,9}"), lambda code: code[0].isalpha() or len(code) == 9,
         Near("passport reisepass passeport pasaporte passaporto paszport загран загранпаспорт")),
    Form("us.driving_licence", _form("[a-z][0-9]{7,12}"), _anything, Near("driver driving dl$ licence_no license_no")),
)  # fmt: skip


_SPOT: Final = re.compile(r"[0-9](?:[a-z ./_-]{0,3}+[0-9]){4,}+")
"""Five digits with little between: the least that any form has. Where there is no such spot there is none of them."""
_AHEAD: Final = 12
_BEYOND: Final = 8


def find_forms(view: View) -> Iterator[Hit]:
    """All identifiers of `FORMS`."""
    folded = view.without_hashes
    stretches: list[tuple[int, int]] = []
    for spot in _SPOT.finditer(folded):
        begin, end = max(0, spot.start() - _AHEAD), min(len(folded), spot.end() + _BEYOND)
        if stretches and begin <= stretches[-1][1]:
            begin = stretches.pop()[0]
        stretches.append((begin, end))
    if not stretches:
        return
    for form in FORMS:
        if form.near is not None and form.own is None and not form.near.may_be_in(folded):
            continue
        for begin, end in stretches:
            for match in form.pattern.finditer(folded, begin, end):
                if _is_form(form, folded, *match.span()):
                    yield Hit(match.start(), match.end(), form.label)


def _is_form(form: Form, folded: str, start: int, end: int) -> bool:
    if end < len(folded) and folded[end].isascii() and folded[end].isalnum():
        return False  # where the stretch ends, the pattern did not see what follows
    if not form.check("".join(filter(str.isalnum, folded[start:end]))):
        return False
    if form.near is None or (form.own is not None and form.own.fullmatch(folded, start, end) is not None):
        return True
    before = folded[max(0, start - BEFORE) : start]
    return distance_of(form.near, before, folded[end : end + AFTER]) is not None
