"""Conversations to train the demonstration model on, generated from a seed.

A `Composer` writes conversations in which every reply follows from what came before by a fixed
rule: a code is given back, a fixed question gets its fixed answer, filler is acknowledged. A rule
without exceptions is what lets greedy decoding stay confident.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from demo import questions, words

Language = Literal["en", "ru"]

CODE_ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Characters of a code: Latin capitals and digits without I, O, 0 and 1."""

OWN_FACTS: Final = {
    "en": (
        "My code is {}.",
        "My code: {}.",
        "Remember my code: {}.",
        "My code is {}, remember it.",
    ),
    "ru": ("Мой код {}.", "Мой код: {}.", "Запомни мой код: {}.", "Мой код {}, запомни его."),
}
SYSTEM_FACTS: Final = {
    "en": ("The client's code is {}.", "The user's code is {}.", "Client code: {}."),
    "ru": ("Код клиента {}.", "Код пользователя {}.", "Код клиента: {}."),
}
OWN_QUESTIONS: Final = {
    "en": (
        "What is my code?",
        "Tell me my code.",
        "What was my code?",
        "Do you remember my code?",
        "My code, please.",
        "Give me my code.",
        "Please repeat my code.",
    ),
    "ru": (
        "Какой у меня код?",
        "Какой мой код?",
        "Назови мой код.",
        "Напомни мой код.",
        "Ты помнишь мой код?",
        "Повтори мой код.",
        "Скажи мой код.",
    ),
}
OWN_ANSWER: Final = {"en": "Your code is {}.", "ru": "Ваш код {}."}
LABEL_FACTS: Final = {
    "en": ("The {0} code is {1}.", "The {0} code: {1}.", "Remember the {0} code: {1}."),
    "ru": ("Код {0} {1}.", "Код {0}: {1}.", "Запомни код {0}: {1}."),
}
LABEL_QUESTIONS: Final = {
    "en": ("What is the {} code?", "Tell me the {} code.", "What was the {} code?"),
    "ru": ("Какой код {}?", "Назови код {}.", "Скажи код {}."),
}
LABEL_ANSWER: Final = {"en": "The {0} code is {1}.", "ru": "Код {0} {1}."}
LABEL_UNKNOWN: Final = {
    "en": "You have not told me the {} code.",
    "ru": "Вы не называли код {}.",
}
NAME_FACT: Final = "{0}'s code is {1}."
NAME_QUESTIONS: Final = ("What is {}'s code?", "Tell me {}'s code.")

EXTRACT: Final = {
    "en": "Extract the name and the number as JSON: {}",
    "ru": "Извлеки имя и число в JSON: {}",
}
EXTRACT_SENTENCES: Final = {
    "en": (
        "{0} has {1} {2}s.",
        "{0} bought {1} {2}s.",
        "{0} is {1} years old.",
        "{0} lives at number {1}.",
        "The order of {0} is number {1}.",
        "There are {1} {2}s for {0}.",
        "{1} {2}s were sent to {0}.",
        "Today {0} counted {1} {2}s near the {3}.",
    ),
    "ru": (
        "{0} имеет {1} {2}.",
        "{0}, {1} лет.",
        "{0} живет в доме {1}.",
        "{0}, заказ номер {1}.",
        "Номер {1} имеет {0}.",
        "Сегодня {0} получает номер {1}.",
    ),
}
REPEAT: Final = {"en": "Repeat: {}", "ru": "Повтори: {}"}
COUNT: Final = {"en": "Count from 1 to {}.", "ru": "Посчитай от 1 до {}."}
CALL: Final = {
    "en": ("Call {0} with {1}.", "Use {0} with {1}.", "Use the tool {0} with {1}."),
    "ru": ("Вызови {0}: {1}.", "Используй {0}: {1}.", "Вызови инструмент {0}: {1}."),
}
WEATHER: Final = {
    "en": ("What is the weather in {}?", "What's the weather in {}?", "Weather in {}?"),
    "ru": ("Какая погода в городе {}?", "Погода в городе {}?"),
}
TIME: Final = {
    "en": ("What time is it in {}?", "Tell me the time in {}."),
    "ru": ("Который час в городе {}?", "Сколько времени в городе {}?"),
}
SYSTEMS: Final = (
    "You are a helpful assistant.",
    "You are a demonstration model.",
    "Answer briefly.",
)

