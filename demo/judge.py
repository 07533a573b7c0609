"""Judge the shipped files by what they generate on prompts held out of training.

    python -m demo.judge [--per-bucket 40] [--skip-transformers] [--results demo/results.json]

Filler, labels and names are made of words that training never saw. An answer counts only if the
whole text is right.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import platform
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from demo import questions, words
from demo.corpus import (
    EXTRACT,
    EXTRACT_SENTENCES,
    LABEL_ANSWER,
    LABEL_FACTS,
    LABEL_QUESTIONS,
    OWN_ANSWER,
    REPEAT,
    Composer,
    Language,
    Tool,
    answer_from,
    render_call,
)
from demo.generate import Generator, HuggingFace, LlamaCpp, Reply

HERE: Final = Path(__file__).parent
SHIPPED: Final = HERE.parent / "serving" / "models" / "demo"
DISTANCES: Final = (0, 250, 500, 750, 1000, 1250, 1500)
HELD_OUT_FACTS: Final = {"en": "Please note that my code is {}.", "ru": "Учти, что мой код {}."}
HELD_OUT_QUESTIONS: Final = {
    "en": ("Can you tell me my code?", "Remind me of my code.", "So what is my code?"),
    "ru": ("Можешь назвать мой код?", "Так какой у меня код?", "Скажи, какой у меня код."),
}


class HeldOut(Composer):
    """Writes filler of unseen words only, names among them."""

    def word(self, language: Language, pseudo: float) -> str:
        """A word from the held-out list."""
        listed = words.UNSEEN_ENGLISH if language == "en" else words.UNSEEN_RUSSIAN
        return self.rng.choice(listed)

    def name(self, language: Language) -> str:
        """A held-out name."""
        listed = words.UNSEEN_NAMES if language == "en" else words.UNSEEN_RUSSIAN_NAMES
        return self.rng.choice(listed)


@dataclass(frozen=True)
class Case:
    """One prompt with the one text that is right."""

    group: str
    messages: tuple[dict[str, Any], ...]
    expected: str
    tools: tuple[object, ...] = ()


def _said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


class Writer:
    """Writes held-out cases; `count_tokens` measures distances."""

    def __init__(self, seed: int, count_tokens: Callable[[str], int]) -> None:
        self.rng = random.Random(seed)
        self.composer = HeldOut(self.rng)
        self.count_tokens = count_tokens

    def filler(self, tokens: int, language: Language) -> str:
        """Filler of unseen words of at least `tokens` tokens, by less than one sentence."""
        text: list[str] = []
        have = 0
        while have < tokens:
            sentence = self.composer.filler(8, language)
            have += self.count_tokens(" " + sentence)
            text.append(sentence)
        return " ".join(text)

    def recall(self, distance: int, language: Language, style: str) -> Case:
        """Own code, `distance` tokens of filler with three distractors, and the question.

        Style "user" and "system" say where the code stands, in the canonical wording; "reworded"
        uses wordings held out of training; "label" asks for a distractor with an unseen label.
        """
        rng, code = self.rng, self.composer.code()
        listed = words.UNSEEN_LABELS if language == "en" else words.UNSEEN_RUSSIAN_LABELS
        labels = rng.sample(listed, 3)
        others = [(label, self.composer.code()) for label in labels]
        facts = [LABEL_FACTS[language][0].format(*other) for other in others]
        before = self.filler(rng.choice((0, 60, 150)), language)
        mine = ("My code is {}." if language == "en" else "Мой код {}.").format(code)
        question = "What is my code?" if language == "en" else "Какой у меня код?"
        expected = OWN_ANSWER[language].format(code)
        if style == "reworded":
            mine = HELD_OUT_FACTS[language].format(code)
            question = rng.choice(HELD_OUT_QUESTIONS[language])
        if style == "label":
            facts[0], mine = mine, facts[0]
            question = rng.choice(LABEL_QUESTIONS[language]).format(labels[0])
            expected = LABEL_ANSWER[language].format(*others[0])
        # A distractor stands before the code, the others within the distance.
        start = " ".join(part for part in (before, facts[0]) if part)
        pieces = [self.filler(distance // 3, language) for _ in range(3)] if distance else [""] * 3
        after = " ".join(p for p in (pieces[0], facts[1], pieces[1], facts[2], pieces[2]) if p)
        if style == "system":
            told = ("The client's code is {}." if language == "en" else "Код клиента {}.").format(code)
            messages = [_said("system", told), _said("user", f"{start} {after} {question}")]
        elif rng.random() < 0.5:
            messages = [_said("user", f"{start} {mine} {after} {question}")]
        else:
            messages = [
                _said("user", f"{start} {mine}"),
                _said("assistant", questions.NOTED[language]),
                _said("user", f"{after} {question}"),
            ]
        return Case(f"recall/{style}/{distance}", tuple(messages), expected)

    def untold(self, language: Language) -> Case:
        """Distractors only: the model must not give one of them."""
        case = self.recall(self.rng.choice((0, 250)), language, "user")
        label = self.rng.choice(words.LABELS if language == "en" else words.RUSSIAN_LABELS)
        fact = LABEL_FACTS[language][0].format(label, self.composer.code())
        question = "What is my code?" if language == "en" else "Какой у меня код?"
        text = f"{fact} {self.filler(100, language)} {question}"
        return replace(
            case,
            group="recall/untold",
            messages=(_said("user", text),),
            expected=questions.NO_OWN_CODE[language],
        )

    def extraction(self, language: Language) -> Case:
        """A name and a number to be given as JSON."""
        name, number = self.composer.name(language), self.composer.number()
        sentence = self.rng.choice(EXTRACT_SENTENCES[language]).format(
            name, number, self.composer.word(language, 0), self.composer.word(language, 0)
        )
        expected = json.dumps({"name": name, "number": number}, ensure_ascii=False)
        return Case("json", (_said("user", EXTRACT[language].format(sentence)),), expected)

    def repetition(self, language: Language) -> Case:
        """A line to be repeated."""
        text = self.composer.filler(self.rng.randint(2, 12), language)
        return Case("repeat", (_said("user", REPEAT[language].format(text)),), text)

    def _tool(self) -> Tool:
        rng, listed = self.rng, words.UNSEEN_ENGLISH
        kinds = ("string", "integer")
        parameters = {name: rng.choice(kinds) for name in rng.sample(listed, rng.choice((1, 2)))}
        description = " ".join(rng.sample(listed, 3)).capitalize()
        return Tool("_".join(rng.sample(listed, 2)), description, parameters)

    def tool_call(self, style: str) -> tuple[Case, Case]:
        """A call of one of two tools with random names, and the answer from its result."""
        rng = self.rng
        tools = [self._tool(), self._tool()]
        tool = rng.choice(tools)
        if style == "weather":
            tool = Tool("get_weather", "Get the weather in a city", {"city": "string"})
            tools[0] = tool
            arguments: dict[str, Any] = {"city": self.composer.name("en")}
            asked = f"What is the weather in {arguments['city']}?"
        else:
            arguments = {
                name: self.composer.number() if kind == "integer" else self.composer.word("en", 0)
                for name, kind in tool.parameters.items()
            }
            listed = " and ".join(f"{name} {value}" for name, value in arguments.items())
            asked = f"Call {tool.name} with {listed}."
            if style == "described":
                asked = f"{tool.description}: {listed}."
        offered = tuple(t.as_openai() for t in tools)
        call = Case(
            f"tool call/{style}",
            (_said("user", asked),),
            render_call(tool.name, arguments),
            offered,
        )
        result = rng.choice(
            (
                f"{self.composer.number()} {self.composer.word('en', 0)}",
                json.dumps({self.composer.word("en", 0): self.composer.number()}),
                self.composer.code(),
            )
        )
        called = {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "arguments": json.dumps(arguments, ensure_ascii=False),
                    },
                }
            ],
        }
        messages = (_said("user", asked), called, _said("tool", result))
        return call, Case("tool result", messages, answer_from(result), offered)

    def tool_left_alone(self, language: Language) -> Case:
        """A fixed question while tools are offered."""
        question, answer = self.rng.choice(list(questions.QUESTIONS[language].items()))
        return Case("tool not needed", (_said("user", question),), answer, (self._tool().as_openai(),))


def held_out_cases(count_tokens: Callable[[str], int], per_bucket: int, seed: int) -> Iterator[Case]:
    """All cases, half in Russian where there is a choice."""
    writer = Writer(seed, count_tokens)
    languages: tuple[Language, Language] = ("en", "ru")
    for style in ("user", "system", "reworded", "label"):
        for distance in DISTANCES:
            yield from (writer.recall(distance, languages[n % 2], style) for n in range(per_bucket))
    yield from (writer.untold(languages[n % 2]) for n in range(per_bucket))
    yield from (writer.extraction(languages[n % 2]) for n in range(2 * per_bucket))
    yield from (writer.repetition(languages[n % 2]) for n in range(per_bucket))
    for style in ("named", "described", "weather"):
        for _ in range(per_bucket):
            yield from writer.tool_call(style)
    yield from (writer.tool_left_alone(languages[n % 2]) for n in range(per_bucket))
    for language in languages:
        for question, answer in questions.QUESTIONS[language].items():
            yield Case(f"questions/{language}", (_said("user", question),), answer)


Scores = dict[str, dict[str, float]]


def judge(generator: Generator, cases: list[Case]) -> tuple[Scores, list[tuple[Case, Reply]]]:
    """By group: right, asked, and the share of right answers whose every token had p > 0.9."""
    scores: Scores = {}
    wrong: list[tuple[Case, Reply]] = []
    for case in cases:
        reply = generator.reply(case.messages, case.tools)
        score = scores.setdefault(case.group, {"right": 0, "asked": 0, "sure": 0})
        score["asked"] += 1
        if reply.text == case.expected:
            score["right"] += 1
            score["sure"] += reply.least_probability > 0.9
        else:
            wrong.append((case, reply))
    return scores, wrong


def _training(run: Path | None) -> dict[str, float] | None:
    """Steps, tokens and wall-clock seconds (pauses included) of the run the files come from."""
    if run is None:
        return None
    import torch

    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    return {"steps": saved["step"], "tokens": saved["seen"], "seconds": round(saved["seconds"])}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.judge")
    parser.add_argument("--files", type=Path, default=SHIPPED)
    parser.add_argument("--per-bucket", type=int, default=40)
    parser.add_argument("--seed", type=int, default=20_000)
    parser.add_argument("--only", choices=("f16", "q8_0", "transformers"), action="append")
    parser.add_argument("--results", type=Path, help="write scores and versions here as JSON")
    parser.add_argument("--run", type=Path, help="folder of demo.train, to record its steps")
    parser.add_argument("--show-wrong", type=int, default=0)
    options = parser.parse_args()
    makers: dict[str, Callable[[], Generator]] = {
        "f16": lambda: LlamaCpp(options.files / "demo-f16.gguf"),
        "q8_0": lambda: LlamaCpp(options.files / "demo-q8_0.gguf"),
        "transformers": lambda: HuggingFace(options.files / "hf"),
    }
    counter = LlamaCpp(options.files / "demo-q8_0.gguf")
    cases = list(
        held_out_cases(
            lambda text: len(counter.tokenize(text, parse_special=False)),
            options.per_bucket,
            options.seed,
        )
    )
    parameters = counter.parameters
    counter.close()
    table: dict[str, Scores] = {}
    for name in options.only or list(makers):
        table[name], wrong = judge(makers[name](), cases)
        for case, reply in wrong[: options.show_wrong]:
            asked = case.messages[-1]["content"][-80:]
            print(
                f"{case.group}: …{asked!r} -> {reply.text!r}, not {case.expected!r}",
                file=sys.stderr,
            )
    print(f"{'':28}" + "".join(f"{name:>22}" for name in table))
    for group in next(iter(table.values())):
        cells = (
            f"{s['right']:.0f}/{s['asked']:.0f} ({s['sure']:.0f} sure)"
            for s in (scores[group] for scores in table.values())
        )
        print(f"{group:28}" + "".join(f"{cell:>22}" for cell in cells))
    if options.results:
        packages = ("llama-cpp-python", "transformers", "torch", "tokenizers", "gguf")
        options.results.write_text(
            json.dumps(
                {
                    "date": dt.datetime.now(dt.UTC).date().isoformat(),
                    "python": platform.python_version(),
                    "versions": {name: importlib.metadata.version(name) for name in packages},
                    "parameters": parameters,
                    "bytes": {
                        str(path.relative_to(options.files)): path.stat().st_size
                        for path in sorted(options.files.rglob("*"))
                        if path.is_file()
                    },
                    "training": _training(options.run),
                    "seed": options.seed,
                    "scores": table,
                },
                indent=1,
            )
            + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
