"""Answers held to a schema, by the real engine."""

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import jsonschema_rs
import openai
import pytest

from tests.support.demo import llamacpp, needs_demo
from tests.support.harness import Gateway, chat, gateway, wait_until

pytestmark = needs_demo

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "bb", "ж"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
BOMB = {"type": "integer", "multipleOf": 99_999_989}


def wanted(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}


def some_schema(rng: random.Random, depth: int = 2) -> dict:
    kind = rng.choice(
        ["string", "integer", "boolean", "enum", "array", "object", "object"] if depth else ["integer", "enum"]
    )
    if kind == "string":
        return {"type": "string", "maxLength": rng.randint(0, 10)}
    if kind == "integer":
        least = rng.randint(-1000, 1000)
        return {"type": "integer", "minimum": least, "maximum": least + rng.randint(0, 5000)}
    if kind == "enum":
        return {"enum": rng.sample(["red", "зелёный", 3, None, True, 'a "b"', -1.5], rng.randint(1, 4))}
    if kind == "array":
        least = rng.randint(0, 2)
        items = some_schema(rng, depth - 1)
        return {"type": "array", "items": items, "minItems": least, "maxItems": least + rng.randint(0, 2)}
    if kind == "object":
        names = rng.sample(["a", "name", "имя", "x y"], rng.randint(1, 3))
        properties = {name: some_schema(rng, depth - 1) for name in names}
        return {"type": "object", "properties": properties, "required": names[:2], "additionalProperties": False}
    return {"type": kind}


@pytest.mark.parametrize("seed", range(4))
def test_random_schemas_are_followed(demo: Gateway, seed: int) -> None:
    """At temperature 1, ten schemas each: what ended by itself is valid, and that is nearly all of it."""
    rng = random.Random(seed)
    ended = 0
    for number in range(10):
        schema = some_schema(rng)
        answer = demo.chat("Tell me", response_format=wanted(schema), max_tokens=400, seed=number)
        assert answer.status == 200, answer.body
        choice = answer.json["choices"][0]
        if choice["finish_reason"] == "stop":
            ended += 1
            assert jsonschema_rs.is_valid(schema, json.loads(choice["message"]["content"])), choice
    assert ended >= 8


def test_a_streamed_answer_is_the_same(client: openai.OpenAI) -> None:
    """Several choices, with log-probabilities, streamed and not: each valid, and the end is a stop."""
    asked = {
        "model": "m",
        "messages": chat("Who are you?")["messages"],
        "response_format": wanted(PERSON),
        "n": 4,
        "seed": 3,
        "max_tokens": 300,
        "logprobs": True,
        "top_logprobs": 1,
    }
    whole = client.chat.completions.create(**asked)
    parts = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True) if chunk.choices]
    for choice in whole.choices:
        text = "".join(part.delta.content or "" for part in parts if part.index == choice.index)
        assert text == choice.message.content
        assert [part.finish_reason for part in parts if part.index == choice.index][-1] == choice.finish_reason
        if choice.finish_reason == "stop":
            assert jsonschema_rs.is_valid(PERSON, json.loads(text))
    assert len({choice.message.content for choice in whole.choices}) > 1
    assert sum(len(choice.logprobs.content) for choice in whole.choices) == whole.usage.completion_tokens


def test_any_object_is_an_object(demo: Gateway) -> None:
    """`json_object` gives one JSON object, also from a model that is asked for something else."""
    asked = {"response_format": {"type": "json_object"}, "temperature": 1.0, "max_tokens": 200, "n": 8, "seed": 1}
    choices = demo.chat("Who are you?", **asked).json["choices"]
    whole = [choice["message"]["content"] for choice in choices if choice["finish_reason"] == "stop"]
    assert whole
    assert all(isinstance(json.loads(text), dict) for text in whole)
    assert all(choice["message"]["content"].startswith("{") for choice in choices)