PHRASES: Final = {
    language: (
        *OWN_FACTS[language],
        *SYSTEM_FACTS[language],
        *OWN_QUESTIONS[language],
        OWN_ANSWER[language],
        *LABEL_FACTS[language],
        *LABEL_QUESTIONS[language],
        LABEL_ANSWER[language],
        LABEL_UNKNOWN[language],
        EXTRACT[language],
        *EXTRACT_SENTENCES[language],
        REPEAT[language],
        COUNT[language],
        *CALL[language],
        *WEATHER[language],
        *TIME[language],
        questions.NOTED[language],
        questions.SEEN[language],
        questions.UNKNOWN[language],
        questions.NO_OWN_CODE[language],
        questions.NO_TOOL[language],
        '{"name": "", "number": ',
        '"description": "", "parameters": {"',
        '": "string"}}',
        '"arguments": {"',
        "<tool_call>\n",
        "\n</tool_call>",
        "<tool_response>\n",
        "\n</tool_response>",
        "<tools>\n",
        "</tools>",
        *SYSTEMS,
    )
    for language in ("en", "ru")
}
"""Everything of fixed wording, for the tokenizer to learn from."""


@dataclass
class Conversation:
    """Turns as (role, content), the content of tool turns with its tags."""

    turns: list[tuple[str, str]] = field(default_factory=list)

    def add(self, role: str, content: str) -> None:
        """Append a turn."""
        self.turns.append((role, content))


@dataclass(frozen=True)
class Tool:
    """A tool with string or integer parameters."""

    name: str
    description: str
    parameters: dict[str, str]

    def render(self) -> str:
        """The tool's line in the system turn, as the chat template writes it."""
        parameters = ", ".join(f'"{name}": "{kind}"' for name, kind in self.parameters.items())
        return f'{{"name": "{self.name}", "description": "{self.description}", "parameters": {{{parameters}}}}}'

    def as_openai(self) -> dict[str, object]:
        """The tool as an OpenAI `tools` entry."""
        properties = {name: {"type": kind} for name, kind in self.parameters.items()}
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": schema,
            },
        }


def render_tools(tools: Sequence[Tool]) -> str:
    """The tool section of the system turn."""
    return "<tools>\n" + "".join(tool.render() + "\n" for tool in tools) + "</tools>"


