"""What a weight file says of itself, before anybody sees it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.registry.local import printable


@given(st.text(max_size=400))
def test_a_title_from_a_file_is_one_printable_line_of_bounded_length(text: str) -> None:
    """Escape sequences, line breaks and marks of direction never reach a terminal or a log."""
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) <= 200
    assert shown == " ".join(shown.split())


def test_a_plain_title_stays_and_an_escape_sequence_loses_its_escape() -> None:
    """Only what is not printable goes."""
    assert printable("T-lite 2.1 · Я") == "T-lite 2.1 · Я"
    assert printable("a\x1b[2Jb\r\nc\u202ed") == "a [2Jb c d"
