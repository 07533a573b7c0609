"""Rows from a seed: the n-th row of a seed is the same in every run, however many are made."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from benchmarks.corpus import carriers, identifiers, keys, people
from benchmarks.corpus.clean import filled
from benchmarks.corpus.fields import Field, called, chat
from benchmarks.corpus.held_out import numbers, values
from benchmarks.corpus.held_out.people import inflected
from benchmarks.corpus.obfuscation import manners_of, written
from benchmarks.corpus.rows import Marks, Row
from benchmarks.corpus.templates import LANGUAGES, SLOT, Part, Templates, templates_of

_SECRETS: Final = {
    "secret.private_key": keys.private_key,
    "secret.cloud_key": keys.cloud_key,
    "secret.model_key": keys.model_key,
    "secret.jwt": keys.jwt,
    "secret.password": keys.password,
}
_FROM_WORDS: Final = ("medical", "financial", "document_label")
LABELS: Final[tuple[str, ...]] = (
    *identifiers.MAKERS,
    "ru.bank_account",
    "email",
    "address",
    "birth_date",
    *_FROM_WORDS,
    *_SECRETS,
    "name.person",
)
"""Everything sensitive that the corpus knows. `name.public` is labelled too, and is not sensitive."""
_IN_PROSE, _IN_RECORD = 0.5, 0.8
"""Of the sensitive rows, half are prose, and three tenths records in a text; the rest are requests."""
_IN_SCENE: Final = 0.3
"""Of the sensitive rows of a part that has scenes with the label, those that are one."""
_ESCAPES: Final[dict[str, Callable[[str], str]]] = {
    "text": str,
    "json": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "xml": html.escape,
    "sql": lambda value: value.replace("'", "''"),
}
"""By the format of a scene."""
_ALONE: Final = 0.7
"""Of the sensitive rows, those with nothing sensitive but what they were made for."""


_CASE: Final = re.compile(r"\{v:(\w+)\}")
"""The place of a Russian name in a sentence that asks for a case."""


@dataclass(frozen=True, slots=True)
class _Value:
    """A value that was made for a row."""

    raw: str
    bik: str
    shown: str
    """In its manner and between its marks."""
    manner: str


def value_of(rng: Random, label: str, language: str, part: Part) -> tuple[str, str]:
    """A value that the label stands for, and the BIK beside it (empty where none belongs there)."""
    if label == "ru.bank_account":
        bik = identifiers.bik(rng)
        make = numbers.bank_account if part == "held_out" else identifiers.bank_account
        return make(rng, bik), bik
    if part == "held_out" and label in values.MAKERS:
        return values.MAKERS[label](rng, language), ""
    maker = identifiers.MAKERS.get(label) or _SECRETS.get(label)
    if maker is not None:
        return maker(rng), ""
    if label in _FROM_WORDS:
        return rng.choice(templates_of(part).values[language][label]), ""
    of_people = {
        "email": lambda: people.email(rng, part),
        "birth_date": lambda: people.birth_date(rng, language),
        "address": lambda: people.address(rng, language, part),
        "name.person": lambda: people.name(rng, language, part),
    }
    return of_people[label](), ""


def rows(seed: int, count: int, part: Part = "open") -> Iterator[Row]:
    """So many rows, every other one sensitive; labels and manners take turns, half of the values are plain."""
    for index in range(count):
        if index % 2:
            yield _clean(seed, index, part)
        else:
            yield _sensitive(seed, index, part)


def _sensitive(seed: int, index: int, part: Part) -> Row:
    rng, marks, templates = Random(f"{seed}/{part}/{index}"), Marks(), templates_of(part)
    turn, which = divmod(index // 2, len(LABELS))
    label = LABELS[which]
    language = rng.choice(templates.languages_of(label))
    manners = manners_of(label)
    wanted = "plain" if turn % 2 == 0 else manners[turn // 2 % len(manners)]
    labels = [label]
    if rng.random() >= _ALONE:
        labels += _others(rng, templates, language, label)
    rng.shuffle(labels)

    if (scenes := templates.scenes_of(language, label)) and rng.random() < _IN_SCENE:
        name = rng.choice(scenes)
        whole, manner = _scene(rng, marks, templates, (language, name, label), wanted)
        about = (part, index, language, name, manner, label, f"{part}/scene/{language}/{name}")
        return _row(marks, (whole, None), about)
    made = {each: _made(rng, marks, each, (language, part), wanted) for each in labels}

    drawn = rng.random()
    text: str | None = None
    body: dict[str, Any] | None = None
    if drawn < _IN_PROSE:
        carrier, template, text = _prose(rng, templates, language, made, label, marks)
    else:
        record = _record(rng, templates, language, made)
        kind = carriers.TEXTS if drawn < _IN_RECORD else carriers.BODIES
        carrier = rng.choice(list(kind[part]))
        template = f"{part}/{carrier}/{language}/{label}"
        done = kind[part][carrier](rng, record)
        text, body = (done, None) if isinstance(done, str) else (None, done)
    return _row(marks, (text, body), (part, index, language, carrier, made[label].manner, label, template))


def _made(rng: Random, marks: Marks, label: str, of: tuple[str, Part], wanted: str, case: str | None = None) -> _Value:
    """A value of that language and part, in the manner that is wanted or the next that is possible."""
    raw, bik = value_of(rng, label, *of)
    return _shown(rng, marks, label, of[0], wanted, _Value(inflected(raw, case) if case else raw, bik, "", ""))


def _shown(rng: Random, marks: Marks, label: str, language: str, wanted: str, value: _Value) -> _Value:
    shown, manner = written(rng, value.raw, label, language, wanted)
    return _Value(value.raw, value.bik, marks.mark(shown, label, manner), manner)


def _row(
    marks: Marks,
    content: tuple[str | None, dict[str, Any] | None],
    about: tuple[Part, int, str, str, str, str | None, str],
) -> Row:
    part, index, language, carrier, manner, label, template = about
    text, body = content
    bare, spans = marks.taken_out_of(text if body is None else body)
    return Row(
        id=f"{part}-{index}",
        part=part,
        language=language,
        carrier=carrier,
        manner=manner,
        label=label,
        template=template,
        text=bare if body is None else None,
        body=None if body is None else bare,
        spans=tuple(spans),
    )


def _others(rng: Random, templates: Templates, language: str, label: str) -> list[str]:
    """One or two labels more, none under a key that is taken."""
    taken = set(templates.keys[label])
    chosen: list[str] = []
    for other in rng.sample(list(templates.prose[language]), rng.randrange(2, 4)):
        if not taken & set(templates.keys[other]) and not other.startswith("secret.") and len(chosen) < 2:
            taken.update(templates.keys[other])
            chosen.append(other)
    return chosen


def _scene(rng: Random, marks: Marks, templates: Templates, of: tuple[str, str, str], wanted: str) -> tuple[str, str]:
    """A whole document of that language and name, and the manner of the label that it is drawn for."""
    language, name, label = of
    scene = templates.scenes[language][name]
    made: dict[str, _Value] = {}
    bik, manner = "", wanted

    def put(slot: re.Match[str]) -> str:
        nonlocal bik, manner
        if slot[0] not in made:
            made[slot[0]] = _made(rng, marks, slot[1], (language, templates.part), wanted, slot[2])
            bik = made[slot[0]].bik or bik
            manner = made[slot[0]].manner if slot[1] == label else manner
        return _ESCAPES[scene.format](made[slot[0]].shown)

    text = SLOT.sub(put, scene.text)
    return filled(rng, text.replace("{bik}", bik), marks), manner


def _prose(
    rng: Random, templates: Templates, language: str, made: dict[str, _Value], label: str, marks: Marks
) -> tuple[str, str, str]:
    sentences, names = [], ""
    for each, value in made.items():
        forms = templates.prose[language][each]
        at = rng.randrange(len(forms))
        case = _CASE.search(forms[at])
        if case:
            turned = _Value(inflected(value.raw, case[1]), "", "", "")
            made[each] = _shown(rng, marks, each, language, value.manner, turned)
        sentences.append(_CASE.sub("{v}", forms[at]).replace("{v}", made[each].shown).replace("{bik}", value.bik))
        if each == label:
            names = f"{label}/{at}"
    shell = rng.choice(list(templates.shells[language]))
    forms = templates.shells[language][shell]
    at = rng.randrange(len(forms))
    sign = "\n" if any("\n" in sentence for sentence in sentences) else " "
    text = forms[at].replace("{body}", sign.join(sentences))
    return shell, f"{templates.part}/{shell}/{at}/{language}/{names}", text


def _record(rng: Random, templates: Templates, language: str, made: dict[str, _Value]) -> list[Field]:
    """The labelled values as fields among harmless ones."""
    state = {"ru": "Статус", "en": "Status", "de": "Status"}[language]
    record = [Field("№", "row_id", str(rng.randrange(1, 9999)))]
    for label, value in made.items():
        title = _one(rng, templates.titles[language][label])
        record.append(Field(title, _one(rng, templates.keys[label]), value.shown))
        if value.bik:
            record.append(Field("БИК" if language == "ru" else "BIK", "bik", value.bik))
    record.append(Field(state, "state", rng.choice(("new", "done", "waiting"))))
    return record


def _one(rng: Random, words: list[str]) -> str:
    """One of them; nothing is drawn where there is no choice, so that rows of the older parts stay what they were."""
    return words[0] if len(words) == 1 else rng.choice(words)


def _clean(seed: int, index: int, part: Part) -> Row:
    """A row with nothing sensitive: one snippet, or a few, as a text or as a message among others."""
    rng, marks, templates = Random(f"{seed}/{part}/{index}"), Marks(), templates_of(part)
    turn = index // 2
    language = (*LANGUAGES, "any")[turn % 4]
    kinds = list(templates.clean[language])
    kind = kinds[turn // 4 % len(kinds)]
    text = filled(rng, rng.choice(templates.clean[language][kind]), marks)
    if rng.random() < 0.3:
        other = rng.choice(list(templates.clean["any"].values()))
        text = f"{text}\n\n{filled(rng, rng.choice(other), marks)}"
    template = f"{part}/clean/{language}/{kind}"
    body = None
    drawn = rng.random()
    if drawn < 0.15:
        body = chat({"role": "user", "content": text})
    elif drawn < 0.25:
        body = chat(
            {"role": "user", "content": "Go on."},
            called("next_step", '{"verbose": false}'),
            {"role": "tool", "tool_call_id": "call_1", "content": text},
        )
    content = (text, None) if body is None else (None, body)
    carrier = "text" if body is None else "message"
    return _row(marks, content, (part, index, language, carrier, "plain", None, template))
