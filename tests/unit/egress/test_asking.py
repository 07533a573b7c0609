"""What the gateway says, what is scanned, and what is remembered of an answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.egress.asking import Ask, read_ask, write_ask
from serving.egress.texts import every_text, texts_of_answer
from serving.errors import InvalidRequest

words = st.text(max_size=20)
asks = st.builds(
    Ask,
    request=words,
    principal=words,
    key=st.none() | words,
    domain=words,
    classes=st.frozensets(words, max_size=3),
    residency=st.frozensets(words, max_size=3),
    asked_local=st.booleans(),
    destination=st.none() | words,
    budget=st.sampled_from(["reserved", "available", "spent"]),
    attempt=st.sampled_from(["first", "after-cloud", "after-local"]),
    local=st.booleans(),
    failed=st.frozensets(words, max_size=3),
    watched=st.booleans(),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | words,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(words, below, max_size=4),
    max_leaves=20,
)


@given(asks)
def test_what_is_written_is_read_again(ask: Ask) -> None:
    """And a header can carry it."""
    text = write_ask(ask)
    assert text.isascii()
    assert text.isprintable()
    assert read_ask(text) == ask


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "null", "x" * 20_000, '{"request": 1}'])
def test_anything_else_is_refused(text: str | None) -> None:
    """Nothing is taken for granted."""
    with pytest.raises(InvalidRequest):
        read_ask(text)


def test_a_field_that_is_not_known_is_refused() -> None:
    """It may be what the answer hangs on."""
    told = json.loads(write_ask(Ask("r", "p", "k", "d"))) | {"verdict": "clean"}
    with pytest.raises(InvalidRequest):
        read_ask(json.dumps(told))


@given(values)
def test_every_string_name_and_long_number_is_scanned(value: object) -> None:
    """Counted by another walk."""
    found = [part.text for part in every_text(value)]

    def walk(each: object) -> list[str]:
        if isinstance(each, str):
            return [each]
        if isinstance(each, dict):
            return [text for name, below in each.items() for text in (name, *walk(below))]
        if isinstance(each, list):
            return [text for below in each for text in walk(below)]
        is_long = isinstance(each, int) and not isinstance(each, bool) and abs(each) >= 100_000
        return [repr(each)] if is_long else []

    assert found == walk(value)


def test_the_pieces_of_a_streamed_answer_are_put_together() -> None:
    """By choice and place; a piece that was cut off says nothing, and what is no answer is told from an empty one."""

    def event(index: int, text: str) -> bytes:
        return b"data: " + json.dumps({"choices": [{"index": index, "delta": {"content": text}}]}).encode() + b"\n\n"

    stream = (
        event(0, "The cont") + event(1, "Nobody ") + event(0, "ract ends.") + event(1, "knows.") + b"data: [DONE]\n\n"
    )
    assert set(texts_of_answer(stream) or ()) >= {"The contract ends.", "Nobody knows."}
    assert set(texts_of_answer(stream[: len(event(0, "The cont")) + 9]) or ()) == {"The cont"}
    assert texts_of_answer(b"{}") == ()
    assert texts_of_answer(b"\0") is None
    assert texts_of_answer(b"") is None
