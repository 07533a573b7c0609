"""The texts of an answer: put together by the place that they stand at, in time that grows with the answer alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from serving.egress.texts import texts_of_answer


def stream(pieces: int) -> bytes:
    """Of two choices by turns, a word each."""
    chunks = ({"id": "a", "choices": [{"index": at % 2, "delta": {"content": f"word{at} "}}]} for at in range(pieces))
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def test_pieces_of_a_stream_are_put_together_by_choice() -> None:
    """No text is cut, and none runs into another choice's."""
    texts = texts_of_answer(stream(6))
    assert texts is not None
    assert {"word0 word2 word4 ", "word1 word3 word5 "} <= set(texts)


def test_putting_together_copies_no_text_again() -> None:
    """What is held at one time while an answer is read is in proportion to it, piece by piece."""

    def longest(pieces: int) -> int:
        return _largest_string(lambda: texts_of_answer(stream(pieces)))

    assert longest(50) < 100  # a text that grows with each piece is as long as all of them, and made as often


def _largest_string(call: Callable[[], object]) -> int:
    """The longest string that a function of `texts` holds by name while pieces are joined."""
    found = 0

    def look(frame: object, event: str, _: object) -> None:
        nonlocal found
        code, held = frame.f_code, frame.f_locals  # type: ignore[attr-defined]
        if event == "return" and code.co_name == "_join":
            found = max([found, *(len(value) for value in held["joined"].values() if isinstance(value, str))])

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(before)
    return found
