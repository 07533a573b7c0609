"""Identifiers with letters in them, and IBANs: those whose form or checksum is strong, and those that need a word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final, NamedTuple, cast

from serving.policy.detect.context import IN_HEADING, reading_of
from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import View
from serving.policy.detect.lexicon import LEXICON
from serving.policy.detect.numbers import weighted

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
_IBAN: Final = re.compile(
    r"[a-z](?:(?<![a-z0-9].)|(?<=iban.)){S}[a-z](?:{S}[0-9]){2}".replace("{S}", r"[ \n./_-]{0,3}")
)
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


_FEW: Final = 24
"""Characters from a word of counted things to its number."""
_NEXT: Final = 8
"""Where such a word stands right before it."""


class Form(NamedTuple):
    """An identifier with letters: its classes of characters, and what says that it is one."""

    label: str
    pattern: re.Pattern[str]
    """As it is written, separators where they usually stand."""
    bare: re.Pattern[str]
    """Of letters and digits alone."""
    sizes: frozenset[int]
    """How many letters and digits it may have."""
    check: Callable[[str], bool]
    """Given letters and digits alone."""
    near: str | None = None
    """The context that speaks for it. None: the form and the check are enough, whatever stands beside it."""
    alone: re.Pattern[str] | None = None
    """How it has to be written to need no word; a word of counted things speaks against it even so."""
    few: int = _FEW
    """Characters from such a word to it, at most, where it needs none."""

    @property
    def needs_word(self) -> bool:
        """Whether it is none where no word speaks for it."""
        return self.near is not None and self.alone is None


_EDGE: Final = r"(?<![a-z0-9])"
_END: Final = r"(?![a-z0-9])"
_S: Final = r"[ \n./_-]{0,2}"
_ANY: Final = re.compile(r"(?s:.*)")


def _form(
    label: str,
    parts: str,
    sizes: tuple[int, ...],
    check: Callable[[str], bool],
    near: str | None = None,
    alone: re.Pattern[str] | None = None,
    few: int = _FEW,
) -> Form:
    """`parts`: character classes with repeats, blanks between them: separators may stand there."""
    pattern = re.compile(_EDGE + _S.join(parts.split()) + _END)
    return Form(label, pattern, re.compile(parts.replace(" ", "")), frozenset(sizes), check, near, alone, few)


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


_CARD_SIGNS: Final = "[cfghjk-npr-tv-z0-9]"
FORMS: Final = (
    _form("it.codice_fiscale", "[a-z]{3} [a-z]{3} [0-9]{2}[abcdehlmprst][0-9]{2} [a-z][0-9]{3}[a-z]", (16,),
          is_it_fiscal),
    _form("es.dni", "[0-9]{2} [0-9]{3} [0-9]{3} [a-hj-np-tv-z]", (9,), is_es_dni, "es.dni", _ANY),
    _form("es.dni", r"(?:[0-9]{8}-?|[0-9]{2}\.[0-9]{3}\.[0-9]{3}-)[a-hj-np-tv-z]", (), is_es_dni,
          "es.dni", _ANY, _NEXT),
    _form("es.nie", "[xyz] [0-9]{7} [a-hj-np-tv-z]", (9,), is_es_dni, "es.nie", _ANY),
    _form("gb.nino", "[a-ceghj-prstw-z][a-ceghj-nprstw-z] [0-9]{2} [0-9]{2} [0-9]{2} [a-d]", (9,), is_gb_nino,
          "gb.nino", _ANY),
    _form("de.pension", "[0-9]{2} [0-9]{6} [a-z] [0-9]{3}", (12,), is_de_pension),
    _form("de.health_insurance", "[a-z][0-9]{3} [0-9]{3} [0-9]{3}", (10,), is_de_health, "de.health_insurance"),
    _form("fr.nir", "[12] [0-9]{2} [0-9]{2} 2[ab] [0-9]{3} [0-9]{3} [0-9]{2}", (15,), is_fr_corsican),
    _form("ie.pps", "[0-9]{7} [a-w] [a-i]?", (8, 9), is_ie_pps, "ie.pps"),
    _form("us.mbi", "[1-9][ac-hj-kmnp-rt-y][ac-hj-kmnp-rt-y0-9][0-9] [ac-hj-kmnp-rt-y][ac-hj-kmnp-rt-y0-9][0-9] "
          "[ac-hj-kmnp-rt-y]{2}[0-9]{2}", (11,), _anything, "us.mbi"),
    _form("eu.vat", "(?:atu|be|bg|cy|cz|de|dk|ee|el|es|fi|fr|hr|hu|ie|it|lt|lu|lv|mt|nl|pl|pt|ro|se|si|sk) "
          "[a-z0-9]{2} [a-z0-9]{3} [a-z0-9]{2,7}", (), lambda code: sum(map(str.isdigit, code)) > 6, "eu.vat"),
    _form("passport", "[a-z]{0,2}[0-9]{7,9}", (), lambda code: code[0].isalpha() or len(code) == 9, "passport"),
    _form("us.driving_licence", "[a-z][0-9]{7,12}", (), _anything, "us.driving_licence"),
)  # fmt: skip
_HETU: Final = re.compile(_EDGE + r"[0-9]{6}[-+a-f][0-9]{3}[0-9a-y]" + _END)
_STANDING: Final = re.compile("|".join(form.pattern.pattern for form in FORMS if not form.needs_word))
"""Any of the forms that need no word: most stretches have none of them, and one look says so."""
_STRICT: Final = frozenset({"it.codice_fiscale", "es.dni", "es.nie", "gb.nino", "de.pension", "fr.nir"})
_SPREAD: Final = tuple(form for form in FORMS if form.sizes)
_SIZES: Final = frozenset[int]().union(*(form.sizes for form in _SPREAD))

_SPOT: Final = re.compile(r"[0-9](?:[a-z \n./_-]{0,3}+[0-9]){5,}+")
"""Six digits with little between: the least that any form has. Where there is no such spot there is none of them."""
_AHEAD: Final = 14
_BEYOND: Final = 10
_TOKEN: Final = re.compile(r"[a-z0-9]+")


def find_forms(view: View) -> Iterator[Hit]:
    """All identifiers of `FORMS`, as they are written, broken by a line's end, or cut into groups of one length."""
    folded = view.without_hashes
    for begin, end in _spots(folded):
        if _SMALL.search(folded, begin, end) is None:
            continue
        yield from _formed(view, begin, end)
        for match in _HETU.finditer(folded, begin, end):
            if is_fi_hetu("".join(filter(str.isalnum, match[0]))):
                yield Hit(match.start(), match.end(), "fi.hetu")


