"""The fields that chat completions and completions have in common, and the typed view of those that shape sampling."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from serving.errors import InvalidRequest
from serving.openai.rules import (
    Array,
    ByType,
    Closed,
    Custom,
    Discarded,
    Field,
    Flag,
    Integer,
    Number,
    Refused,
    Rule,
    Text,
    wrong_type,
)
from serving.openai.strict import shown

if TYPE_CHECKING:
    from serving.openai.limits import Limits, Serves

MOST_TOKENS: Final = 2**31 - 1
"""Bound on every token count and token id: both are 32 bits wide in every engine."""
MOST_IDS: Final = 1 << 20
"""Token ids in one array: more than any context, and few enough to be looked at at once."""
_TOKEN_ID: Final = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen and when to stop. The defaults are OpenAI's, and mean that nothing is changed."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """Only the k likeliest tokens; 0 is all."""
    min_p: float = 0.0
    """Only tokens at least this fraction as likely as the likeliest."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, bias); whether the ids exist is the engine's to check."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    """Tokens before an end-of-sequence token, a stop string or a stop token id may end the answer."""
    max_tokens: int | None = None
    """Longest answer, in tokens; None is what the context leaves room for."""


def _check_logit_bias(limits: Limits) -> Rule:
    def check(value: object, path: str) -> object:
        if not isinstance(value, dict):
            wrong_type(path, value, "an object")
        if len(value) > limits.logit_bias:
            raise InvalidRequest(
                f"`{path}` has {len(value)} entries, at most {limits.logit_bias} are accepted", param=path
            )
        seen: set[int] = set()
        for key, bias in value.items():
            if _TOKEN_ID.fullmatch(key) is None or int(key) > MOST_TOKENS:
                raise InvalidRequest(f"`{path}` has the key `{shown(key)}`, which is not a token id", param=path)
            if int(key) in seen:
                raise InvalidRequest(f"`{path}` names the token {int(key)} twice", param=path)
            seen.add(int(key))
            _BIAS.check(bias, f"{path}.{key}")
        return value

    return Custom(
        check,
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,9}$"},
            "additionalProperties": _BIAS.describe(),
            "maxProperties": limits.logit_bias,
        },
    )


_BIAS: Final = Number(-100, 100)


def check_token_ids(value: object, path: str) -> object:
    """An array of token ids, checked at once: prompts of 100,000 ids are not unusual."""
    if not isinstance(value, list):
        wrong_type(path, value, "an array of token ids")
    if len(value) > MOST_IDS:
        raise InvalidRequest(f"`{path}` holds {len(value)} token ids, at most {MOST_IDS} are accepted", param=path)
    # `type(x) is int` shuts out booleans, which are integers to isinstance.
    if any(type(item) is not int for item in value):
        wrong_at = next(index for index, item in enumerate(value) if type(item) is not int)
        wrong_type(f"{path}.{wrong_at}", value[wrong_at], "an integer")
    if value and not (min(value) >= 0 and max(value) <= MOST_TOKENS):
        raise InvalidRequest(f"`{path}` holds a number that is not a token id", param=path)
    return value


TOKEN_ID_ARRAY: Final[dict[str, object]] = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": MOST_TOKENS},
}


def _check_stream_options(checked: dict[str, object], path: str) -> None:
    if "stream_options" in checked and checked.get("stream") is not True:
        where = f"{path}.stream_options" if path else "stream_options"
        raise InvalidRequest(
            "`stream_options` is only accepted with `stream: true`", param=where, hint="set `stream` or leave it out"
        )


def finish_generation(checked: dict[str, object], path: str) -> None:
    """What must hold between the fields of any request that generates."""
    _check_stream_options(checked, path)
    longest = checked.get("max_completion_tokens", checked.get("max_tokens"))
    if "max_completion_tokens" in checked and checked.get("max_tokens", longest) != longest:
        raise InvalidRequest(
            "`max_tokens` and `max_completion_tokens` differ",
            param="max_tokens",
            hint="send `max_completion_tokens` alone",
        )
    least = cast("int", checked.get("min_tokens", 0))
    if isinstance(longest, int) and least > longest:
        raise InvalidRequest(f"`min_tokens` is {least}, above the {longest} tokens asked for", param="min_tokens")


