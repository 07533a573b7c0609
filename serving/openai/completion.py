"""POST /v1/completions: its closed schema, and the typed view of a request that passed it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from serving.errors import UnsupportedFeature
from serving.openai.fields import (
    TOKEN_ID_ARRAY,
    Sampling,
    check_token_ids,
    finish_generation,
    generation_fields,
    sampling_of,
    wants_usage,
)
from serving.openai.limits import DEFAULT_LIMITS, LLAMACPP, Limits, Serves
from serving.openai.rules import Closed, Custom, Field, Flag, Integer, Refused, Rule, Text, wrong_type

_MOST_LOGPROBS: Final = 5


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A completion that may be computed as it stands, but for what only the engine can check."""

    model: str
    prompt: str | tuple[int, ...]
    """Text, or token ids that go to the model as they are."""
    sampling: Sampling
    stream: bool
    include_usage: bool
    """The client wants the usage chunk at the end of its stream."""
    n: int
    logprobs: int | None
    body: dict[str, object]
    """The checked fields as they go to an engine: nothing dropped or unknown is in it."""

    def __repr__(self) -> str:
        kind = "chars" if isinstance(self.prompt, str) else "tokens"
        return f"CompletionRequest(model={self.model!r}, {kind}={len(self.prompt)}, stream={self.stream})"


@lru_cache(maxsize=16)
def completion_schema(limits: Limits = DEFAULT_LIMITS, serves: Serves = LLAMACPP) -> Closed:
    """Every field of OpenAI's published schema, and ours, with what is accepted here."""
    fields = generation_fields(limits, serves)
    logprobs = Integer(0, _MOST_LOGPROBS)
    fields |= {
        "prompt": Field(_prompt(), "Text, a list of one text, or token ids.", required=True),
        "echo": Field(Refused("the prompt is not repeated; join it on your side", (False,), Flag())),
        "suffix": Field(Refused("filling in the middle is not served", ("",), Text())),
        "best_of": Field(Integer(1, limits.n), "Only as large as `n`: answers are not ranked."),
        "logprobs": Field(
            logprobs if serves.logprobs else Refused("log-probabilities are not served by this engine", (), logprobs)
        ),
    }
    return Closed(fields, limits.unknown_fields == "ignore", _finish)


def parse_completion(
    body: dict[str, object], limits: Limits = DEFAULT_LIMITS, *, serves: Serves = LLAMACPP
) -> CompletionRequest:
    """The typed view of a parsed body. Raises InvalidRequest or UnsupportedFeature with the field at fault."""
    checked = completion_schema(limits, serves).check_object(body, "")
    prompt = checked["prompt"]
    return CompletionRequest(
        model=cast("str", checked["model"]),
        prompt=prompt if isinstance(prompt, str) else tuple(cast("list[int]", prompt)),
        sampling=sampling_of(checked),
        stream=checked.get("stream") is True,
        include_usage=wants_usage(checked),
        n=cast("int", checked.get("n", 1)),
        logprobs=cast("int | None", checked.get("logprobs")),
        body=checked,
    )


def _finish(checked: dict[str, object], path: str) -> None:
    finish_generation(checked, path)
    n = checked.get("n", 1)
    if checked.pop("best_of", n) != n:
        raise UnsupportedFeature(
            "`best_of` other than `n` is not served",
            param="best_of",
            hint="ask for `n` answers with `logprobs` and choose among them",
        )


def _prompt() -> Rule:
    one = Text()

    def check(value: object, path: str) -> object:
        if isinstance(value, str):
            return value
        if not isinstance(value, list):
            wrong_type(path, value, "a string or an array")
        if len(value) == 1 and isinstance(value[0], str):
            return value[0]
        if len(value) == 1 and isinstance(value[0], list):
            return _some_tokens(value[0], f"{path}.0")
        if value and isinstance(value[0], str | list):
            raise UnsupportedFeature(
                f"`{path}` holds {len(value)} prompts; one is served per request",
                param=path,
                hint="send one request for each",
            )
        return _some_tokens(value, path)

    return Custom(
        check,
        {
            "anyOf": [
                one.describe(),
                {"type": "array", "items": one.describe(), "minItems": 1, "maxItems": 1},
                {**TOKEN_ID_ARRAY, "minItems": 1},
            ]
        },
    )


def _some_tokens(value: object, path: str) -> object:
    check_token_ids(value, path)
    if not value:
        wrong_type(path, value, "an array with at least one token id")
    return value
