"""Names of people in Russian text, by a model: the one door to slovnet, navec and natasha.

natasha's wheel holds the models (a CNN with a CRF over navec's vectors, 27 MB); its code is not imported, since it
wants pymorphy2. Its files are read through the wheel's own record. slovnet and navec need numpy alone. Everything is
offline.

The network sees a few words around each one, so a text is cut into pieces of bounded length, with time and memory in
proportion to it. A few pieces are read at one go, and what is found in them hangs on them alone: not on each by itself,
since the shorter ones are filled up to the longest, and the network sees that. So the few are what is remembered. What
the model misses is published, and does not show in the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from itertools import islice
from pathlib import Path
from typing import Any, Final

from serving.policy.detect.memory import Memory, Places
from serving.policy.detect.pairs import is_given, is_known

_PIECE_CHARS: Final = 1_000
_BATCH: Final = 8
_CYRILLIC: Final = re.compile(r"[Ѐ-ԯ]")
_PERSON: Final = "PER"
_VECTORS: Final = "navec_news"
_MODEL: Final = "slovnet_ner_news"


class RussianNames:
    """A model of names, read into memory. The same text has the same names, with what is remembered or without."""

    def __init__(self, model: Any, memory: Memory | None = None) -> None:
        self._model = model
        self._memory = memory

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Offsets of names of people, in order. A piece without a Cyrillic letter is not looked at."""
        wanted = ((piece, start) for piece, start in _pieces(text) if _CYRILLIC.search(piece))
        while few := list(islice(wanted, _BATCH)):
            for which, start, stop in self._found([piece for piece, _ in few]):
                yield few[which][1] + start, few[which][1] + stop

    def _found(self, texts: list[str]) -> Places:
        if self._memory is None:
            return self._asked(texts)
        mark = self._memory.mark(texts)
        found = self._memory.recall(mark)
        if found is None:
            found = self._asked(texts)  # what raises is not remembered
            self._memory.keep(mark, found)
        return found

    def _asked(self, texts: list[str]) -> Places:
        return tuple(
            (which, span.start, span.stop)
            for which, found in enumerate(self._model.map(texts))
            for span in found.spans
            if span.type == _PERSON
            and 0 <= span.start < span.stop <= len(texts[which])
            and is_somebody(texts[which], span.start, span.stop)
        )


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
_NO_NAME_ENDS: Final = tuple(
    "и ите й йте ь ьте йся йтесь ться ть ый ая ое ие ые ция ка ки ник тель ость ение ание "
    "ство ипт юч ет ент ат от ост иль ион изм ер ор тор сть мма ект ём ум ты ны ры лы".split()
)
"""Endings of requests, adjectives and things; surnames that stand alone at a sentence's beginning hardly have them."""


def open_names(memory: Memory | None = None) -> RussianNames | None:
    """The model, read from the installed packages; None where they are not installed (`pip install …[hybrid]`).

    With a `memory` it is asked once about the same.

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
    return RussianNames(model, memory)


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
