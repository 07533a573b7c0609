"""The words of a report in each language, and figures as that language writes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal

from serving.economics.currencies import to_cents
from serving.economics.values import Value

Language = Literal["en", "ru"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "ru")

WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "option.api": ("API", "API"),
    "option.own": ("Own machines", "Свои машины"),
    "option.hybrid": ("Both", "Гибрид"),
    "section.compute": ("compute", "вычисления"),
    "section.engineering": ("engineering", "инженерные работы"),
    "section.data": ("data", "данные"),
    "section.operational_risk": ("operational risk", "операционные риски"),
    "section.regulation_and_security": ("regulation and security", "требования и безопасность"),
    "section.time_to_market": ("time to market", "срок запуска"),
    "tokens.input": ("input tokens", "входные токены"),
    "tokens.cached_input": ("input tokens found cached", "входные токены из кэша"),
    "tokens.cache_write": ("input tokens written to the cache", "запись входных токенов в кэш"),
    "tokens.output": ("output tokens", "выходные токены"),
    "tokens.reasoning": ("hidden reasoning tokens", "скрытые токены рассуждений"),
    "machines.rent": ("rent of machines", "аренда машин"),
    "machines.depreciation": ("depreciation of machines", "амортизация машин"),
    "machines.financing": ("financing", "финансирование"),
    "machines.maintenance": ("maintenance", "обслуживание"),
    "machines.colocation": ("colocation", "размещение"),
    "machines.power": ("power", "электроэнергия"),
    "tuning.data": ("fine-tuning: data", "дообучение: данные"),
    "tuning.labour": ("fine-tuning: labour", "дообучение: труд"),
    "tuning.gpu": ("fine-tuning: GPU hours", "дообучение: часы GPU"),
    "unit.tokens": ("tokens", "токенов"),
    "unit.machines": ("machines", "маш."),
    "unit.kWh": ("kWh", "кВт·ч"),
    "unit.GPU hours": ("GPU hours", "ч GPU"),
    "costs nothing": ("costs nothing", "расходов нет"),
    "sum": ("Sum", "Итого"),
    "per month": ("per month", "в месяц"),
    "first month": ("first month, at the likely figures", "первый месяц, по вероятным значениям"),
    "mean month": (
        "mean month of the horizon: median (9 of 10 draws)",
        "средний месяц срока: медиана (9 из 10 испытаний)",
    ),
    "at likely": ("at the likely figures", "по вероятным значениям"),
    "in draws": ("in 9 of 10 draws", "в 9 из 10 испытаний"),
    "not within in": ("not within the horizon in {share} of the draws", "не в пределах срока в {share} испытаний"),
    "in the others": ("{first}; in the others {then}", "{first}; в остальных {then}"),
    "total in draws": ("in all, in 9 of 10 draws", "всего, в 9 из 10 испытаний"),
    "never in": ("never in {share} of the draws", "никогда в {share} испытаний"),
    "worth": ("machines are still worth", "остаточная стоимость машин"),
    "less worth": ("in all, less what machines are worth", "всего за вычетом остаточной стоимости"),
    "title.figures": ("The inputs", "Исходные данные"),
    "path": ("in the file", "в файле"),
    "value": ("value", "значение"),
    "no work": ("there is no work in this case", "в этом расчёте нет нагрузки"),
    "per million": ("per million tokens served", "за миллион обслуженных токенов"),
    "per request": ("per request", "за запрос"),
    "saved": ("saved, of the API's cost, 9 of 10 draws", "экономия от стоимости API, 9 из 10 испытаний"),
    "cheapest in": ("cheapest in draws", "дешевле всех, доля испытаний"),
    "share": ("of the month", "доля месяца"),
    "item": ("what", "что"),
    "quantity": ("how much", "сколько"),
    "input": ("input", "параметр"),
    "range": ("range", "диапазон"),
    "from": ("at its low end", "при нижнем значении"),
    "to": ("at its high end", "при верхнем значении"),
    "year": ("until the end of month", "к концу месяца"),
    "machines": ("machines", "машин"),
    "carrying": ("for the load", "под нагрузку"),
    "spare": ("spare", "резерв"),
    "load": ("load of the busiest hour, in machines", "нагрузка часа пик, в машинах"),
    "title.summary": ("What it costs", "Сколько это стоит"),
    "title.statement": ("The first month", "Первый месяц"),
    "title.sensitivity": ("What moves the answer most", "Что сильнее всего влияет на ответ"),
    "title.break_even": ("When owning pays", "Когда свои машины окупаются"),
    "title.cash": ("Paid over the horizon, at the likely figures", "Выплаты за весь срок, по вероятным значениям"),
    "title.inputs": ("What this rests on", "На чём это основано"),
    "of difference": (
        "cost of own machines less that of the API, in the mean month",
        "стоимость своих машин минус стоимость API, в среднем месяце",
    ),
    "of one": ("cost of the mean month", "стоимость среднего месяца"),
    "movers": ("moved most by", "сильнее всего влияют"),
    "still": (
        "{count} further ranges move nothing: they do not reach the next machine, or are of another figure",
        "ещё диапазонов, которые ничего не меняют: {count}; до следующей машины они не доходят или влияют на другое",
    ),
    "first volume": ("owning costs no more from", "свои машины не дороже начиная с"),
    "always from": ("and never costs more from", "и никогда не дороже начиная с"),
    "never": ("at no volume", "ни при каком объёме"),
    "tokens a day": ("tokens served a day", "обслуженных токенов в день"),
    "times the case": ("{times} × this case", "{times} × этот расчёт"),
    "pays from": ("paid in all, less than for the API from month", "выплачено в сумме, меньше чем за API с месяца"),
    "not within": ("not within the horizon", "не в пределах срока"),
    "source": ("source", "источник"),
    "checked": ("last checked", "проверено"),
    "stale": ("STALE: more than {days} days ago", "УСТАРЕЛО: более {days} дней назад"),
    "note": ("note", "замечание"),
    "basis": (
        "{currency}; a month has {days} days; horizon {horizon} months; prices as of {day}",
        "{currency}; в месяце {days} дн.; срок {horizon} мес.; цены на {day}",
    ),
    "hours.always": ("24×7: work comes at all hours", "круглосуточно: запросы идут в любое время"),
    "hours.office": (
        "work comes {hours} hours a day, {week} days a week",
        "запросы идут {hours} ч в день, {week} дн. в неделю",
    ),
    "drawn": ("{draws} draws, seed {seed}", "испытаний: {draws}, начальное число {seed}"),
    "no ranges": (
        "no input is a range: the figures are as sure as the inputs",
        "ни один параметр не задан диапазоном: точность та же, что у параметров",
    ),
    "verdict.cheapest": (
        "{option}: cheapest in {share} of the draws (at least {sure} are asked for)",
        "{option}: дешевле всех в {share} испытаний (требуется не меньше {sure})",
    ),
    "verdict.cheapest, by too little": (
        "{option}: cheapest in {share} of the draws, but it saves {saved}; a change is worth {worth}",
        "{option}: дешевле всех в {share} испытаний, но экономия {saved} меньше {worth}, ради которых стоит менять",
    ),
    "verdict.not certain": (
        "not certain: {option} is cheapest in {share} of the draws, and {sure} are asked for",
        "нет уверенности: {option} дешевле всех в {share} испытаний, требуется {sure}",
    ),
    "verdict.no ranges": (
        "{option}: cheapest at these figures. None of them is a range, so nothing says how sure that is",
        "{option}: дешевле всех при этих значениях. Ни одно не задано диапазоном, надёжность ответа неизвестна",
    ),
    "verdict.nothing to compare": ("one option: nothing to compare", "один вариант: сравнивать не с чем"),
    "chart.volume": ("Cost by volume", "Стоимость в зависимости от объёма"),
    "chart.volume.x": ("tokens served a day, millions", "обслуженных токенов в день, млн"),
    "chart.cash": ("Paid so far", "Выплачено нарастающим итогом"),
    "chart.cash.x": ("month", "месяц"),
    "chart.tornado": ("What each range does alone", "Что делает каждый диапазон сам по себе"),
    "chart.volume.says": (
        "At the likely figures. Dotted upright: the volume of this case's first month. A step is one machine more.",
        "По вероятным значениям. Пунктир: объём первого месяца. Ступень: ещё одна машина.",
    ),
    "chart.cash.says": (
        "At the likely figures, with the work growing as the case says.",
        "По вероятным значениям, с ростом работы, заданным в расчёте.",
    ),
    "chart.tornado.says": (
        "All others at their likely figures, the upright line. Orange: a higher input makes the figure smaller.",
        "Остальные по вероятным значениям, вертикаль. Оранжевый: больший параметр уменьшает показатель.",
    ),
    "title.bill": ("What the ledger's tokens cost", "Сколько стоят токены из журнала"),
    "bill.says": (
        "{since} to {before}: {requests} requests; {fresh} in, {cached} cached, {output} out, {reasoning} hidden",
        "{since} – {before}: запросы {requests}; токены {fresh} вход, {cached} кэш, {output} выход, {reasoning} скрыто",
    ),
    "bill.estimated": (
        "of {estimated} requests nobody counted the tokens: they are an estimate",
        "у {estimated} запросов токены никто не посчитал: это оценка",
    ),
    "bill.caution": (
        "tokens alone, as they were counted here: another provider's tokenizer makes more or fewer of the same text",
        "только токены, и по счёту этого сервера: токенизатор другого поставщика даст больше или меньше",
    ),
    "bill.here": ("here, by the site's price book", "здесь, по прейскуранту площадки"),
    "bill.no prices": ("no price book is set", "прейскурант не задан"),
    "bill.where": ("where", "где"),
    "bill.cost": ("cost", "стоимость"),
    "bill.uncached": ("without a cache", "без кэша"),
    "advice.none": (
        "Do not, yet: none of the ways has all it needs.",
        "Пока не стоит: ни один вариант не отвечает всем условиям.",
    ),
    "advice.some": ("Nothing speaks against: {ways}.", "Ничто не мешает: {ways}."),
    "advice.unmet": ("{way}: not met", "{way}: не выполнено"),
    "advice.met": ("{way}: all conditions are met", "{way}: все условия выполнены"),
    "condition.data": (
        "all of the work's data has to be free to leave, and is",
        "все данные этой работы должно быть можно передавать наружу; сейчас можно",
    ),
    "condition.share": (
        "some of the work has to be free to leave, and some not; free to leave is",
        "часть работы должно быть можно передавать наружу, а часть нет; сейчас можно",
    ),
    "condition.load": (
        "the busiest hour has to be at most 3 mean ones, and is",
        "час пик должен быть не больше трёх средних; сейчас",
    ),
    "condition.cost": (
        "against an API it has to save something at the low end of its interval, and saves",
        "по сравнению с API должна быть экономия и на нижней границе интервала; сейчас",
    ),
    "condition.cost beside own": (
        "against own machines alone it has to save something at the low end of its interval, and saves",
        "по сравнению с одними своими машинами должна быть экономия и на нижней границе интервала; сейчас",
    ),
    "condition.spend": (
        "an API has to cost at least 5,000 US dollars a month, and costs",
        "API должен стоить не меньше 5 000 долларов США в месяц; сейчас",
    ),
    "condition.team": (
        "a quarter of a post at least has to run the servers, and there is",
        "на серверы нужна хотя бы четверть ставки; сейчас",
    ),
    "condition.nights": (
        "somebody has to be on call, since the work goes on at night, and there is",
        "работа идёт и ночью, нужен дежурный; сейчас",
    ),
    "condition.horizon": (
        "the horizon has to be at least 12 months, and is",
        "срок должен быть не меньше 12 мес.; сейчас",
    ),
    "condition.examples": (
        "tuning needs at least 1,000 labelled examples, and there are",
        "для дообучения нужно не меньше 1 000 размеченных примеров; сейчас",
    ),
    "title.charts": ("Charts", "Графики"),
    "title.limits": ("What these figures leave out", "Чего в этих цифрах нет"),
    "limit.prices": (
        "prices stay as they are for {horizon} months: nothing says how they will move",
        "цены не меняются все {horizon} мес.: как они изменятся, неизвестно",
    ),
    "limit.money": (
        "no tax and no discounting; interest is the cost of bound money, paid or forgone",
        "без налогов и дисконтирования; проценты – это цена вложенных денег, уплаченная или упущенная",
    ),
    "limit.ranges": (
        "ranges are drawn as if they had nothing to do with one another",
        "диапазоны разыгрываются независимо друг от друга",
    ),
    "limit.quality": (
        "the answers' quality is not compared: an open model may need more tries, or fewer, than an API's",
        "качество ответов не сравнивается: открытой модели может понадобиться больше попыток, чем API, или меньше",
    ),
    "limit.hybrid": (
        "both pays all items of both ways in full, whatever share goes out",
        "гибрид полностью платит все статьи обоих вариантов, какая бы доля ни уходила наружу",
    ),
    "limit.turns": (
        "a conversation sends again what was said before: {sent} tokens of input are sent for {served} that are new",
        "в беседе сказанное отправляется снова: на {served} новых входных токенов отправляется {sent}",
    ),
    "uncached": (
        "no price of cached input is given: what is found cached is charged in full",
        "цена входных токенов из кэша не задана: они посчитаны по полной цене",
    ),
    "unbatched": (
        "no discount of a batch is given: work that can wait is charged in full",
        "скидка за пакетную обработку не задана: работа, которая может ждать, посчитана по полной цене",
    ),
    "tokens.only": (
        "the bill for tokens alone: nothing was said of the five other sections, from engineering to time to market",
        "только счёт за токены: об инженерных работах, данных, рисках, требованиях и сроке запуска ничего не сказано",
    ),
}
"""By name: English, Russian. A name that is not here is a case's own, and stands as it is."""


