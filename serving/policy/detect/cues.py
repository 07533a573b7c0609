"""Names of people by what stands around them, without a model: labels, titles, patronymics, introductions.

This is what `name.person` rests on where no model of names is installed; a bare `Anna Schmidt` is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import JOINED, Phrases, View, stems
from serving.policy.detect.pairs import is_given, is_surname

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
    yield from _loose(view)
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


def _patronymics(view: View) -> Iterator[Hit]:
    met = [word for word in view.words if word.endswith(_PATRONYMIC_ENDS) and word not in _NO_PATRONYMIC]
    if not met:
        return
    plain, folded = view.plain, view.folded
    for word in met:
        at = folded.find(word)
        while at >= 0:
            end = at + len(word)
            before, behind = _WORD_BEFORE.match(folded[max(0, at - 64) : at][::-1]), _WORD_BEHIND.match(folded, end)
            if _is_whole(folded, at, end) and not plain[at:end].islower():
                begin = at - before.end() if before is not None else at
                stop = behind.end() if behind is not None else end
                if before is not None and (plain[begin].isupper() or is_given(folded[begin : at - 1])):
                    yield Hit(begin, end, _LABEL)
                elif behind is not None and (plain[end + 1].isupper() or is_surname(folded[end + 1 : stop])):
                    yield Hit(at, stop, _LABEL)
            at = folded.find(word, end)


_WORD_BEFORE: Final = re.compile(r"[ ][^\W\d_-]{2,30}(?:[ ][^\W\d_-]{2,30})?(?![\w])")
_WORD_BEHIND: Final = re.compile(r"[ ][^\W\d_-]{2,30}")


def _is_whole(folded: str, at: int, end: int) -> bool:
    return not (folded[at - 1 : at].isalnum() and at) and not folded[end : end + 1].isalnum()


_LOOSE_LABELS: Final = Phrases(
    "фио$ ф.и.о фамилия$ фамилия_имя имя_и_фамилия имя_фамилия полное_имя сотрудник$ сотрудница$ клиент$ пациент$ "
    "пациентка$ заявитель$ заемщик$ получатель$ отправитель$ работник$ контактное_лицо ответственный$ исполнитель$ "
    "full_name fullname$ employee$ employee_name employeename$ client_name clientname$ customer_name customername$ "
    "patient_name patientname$ person$ person_name personname$ contact_name contactname$ contact_person contactperson$ "
    "applicant$ applicant_name applicantname$ holder$ holder_name holdername$ account_holder accountholder$ "
    "cardholder$ "
    "owner_name ownername$ surname$ last_name lastname$ staff_member staffname$ worker$ workername$ insured$ tenant$ "
    "beneficiary$ recipient$ payee$ signatory$ borrower$ next_of_kin emergency_contact "
    "mitarbeiter$ mitarbeiterin$ mitarbeitername$ kundenname$ patientenname$ nachname$ familienname$ "
    "vorname_und_nachname "
    "vor-_und_nachname vor-_und_zuname name_und_vorname name,_vorname ansprechpartner$ ansprechpartnerin$ "
    "antragsteller$ "
    "antragstellerin$ inhaber$ kontoinhaber$ karteninhaber$ versicherter$ versicherte$ beschaftigter$ bearbeiter$ "
    "empfanger$ absender$ mieter$ zeuge$"
)
_LOOSE: Final = re.compile(
    rf"{JOINED}(?P<name>(?P<one>[^\W\d_][^\W\d_'’-]{{1,24}}),?[ ](?P<two>[^\W\d_][^\W\d_'’.-]{{1,24}})"
    r"(?:[ ](?P<three>[^\W\d_][^\W\d_'’-]{1,24}))?)(?=[\"'<|;,.)}\]\\]|[ ]*\n|\t|$)"
)


def _loose(view: View) -> Iterator[Hit]:
    """What fills the field behind a label of a person, in any case: two or three words, one of them a known name."""
    for _, end in _LOOSE_LABELS.spans(view):
        match = _LOOSE.match(view.folded, end)
        if match is None:
            continue
        words = [word for word in (match["one"], match["two"], match["three"]) if word]
        written = view.plain[slice(*match.span("name"))]
        is_odd = not (written.islower() or written.istitle()) and written[1:] != written[1:].lower()
        if not match["name"].startswith(_COMMON) and (
            any(map(is_given, words))
            or all(word[0].isupper() for word in written.split())
            or (is_odd and any(map(is_surname, words)))
        ):
            yield Hit(*match.span("name"), _LABEL)
