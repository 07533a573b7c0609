"""Requests without end, every other one sensitive by construction: for property tests of whatever routes them.

Every route that takes text, and in each every place where a client may put some. What is sensitive is known from how
the request was made; no detector was asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from benchmarks.corpus.clean import filled
from benchmarks.corpus.fields import called, chat
from benchmarks.corpus.generator import LABELS, value_of
from benchmarks.corpus.obfuscation import manners_of, written
from benchmarks.corpus.rows import Marks, ascii_escaped, quoted
from benchmarks.corpus.templates import LANGUAGES, READABLE, templates_of

_SHORT_CHARS: Final = 200
"""Longest text in a place with a bound of its own: names and ids take 256 characters, metadata and stop strings 512."""
_HARMLESS: Final = "What is the capital of France?"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A request and what is known of it."""

    route: str
    """Path of the route that takes the body."""
    body: dict[str, Any]
    is_sensitive: bool
    place: str
    """Where the text stands that makes it sensitive, or would: a word for the place, as in `PLACES`."""
    label: str | None
    manner: str
    values: tuple[str, ...]
    """The sensitive strings; JSON that stands inside a string has them escaped. Empty for a clean request."""


@dataclass(frozen=True, slots=True)
class _Place:
    route: str
    build: Callable[[str], dict[str, Any]]
    is_short: bool = False
    is_a_word: bool = False
    """Takes letters, digits, `_` and `-` only, 64 at most."""


def _user(text: str, **others: Any) -> dict[str, Any]:
    return chat({"role": "user", "content": text}, **others)


def _said(*before: dict[str, Any]) -> dict[str, Any]:
    return chat(*before, {"role": "user", "content": _HARMLESS})


def _tool(text: str = "Finds a city.", *, name: str = "find", schema: dict[str, Any] | None = None) -> dict[str, Any]:
    parameters = schema or {"type": "object", "properties": {"city": {"type": "string"}}}
    function = {"name": name, "description": text, "parameters": parameters}
    return _user(_HARMLESS, tools=[{"type": "function", "function": function}])


def _called(arguments: str, *, name: str = "find", call: str = "c1", result: Any = "[]") -> dict[str, Any]:
    return _said(
        {"role": "user", "content": "Look it up."},
        called(name, arguments, call),
        {"role": "tool", "tool_call_id": call, "content": result},
    )


def _property(**schema: Any) -> dict[str, Any]:
    return _tool(schema={"type": "object", "properties": {"city": {"type": "string", **schema}}})


def _answer_schema(text: str) -> dict[str, Any]:
    schema = {"type": "object", "description": text, "properties": {"answer": {"type": "string"}}}
    return _user(
        _HARMLESS, response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    )


def _completion(prompt: Any, **others: Any) -> dict[str, Any]:
    return {"model": "default", "prompt": prompt, **others}


def _embedding(given: Any, **others: Any) -> dict[str, Any]:
    return {"model": "default", "input": given, **others}


def _ranking(query: str, *documents: Any, **others: Any) -> dict[str, Any]:
    return {"model": "default", "query": query, "documents": ["Paris", *documents], **others}


_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_EMBEDDINGS, _RERANK = "/v1/embeddings", "/v1/rerank"

