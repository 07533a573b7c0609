"""Names of people in Russian text, by a model: the one door to slovnet, navec and natasha.

natasha's wheel holds the models (a CNN with a CRF over navec's vectors, 27 MB); its code is not imported, since it
wants pymorphy2. Its files are read through the wheel's own record. slovnet and navec need numpy alone. Everything is
offline.

The network sees a few words around each one, so a text is cut into pieces of bounded length, with time and memory in
proportion to it. What the model misses is published, and does not show in the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from serving.policy.detect.pairs import is_given, is_known

_PIECE_CHARS: Final = 1_000
_BATCH: Final = 8
_CYRILLIC: Final = re.compile(r"[Ѐ-ԯ]")
_PERSON: Final = "PER"
_VECTORS: Final = "navec_news"
_MODEL: Final = "slovnet_ner_news"


class RussianNames:
    """A model of names, read into memory. Its use changes nothing in it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Offsets of names of people, in order. A piece without a Cyrillic letter is not looked at."""
        wanted = [(piece, start) for piece, start in _pieces(text) if _CYRILLIC.search(piece)]
        wanted_texts = (piece for piece, _ in wanted)
        for (piece, start), found in zip(wanted, self._model.map(wanted_texts), strict=True):
            for span in found.spans:
                if (
                    span.type == _PERSON
                    and 0 <= span.start < span.stop <= len(piece)
                    and is_somebody(piece, span.start, span.stop)
                ):
                    yield start + span.start, start + span.stop


def is_somebody(text: str, start: int, end: int) -> bool:
    """Whether what the model calls a name may be one: no number, no request to somebody, no famous name."""
    name = text[start:end]
    if any(map(str.isdigit, name)) or is_known(name):
        return False
    word = name.strip(" .,:;!?\"'«»()")
    if not word.replace("-", "").isalpha() or is_given(word):
        return True
    is_first = _SENTENCE_END.search(text, 0, start) is not None
    return not (is_first and word.lower().endswith(_NO_NAME_ENDS))


_SENTENCE_END: Final = re.compile(r"(?:^|[.!?:;\n«\"(—–•-])\s*+\Z")
_NO_NAME_ENDS: Final = (
    *(
        "и",
        "ите",
        "й",
        "йте",
        "ь",
        "ьте",
        "йся",
        "йтесь",
        "ться",
        "ть",
        "ый",
        "ая",
        "ое",
        "ие",
        "ые",
        "ие",
        "ция",
        "ка",
    ),
    *(
        "ки",
        "ник",
        "тель",
        "ость",
        "ение",
        "ание",
        "ство",
        "ипт",
        "юч",
        "ет",
        "ент",
        "ат",
        "от",
        "ост",
        "иль",
        "ион",
        "изм",
    ),
    *("ер", "ор", "тор", "сть", "мма", "ект", "ём", "ум", "ты", "ны", "ры", "лы"),
)
"""Endings of requests, adjectives and things; surnames that stand alone at a sentence's beginning hardly have them."""


def open_names() -> RussianNames | None:
    """The model, read from the installed packages; None where they are not installed (`pip install …[hybrid]`).

    Raises whatever the packages raise for files that are not what they should be.
    """
    try:
        files = distribution("natasha").files or ()
        from navec import Navec  # noqa: PLC0415 - an extra: most never ask
        from slovnet import NER  # noqa: PLC0415
    except (PackageNotFoundError, ImportError):
        return None
    found = {
        wanted: Path(str(file.locate()))
        for file in files
        for wanted in (_VECTORS, _MODEL)
        if file.name.startswith(wanted) and file.suffix == ".tar"
    }
    if len(found) < 2:
        return None
    model = NER.load(str(found[_MODEL]), batch_size=_BATCH)
    model.navec(Navec.load(str(found[_VECTORS])))
    return RussianNames(model)


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """Cut at a line's or a sentence's end, else between words, else anywhere."""
    start = 0
    while start < len(text):
        end = min(start + _PIECE_CHARS, len(text))
        if end < len(text):
            for mark in ("\n", ". ", " "):
                cut = text.rfind(mark, start + _PIECE_CHARS // 2, end)
                if cut >= 0:
                    end = cut + len(mark)
                    break
        yield text[start:end], start
        start = end
