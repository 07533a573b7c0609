"""Names of people by what stands around them, without a model: labels, titles, patronymics, introductions.

This is what `name.person` rests on where no model of names is installed; a bare `Anna Schmidt` is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import Phrases, View, fold, stems
from serving.policy.detect.given import FAMOUS, GIVEN

_NAME: Final = r"[A-ZА-ЯІ][\w'’-]{1,30}"
_INITIALS: Final = r"[A-ZА-ЯІ]\.[ ]?(?:[A-ZА-ЯІ]\.[ ]?)?"
_OF: Final = r"(?:(?:von|van|de|der|zu|da|di|del|la|al)[ ]){0,2}"
_WHOLE: Final = rf"(?:{_INITIALS}{_NAME}|{_NAME}(?:[ ]{_OF}{_NAME}){{0,3}}(?:[ ]{_INITIALS})?)"
_LABELS: Final = Phrases(
    "фио$ ф.и.о фамили отчество имя$ имени_отчеств full_name fullname first_name firstname last_name lastname surname "
    "client$ customer$ employee$ applicant$ beneficiary$ tenant$ family_name given_name patient_name customer_name "
    "client_name employee_name cardholder holder_name account_holder "
    "name$ nachname vorname familienname kundenname patientenname karteninhaber клиент$ пациент$ пациентка$ заемщик$ "
    "сотрудник$ сотрудница$ заявитель$ получатель$ отправитель$ абонент$ должник$ истец$ ответчик$ застрахованн "
    "владелец$ держатель_карты страхователь$ kunde$ kundin$ patient$ patientin$ mitarbeiter$ nom$ prenom$ nombre$ "
    "apellido"
)
_LABELLED: Final = re.compile(
    rf"[\w]{{0,12}}[\"'*]{{0,3}}[ \t]{{0,3}}[:=—–-][ \t]{{0,3}}[\"'«*]{{0,3}}(?P<name>{_WHOLE})"
)
_NEXT: Final = re.compile(rf"[ ]{{1,2}}(?P<name>{_NAME}[ ](?:{_NAME}|[A-ZА-Я]\.[ ]?[A-ZА-Я]\.)(?:[ ]{_NAME})?)")
_STRONG: Final = stems("фио ф.и.о фамили отчество")
_SINGLE: Final = stems(
    "фио ф.и.о фамили отчеств имя surname last first family given nachname vorname familienname fullname lastname "
    "firstname prenom apellido"
)
_TITLES: Final = Phrases(
    "herr$ herrn$ frau$ mr$ mrs$ ms$ miss$ dr$ prof$ professor$ sir$ г-н$ г-жа$ г-ну$ г-же$ г-на$ г-жи$ господин$ "
    "господину$ господина$ госпожа$ госпоже$ госпожи$ гражданин$ гражданина$ гражданину$ гражданка$ гражданки$ "
    "гражданке$ гр$ "
    "гр-н$ гр-ка$ товарищ$ доктор$ доктору$ доктора$ signor$ signora$ senor$ senora$ monsieur$ madame$ mme$ pan$ "
    "pani$ mevrouw$"
)
_TITLED: Final = re.compile(rf"\.?[ ]{{1,2}}(?:(?:Dr|Prof|med)\.?[ ]){{0,2}}(?P<name>{_WHOLE})")
_INTRODUCED: Final = Phrases(
    "меня_зовут его_зовут ее_зовут my_name_is his_name_is her_name_is i_am_called ich_heisse ich_heiße mein_name_ist "
    "er_heisst sie_heisst name_ist je_m'appelle me_llamo mi_chiamo signed_by подпись подписал: с_уважением, "
    "mit_freundlichen_grussen, mit_freundlichen_grußen best_regards, kind_regards, sincerely, уважаемый уважаемая "
    "sehr_geehrter_herr "
    "sehr_geehrte_frau dear_mr dear_mrs dear_ms"
)
_THEN: Final = re.compile(rf"[\w]{{0,4}}[,:]?[ \n]{{1,3}}(?P<name>{_WHOLE})")
_TWO_AT_LEAST: Final = stems("уважаем подпись подписал с best kind sincerely signed mit name_ist")
_PATRONYMIC_ENDS: Final = tuple(
    ending
    for root in ("ович", "евич", "ьич", "овн", "евн", "ичн")
    for ending in (
        stems(" ".join(root + tail for tail in ("а", "ы", "е", "у", "ой", "ою")))
        if root.endswith("н")
        else stems(" ".join(root + tail for tail in ("", "а", "у", "ем", "е")))
    )
)
_NO_PATRONYMIC: Final = frozenset(
    stems("основа основы основе основу основой условна безусловна уровне уровна ровна ровно")
)
_PATRONYMIC_WORD: Final = re.compile(r"(?<![^\W_])[А-ЯІЁ][а-яё]{5,24}(?![^\W_])")
_RUSSIAN_NAME: Final = r"[А-Я][А-Яа-я-]{1,30}"
_AROUND: Final = re.compile(rf"(?:{_RUSSIAN_NAME}[ ]){{0,2}}$")
_AFTER: Final = re.compile(rf"[ ]{_RUSSIAN_NAME}")
_WITH_INITIALS: Final = re.compile(
    r"(?<!\w)(?:[А-Я][а-я]{2,24}(?:-[А-Я][а-я]{2,24})?[ ][А-Я]\.[ ]?[А-Я]\.|[А-Я]\.[ ]?[А-Я]\.[ ]?[А-Я][а-я]{2,24})"
)
_COMMON: Final = stems(
    "get set data name value string int none null true false server service test user default unknown file table "
    "column "
    "class function http json api model the this that your our january monday"
)
_LABEL: Final = "name.person"


def find_name_cues(view: View) -> Iterator[Hit]:
    """What is next to a label, a title, an introduction; and who has a patronymic or initials."""
    plain, folded = view.plain, view.folded
    for start, end in _LABELS.spans(view):
        match = _LABELLED.match(plain, end)
        word = folded[start:end]
        if match is None:
            match = _NEXT.match(plain, end) if word.startswith(_STRONG) or plain[start].isupper() else None
            if match is not None and word.startswith(_WEAK_LABELS):
                match = None
        if match is not None and (" " in match["name"].strip() or word.startswith(_SINGLE)) and _is_name(match, folded):
            yield Hit(*match.span("name"), _LABEL)
    for start, end in _TITLES.spans(view):
        match = _TITLED.match(plain, end)
        if match is not None and plain[start].isalpha() and _is_name(match, folded):
            yield Hit(*match.span("name"), _LABEL)
    for start, end in _INTRODUCED.spans(view):
        match = _THEN.match(plain, end)
        is_weak = folded.startswith(_TWO_AT_LEAST, start)
        if match is not None and (not is_weak or " " in match["name"]) and _is_name(match, folded):
            yield Hit(*match.span("name"), _LABEL)
    yield from _given(view)
    yield from _patronymics(view)
    if not plain.isascii():
        yield from (Hit(match.start(), match.end(), _LABEL) for match in _WITH_INITIALS.finditer(plain))


_WEAK_LABELS: Final = ("name", "client", "customer", "employee", "nom", "patient", "kund", *stems("имя"))


def _is_name(match: re.Match[str], folded: str) -> bool:
    start, end = match.span("name")
    return (
        not folded[start:end].startswith(_COMMON)
        and not any(map(str.isdigit, folded[start:end]))
        and "_" not in match["name"]
    )


_NAMED: Final = re.compile(
    r"(?<![\w'.-])(?P<given>[A-ZÄÖÜ][a-zäöüéèß]{1,14})(?:-[A-ZÄÖÜ][a-zäöüé]{1,14})?[ ]"
    r"(?:[A-ZÄÖÜ]\.[ ]?|[A-ZÄÖÜ][a-zäöü]{2,14}[ ])?"
    r"(?:(?:von|van|de|der|zu|da|di|del|la|al|Mac|Mc|O')[ ]?){0,2}(?P<family>[A-ZÄÖÜ][\w'’]{1,24}(?:-[A-Z][\w]{1,24})?)"
    r"|(?<![\w'.-])(?P<first>[A-ZÄÖÜ][a-zäöüéèß'-]{2,24}),[ ](?P<then>[A-ZÄÖÜ][a-zäöüéèß]{1,14})(?![\w-])"
)
_NO_FAMILY: Final = frozenset(
    "street st avenue ave road rd lane square university institute institut gmbh ag kg ltd inc llc co corp corporation "
    "company group foundation stiftung school schule hospital klinik airport flughafen park library museum theatre "
    "theater college church kirche street strasse straße platz weg allee prize award preis cup lake river island city "
    "county house hall hotel cafe restaurant bar bank day tag january february march april may june july august "
    "september october november december januar februar märz mai juni juli oktober dezember foods traders motors "
    "and or the in of is was und oder der die das ist war server project release version street model effect theorem "
    "algorithm method number constant principle equation".split()
)


def _given(view: View) -> Iterator[Hit]:
    """A common given name and a surname, in either order; not who is known to everybody."""
    if _GIVEN.isdisjoint(view.words):
        return
    for match in _NAMED.finditer(view.plain):
        given, family = (match["given"], match["family"]) if match["given"] else (match["then"], match["first"])
        start, end = match.span()
        if fold(given) in _GIVEN and family.lower() not in _NO_FAMILY and family.lower() not in FAMOUS:
            yield Hit(start, end, _LABEL)


_GIVEN: Final = frozenset(map(fold, GIVEN))


def _patronymics(view: View) -> Iterator[Hit]:
    met = [word for word in view.words if word.endswith(_PATRONYMIC_ENDS) and word not in _NO_PATRONYMIC]
    if not met:
        return
    wanted = frozenset(met)
    for match in _PATRONYMIC_WORD.finditer(view.plain):
        start, end = match.span()
        if view.folded[start:end] not in wanted:
            continue
        before = _AROUND.search(view.plain, max(0, start - 64), start)
        begin = before.start() if before is not None else start
        behind = _AFTER.match(view.plain, end)
        if begin < start or behind is not None:
            yield Hit(begin, behind.end() if behind is not None else end, _LABEL)