PLACES: Final[dict[str, _Place]] = {
    "system": _Place(_CHAT, lambda text: _said({"role": "system", "content": text})),
    "developer": _Place(_CHAT, lambda text: _said({"role": "developer", "content": text})),
    "user": _Place(_CHAT, _user),
    "user_part": _Place(_CHAT, lambda text: chat({"role": "user", "content": [{"type": "text", "text": text}]})),
    "earlier_user": _Place(
        _CHAT, lambda text: _said({"role": "user", "content": text}, {"role": "assistant", "content": "Noted."})
    ),
    "earlier_assistant": _Place(
        _CHAT, lambda text: _said({"role": "user", "content": "Hello."}, {"role": "assistant", "content": text})
    ),
    "refusal": _Place(
        _CHAT, lambda text: _said({"role": "user", "content": "Hello."}, {"role": "assistant", "refusal": text})
    ),
    "streamed": _Place(_CHAT, lambda text: _user(text, stream=True, stream_options={"include_usage": True})),
    "message_name": _Place(
        _CHAT, lambda text: chat({"role": "user", "name": text, "content": _HARMLESS}), is_short=True
    ),
    "tool_arguments": _Place(_CHAT, lambda text: _called(f'{{"query": {quoted(text)}, "limit": 3}}')),
    "tool_arguments_escaped": _Place(_CHAT, lambda text: _called(f'{{"query": {ascii_escaped(quoted(text))}}}')),
    "tool_arguments_broken": _Place(_CHAT, lambda text: _called(f'{{"query": {quoted(text)}, "lim')),
    "tool_arguments_key": _Place(_CHAT, lambda text: _called(f"{{{quoted(text)}: true}}")),
    "tool_result": _Place(_CHAT, lambda text: _called("{}", result=f'{{"rows": [{{"note": {quoted(text)}}}]}}')),
    "tool_result_part": _Place(_CHAT, lambda text: _called("{}", result=[{"type": "text", "text": text}])),
    "tool_call_id": _Place(_CHAT, lambda text: _called("{}", call=text), is_short=True),
    "called_name": _Place(_CHAT, lambda text: _called("{}", name=text), is_short=True),
    "tool_name": _Place(_CHAT, lambda text: _tool(name=text), is_a_word=True),
    "tool_description": _Place(_CHAT, _tool),
    "parameter_description": _Place(_CHAT, lambda text: _property(description=text)),
    "parameter_choice": _Place(_CHAT, lambda text: _property(enum=[text, "Paris"])),
    "parameter_default": _Place(_CHAT, lambda text: _property(default=text)),
    "parameter_name": _Place(
        _CHAT, lambda text: _tool(schema={"type": "object", "properties": {text: {"type": "string"}}})
    ),
    "answer_schema": _Place(_CHAT, _answer_schema),
    "metadata_value": _Place(_CHAT, lambda text: _user(_HARMLESS, metadata={"note": text}), is_short=True),
    "metadata_key": _Place(_CHAT, lambda text: _user(_HARMLESS, metadata={text: "note"}), is_short=True),
    "stop": _Place(_CHAT, lambda text: _user(_HARMLESS, stop=text), is_short=True),
    "stop_list": _Place(_CHAT, lambda text: _user(_HARMLESS, stop=["END", text]), is_short=True),
    "chat_user": _Place(_CHAT, lambda text: _user(_HARMLESS, user=text)),
    "safety_identifier": _Place(_CHAT, lambda text: _user(_HARMLESS, safety_identifier=text)),
    "prompt_cache_key": _Place(_CHAT, lambda text: _user(_HARMLESS, prompt_cache_key=text)),
    "prompt": _Place(_COMPLETIONS, _completion),
    "prompt_in_list": _Place(_COMPLETIONS, lambda text: _completion([text])),
    "completion_stop": _Place(_COMPLETIONS, lambda text: _completion(_HARMLESS, stop=[text]), is_short=True),
    "completion_user": _Place(_COMPLETIONS, lambda text: _completion(_HARMLESS, user=text)),
    "input": _Place(_EMBEDDINGS, _embedding),
    "input_in_list": _Place(_EMBEDDINGS, lambda text: _embedding(["Paris", text, "London"])),
    "input_user": _Place(_EMBEDDINGS, lambda text: _embedding("Paris", user=text)),
    "query": _Place(_RERANK, lambda text: _ranking(text, "London")),
    "document": _Place(_RERANK, lambda text: _ranking(_HARMLESS, text)),
    "document_object": _Place(_RERANK, lambda text: _ranking(_HARMLESS, {"text": text})),
    "rank_user": _Place(_RERANK, lambda text: _ranking(_HARMLESS, "London", user=text)),
}
"""Every place of every route where a client may put text."""


def requests(seed: int) -> Iterator[Labelled]:
    """Requests of this seed in an order that does not change: a sensitive one, a clean one, and so on.

    Places take turns, so that all of them are met within twice their number; labels and manners are drawn.
    """
    index = 0
    while True:
        yield _request(seed, index)
        index += 1


def _request(seed: int, index: int) -> Labelled:
    rng = Random(f"{seed}/requests/{index}")
    name = list(PLACES)[index // 2 % len(PLACES)]
    place = PLACES[name]
    while True:
        marks = Marks()
        text, label = (_clean(rng, marks), None) if index % 2 else _sensitive(rng, marks, word=place.is_a_word)
        if place.is_a_word:
            text = re.sub("[^a-zA-Z0-9_\ue000-\uf8ff-]", "_", text)
        bare, spans = marks.taken_out(text)
        limit = 64 if place.is_a_word else _SHORT_CHARS if place.is_short else len(bare)
        if len(bare) <= limit:
            break
    values = () if label is None else tuple(bare[span.start : span.end] for span in spans)
    manner = spans[0].manner if label is not None else "plain"
    return Labelled(place.route, place.build(bare), label is not None, name, label, manner, values)


def _sensitive(rng: Random, marks: Marks, *, word: bool) -> tuple[str, str]:
    """A sentence with a value in it; where only a word fits, a name of ASCII for it and a value with digits."""
    templates = templates_of(rng.choice(READABLE))
    while True:
        label = rng.choice(LABELS)
        language = rng.choice(templates.languages_of(label))
        value, bik = value_of(rng, label, language, templates.part)
        if not word or (value.isascii() and "\n" not in value and any(sign.isdigit() for sign in value)):
            break
    if word:
        return f"{templates.keys[label][0]}_{marks.mark(value, label, 'plain')}", label
    manner = "plain" if rng.random() < 0.6 else rng.choice(manners_of(label))
    value, used = written(rng, value, label, language, manner)
    sentence = rng.choice(templates.prose[language][label]).replace("{bik}", bik)
    return sentence.replace("{v}", marks.mark(value, label, used)), label


def _clean(rng: Random, marks: Marks) -> str:
    templates = templates_of(rng.choice(READABLE))
    language = rng.choice((*LANGUAGES, "any"))
    kinds = templates.clean[language]
    return filled(rng, rng.choice(kinds[rng.choice(list(kinds))]), marks)