def _formed(view: View, begin: int, end: int) -> Iterator[Hit]:
    folded, forms = view.without_hashes, _possible(view)
    is_standing = _STANDING.search(folded, begin, end) is not None
    for form in forms:
        if is_standing or form.needs_word:
            for match in form.pattern.finditer(folded, begin, end):
                yield from _hit(view, form, *match.span())
    for start, stop, code in (*_regular(folded, begin, end), *_broken(folded, begin, end)):
        for form in forms:
            if len(code) in form.sizes and form.bare.fullmatch(code):
                yield from _hit(view, form, start, stop)


def _spots(folded: str) -> list[tuple[int, int]]:
    """Where digits are, with what may belong to them."""
    stretches: list[tuple[int, int]] = []
    for spot in _SPOT.finditer(folded):
        begin, end = max(0, spot.start() - _AHEAD), min(len(folded), spot.end() + _BEYOND)
        if stretches and begin <= stretches[-1][1]:
            begin = stretches.pop()[0]
        stretches.append((begin, end))
    return stretches


def _possible(view: View) -> tuple[Form, ...]:
    """Those that the text's words do not rule out."""
    forms = view.memo.get("forms")
    if forms is None:
        possible = reading_of(view, LEXICON).possible
        forms = tuple(form for form in FORMS if not form.needs_word or form.near in possible)
        view.memo["forms"] = forms
    return cast("tuple[Form, ...]", forms)