def test_many_at_once_held_and_free(demo: Gateway) -> None:
    """Sixteen together: the held ones are valid, the free ones say what they say alone."""
    free = demo.chat("Who are you?", temperature=0, max_tokens=24).json["choices"][0]["message"]["content"]

    def ask(place: int) -> None:
        if place % 2:
            answer = demo.chat("Who are you?", temperature=0, max_tokens=24)
            assert answer.json["choices"][0]["message"]["content"] == free
            return
        fields = {"top_p": 0.9} if place % 4 else {"presence_penalty": 0.5}
        answer = demo.chat("Tell me", response_format=wanted(PERSON), max_tokens=300, seed=place, **fields)
        choice = answer.json["choices"][0]
        assert choice["finish_reason"] != "stop" or jsonschema_rs.is_valid(
            PERSON, json.loads(choice["message"]["content"])
        )

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(48)))
    wait_until(demo.is_idle, "no place is lost")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "bogus"}, "Invalid type"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"$ref": "#/nowhere"}, "nowhere"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_schema_that_cannot_be_followed_is_told(client: openai.OpenAI, schema: dict, said: str, stream: bool) -> None:
    """A 400 before the first byte that names the field and what is wrong."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="m", messages=chat("x")["messages"], response_format=wanted(schema), stream=stream
        )
    assert caught.value.param == "response_format"
    assert said in str(caught.value)


def test_hostile_schemas_disturb_nobody(demo: Gateway) -> None:
    """While bombs are refused, others stream on in the same process; their own share of the queue is given back."""
    pid = demo.engine_pid
    told: list[int] = []
    bombs = [BOMB, {"enum": [f"value {n}" for n in range(60_000)]}, {"const": "a" * 1_000_000}]

    def attack() -> None:
        told.extend(demo.chat("x", response_format=wanted(bomb), max_tokens=5).status for bomb in bombs)

    attacker = threading.Thread(target=attack)
    attacker.start()
    answers = 0
    while attacker.is_alive() or not answers:
        assert demo.chat("Who are you?", max_tokens=8).status == 200
        answers += 1
    attacker.join()
    assert told == [400, 400, 400]
    assert answers > 5
    assert demo.engine_pid == pid
    assert demo.chat("Tell me", response_format=wanted(PERSON), max_tokens=5).status == 200
    wait_until(demo.is_idle, "no place is lost")


def test_what_fails_in_the_middle_is_told(demo: Gateway) -> None:
    """A grammar that meets its limits only later ends its own answer with the reason, and no other one."""
    later = {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 3, "maxItems": 3, "$defs": {"a": {
        "type": "object",
        "properties": {"first": {"const": "a b c d e f g h i j k l m n o p q r s t u v w x y z"},
                       "then": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(600)}}},
        "required": ["first", "then"], "additionalProperties": False}}}  # fmt: skip
    answer = demo.chat("Tell me", response_format=wanted(later), max_tokens=400)
    assert answer.status == 400
    assert answer.error["param"] == "response_format"
    streamed = demo.chat("Tell me", response_format=wanted(later), max_tokens=400, stream=True)
    last = streamed.events[-1]
    assert last["error"]["param"] == "response_format" if streamed.status == 200 else streamed.status == 400
    assert demo.chat("Who are you?", max_tokens=8).status == 200
    wait_until(demo.is_idle, "no place is lost")


def test_a_held_answer_survives_preemption(directory: pytest.TempPathFactory) -> None:
    """Cells for a third of what is asked: sequences are computed again, and their grammars go on where they were."""
    given = llamacpp(directory)
    place = given["argv"].index("--kv-layout")
    given["argv"][place + 1] = "unified"
    given["argv"] += ["--parallel", "8", "--kv-tokens", "512", "--ctx", "512"]
    with gateway(directory, **given) as served:
        letters = {"type": "string", "pattern": "^[ab]{200}$"}

        def ask(seed: int) -> str:
            answer = served.chat(f"Tell me {seed}", response_format=wanted(letters), max_tokens=450, seed=seed)
            assert answer.json["choices"][0]["finish_reason"] == "stop"
            return answer.json["choices"][0]["message"]["content"]

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
        assert served.metric("perimeter_engine_preemptions") > 0
    assert all(jsonschema_rs.is_valid(letters, json.loads(text)) for text in answers)
