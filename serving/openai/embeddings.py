"""POST /v1/embeddings: its closed schema, the typed view of a request that passed it, and the answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from serving.errors import InvalidRequest
from serving.openai.fields import TOKEN_ID_ARRAY, check_token_ids
from serving.openai.limits import DEFAULT_LIMITS, Limits
from serving.openai.rules import Closed, Custom, Discarded, Field, Integer, OneOf, Rule, Text, wrong_type
from serving.openai.strict import serialise

MOST_DIMENSIONS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """Texts whose embeddings are asked for."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    """Each a text, or token ids that go to the model as they are."""
    base64: bool
    """Numbers as the base64 of little-endian 32-bit floats, in place of an array."""
    dimensions: int | None
    """The length that was asked for; whether the model has it is the engine's to check."""
    body: dict[str, object]

    def __repr__(self) -> str:
        return f"EmbeddingsRequest(model={self.model!r}, inputs={len(self.inputs)})"


@lru_cache(maxsize=16)
def embeddings_schema(limits: Limits = DEFAULT_LIMITS) -> Closed:
    """Every field of OpenAI's published schema, with what is accepted here."""
    return Closed(
        {
            "model": Field(Text(limits.name_chars, min_chars=1), "A served model, as in /v1/models.", required=True),
            "input": Field(_input(limits), "A text, token ids, or an array of either.", required=True),
            "encoding_format": Field(OneOf(("float", "base64")), "`float` where absent."),
            "dimensions": Field(Integer(1, MOST_DIMENSIONS), "The model's own length, or it is refused."),
            "user": Field(Discarded(Text()), "Accepted and dropped."),
        },
        limits.unknown_fields == "ignore",
    )


def parse_embeddings(body: dict[str, object], limits: Limits = DEFAULT_LIMITS) -> EmbeddingsRequest:
    """The typed view of a parsed body. Raises InvalidRequest with the field at fault."""
    checked = embeddings_schema(limits).check_object(body, "")
    given = checked["input"]
    many = given if isinstance(given, list) and given and isinstance(given[0], str | list) else [given]
    return EmbeddingsRequest(
        model=cast("str", checked["model"]),
        inputs=tuple(one if isinstance(one, str) else tuple(cast("list[int]", one)) for one in many),
        base64=checked.get("encoding_format") == "base64",
        dimensions=cast("int | None", checked.get("dimensions")),
        body=checked,
    )


def embeddings_body(*, model: str, embeddings: Iterable[list[float] | str], prompt_tokens: int) -> bytes:
    """The answer, in OpenAI's shape; embeddings in the order of the inputs, as numbers or as base64.

    Serialised one by one: all at once, thousands of them would keep every other thread waiting for seconds.
    """
    data = (
        serialise({"object": "embedding", "index": index, "embedding": embedding})
        for index, embedding in enumerate(embeddings)
    )
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    rest = serialise({"model": model, "usage": usage})
    return b'{"object":"list","data":[' + b",".join(data) + b"]," + rest[1:]


def _input(limits: Limits) -> Rule:
    def check(value: object, path: str) -> object:
        if isinstance(value, str):
            return _text(value, path)
        if not isinstance(value, list):
            wrong_type(path, value, "a string or an array")
        if not value:
            raise InvalidRequest(f"`{path}` must not be empty", param=path)
        if not isinstance(value[0], str | list):
            return _tokens(value, path)
        if len(value) > limits.inputs:
            raise InvalidRequest(f"`{path}` has {len(value)} items, at most {limits.inputs} are accepted", param=path)
        one = _text if isinstance(value[0], str) else _tokens
        return [one(item, f"{path}.{index}") for index, item in enumerate(value)]

    tokens = {**TOKEN_ID_ARRAY, "minItems": 1}
    text = {"type": "string", "minLength": 1}
    many = {"minItems": 1, "maxItems": limits.inputs}
    return Custom(
        check,
        {"anyOf": [text, {"type": "array", "items": text, **many}, tokens, {"type": "array", "items": tokens, **many}]},
    )


def _text(value: object, path: str) -> object:
    if not isinstance(value, str):
        wrong_type(path, value, "a string, as the first one is")
    if not value:
        raise InvalidRequest(f"`{path}` must not be empty", param=path)
    return value


def _tokens(value: object, path: str) -> object:
    check_token_ids(value, path)
    if not value:
        raise InvalidRequest(f"`{path}` must not be empty", param=path)
    return value