def _regular(folded: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """Groups of one length (the last may be shorter) with the same sign between them, as long as a form is."""
    for grouped in _GROUPED.finditer(folded, begin, end):
        if _SMALL.search(grouped[0]) is None or grouped.end() - grouped.start() < _LEAST_CODE:
            continue  # every form has letters
        tokens = [match.span() for match in _TOKEN.finditer(folded, *grouped.span())]
        for index, (start, stop) in enumerate(tokens[:-1]):
            size = stop - start
            sign, code, past = folded[stop : tokens[index + 1][0]], folded[start:stop], stop
            for first, last in tokens[index + 1 : index + 1 + _MOST_CODE]:
                if folded[past:first] != sign or last - first > size or len(code) >= _MOST_CODE:
                    break
                code, past = code + folded[first:last], last
                if len(code) in _SIZES:
                    yield start, past, code
                if last - first < size:
                    break


_GROUPED: Final = re.compile(rf"{_EDGE}[a-z0-9]{{1,4}}{_END}(?:[ \n./_-]{{1,3}}+[a-z0-9]{{1,4}}{_END})+")
"""Groups of at most four, whatever their lengths."""
_LEAST_CODE: Final = min(_SIZES)
_MOST_CODE: Final = 16


def _broken(folded: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """What a line's end cuts in two anywhere, with its usual separators on either side."""
    at = folded.find("\n", begin, end)
    while at >= 0:
        low, high = max(0, at - _SIDE), min(len(folded), at + _SIDE)
        right = _RIGHT.match(folded, at + 1, high)
        left = _LEFT.search(folded, low, at) if right else None
        if left and right and _SMALL.search(left[0] + right[0]) and _DIGIT.search(left[0] + right[0]):
            joined = folded[low:at] + folded[at + 1 : high]
            for pattern in _STRICT_FORMS if _CUT.search(joined) else ():
                for match in pattern.finditer(joined):
                    start, stop = low + match.start(), low + match.end() + 1
                    if start < at < stop - 1:
                        yield start, stop, "".join(filter(str.isalnum, match[0]))
        at = folded.find("\n", at + 1, end)


_SIDE: Final = 22
_LEFT: Final = re.compile(r"[a-z0-9][a-z0-9 ./_-]*+$")
_RIGHT: Final = re.compile(r"[ \t]{0,4}+(?![a-z]{4,}[^a-z0-9])[a-z0-9][a-z0-9 ./_-]*+")
_DIGIT: Final = re.compile(r"[0-9]")
_SMALL: Final = re.compile(r"[a-z]")
_STRICT_FORMS: Final = tuple(form.pattern for form in FORMS if form.sizes and form.label in _STRICT)
_CUT: Final = re.compile("|".join(pattern.pattern for pattern in _STRICT_FORMS))


def _hit(view: View, form: Form, start: int, end: int) -> Iterator[Hit]:
    folded = view.without_hashes
    if end < len(folded) and folded[end].isascii() and folded[end].isalnum():
        return  # where the stretch ends, the pattern did not see what follows
    if not form.check("".join(filter(str.isalnum, folded[start:end]))):
        return
    if form.near is not None:
        is_alone = form.alone is not None and form.alone.fullmatch(view.plain, start, end) is not None
        if not _is_said(view, start, end, form.near, form.few if is_alone else None):
            return
    yield Hit(start, end, form.label)


def _is_said(view: View, start: int, end: int, name: str, few: int | None) -> bool:
    """Whether a word says what it is; or, where it can do without, none so near says that it is something counted."""
    reading = reading_of(view, LEXICON)
    near = reading.near(start, end)
    order = near.get("order", IN_HEADING)
    if near.get(name, IN_HEADING) < order:
        return True
    order = min(order, near.get("serial", IN_HEADING))
    column, heading = reading.headings(start)
    if "order" in column:
        return False
    return name in column or name in heading or (few is not None and order > few)


_ID_CARD: Final = re.compile(rf"{_EDGE}{_CARD_SIGNS}{{9}}[0-9]?{_END}")
_CUT_CARD: Final = re.compile(
    rf"{_EDGE}{_CARD_SIGNS}{{1,4}}(?P<sign>[ ./_-])(?:{_CARD_SIGNS}{{1,4}}(?P=sign)){{1,9}}"
    rf"(?:{_CARD_SIGNS}{{0,3}}[0-9]){_END}"
    rf"|{_EDGE}{_CARD_SIGNS}{{1,9}}\n{_CARD_SIGNS}{{0,8}}[0-9]{_END}"
)
_OFFICIAL: Final = re.compile(r"[CFGHJKLMNPRTVWXY][CFGHJKLMNPRTVWXYZ0-9]{8}[0-9]")

_IN_CAPITALS: Final = re.compile(r"[CFGHJKLMNPRTVWXY](?:[ \n./_-]?[CFGHJKLMNPRTVWXYZ0-9]){8}[ \n./_-]?[0-9]")
"""As official, with the separators that are looked through."""
_CARD_CHARS: Final = 24
"""More than a card's number with its separators takes, and more than between two digits of one stretch."""
_AROUND_DIGITS: Final = re.compile(r"[0-9](?:[^0-9]{0,48}+[0-9])*+")


def find_id_cards(view: View) -> Iterator[Hit]:
    """German identity cards: ten characters with their check digit in capitals, others near a word.

    The serial has no vowels and few digits may be in it, so it has no spot of digits of its own.
    """
    folded = view.without_hashes
    stretches = [match.span() for match in _AROUND_DIGITS.finditer(folded)]
    if not stretches or (
        _IN_CAPITALS.search(view.plain) is None and "de.id_card" not in reading_of(view, LEXICON).possible
    ):
        return
    for pattern in (_ID_CARD, _CUT_CARD):
        for match in chain.from_iterable(
            pattern.finditer(folded, max(0, begin - _CARD_CHARS), end + _CARD_CHARS) for begin, end in stretches
        ):
            start, end = match.span()
            code = "".join(filter(str.isalnum, match[0]))
            if len(code) not in {9, 10} or not is_de_document(code) or code.isdigit():
                continue  # the first sign is a letter of the authority
            written = "".join(filter(str.isalnum, view.plain[start:end]))
            is_sure = (
                len(code) == 10
                and _OFFICIAL.fullmatch(written) is not None
                and sum(map(str.isdigit, code)) > 1
                and any(map(str.isalpha, code[1:]))
            )
            if (is_sure or "de.id_card" in reading_of(view, LEXICON).possible) and _is_said(
                view, start, end, "de.id_card", _FEW if is_sure else None
            ):
                yield Hit(start, end, "de.id_card")
