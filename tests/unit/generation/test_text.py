"""Text leaves whole, and stop strings never do."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.generation.text import TextStream


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.text(), st.lists(st.integers(0, 1000)))
def test_any_split_of_the_bytes_gives_the_same_text(text: str, cuts: list[int]) -> None:
    """However tokens cut characters apart, the text comes out whole and unchanged."""
    stream = TextStream()
    out = "".join(stream.push(piece) for piece in pieces_of(text.encode(), cuts)) + stream.finish()
    assert out == text


@given(st.binary(max_size=40), st.lists(st.integers(0, 1000)))
def test_bytes_that_are_no_text_become_replacement_characters(data: bytes, cuts: list[int]) -> None:
    """Invalid UTF-8 is never an error, and never a lone surrogate."""
    stream = TextStream()
    out = "".join(stream.push(piece) for piece in pieces_of(data, cuts)) + stream.finish()
    assert out == data.decode("utf-8", "replace")


@given(
    st.text(alphabet="abc", max_size=60),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 1000)),
)
def test_nothing_from_the_first_stop_string_on_is_ever_sent(text: str, stops: list[str], cuts: list[int]) -> None:
    """The answer ends before the stop string that is complete first, however the text arrives."""
    stream = TextStream(stops)
    out = ""
    for piece in pieces_of(text.encode(), cuts):
        out += stream.push(piece)
        if stream.stopped:
            break
    else:
        out += stream.finish()
    assert not any(stop in out for stop in stops)
    assert text.startswith(out)
    assert stream.stopped == any(stop in text for stop in stops)
    if not stream.stopped:
        assert out == text


def test_a_beginning_of_a_stop_string_is_held_back_and_released() -> None:
    """Text that only began like a stop string is sent once it cannot become one."""
    stream = TextStream(["STOP"])
    assert stream.push(b"a ST") == "a "
    assert stream.push(b"ART") == "START"


def test_stop_strings_are_ordinary_text_until_the_answer_may_end() -> None:
    """`min_tokens` comes before stop strings."""
    stream = TextStream(["x"])
    assert stream.push(b"x", may_stop=False) == "x"
    assert stream.push(b"yx") == "y"
    assert stream.stopped


@pytest.mark.parametrize("stops", [(), ("",), ("", "end")])
def test_empty_stop_strings_are_no_stop_strings(stops: tuple[str, ...]) -> None:
    """An empty string is everywhere, so it stops nothing."""
    stream = TextStream(stops)
    assert stream.push(b"abc") + stream.finish() == "abc"
