"""Rows from a seed: the n-th row of a seed is the same in every run, however many are made."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final

from benchmarks.corpus import carriers, identifiers, keys, people
from benchmarks.corpus.clean import filled
from benchmarks.corpus.obfuscation import manners_of, written
from benchmarks.corpus.rows import Marks, Row
from benchmarks.corpus.templates import LANGUAGES, Part, Templates, templates_of

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
_ALONE: Final = 0.7
"""Of the sensitive rows, those with nothing sensitive but what they were made for."""


def value_of(rng: Random, label: str, language: str, part: Part) -> tuple[str, str]:
    """A value that the label stands for, and the BIK beside it (empty where none belongs there)."""
    if label == "ru.bank_account":
        bik = identifiers.bik(rng)
        return identifiers.bank_account(rng, bik), bik
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

    made: dict[str, tuple[str, str]] = {}
    manner = wanted
    for each in labels:
        value, bik = value_of(rng, each, language, part)
        value, used = written(rng, value, each, language, wanted)
        made[each] = marks.mark(value, each, used), bik
        if each == label:
            manner = used

    drawn = rng.random()
    text: str | None = None
    body: dict[str, Any] | None = None
    if drawn < _IN_PROSE:
        carrier, template, text = _prose(rng, templates, language, made, label)
    else:
        record = _record(rng, templates, language, made)
        kind = carriers.TEXTS if drawn < _IN_RECORD else carriers.BODIES
        carrier = rng.choice(list(kind[part]))
        template = f"{part}/{carrier}/{language}/{label}"
        done = kind[part][carrier](rng, record)
        text, body = (done, None) if isinstance(done, str) else (None, done)
    return _row(marks, (text, body), (part, index, language, carrier, manner, label, template))


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
    taken = {templates.keys[label]}
    chosen: list[str] = []
    for other in rng.sample(list(templates.prose[language]), rng.randrange(2, 4)):
        if templates.keys[other] not in taken and not other.startswith("secret.") and len(chosen) < 2:
            taken.add(templates.keys[other])
            chosen.append(other)
    return chosen


def _prose(
    rng: Random, templates: Templates, language: str, made: dict[str, tuple[str, str]], label: str
) -> tuple[str, str, str]:
    sentences, names = [], ""
    for each, (value, bik) in made.items():
        forms = templates.prose[language][each]
        at = rng.randrange(len(forms))
        sentences.append(forms[at].replace("{v}", value).replace("{bik}", bik))
        if each == label:
            names = f"{label}/{at}"
    shell = rng.choice(list(templates.shells[language]))
    forms = templates.shells[language][shell]
    at = rng.randrange(len(forms))
    sign = "\n" if any("\n" in sentence for sentence in sentences) else " "
    text = forms[at].replace("{body}", sign.join(sentences))
    return shell, f"{templates.part}/{shell}/{at}/{language}/{names}", text


def _record(rng: Random, templates: Templates, language: str, made: dict[str, tuple[str, str]]) -> list[carriers.Field]:
    """The labelled values as fields among harmless ones."""
    state = {"ru": "Статус", "en": "Status", "de": "Status"}[language]
    record = [carriers.Field("№", "row_id", str(rng.randrange(1, 9999)))]
    for label, (value, bik) in made.items():
        record.append(carriers.Field(templates.titles[language][label], templates.keys[label], value))
        if bik:
            record.append(carriers.Field("БИК" if language == "ru" else "BIK", "bik", bik))
    record.append(carriers.Field(state, "state", rng.choice(("new", "done", "waiting"))))
    return record


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
        body = carriers.chat({"role": "user", "content": text})
    elif drawn < 0.25:
        body = carriers.chat(
            {"role": "user", "content": "Go on."},
            carriers.called("next_step", '{"verbose": false}'),
            {"role": "tool", "tool_call_id": "call_1", "content": text},
        )
    content = (text, None) if body is None else (None, body)
    carrier = "text" if body is None else "message"
    return _row(marks, content, (part, index, language, carrier, "plain", None, template))
