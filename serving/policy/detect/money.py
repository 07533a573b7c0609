"""Somebody's money: income, debt, balances with their sums, scores, ruin, and what markets do not know yet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import JOINED, Phrases, View, stems

_MONEY: Final = Phrases(
    "задолж на_руки получает$ получаю$ получал$ *lohn$ monatslohn зарплат зарабат заработ оклад жалован задолжен "
    "долг$ долга$ долги$ долгу$ долгом$ долгов$ долгах$ должен$ должна$ "
    "должны$ остат баланс доход доходы кредит заем заема займ вклад депозит премия премии премию ипотек просроч "
    "недоимк алимент пенси пособи стипенди выручк прибыл убыт лимит ссуд взыскан взыскив накоплен сбережен кешбэк "
    "рассрочк автокредит неустойк штраф пени$ пеня$ наследств наследу компенсаци вознагражд гонорар бонус$ бонуса$ "
    "дивиденд на_счете на_счету на_карте на_депозите счет_арест ипотечн поручител "
    "залог$ залога$ залоге$ налоговая_задолж транш "
    "*займ *кредит *долженност "
    "salary salaries salaried wage wages earns earned earning earnings income incomes loan loans debt debts owes owe$ "
    "owed owing balance balances mortgage mortgages bonus bonuses arrears overdraft overdue overdrawn savings "
    "pension payslip net_worth networth turnover outstanding credit_limit credit_line deposit deposits alimony "
    "maintenance_pay child_support remuneration compensation severance liabilit unpaid payday instalment installment "
    "repayment repayments bailiff judgment judgement inheritance inherited bequest "
    "trust_fund dividend dividends royalt stipend commission$ take-home take_home paycheck "
    "paid_a back_taxes tax_debt tax_bill tax_arrears owed_to lien garnish lottery winnings gambling credit_card_debt "
    "student_loan car_loan holdings portfolio$ "
    "gehalt gehalter einkommen kontostand schulden schuldet schuld$ darlehen kredit kredite verdient verdienst "
    "verdiene "
    "lohn bruttolohn nettolohn lohne bezuge vergutung honorar guthaben ruckstand ruckstande steuerschuld restschuld "
    "verbindlichkeit hypothek rente$ pension unterhalt unterhaltsr ersparnis uberziehung uberzogen dispo$ dispokredit "
    "pfandung gepfandet saldo forderung offener_betrag offene_forderung erbe$ erbschaft geerbt vermogen erspartes "
    "abfindung pramie bonus$ boni$ praemie kaution bafog arbeitslosengeld burgergeld elterngeld sozialhilfe "
    "spielschulden ratenzahl mahnung nachzahlung steuernachz "
    "*kredit *darlehen *gehalt$ *einkommen *schulden$ *pfandung *guthaben$ *ruckstand *vermogen$ *hypothek"
)
_UNIT: Final = (
    r"(?:[$€£₽¥]|eur|usd|gbp|chf|rub|pln|zl|cny|dollar|pounds?(?![^\W\d_])|quid|bucks|k[ ]?[€$£]|teur|{r})".replace(
        "{r}", "|".join((*stems("руб тыс млн млрд евро долл"), r"p\."))
    )
)
_SUM: Final = (
    rf"(?:[$€£₽¥][ ]?[0-9]|[0-9][0-9., ']{{0,14}}[ ]?(?:(?:k|m|mio|mln|tsd|thousand|million|tausend)\.?[ ]?)?{_UNIT})"
)
_AMOUNT: Final = re.compile(rf"[^\n]{{0,48}}?{_SUM}")
"""A sum of money behind the word, on its line."""
_BEFORE: Final = re.compile(rf"{_SUM}[^\n.;]{{0,32}}$")
_BEFORE_CHARS: Final = 56
_SCORES: Final = Phrases(
    "кредитн_рейтинг кредитного_рейтинг кредитный_рейтинг кредитный_скоринг скорингов_балл скоринговый_балл "
    "скоринг_балл "
    "кредитный_балл кредитоспособн платежеспособн credit_score creditscore credit_rating creditrating creditworth "
    "fico$ "
    "fico_score experian equifax schufa schufa-score schufa_score bonitatsscore bonitatsindex bonitatsnote bonitat "
    "scoring_score scorewert debt_to_income loan_to_value"
)
_SCORE: Final = re.compile(r"[^\n]{0,30}?[0-9]{1,4}(?:[.,][0-9]+)?")
_RUIN: Final = Phrases(
    "банкротств банкротом банкрот$ признан_банкротом признана_банкротом исполнительное_производство "
    "исполнительного_производств исполнительный_лист арест_счет арест_счета арест_счетов арест_на_вклад арест_на_счет "
    "арест_имуществ арест_карт арестован_счет арестованы_счета просроченн_задолженн просроченная_задолженн "
    "просроченной_задолженн просрочен_платеж просрочка_по_кредит просрочки_по_кредит коллектор испорченная_кредит "
    "плохая_кредитная удержани_из_зарплат удержания_из_зарплат взыскание_задолж взыскание_долг долг_по_алимент "
    "задолженность_по_алимент задолженность_по_налог задолженность_по_кредит неплатежеспособн реструктуризаци_долг "
    "отказано_в_кредит отказ_в_кредит микрозайм микрокредит судебный_пристав судебные_приставы "
    "declared_bankrupt filed_for_bankruptcy filing_for_bankruptcy personal_bankruptcy personal_insolvency bankrupt "
    "garnishment wage_garnish wages_garnish garnished foreclosure repossess payment_default defaulted_on loan_default "
    "debt_collection debt_collector debt_relief debt_restructur collections_agency collection_agency county_court_judg "
    "individual_voluntary chapter_7 chapter_13 frozen_account account_frozen account_seiz seized_account tax_evasion "
    "tax_lien tax_arrears rent_arrears mortgage_arrears behind_on_rent behind_on_his behind_on_her behind_on_my "
    "insolvency_proc insolvent credit_refus loan_refus overindebt undischarged money_launder "
    "privatinsolvenz verbraucherinsolvenz insolvenzverfahren insolvenzantrag zahlungsunfahig uberschuld lohnpfandung "
    "gehaltspfandung kontopfandung pfandungsbeschl pfandungs zahlungsverzug zahlungsruckst zahlungsausfall "
    "offenbarungseid "
    "eidesstattliche_vermogens vermogensauskunft mahnverfahren mahnbescheid vollstreckungs gerichtsvollzieher inkasso "
    "negativer_schufa schufa-eintrag schufa_eintrag schuldnerverz schuldnerberat steuerhinterz steuerschuld "
    "zwangsversteiger zwangsvollstr kontosperr kreditablehn mietschulden spielschulden unterhaltsschuld geldwasche"
)
_UNPUBLISHED: Final = Phrases(
    "непубличн_сделк неопубликованн_отчет неопубликованная_отчет неопубликованные_результ до_публикации_отчет "
    "сделка_не_объявл слияни_и_поглощ готовится_поглощ готовится_слиян инсайдерск_информац "
    "unpublished_result unpublished_earn unpublished_account unannounced_acqui unannounced_merger merger_talks "
    "takeover_talks takeover_bid acquisition_target before_the_announcement ahead_of_the_announcement "
    "not_yet_announced profit_warning quiet_period draft_earnings pre-release_earnings "
    "unveroffentlichte_zahlen unveroffentlichte_ergebn ubernahmeangebot ubernahmegesprach fusionsgesprach "
    "gewinnwarnung vor_der_ad-hoc ad-hoc-pflichtig vorab_zahlen"
)
_LABELS: Final = Phrases(
    "доход$ доходы$ доходах$ задолженность$ задолженности$ долги$ долгах$ финансовое_положение финансовые_сведения "
    "сведения_о_доходах имущественное_положение кредитная_нагрузка долговая_нагрузка обязательства$ кредиты$ "
    "зарплата$ оклад$ остаток$ баланс_счета "
    "salary$ income$ debts$ debt$ incomeanddebts$ financialsituation$ financial_situation financialstatus$ "
    "financial_status financialinfo$ financial_data financialdata$ financial_background finances$ liabilities$ "
    "annualincome$ monthlyincome$ netincome$ grossincome$ networth$ loanstatus$ creditstatus$ credithistory$ "
    "creditnote$ outstandingdebt$ accountbalance$ "
    "gehalt$ einkommen$ schulden$ finanzielle_lage finanzlage$ finanzielle_situation vermogensverhaltnisse "
    "vermogenslage verbindlichkeiten$ einkommensverhaltnisse kredite$ kontostand$ bonitat$"
)
_VALUE: Final = re.compile(rf"{JOINED}(?P<value>[^\n<>\"'|;]{{3,60}})")
_TELLING: Final = re.compile(r"[0-9]{3}|[^\W\d_]{4,}[^\n]*[ ][^\W\d_]{4,}")
"""A number of three digits, or two words."""


_VERB: Final = re.compile(r"[ ][^\W\d_]")
"""`Income is what remains` explains a word."""


def find_sums(view: View) -> Iterator[Hit]:
    """Somebody's income, debt or balance, with its sum on the line; a score; ruin; what a label names."""
    folded = view.folded
    for start, end in _SCORES.spans(view):
        score = _SCORE.match(folded, end)
        if score is not None:
            yield Hit(start, score.end(), "financial")
    yield from (Hit(start, end, "financial") for start, end in (*_RUIN.spans(view), *_UNPUBLISHED.spans(view)))
    for start, end in _MONEY.spans(view):
        amount = _AMOUNT.match(folded, end)
        if amount is not None:
            yield Hit(start, amount.end(), "financial")
        else:
            low = max(0, start - _BEFORE_CHARS)
            before = _BEFORE.search(folded[low:start])
            if before is not None:
                yield Hit(low + before.start(), end, "financial")
    for _, end in _LABELS.spans(view):
        value = _VALUE.match(folded, end)
        if (
            value is not None
            and _TELLING.search(value["value"])
            and "(" not in value["value"]
            and not _VERB.match(folded, end)
        ):
            yield Hit(*value.span("value"), "financial")