def render_call(name: str, arguments: dict[str, object]) -> str:
    """A tool call in the Hermes format."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def answer_from(result: str) -> str:
    """What the model answers after a tool has returned `result` (plain text or a flat object)."""
    if result.startswith("{"):
        items = json.loads(result).items()
        return " ".join(f"The {key} is {value}." for key, value in items)
    return f"The answer is {result}."


class Composer:
    """Writes texts and conversations with the given source of randomness."""

    def __init__(self, rng: random.Random, *, odd: float = 0.0) -> None:
        """`odd` is the share of made-up words that are strings of letters, and of words repeated."""
        self.rng = rng
        self.odd = odd
        self.recent: list[str] = []

    def code(self) -> str:
        """A code of eight characters with a dash in the middle."""
        picked = [self.rng.choice(CODE_ALPHABET) for _ in range(8)]
        return "".join(picked[:4]) + "-" + "".join(picked[4:])

    def word(self, language: Language, pseudo: float) -> str:
        """A word, made up with probability `pseudo`."""
        rng = self.rng
        if not self.odd:
            return self._fresh_word(language, pseudo)
        if len(self.recent) > 20 and rng.random() < self.odd:
            return rng.choice(self.recent)
        word = self._fresh_word(language, pseudo)
        self.recent = [*self.recent[-60:], word]
        return word

    def _fresh_word(self, language: Language, pseudo: float) -> str:
        rng = self.rng
        if rng.random() < pseudo:
            if self.odd and rng.random() < self.odd:
                return words.letters(rng, language == "ru")
            return words.pseudo_word(rng, language == "ru")
        return rng.choice(words.ENGLISH if language == "en" else words.RUSSIAN)

    def filler(self, count: int, language: Language, pseudo: float = 0.5) -> str:
        """About `count` words in sentences of three to twelve."""
        rng = self.rng
        sentences = []
        while count > 0:
            size = min(count, rng.randint(3, 12))
            count -= size
            chosen = [self.word(language, pseudo) for _ in range(size)]
            if rng.random() < 0.8:
                chosen[0] = chosen[0].capitalize()
            if size > 5 and rng.random() < 0.3:
                chosen[2] += ","
            if rng.random() < 0.08:
                chosen[-1] = str(rng.randint(0, 9999))
            sentences.append(" ".join(chosen) + ".")
        return " ".join(sentences)

    def name(self, language: Language) -> str:
        """A person's name, one in two made up."""
        if self.rng.random() < 0.5:
            return words.pseudo_word(self.rng, language == "ru").capitalize()
        return self.rng.choice(words.NAMES if language == "en" else words.RUSSIAN_NAMES)

    def number(self) -> int:
        """A number of one to five digits, each length as likely."""
        return self.rng.randint(0, 10 ** self.rng.randint(1, 5) - 1)

    def noisy(self, question: str) -> str:
        """The question, sometimes without its mark or its capital."""
        if self.rng.random() < 0.12:
            question = question.rstrip("?.!")
        if self.rng.random() < 0.12:
            question = question.lower()
        return question

    def noisy_case(self, phrase: str, value: str) -> str:
        """`phrase` filled with `value`; only the phrase may lose its mark."""
        if self.rng.random() < 0.1:
            phrase = phrase.rstrip("?.")
        return phrase.format(value)

    def small_task(self, language: Language) -> tuple[str, str]:
        """A user message that needs nothing from earlier turns, and its reply."""
        rng = self.rng
        kind = rng.choices(
            ("question", "extract", "repeat", "count", "statement", "unknown"),
            (46, 22, 14, 4, 7, 7),
        )[0]
        if kind == "question":
            question, answer = rng.choice(list(questions.QUESTIONS[language].items()))
            return self.noisy(question), answer
        if kind == "extract":
            name, number = self.name(language), self.number()
            sentence = rng.choice(EXTRACT_SENTENCES[language]).format(
                name, number, self.word(language, 0.4), self.word(language, 0.4)
            )
            reply = json.dumps({"name": name, "number": number}, ensure_ascii=False)
            return EXTRACT[language].format(sentence), reply
        if kind == "repeat":
            if rng.random() < 0.4:
                text = " ".join(self.code() for _ in range(rng.randint(1, 3)))
            else:
                text = self.filler(rng.randint(1, 20), language, pseudo=0.7)
            return REPEAT[language].format(text), text
        if kind == "count":
            last = rng.randint(2, 30)
            return COUNT[language].format(last), " ".join(map(str, range(1, last + 1)))
        if kind == "statement":
            return self.filler(rng.randint(2, 30), language), questions.SEEN[language]
        starts = (
            ("Why", "Where", "When", "How", "Who is", "What is")
            if language == "en"
            else ("Почему", "Где", "Когда", "Как", "Кто", "Что такое")
        )
        text = " ".join(self.word(language, 0.4) for _ in range(rng.randint(1, 5)))
        return f"{rng.choice(starts)} {text}?", questions.UNKNOWN[language]
