"""What is remembered of earlier turns changes no finding: a conversation is found what a scan that knows nothing finds.

Conversations grow turn by turn, values are cut across messages, headings stand far away, writing is obfuscated; in
OpenAI's form as they come, and in two vendors' forms as they would be sent.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.egress.texts import every_text
from serving.egress.vendors import Anthropic, OpenAI, OutCall, Vendor
from serving.policy.detect import DetectSettings, Finding, Part, Scanner, SiteVocabulary, parts_of
from serving.policy.detect.memory import Memory
from serving.policy.detect.names import RussianNames, open_names
from serving.policy.detect.vocabulary import Pattern, Terms

SITE = SiteVocabulary(
    (Terms("projects", ("мотыл*", "Project Nightjar")),), (Pattern("contract", r"(?s)K-\d{4}.{0,900}!"),)
)
WITH_NAMES = DetectSettings(names=True, site=SITE)
VENDORS: tuple[Vendor, ...] = (OpenAI(name="vendor", prefix="/v1"), Anthropic(name="vendor"))
PROSE = (
    "Коллеги, прошу подготовить сводку по проекту до пятницы. ",
    "Вопросы: сроки поставки, стоимость работ и порядок приёмки.\n",
    "The scheduler keeps a queue of requests and serves them in order. ",
    "В отчёте Мария Кузнецова и Дмитрий Орлов описали склад. ",
)
PIECES = (
    "112-233-", "445 95", "СНИЛС", "паспорт", "45 10 № 123456", "DE89 3704 0044 ", "0532 0130 00", "Анна", "Соколова",
    "id;паспорт;сумма\n", "17;4510123456;9\n", "диагноз", "пациент", "дсп", "mail собака", " dash ", " at ", "\n\n",
    "мотылёк", "Project", "Nightjar", "K-1234", "!", "Meier, Anna", "1 1 2 2 3 3 4 4 5 9 5",
    "СНИ\u200bЛС １１２‑２３３‑４４５\u2003９５",
    "\\u0434\\u0438\\u0430\\u0433\\u043d\\u043e\\u0437", "password: Xk9$mmQ2", "+7 916 123-45-67", "中文字", "\ufffd",
    base64.b64encode("снилс 112-233-445 95".encode()).decode(),
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    start: int
    stop: int
    type: str = "PER"


@dataclass(frozen=True)
class Markup:
    spans: tuple[Found, ...]


class Reader:
    """Reads like the real network in what matters here: what it says of a text hangs on those it is read with."""

    def map(self, texts: Iterable[str]) -> Iterator[Markup]:
        few = list(texts)
        longest = max(map(len, few))
        for text in few:
            at = [index for index, letter in enumerate(text) if letter.isupper() and (index + longest) % 3]
            yield Markup(tuple(Found(index, min(len(text), index + 1 + longest % 5)) for index in at))


def conversation(seed: int, turns: int, long: int) -> list[str]:
    """Messages: each prose of some length with pieces in it, so that what is one value stands in several."""
    draw = random.Random(seed)
    return [
        f"{turn}. "
        + "".join(
            draw.choice(PIECES) + draw.choice(("", " ", "\n", ": ")) if draw.random() < 0.2 else draw.choice(PROSE)
            for _ in range(draw.randrange(1, long))
        )
        for turn in range(2 * turns - 1)
    ]


def forms(messages: Sequence[str]) -> Iterator[tuple[Part, ...]]:
    """As the conversation comes, and as it would be sent."""
    said: list[dict[str, object]] = [
        {"role": "assistant" if index % 2 else "user", "content": text} for index, text in enumerate(messages)
    ]
    body: dict[str, object] = {"model": "demo", "messages": said, "max_tokens": 64}
    yield parts_of(body)
    for vendor in VENDORS:
        yield every_text(json.loads(vendor.request(OutCall("/v1/chat/completions", body, "their-model")).body))


def check(messages: Sequence[str], remembering: Scanner, fresh: Scanner) -> set[Finding]:
    """All findings, turn by turn, none of which may differ."""
    found = set()
    for turn in range(1, len(messages) + 1, 2):  # the last word is the user's
        for parts in forms(messages[:turn]):
            finding = remembering.scan(parts)
            assert finding == fresh.scan(parts)
            found.add(finding)
    return found


@given(st.integers(0, 1 << 32), st.integers(1, 3), st.sampled_from((4, 30, 80)))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_turn_is_found_what_a_scan_of_the_whole_finds(seed: int, turns: int, long: int) -> None:
    """Verdict, labels, places and reasons, whatever was asked before and in whatever form."""
    memory = Memory()
    remembering = Scanner(WITH_NAMES, RussianNames(Reader(), memory))
    check(conversation(seed, turns, long), remembering, Scanner(WITH_NAMES, RussianNames(Reader())))


def test_a_memory_that_has_forgotten_half_finds_the_same() -> None:
    """There is no room for all of a conversation: what went is asked again."""
    memory = Memory(most_bytes=2_000)
    remembering = Scanner(WITH_NAMES, RussianNames(Reader(), memory))
    found = check(conversation(3, 4, 200), remembering, Scanner(WITH_NAMES, RussianNames(Reader())))
    assert memory.recalled
    assert memory.size <= 2_000
    assert len(found) > 3


def test_the_model_is_remembered_to_the_letter() -> None:
    """The real network, over conversations of which it has seen all but the last turn."""
    pytest.importorskip("slovnet")
    memory = Memory()
    model = open_names(memory)
    if model is None:
        pytest.skip("natasha's models are not installed")
    fresh = open_names()
    for seed in range(4):
        check(conversation(seed, 2, 120), Scanner(WITH_NAMES, model), Scanner(WITH_NAMES, fresh))
    assert memory.recalled
