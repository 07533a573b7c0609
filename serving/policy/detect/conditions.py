"""Illnesses, medicines and codes of diagnoses, and the words that make them somebody's.

A word of `THINGS` alone is a question for an encyclopaedia; beside a word of `CUES`, or in one sentence with a word of
`SOMEBODY`, it is told of a person. What stands behind a label (`Diagnose:`) is found whatever it is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from serving.policy.detect import ailments
from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import JOINED, Phrases, View, Words

_THINGS: Final = Words(ailments.THINGS)
_PHRASES: Final = Phrases(ailments.PHRASES)
_CUES: Final = Words(ailments.CUES)
_SOMEBODY: Final = Words(ailments.SOMEBODY)
_LABELS: Final = Phrases(ailments.LABELS)
_SAID: Final = re.compile(rf"{JOINED}(?P<value>[^\W\d_][^\n,;|<>\"'.(\[]{{3,60}}+)(?!\.[a-z_]|[(\[])")
_NOTHING: Final = re.compile(
    r"(?:none|null|nil|str|string|text|int|optional|list|dict|true|false|undefined|unknown|see|type|model|self|get|"
    r"not|no|n/a|keine|kein|ohne|siehe|ok|okay|healthy|good|fine|up|degraded|heт|нe|oпции|cm)(?![^\W\d_])"
)
_VERB: Final = re.compile(r"[ ][^\W\d_]")
"""`Diagnosis is the art of …` explains a word."""
_NEAR: Final = 160
_CLOSE: Final = 70
_ICD: Final = re.compile(r"(?<![\w.-])[A-TV-Z][0-9]{2}(?:\.[0-9]{1,2})?(?![\w-])")
"""A code of ICD-10: a chapter's letter, two digits, perhaps one or two more."""
_SIMPLE: Final = re.compile(r"[^\W\d_]+")
_SENTENCE: Final = re.compile(r"[.!?](?=\s|$)|\n\n")


def find_conditions(view: View) -> Iterator[Hit]:
    """Illnesses and medicines near a word that makes them somebody's; codes of ICD-10 near one; what a label names."""
    for _, end in _LABELS.spans(view):
        match = _SAID.match(view.folded, end)
        if match is not None and _NOTHING.match(match["value"]) is None and not _VERB.match(view.folded, end):
            yield Hit(*match.span("value"), "medical")
    yield from (Hit(start, end, "medical") for start, end in _somebodys(view))


def _somebodys(view: View) -> Iterator[tuple[int, int]]:
    """Words of illness that have a cue near them, before or after, or somebody in their sentence."""
    things = _THINGS.met(view)
    phrases = _PHRASES.spans(view)
    cues = _CUES.met(view)
    codes = [match.span() for match in _ICD.finditer(view.plain)] if cues else []
    if not (things or phrases or codes):
        return
    somebody = _SOMEBODY.met(view)
    if not cues and not somebody:
        return
    wanted = cues | things | somebody
    met = [(match[0], match.span()) for match in _SIMPLE.finditer(view.folded) if match[0] in wanted]
    said = [span for word, span in met if word in cues]
    people = [span for word, span in met if word in somebody]
    named = {span for word, span in met if word in things}
    for start, end in sorted(named.union(codes, phrases)):
        if _has_near(said, start, end, _NEAR) or (
            (start, end) not in codes and _has_near(people, start, end, _CLOSE, view.folded)
        ):
            yield start, end


def _has_near(spans: list[tuple[int, int]], start: int, end: int, most: int, folded: str = "") -> bool:
    """Whether one of them is near: the last one before, or one of the next two; in the sentence of a given text."""
    last = bisect_right(spans, (start,)) - 1
    for begin, stop in spans[max(0, last) : last + 3]:
        if (begin, stop) == (start, end) or begin - end >= most or start - stop >= most:
            continue
        if not folded or _SENTENCE.search(folded, min(stop, end), max(begin, start)) is None:
            return True
    return False