def generation_fields(limits: Limits, serves: Serves) -> dict[str, Field]:
    """The fields that chat completions and completions share."""
    stop = Text(limits.stop_chars, min_chars=1)
    tokens = Integer(1, MOST_TOKENS)
    choices = Integer(1, limits.n)
    return {
        "model": Field(Text(limits.name_chars, min_chars=1), "A served model, as in /v1/models.", required=True),
        "temperature": Field(Number(0, 2), "0 takes the likeliest token."),
        "top_p": Field(Number(0, 1, above=True), "Only the likeliest tokens that together have this probability."),
        "top_k": Field(Integer(-1, MOST_TOKENS), "Only the k likeliest tokens; 0 and -1 are all. Extension."),
        "min_p": Field(Number(0, 1), "Only tokens this fraction as likely as the likeliest. Extension."),
        "frequency_penalty": Field(Number(-2, 2)),
        "presence_penalty": Field(Number(-2, 2)),
        "repetition_penalty": Field(Number(0, 10, above=True), "1 is none. Extension."),
        "seed": Field(Integer(-(2**63), 2**63 - 1), "Equal seeds give equal answers when run alone."),
        "stop": Field(ByType(text=stop, array=Array(stop, limits.stop)), "Ends the answer, and is not part of it."),
        "stop_token_ids": Field(Array(Integer(0, MOST_TOKENS), limits.stop_token_ids), "Extension."),
        "ignore_eos": Field(Flag(), "Go on past the end-of-sequence token. Extension, for measuring."),
        "min_tokens": Field(Integer(0, MOST_TOKENS), "Do not end before this many tokens. Extension."),
        "logit_bias": Field(_check_logit_bias(limits), "Token id to a bias from -100 to 100."),
        "max_tokens": Field(tokens, "Longest answer in tokens."),
        "stream": Field(Flag(), "Answer as server-sent events."),
        "stream_options": Field(
            Closed(
                {
                    "include_usage": Field(Flag(), "End the stream with a chunk that holds the usage."),
                    "include_obfuscation": Field(
                        Refused("streams are not padded; leave it out", (False,), Flag()), "Not served."
                    ),
                },
                ignore_unknown=limits.unknown_fields == "ignore",
            )
        ),
        "n": Field(
            choices if serves.choices else Refused("one answer per request; send several requests", (1,), choices)
        ),
        "user": Field(Discarded(Text()), "Accepted and dropped."),
    }


def sampling_of(checked: dict[str, object]) -> Sampling:
    """The typed view of the sampling fields of a checked body."""
    get = cast("dict[str, float]", checked).get
    stop = checked.get("stop", ())
    bias = cast("dict[str, float]", checked.get("logit_bias", {}))
    longest = checked.get("max_completion_tokens", checked.get("max_tokens"))
    return Sampling(
        temperature=float(get("temperature", 1.0)),
        top_p=float(get("top_p", 1.0)),
        top_k=max(0, int(get("top_k", 0))),
        min_p=float(get("min_p", 0.0)),
        frequency_penalty=float(get("frequency_penalty", 0.0)),
        presence_penalty=float(get("presence_penalty", 0.0)),
        repetition_penalty=float(get("repetition_penalty", 1.0)),
        seed=cast("int | None", checked.get("seed")),
        logit_bias=tuple((int(token), float(value)) for token, value in bias.items()),
        stop=(stop,) if isinstance(stop, str) else tuple(cast("list[str]", stop)),
        stop_token_ids=tuple(cast("list[int]", checked.get("stop_token_ids", ()))),
        ignore_eos=bool(checked.get("ignore_eos", False)),
        min_tokens=int(get("min_tokens", 0)),
        max_tokens=cast("int | None", longest),
    )


def wants_usage(checked: dict[str, object]) -> bool:
    """Whether the client asked for the usage chunk at the end of a stream."""
    options = checked.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True
