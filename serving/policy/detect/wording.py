"""Words of medicine and of money, and the labels that documents carry.

A word alone says little: `patient` is an adjective too, and a question about diabetes names nobody. A sure phrase
counts two, a word of the field one; two different words, or one sure phrase, make it `medical` or `financial`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import Phrases, View, fold, stems


class Field(NamedTuple):
    """The words of a field, as stems; `sure` are those of which one is enough."""

    label: str
    words: tuple[str, ...]
    sure: tuple[str, ...]
    phrases: Phrases
    """What takes more than one word; as good as `sure`."""
    gate: tuple[str, ...]
    """One of these words begins or ends each phrase."""


_MEDICAL: Final = Field(
    "medical",
    stems(
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
    stems("анамнез химиотерап шизофрен carcinoma chemotherap schizophren arztbrief entlassungsbrief"),
    Phrases(
        "истори_болезни историю_болезни истории_болезни медицинск_карт амбулаторн_карт клиническ_диагноз "
        "поставлен_диагноз "
        "диагноз: диагноз_при жалобы_на жалобы_при вич-инфек вич-положит медицинск_заключен выписн_эпикриз лечащ_врач "
        "лечащий_врач больничн_лист листок_нетрудоспособ код_мкб мкб-10 "
        "medical_history medical_record patient_id patient_name patient_history diagnosed_with hiv_positive "
        "hiv-positive "
        "icd-10 icd_code discharge_summary health_record mental_health_history blood_pressure_of prescribed_to "
        "diagnose: diagnostiziert_mit patientenakte patient_klagt krankengeschichte gesicherte_diagnose"
    ),
    stems("истори болезни медицинск амбулаторн клиническ поставлен диагноз жалобы вич выписн лечащ больничн листок код "
          "мкб medical patient diagnos hiv icd discharge health mental blood prescribed patientenakte "
          "krankengesch gesichert"),
)  # fmt: skip
_FINANCIAL: Final = Field(
    "financial",
    stems(
        "зарплат оклад премия премии задолженн кредит ипотек баланс остат выписк доход вклад депозит займ заемщик "
        "просроч "
        "платеж перевод счет ндфл банкрот дивиденд облигац контрагент выручк маржин "
        "salary payroll loan mortgage overdraft balance bankrupt dividend creditworth borrower arrears debt wage bonus "
        "account statement revenue ebitda margin "
        "gehalt kontostand kredit darlehen hypothek schulden kontoauszug einkommen bonitat umsatz insolvenz uberweisung"
    ),
    stems("2-ндфл kontostand kontoauszug gehaltsabrechn"),
    Phrases(
        "выписк_по_счет выписка_по_счет выписку_по_счет выписки_по_счет остаток_на_счет остатка_на_счет баланс_счет "
        "баланс_карт кредитн_истори кредитной_истори кредитная_истори кредитную_истори 2-ндфл заработн_плат "
        "заработная_плат "
        "заработной_плат размер_оклада расчетн_счет справка_о_доходах справку_о_доходах сумма_задолженности "
        "bank_statement account_balance account_statement credit_score credit_history credit_report annual_salary "
        "monthly_salary gross_salary net_salary tax_return unpublished_results payslip debt_of "
        "konto_auszug schufa-auskunft schufa gehaltsabrechnung steuererklarung jahresgehalt monatsgehalt bruttogehalt"
    ),
    stems("выписк остат баланс кредитн ндфл заработн размер расчетн справк сумма bank account credit annual monthly "
          "gross net tax unpublished payslip debt konto schufa gehaltsabrech steuererkl jahresgeh monatsgeh bruttogeh"),
)  # fmt: skip
_FIELDS: Final = (_MEDICAL, _FINANCIAL)
_WEAK: Final = frozenset(
    stems("счет account statement balance баланс перевод операци анализ назначен margin revenue bonus debt остат доход "
          "платеж treatment рецепт жалоб препарат")
)  # fmt: skip
"""Words that mean other things in code and talk: two of these alone are not enough."""
_WORD: Final = re.compile(r"[^\W\d_]+")

_LABELS: Final = Phrases(
    "коммерческая_тайна коммерческой_тайн коммерческую_тайн коммерческой_тайной для_служебного_пользования "
    "служебная_тайна служебной_тайн служебную_тайн банковская_тайна банковской_тайн банковскую_тайн врачебная_тайна "
    "врачебной_тайн врачебную_тайн адвокатская_тайна адвокатской_тайн налоговая_тайна налоговой_тайн "
    "государственная_тайна "
    "государственной_тайн государственную_тайн конфиденциально$ строго_конфиденциальн совершенно_секретно секретно$ "
    "конфиденциальная_информация конфиденциальной_информации конфиденциальные_сведения не_для_распространения "
    "не_подлежит_разглашению не_подлежат_разглашению для_внутреннего_пользования для_внутреннего_использования "
    "особой_важности инсайдерская_информация инсайдерской_информации персональные_данные_ограниченного "
    "confidential$ strictly_private top_secret trade_secret trade_secrets internal_use_only for_internal_use "
    "internal_only company_confidential do_not_distribute not_for_distribution not_for_public_release attorney-client "
    "attorney_client "
    "privileged_and_confidential proprietary_information proprietary_and_confidential under_nda classified_information "
    "official_use_only secret//noforn tlp:red tlp:amber official-sensitive material_non-public "
    "vertraulich$ streng_vertraulich vertrauliche_information geschaftsgeheimnis betriebsgeheimnis "
    "geschaftsgeheimnisse "
    "nur_fur_den_dienstgebrauch vs-nfd vs-vertraulich verschlusssache nur_fur_den_internen_gebrauch "
    "nur_zur_internen_verwendung berufsgeheimnis bankgeheimnis amtsgeheimnis confidentiel$ secret_des_affaires "
    "confidencial$ "
    "secreto_comercial riservato$ poufne$ tajemnica_przedsiebiorstwa vertrouwelijk$ "
    "служебная_информация информация_ограниченного ограниченного_распространения ограниченного_доступа "
    "ограниченное_распространение не_разглашать не_для_печати не_для_публикации не_подлежит_распространению "
    "не_подлежит_публикации не_передавать_третьим разглашение_запрещено копирование_запрещено только_для_служебного "
    "только_для_внутреннего для_ограниченного_круга только_для_адресата только_для_руководства закрытая_информация "
    "тайна_следствия тайна_усыновления аудиторская_тайна тайна_связи нотариальная_тайна "
    "professional_secret совсекретно$ сов._секретно сов.секретно "
    "strictly_confidential private_and_confidential commercial_in_confidence commercially_sensitive "
    "company_secret restricted_distribution restricted_circulation restricted_access limited_distribution "
    "distribution_restricted eyes_only for_your_eyes_only need_to_know not_to_be_disclosed not_to_be_distributed "
    "not_to_be_shared do_not_share do_not_forward do_not_copy do_not_disclose not_for_circulation not_for_publication "
    "not_for_external for_internal_purposes internal_distribution_only staff_only board_only sensitive_information "
    "highly_confidential highly_restricted confidential_information company_proprietary legally_privileged "
    "legal_privilege privileged_communication subject_to_nda non-disclosure_agreement official_secret "
    "inside_information insider_information embargoed_until price_sensitive "
    "streng_geheim geheim$ geheimhaltung geheimhaltungsstufe nur_intern nur_fur_internen nur_fur_interne "
    "nur_fur_den_internen intern$ betriebsintern firmenintern firmengeheimnis unternehmensgeheimnis dienstgeheimnis "
    "dienstgebrauch nicht_zur_weitergabe nicht_weitergeben nicht_zur_veroffentlichung nicht_fur_dritte "
    "weitergabe_untersagt weitergabe_verboten weitergabe_nicht vertraulichkeitsstufe vertrauliches_dokument "
    "vertraulich_behandeln steuergeheimnis arztgeheimnis arztliche_schweigepflicht mandantengeheimnis "
    "insiderinformation "
    "sperrvermerk"
)
_LABEL_GATE: Final = stems(
    "тайн служебн конфиденциальн секретно распространен разглашен внутренн важности инсайдер confidential private "
    "secret "
    "internal distribut nda classified official tlp attorney proprietary privileged non vertraulich geschaftsgeh "
    "betriebsgeh dienstgebr vs verschluss interne berufsgeh bankgeh amtsgeh confidentiel affaires confidencial "
    "comercial "
    "riservato poufne tajemnica vertrouwelijk noforn персональн ограничен разглаша печати публикац передава "
    "копирован служебн адресата руководств закрытая следствия усыновл аудиторск нотариал совсекрет confidence "
    "restricted circulation eyes need disclos share forward copy publication external internal staff board sensitive "
    "legally legal embargoed price inside insider geheim geheimhalt intern nur betriebsint firmen unternehm dienst "
    "weitergabe weitergeben veroffentl dritte vertrau steuergeh arztgeh arztliche mandanten sperrverm sov cob ceкp"
)
_DSP: Final = fold("дсп")
_DSP_MARK: Final = re.compile(r"(?<![^\W_])ДСП(?![^\W_])")
_BOARD: Final = stems("плит мебел лист шкаф ламин мдф кромк столешн древес фанер полк распил")
"""`ДСП` is chipboard too."""
_CODE: Final = "_.(\\/"


_MONEY: Final = (
    "зарплат зарабат заработ оклад жалован задолженн долг$ долга$ долги$ должен$ должна$ остат баланс "
    "доход кредит заем "
    "займ вклад депозит премия премии ипотек просроч недоимк алимент пенси пособи выручк прибыл убыт лимит ссуд "
    "взыскан накоплен сбережен "
    "salary salaries wage wages earns earning earnings income loan debt debts owes owed balance mortgage bonus arrears "
    "overdraft overdue overdrawn savings pension payslip net_worth turnover outstanding credit_limit deposit alimony "
    "remuneration compensation liabilit unpaid "
    "gehalt einkommen kontostand schulden darlehen kredit verdient verdienst lohn bruttolohn nettolohn nettogehalt "
    "bruttogehalt nettoeinkommen bruttoeinkommen jahreseinkommen monatseinkommen jahresgehalt monatsgehalt guthaben "
    "ruckstand zahlungsruckstand mietruckstand steuerschuld restschuld verbindlichkeit hypothek rente$ unterhalt "
    "ersparnis uberziehung dispo$ dispokredit pfandung saldo forderung offener_betrag"
)
_SUMS: Final = Phrases(_MONEY)
_SUM_WORDS: Final = stems(_MONEY.replace("$", ""))
_AMOUNT: Final = re.compile(
    r"[^\n]{0,40}?(?:[$€£₽][ ]?[0-9]|[0-9][0-9., ']{0,14}[ ]?(?:[$€£₽]|eur|usd|gbp|chf|rub|{r}))".replace(
        "{r}", "|".join(stems("руб тыс млн"))
    )
)
"""A sum of money."""


_SCORES: Final = Phrases(
    "кредитн_рейтинг кредитного_рейтинг кредитный_рейтинг кредитный_скоринг скорингов_балл скоринговый_балл "
    "кредитный_балл credit_score credit_rating fico$ fico_score schufa schufa-score schufa_score bonitatsscore "
    "bonitatsindex bonitat scoring_score"
)
_SCORE: Final = re.compile(r"[^\n]{0,30}?[0-9]{1,4}(?:[.,][0-9]+)?")
_SCORE_GATE: Final = stems("кредитн скоринг credit fico schufa bonitat scoring")
_RUIN: Final = Phrases(
    "банкротств признан_банкротом признана_банкротом исполнительное_производство арест_счет арест_счета "
    "просроченн_задолженн просроченная_задолженн просроченной_задолженн коллектор испорченная_кредит declared_bankrupt "
    "filed_for_bankruptcy personal_bankruptcy garnishment wage_garnish foreclosure payment_default defaulted_on "
    "debt_collection collections_agency privatinsolvenz lohnpfandung kontopfandung zahlungsverzug zahlungsunfahig "
    "eidesstattliche_vermogens mahnverfahren inkasso negativer_schufa"
)
_RUIN_GATE: Final = stems(
    "банкрот признан исполнит арест просроч коллект испорч declared filed personal garnish wage "
    "foreclos payment defaulted debt collections privatinsol lohnpf kontopf zahlungs eidess mahnver "
    "inkasso negativer"
)


def find_sums(view: View) -> Iterator[Hit]:
    """Somebody's income, debt or balance, with the sum behind it on the line; a score; ruin."""
    if view.has(_SCORE_GATE):
        for start, end in _SCORES.spans(view):
            score = _SCORE.match(view.folded, end)
            if score is not None:
                yield Hit(start, score.end(), "financial")
    if view.has(_RUIN_GATE):
        yield from (Hit(start, end, "financial") for start, end in _RUIN.spans(view))
    if view.has(_SUM_WORDS):
        for start, end in _SUMS.spans(view):
            amount = _AMOUNT.match(view.folded, end)
            if amount is not None:
                yield Hit(start, amount.end(), "financial")


