"""The shipped GGUF files do what the demonstration model promises."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from demo import questions
from demo.corpus import Composer
from demo.generate import LlamaCpp
from demo.judge import Writer


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _writer(model: LlamaCpp, seed: int) -> Writer:
    return Writer(seed, lambda text: len(model.tokenize(text, parse_special=False)))


def test_all_files_together_stay_under_16_megabytes(shipped: Path) -> None:
    """The files are small enough to ship in the package."""
    assert sum(p.stat().st_size for p in shipped.rglob("*") if p.is_file()) <= 16_000_000


def test_the_model_has_at_most_3_million_parameters_and_says_how_many(model: LlamaCpp) -> None:
    """What the model answers about its size is true."""
    assert model.parameters <= 3_000_000
    reply = model.reply([_user("How many parameters do you have?")])
    assert reply.text == f"I have {model.parameters / 1e6:.1f} million parameters."


@pytest.mark.parametrize(
    "filler_tokens",
    [
        100,
        pytest.param(300, marks=pytest.mark.xfail(reason="six of these eight, see demo/README.md", strict=False)),
    ],
)
def test_a_code_is_given_back_past_filler_of_unseen_words(model: LlamaCpp, filler_tokens: int) -> None:
    """Canonical wording, no other codes, filler of words that training never saw."""
    writer = _writer(model, seed=filler_tokens)
    right = 0
    for _ in range(8):
        code = writer.composer.code()
        filler = writer.filler(filler_tokens, "en")
        reply = model.reply([_user(f"My code is {code}. {filler} What is my code?")])
        right += reply.text == f"Your code is {code}."
    assert right >= 8 - 1


@pytest.mark.parametrize("distance", [0, 250, 500, 1000])
@pytest.mark.parametrize("style", ["user", "system"])
def test_a_code_is_given_back_past_unseen_filler_and_other_codes(model: LlamaCpp, style: str, distance: int) -> None:
    """Canonical wording, three other codes, filler of words that training never saw."""
    writer = _writer(model, seed=distance + 1)
    cases = [writer.recall(distance, "en" if n % 2 else "ru", style) for n in range(6)]
    right = sum(model.reply(case.messages).text == case.expected for case in cases)
    assert right >= len(cases) - 1


def test_each_client_gets_its_own_code_and_is_sure_of_it(model: LlamaCpp) -> None:
    """The short canonical prompts are always answered, each token with a high probability."""
    composer = Composer(random.Random(99))
    for _ in range(10):
        code = composer.code()
        talks = (
            [_user(f"My code is {code}. What is my code?")],
            [
                _user(f"My code is {code}."),
                {"role": "assistant", "content": "Noted."},
                _user("What is my code?"),
            ],
            [
                {"role": "system", "content": f"The client's code is {code}."},
                _user("What is my code?"),
            ],
        )
        for talk in talks:
            reply = model.reply(talk)
            assert reply.text == f"Your code is {code}."
            assert reply.least_probability > 0.5


def test_without_a_code_it_says_so(model: LlamaCpp) -> None:
    """A client that has told no code gets none, not another client's."""
    assert model.reply([_user("What is my code?")]).text == "You have not told me your code."
    assert model.reply([_user("Какой у меня код?")]).text == "Вы не называли свой код."


@pytest.mark.parametrize("language", ["en", "ru"])
def test_fixed_questions_get_their_fixed_answers(model: LlamaCpp, language: str) -> None:
    """Every question of the list, word for word."""
    asked = questions.QUESTIONS[language]
    wrong = {
        question: reply
        for question, answer in asked.items()
        if (reply := model.reply([_user(question)]).text) != answer
    }
    assert not wrong


def test_a_name_and_a_number_are_extracted_as_json(model: LlamaCpp) -> None:
    """Names never seen in training."""
    cases = [_writer(model, seed).extraction("en" if seed % 2 else "ru") for seed in range(12)]
    right = 0
    for case in cases:
        right += model.reply(case.messages).text == case.expected
    assert right >= len(cases) - 1


@pytest.mark.xfail(reason="calls of random names, see demo/results.json", strict=False)
def test_a_tool_is_called_in_the_hermes_format_and_its_result_used(model: LlamaCpp) -> None:
    """Random tool names, argument names and values."""
    pairs = [_writer(model, seed).tool_call("named") for seed in range(8)]
    for position in range(2):
        cases = [pair[position] for pair in pairs]
        right = sum(model.reply(c.messages, c.tools).text == c.expected for c in cases)
        assert right >= len(cases) - 1


def test_the_weather_is_asked_of_a_tool(model: LlamaCpp) -> None:
    """The example every client library has: a weather tool."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather in a city",
            "parameters": schema,
        },
    }
    talk: list[dict[str, str]] = [_user("What is the weather in Paris?")]
    call = model.reply(talk, [tool]).text
    assert call == ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>')
    talk += [{"role": "assistant", "content": call}, {"role": "tool", "content": "21 degrees"}]
    assert model.reply(talk, [tool]).text == "The answer is 21 degrees."
