"""Whole training conversations: recall over filler, small tasks in a row, tool calls."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from demo import questions, words
from demo.corpus import (
    CALL,
    LABEL_ANSWER,
    LABEL_FACTS,
    LABEL_QUESTIONS,
    LABEL_UNKNOWN,
    NAME_FACT,
    NAME_QUESTIONS,
    OWN_ANSWER,
    OWN_FACTS,
    OWN_QUESTIONS,
    SYSTEM_FACTS,
    SYSTEMS,
    TIME,
    WEATHER,
    Composer,
    Conversation,
    Language,
    Tool,
    answer_from,
    render_call,
    render_tools,
)

TOKENS_PER_WORD: Final = 2.95
MORE_PER_PSEUDO_WORD: Final = 1.85
"""Measured on filler of either language, punctuation included; they only steer lengths."""

CITIES: Final = {
    "en": (
        "Paris",
        "London",
        "Berlin",
        "Rome",
        "Tokyo",
        "Madrid",
        "Oslo",
        "Cairo",
        "Lima",
        "New York",
        "Boston",
        "Vienna",
        "Moscow",
        "Prague",
        "Delhi",
    ),
    "ru": (
        "Москва",
        "Париж",
        "Казань",
        "Омск",
        "Рим",
        "Берлин",
        "Тверь",
        "Самара",
        "Пермь",
        "Сочи",
        "Томск",
        "Уфа",
    ),
}


@dataclass(frozen=True)
class _Fact:
    statement: str
    questions: tuple[str, ...]
    answer: str


def _own_fact(composer: Composer, language: Language, system: bool) -> _Fact:
    rng, code = composer.rng, composer.code()
    phrases = SYSTEM_FACTS[language] if system else OWN_FACTS[language]
    phrase = phrases[0] if rng.random() < 0.6 else rng.choice(phrases)
    return _Fact(phrase.format(code), (), code)


def _other_fact(composer: Composer, language: Language, taken: set[str]) -> _Fact:
    rng, code = composer.rng, composer.code()
    if language == "en" and rng.random() < 0.25:
        name = composer.name("en")
        statement = NAME_FACT.format(name, code)
        return _Fact(statement, tuple(q.format(name) for q in NAME_QUESTIONS), statement)
    if language == "en" and rng.random() < 0.3:
        label = words.pseudo_word(rng)
    else:
        label = rng.choice(words.LABELS if language == "en" else words.RUSSIAN_LABELS)
    if label in taken:
        label = words.pseudo_word(rng, language == "ru")
    taken.add(label)
    statement = rng.choice(LABEL_FACTS[language]).format(label, code)
    asked = tuple(q.format(label) for q in LABEL_QUESTIONS[language])
    return _Fact(statement, asked, LABEL_ANSWER[language].format(label, code))


class _Recall:
    """One conversation about codes; keeps what has been told so far."""

    def __init__(self, composer: Composer, language: Language) -> None:
        self.composer = composer
        self.rng = composer.rng
        self.language = language
        self.own: _Fact | None = None
        self.others: list[_Fact] = []
        self.taken: set[str] = set()
        self.own_asked = False

    def ask(self) -> tuple[str, str]:
        """A question about a code, told or not, and the reply it must get.

        What has been asked before is asked again less often: its answer stands close by.
        """
        rng = self.rng
        if not self.others or rng.random() < (0.15 if self.own_asked else 0.6):
            self.own_asked = True
            language: Language = self.language
            if rng.random() < 0.1:
                language = "ru" if language == "en" else "en"
            asked = OWN_QUESTIONS[language]
            question = asked[0] if rng.random() < 0.5 else rng.choice(asked)
            if self.own is None:
                return question, questions.NO_OWN_CODE[language]
            return question, OWN_ANSWER[language].format(self.own.answer)
        if rng.random() < 0.08:
            labels = words.LABELS if self.language == "en" else words.RUSSIAN_LABELS
            label = rng.choice(labels)
            if label not in self.taken:
                question = rng.choice(LABEL_QUESTIONS[self.language]).format(label)
                return question, LABEL_UNKNOWN[self.language].format(label)
        index = min(rng.randrange(len(self.others)) for _ in range(2))
        fact = self.others.pop(index)
        self.others.append(fact)
        return rng.choice(fact.questions), fact.answer


def recall(composer: Composer, language: Language, tokens: int) -> Conversation:
    """Codes at random places among about `tokens` tokens of filler, then questions about them."""
    rng = composer.rng
    talk, state = Conversation(), _Recall(composer, language)
    most = max(1, min(8, tokens // 70))
    count = rng.randint(0, most)
    others = [_other_fact(composer, language, state.taken) for _ in range(count)]
    in_system = rng.random() < 0.3
    own = _own_fact(composer, language, in_system) if rng.random() < 0.88 else None
    asked_at_end = rng.randint(1, 3 + 2 * min(len(others), 4))
    room = tokens - 32 * (len(others) + asked_at_end + 1) - 20
    pseudo = rng.choice((0.1, 0.5, 0.9))
    total = max(0, int(room / (TOKENS_PER_WORD + MORE_PER_PSEUDO_WORD * pseudo)))

    # Everything lies on a line of `total` words: facts, ends of turns, and filler between them.
    line: list[tuple[float, _Fact | None]] = [(rng.uniform(0, total), fact) for fact in others]
    if own and not in_system:
        line.append((rng.uniform(0, total), own))
    ends = rng.randint(0, 1 + min(4, total // 40))
    line += [(rng.uniform(0, total), None) for _ in range(ends)]
    line.sort(key=lambda item: item[0])
    line.append((float(total), None))

    system = [rng.choice(SYSTEMS)] if rng.random() < 0.3 else []
    if own and in_system:
        system.append(own.statement)
        state.own = own
        if rng.random() < 0.3 and total > 20:
            cut = rng.uniform(0, total / 2)
            line = [(max(0.0, place - cut), fact) for place, fact in line]
            system.append(composer.filler(int(cut), language, pseudo))
    if system:
        if rng.random() < 0.3:
            rng.shuffle(system)
        talk.add("system", " ".join(system))

    parts: list[str] = []
    here, told = 0.0, False
    for index, (place, fact) in enumerate(line):
        count = int(place - here)
        if count > 0:
            parts.append(composer.filler(count, language, pseudo))
            here = place
        last = index == len(line) - 1
        if fact is not None:
            parts.append(fact.statement)
            told = True
            if fact is own:
                state.own = own
            else:
                state.others.insert(rng.randint(0, len(state.others)), fact)
        elif parts or last:
            if last or rng.random() < 0.25:
                question, answer = state.ask()
                parts.append(question)
            else:
                answer = questions.NOTED[language] if told else questions.SEEN[language]
            talk.add("user", " ".join(parts))
            talk.add("assistant", answer)
            parts, told = [], False
    for _ in range(asked_at_end - 1):
        done = state.own_asked and not state.others
        pair = composer.small_task(language) if rng.random() < (0.6 if done else 0.1) else state.ask()
        talk.add("user", composer.noisy(pair[0]) if rng.random() < 0.3 else pair[0])
        talk.add("assistant", pair[1])
    return talk


def short_tasks(composer: Composer, language: Language, turns: int) -> Conversation:
    """Small tasks one after another, now and then a code given and asked for."""
    rng = composer.rng
    talk, state = Conversation(), _Recall(composer, language)
    if rng.random() < 0.4:
        talk.add("system", rng.choice(SYSTEMS))
    for _ in range(turns):
        draw = rng.random()
        if draw < 0.12 and state.own is None:
            state.own = _own_fact(composer, language, system=False)
            talk.add("user", state.own.statement)
            talk.add("assistant", questions.NOTED[language])
        elif draw < 0.2:
            question, answer = state.ask()
            talk.add("user", question)
            talk.add("assistant", answer)
        elif draw < 0.23:
            question = rng.choice(rng.choice((WEATHER, TIME))[language])
            talk.add("user", question.format(_city(composer, language)))
            talk.add("assistant", questions.NO_TOOL[language])
        else:
            question, answer = composer.small_task(language)
            talk.add("user", question)
            talk.add("assistant", answer)
    return talk


def _city(composer: Composer, language: Language) -> str:
    if composer.rng.random() < 0.5:
        return composer.rng.choice(CITIES[language])
    return words.pseudo_word(composer.rng, language == "ru").capitalize()


def _identifier(composer: Composer, most: int) -> str:
    return "_".join(composer.word("en", 0.4) for _ in range(composer.rng.randint(1, most)))


def make_tool(composer: Composer) -> Tool:
    """A tool with a random name, description and one or two parameters."""
    rng = composer.rng
    parameters = {
        _identifier(composer, 2): rng.choice(("string", "string", "integer")) for _ in range(rng.choice((1, 1, 2)))
    }
    description = " ".join(composer.word("en", 0.3) for _ in range(rng.randint(2, 5)))
    return Tool(_identifier(composer, 3), description.capitalize(), parameters)


def _weather_tool(composer: Composer) -> Tool:
    rng = composer.rng
    name = rng.choice(("get_weather", "get_current_weather", "weather", _identifier(composer, 2)))
    description = rng.choice(
        (
            "Get the weather in a city",
            "Get the current weather",
            "Weather for a location",
            "Get the weather",
            "Returns the weather in a given city",
        )
    )
    return Tool(name, description, {rng.choice(("city", "city", "location")): "string"})


def _time_tool(composer: Composer) -> Tool:
    rng = composer.rng
    name = rng.choice(("get_time", "get_current_time", _identifier(composer, 2)))
    description = rng.choice(("Get the time in a city", "Get the current time", "Tell the time"))
    return Tool(name, description, {rng.choice(("city", "city", "location")): "string"})


def make_value(composer: Composer, language: Language, kind: str) -> str | int:
    """A value for a parameter of type `kind`."""
    rng = composer.rng
    if kind == "integer":
        return composer.number()
    draw = rng.random()
    if draw < 0.2:
        return composer.code()
    if draw < 0.4:
        return composer.name(language)
    return composer.word(language, 0.5)


def make_result(composer: Composer, language: Language) -> str:
    """What a tool returns: a few words, a quantity, or a flat JSON object."""
    rng = composer.rng
    draw = rng.random()
    if draw < 0.35:
        keys = {_identifier(composer, 2) for _ in range(rng.choice((1, 1, 2)))}
        keys = {rng.choice(("temperature", "result", "time", "weather"))} if draw < 0.1 else keys
        values = (composer.number() if rng.random() < 0.5 else composer.word(language, 0.4) for _ in keys)
        return json.dumps(dict(zip(sorted(keys), values, strict=False)), ensure_ascii=False)
    if draw < 0.5:
        return str(composer.number())
    if draw < 0.65:
        return f"{composer.number()} {composer.word(language, 0.3)}"
    if draw < 0.8:
        return composer.code()
    return " ".join(composer.word(language, 0.4) for _ in range(rng.randint(1, 5)))


def tool_talk(composer: Composer, language: Language, turns: int) -> Conversation:
    """Tools in the system turn, then requests that need them and requests that do not."""
    rng = composer.rng
    talk = Conversation()
    tools = [make_tool(composer) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    weather = _weather_tool(composer) if rng.random() < 0.4 or not tools else None
    clock = _time_tool(composer) if rng.random() < 0.15 else None
    offered = [tool for tool in (*tools, weather, clock) if tool is not None]
    rng.shuffle(offered)
    lead = rng.choice(SYSTEMS) + "\n" if rng.random() < 0.3 else ""
    talk.add("system", lead + render_tools(offered))
    for _ in range(turns):
        draw = rng.random()
        if draw < 0.2:
            question, reply = composer.small_task(language)
            talk.add("user", question)
            talk.add("assistant", reply)
            continue
        if draw < 0.45 or not tools:
            tool, phrases = (weather, WEATHER) if rng.random() < 0.75 else (clock, TIME)
            city = _city(composer, language)
            talk.add("user", composer.noisy_case(rng.choice(phrases[language]), city))
            arguments: dict[str, object] = {} if tool is None else {next(iter(tool.parameters)): city}
        else:
            tool = rng.choice(tools) if rng.random() < 0.93 else None
            named = tool or make_tool(composer)
            arguments = {name: make_value(composer, language, kind) for name, kind in named.parameters.items()}
            joiner = " and " if language == "en" else " и "
            listed = joiner.join(f"{name} {value}" for name, value in arguments.items())
            if rng.random() < 0.35:
                talk.add("user", f"{named.description}: {listed}.")
            else:
                talk.add("user", rng.choice(CALL[language]).format(named.name, listed))
        if tool is None:
            talk.add("assistant", questions.NO_TOOL[language])
            continue
        talk.add("assistant", render_call(tool.name, arguments))
        result = make_result(composer, language)
        talk.add("tool", f"<tool_response>\n{result}\n</tool_response>")
        talk.add("assistant", answer_from(result))
    return talk
