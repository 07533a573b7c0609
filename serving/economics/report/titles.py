"""What an input is called in a report, by its path in a case: words for people who do not edit files. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from serving.economics.report.words import Speech

TITLES: Final[Mapping[str, tuple[str, str]]] = {
    "input_tokens_per_day": ("input tokens a day", "входных токенов в день"),
    "output_tokens_per_day": ("output tokens a day", "выходных токенов в день"),
    "tokens_per_day": ("tokens a day", "токенов в день"),
    "input_share": ("share of input", "доля входных токенов"),
    "requests_per_day": ("requests a day", "запросов в день"),
    "days_per_month": ("days of a month", "дней в месяце"),
    "turns": ("requests of a conversation", "реплик в беседе"),
    "reasoning": ("hidden reasoning tokens", "скрытые токены рассуждений"),
    "cached": ("share found cached", "доля из кэша"),
    "cache_writes": ("share written to the cache", "доля записи в кэш"),
    "batch": ("share that can wait", "доля, которая может ждать"),
    "hours_per_day": ("hours of work a day", "часов работы в день"),
    "days_per_week": ("days of work a week", "дней работы в неделю"),
    "peak": ("busiest hour over the mean", "час пик к среднему"),
    "growth_per_month": ("growth a month", "рост в месяц"),
    "input": ("price of input", "цена входных токенов"),
    "cached_input": ("price of cached input", "цена токенов из кэша"),
    "cache_write": ("price of writing to the cache", "цена записи в кэш"),
    "output": ("price of output", "цена выходных токенов"),
    "batch_discount": ("discount of a batch", "скидка на пакет"),
    "per_gpu_hour": ("price of a GPU hour", "цена часа GPU"),
    "commitment_discount": ("discount for a commitment", "скидка за обязательство"),
    "price": ("price of a machine", "цена машины"),
    "residual": ("worth at the end", "остаточная стоимость"),
    "financing_per_year": ("interest a year", "ставка в год"),
    "maintenance_per_year": ("maintenance a year", "обслуживание в год"),
    "colocation_per_month": ("colocation", "размещение"),
    "prefill_tokens_per_s": ("prefill of a machine", "скорость чтения запроса машиной"),
    "decode_tokens_per_s": ("decode of a machine", "скорость ответа машины"),
    "used": ("share of capacity that is used", "используемая доля мощности"),
    "prefix_reuse": ("share of prefixes found computed", "доля уже вычисленных префиксов"),
    "busy_w": ("power under load", "мощность под нагрузкой"),
    "idle_w": ("power when idle", "мощность без нагрузки"),
    "pue": ("PUE", "PUE"),
    "per_kwh": ("price of a kWh", "цена кВт·ч"),
    "data": ("data for tuning", "данные для дообучения"),
    "labour": ("labour of tuning", "труд дообучения"),
    "gpu_hours": ("GPU hours of tuning", "часы GPU на дообучение"),
    "useful_months": ("useful months of an adapter", "срок службы адаптера, мес."),
    "refresh": ("share of a refresh", "доля повторного дообучения"),
    "prices.reasoning": ("price of hidden reasoning tokens", "цена скрытых токенов рассуждений"),
    "tuning.per_gpu_hour": ("price of a GPU hour of tuning", "цена часа GPU для дообучения"),
    "outside": ("share that an API takes", "доля, которую берёт API"),
    "outside_output": ("share of output that an API takes", "доля выходных токенов, которую берёт API"),
    "per_month": ("per month", "в месяц"),
    "once": ("once", "разово"),
    "people": ("posts", "ставок"),
    "pay_per_month": ("a post's cost", "стоимость ставки"),
}
"""By the last name of a path, or by the last two: English, Russian."""
_GROUPS: Final[Mapping[str, str]] = {"api": "option.api", "own": "option.own", "hybrid": "option.hybrid"}
_SECTIONED: Final = 5
"""Names in the path of an item: `own.sections.engineering.platform.people`."""


def title_of(path: str, speech: Speech) -> str:
    """The input at a path, in the report's language; a case's own names stand as they are."""
    names = path.split(".")
    found = TITLES.get(".".join(names[-2:])) or TITLES.get(names[-1])
    leaf = names[-1] if found is None else speech.one_of(found)
    group = speech(_GROUPS[names[0]]) if names[0] in _GROUPS else ""
    if len(names) == _SECTIONED and names[1] == "sections":
        leaf = f"{names[3]}, {leaf}"
    return f"{group}: {leaf}" if group else leaf[:1].upper() + leaf[1:]