def find_wording(view: View) -> Iterator[Hit]:
    """Stretches that make a field's words enough."""
    for field in _FIELDS:
        met = [word for word in view.words if word.startswith(field.words)] if view.has(field.words) else []
        phrases = field.phrases.spans(view) if view.has(field.gate) else []
        yield from (Hit(start, end, field.label) for start, end in phrases)
        if not met:
            continue
        distinct = {stem for word in met for stem in field.words if word.startswith(stem)}
        is_sure = bool(phrases) or any(word.startswith(field.sure) for word in met)
        if is_sure or (len(distinct) > 1 and distinct - _WEAK):
            wanted = frozenset(met)
            matches = [match for match in _WORD.finditer(view.folded) if match[0] in wanted]
            if is_sure or _are_near(matches, field.words):
                yield from (Hit(match.start(), match.end(), field.label) for match in matches)


_NEAR: Final = 400


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


def find_labels(view: View) -> Iterator[Hit]:
    """What is written over documents that are not for everybody. A word that is part of a program's name is none."""
    folded = view.folded
    if view.has(_LABEL_GATE):
        for begin, end in _LABELS.spans(view):
            is_code = (begin > 0 and folded[begin - 1] in _CODE) or (end < len(folded) and folded[end] in "_=(")
            if not is_code or " " in folded[begin:end]:
                yield Hit(begin, end, "document_label")
    if _DSP in view.words:
        for match in _DSP_MARK.finditer(view.plain):
            around = _WORD.findall(folded[max(0, match.start() - 60) : match.end() + 60])
            if not any(word.startswith(_BOARD) for word in around):
                yield Hit(match.start(), match.end(), "document_label")