class Speech:
    """One language's words and figures."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._place = LANGUAGES.index(language)

    def __call__(self, name: str, **filled: object) -> str:
        """The words of that name, with what is to be filled in."""
        found = WORDS.get(name)
        text = name if found is None else found[self._place]
        return text.format(**filled) if filled else text

    def one_of(self, said: tuple[str, str]) -> str:
        """Of the same in each language, the one of this."""
        return said[self._place]

    def line(self, name: str) -> str:
        """What a line of a statement is called: ours are translated, a case's own, which have no dot, are not."""
        return self(name) if "." in name else name

    def number(self, number: Decimal, places: int | None = None) -> str:
        """With groups of three; as many places as it needs, or so many."""
        text = f"{number:,.{places}f}" if places is not None else f"{_plain(number):,f}"
        return text if self.language == "en" else text.translate(_RUSSIAN)

    def money(self, amount: Decimal, currency: str) -> str:
        """In whole hundredths, with the currency; what is less than one, with more places."""
        if amount and abs(amount) < 1:
            return f"{self.number(_plain(amount.quantize(Decimal('0.000001'))))} {currency}"
        return f"{self.number(to_cents(amount), 2)} {currency}"

    def share(self, share: Decimal) -> str:
        """In hundredths; what is not all is never said to be."""
        if _NEARLY_ALL <= share < 1:
            return f">{self.number(_NEARLY_ALL_SAID, 1)}%"
        return f"{self.number(share * 100, 1)}%"

    def volume(self, tokens: Decimal) -> str:
        """Tokens, in millions or thousands where there are many."""
        for power, *letters in _SIZES:
            if tokens >= Decimal(10) ** power:
                return f"{self.number((tokens.scaleb(-power)).quantize(_HUNDREDTH))} {letters[self._place]}"
        return self.number(_plain(tokens.quantize(Decimal(1))))

    def range(self, value: Value) -> str:
        """From, to."""
        if value.is_certain:
            return self.number(value.likely)
        return f"{self.number(value.low)} – {self.number(value.high)}"


_NEARLY_ALL: Final = Decimal("0.9995")
_NEARLY_ALL_SAID: Final = Decimal("99.9")
_SIZES: Final = ((9, "B", "млрд"), (6, "M", "млн"), (3, "k", "тыс."))
_HUNDREDTH: Final = Decimal("0.01")
_RUSSIAN: Final = str.maketrans(",.", "\u00a0,")


def _plain(number: Decimal) -> Decimal:
    """Without noughts at the end, and not in powers of ten."""
    trimmed = number.normalize()
    return trimmed.quantize(Decimal(1)) if trimmed == trimmed.to_integral_value() else trimmed
