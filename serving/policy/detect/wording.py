"""Words of medicine and of money.

A word alone says little: `patient` is an adjective too, and a question about diabetes names nobody. A sure phrase
counts two, a word of the field one; two different words, or one sure phrase, make it `medical` or `financial`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from serving.policy.detect.ailments import SOMEBODY
from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import Phrases, View, Words, stems


class Field(NamedTuple):
    """The words of a field, as stems; `sure` are those of which one is enough."""

    label: str
    words: tuple[str, ...]
    sure: tuple[str, ...]
    phrases: Phrases
    """What takes more than one word; as good as `sure`."""
    found: Words
    """The words, made ready."""


def _field(label: str, words: str, sure: str, phrases: str) -> Field:
    return Field(label, stems(words), stems(sure), Phrases(phrases), Words(words))


_MEDICAL: Final = _field(
    "medical",
    (
        "диагноз пациент анамнез жалоб симптом госпитализ терапи онколог опухол биопси метастаз химиотерап инсулин "
        "диабет "
        "гипертон инфаркт инсульт депресси шизофрен психиатр эпилепс беременн аборт гепатит туберкул сифилис антител "
        "рецепт дозиров назначен лечащ хирург операци анализ инвалидн мкб вич спид назначено лечени препарат амбулатор "
        "diagnos patient symptom hospital treatment therapy oncolog tumor tumour biopsy metasta chemotherap insulin "
        "diabet "
        "hypertens infarct depressi schizophren psychiatr epileps pregnan abortion hepatitis tubercul hiv antibod "
        "prescri "
        "dosage surgery surgical disabilit icd medication allerg asthma carcinoma leukemi leukaemi prognos radiolog "
        "befund patientin krankheit krankheitsverlauf anamnese beschwerden behandlung therapie tumor krebs "
        "schwangerschaft rezept verschreib blutdruck blutbild arztbrief depression medikament entlassungsbrief"
    ),
    "анамнез химиотерап шизофрен carcinoma chemotherap schizophren arztbrief entlassungsbrief",
    (
        "истори_болезни историю_болезни истории_болезни медицинск_карт амбулаторн_карт клиническ_диагноз "
        "поставлен_диагноз "
        "диагноз: диагноз_при жалобы_на жалобы_при вич-инфек вич-положит медицинск_заключен выписн_эпикриз лечащ_врач "
        "лечащий_врач больничн_лист листок_нетрудоспособ код_мкб мкб-10 "
        "medical_history medical_record patient_id patient_name patient_history diagnosed_with hiv_positive "
        "hiv-positive "
        "icd-10 icd_code discharge_summary health_record mental_health_history blood_pressure_of prescribed_to "
        "diagnose: diagnostiziert_mit patientenakte patient_klagt krankengeschichte gesicherte_diagnose"
    ),
)  # fmt: skip
_FINANCIAL: Final = _field(
    "financial",
    (
        "зарплат оклад премия премии задолженн кредит ипотек баланс остат выписк доход вклад депозит займ заемщик "
        "просроч "
        "платеж перевод счет ндфл банкрот дивиденд облигац контрагент выручк маржин "
        "salary payroll loan mortgage overdraft balance bankrupt dividend creditworth borrower arrears debt wage bonus "
        "account statement revenue ebitda margin "
        "gehalt kontostand kredit darlehen hypothek schulden kontoauszug einkommen bonitat umsatz insolvenz uberweisung"
    ),
    "2-ндфл kontostand kontoauszug gehaltsabrechn",
    (
        "выписк_по_счет выписка_по_счет выписку_по_счет выписки_по_счет остаток_на_счет остатка_на_счет баланс_счет "
        "баланс_карт кредитн_истори кредитной_истори кредитная_истори кредитную_истори 2-ндфл заработн_плат "
        "заработная_плат "
        "заработной_плат размер_оклада расчетн_счет справка_о_доходах справку_о_доходах сумма_задолженности "
        "bank_statement account_balance account_statement credit_score credit_history credit_report annual_salary "
        "monthly_salary gross_salary net_salary tax_return unpublished_results payslip debt_of "
        "konto_auszug schufa-auskunft schufa gehaltsabrechnung steuererklarung jahresgehalt monatsgehalt bruttogehalt"
    ),
)  # fmt: skip
_FIELDS: Final = (_MEDICAL, _FINANCIAL)
_WEAK: Final = frozenset(
    stems("счет account statement balance баланс перевод операци анализ назначен margin revenue bonus debt остат доход "
          "платеж treatment рецепт жалоб препарат")
)  # fmt: skip
"""Words that mean other things in code and talk: two of these alone are not enough."""
_WORD: Final = re.compile(r"[^\W\d_]+")


def find_wording(view: View) -> Iterator[Hit]:
    """Stretches that make a field's words enough."""
    for field in _FIELDS:
        met = field.found.met(view)
        phrases = field.phrases.spans(view)
        yield from (Hit(start, end, field.label) for start, end in phrases)
        if not met:
            continue
        distinct = {stem for word in met for stem in field.words if word.startswith(stem)}
        is_sure = bool(phrases) or any(word.startswith(field.sure) for word in met)
        if is_sure or (len(distinct) > 1 and distinct - _WEAK):
            wanted = frozenset(met)
            matches = [match for match in _WORD.finditer(view.folded) if match[0] in wanted]
            if not is_sure and "?" in view.folded and not _SOMEBODY.met(view):
                matches = [match for match in matches if not _is_asked(view.folded, match.end())]
            if is_sure or _are_near(matches, field.words):
                yield from (Hit(match.start(), match.end(), field.label) for match in matches)


_SOMEBODY: Final = Words(SOMEBODY)
_SENTENCE: Final = re.compile(r"[.!?\n]")
_NEAR: Final = 400


def _is_asked(folded: str, end: int) -> bool:
    """Whether the word stands in a question: where nobody is named, it is one for an encyclopaedia."""
    sign = _SENTENCE.search(folded, end, end + _NEAR)
    return sign is not None and sign[0] == "?"


def _are_near(matches: list[re.Match[str]], words: tuple[str, ...]) -> bool:
    """Whether two different words of the field, one of them not weak, stand within a paragraph of each other."""
    before: tuple[int, str] | None = None
    for match in matches:
        stem = next(stem for stem in words if match[0].startswith(stem))
        if (
            before is not None
            and before[1] != stem
            and match.start() - before[0] < _NEAR
            and not {before[1], stem} <= _WEAK
        ):
            return True
        before = match.start(), stem
    return False
