"""Canonical JSON: the RFC's own examples as far as its types are taken, and properties."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.audit.canonical import MOST, NotCanonical, canonical, canonical_fields, parse_canonical, prefix_of

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-MOST, MOST) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def test_keys_are_ordered_as_in_the_rfc() -> None:
    """RFC 8785, section 3.2.3: by UTF-16 code units, so that a smiley stands before a Hebrew presentation form."""
    given_ = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    ordered = ["Carriage Return", "One", "Control", "Latin Small Letter O With Diaeresis", "Euro Sign"]
    ordered += ["Emoji: Grinning Face", "Hebrew Letter Dalet With Dagesh"]
    assert list(json.loads(canonical(given_)).values()) == ordered


def test_texts_and_words_are_written_as_in_the_rfc() -> None:
    """RFC 8785, section 3.2.4, as bytes, with whole numbers in place of those with a fraction."""
    string = '\u20ac$\u000f\nA\'B"\\\\"/'
    value = {"numbers": [333333333, 4, 0], "string": string, "literals": [None, True, False]}
    expected = (
        "7b226c69746572616c73223a5b6e756c6c2c747275652c66616c73655d2c226e756d62657273223a"
        "5b3333333333333333332c342c305d2c22737472696e67223a22e282ac245c75303030665c6e4127425c225c5c5c5c5c222f227d"
    )
    assert canonical(value).hex() == expected


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), MOST + 1, -MOST - 1, "\ud800", {1: "a"}, b"a", {"a": {2}}, {"\udfff": 1}]
)
def test_what_has_no_form_is_refused(value: object) -> None:
    """Numbers with a fraction too, which audit records have none of."""
    with pytest.raises(NotCanonical):
        canonical(value)


def test_deep_nesting_is_refused() -> None:
    """Not met with a crash."""
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotCanonical):
        canonical(deep)
    with pytest.raises(NotCanonical):
        parse_canonical(b"[" * 100_000)


@given(values)
def test_it_is_json_of_the_same_value(value: object) -> None:
    """And the canonical form of what is read back is the same bytes."""
    raw = canonical(value)
    assert json.loads(raw) == value
    assert parse_canonical(raw) == value


@given(st.dictionaries(texts, values, max_size=6), st.randoms())
def test_the_order_in_which_a_table_was_made_plays_no_part(table: dict[str, object], chance: object) -> None:
    """The same entries are the same bytes."""
    items = list(table.items())
    chance.shuffle(items)  # type: ignore[attr-defined]
    assert canonical(dict(items)) == canonical(table)


@given(st.dictionaries(st.text(st.characters(max_codepoint=127)), values | st.lists(texts).map(tuple)))
def test_the_short_way_is_the_same(table: dict[str, object]) -> None:
    """For names that are ASCII and in order; what is None is left out."""
    names = sorted(table)
    short = canonical_fields(map(prefix_of, names), [table[name] for name in names])
    assert short == canonical({name: value for name, value in table.items() if value is not None})


@given(values)
def test_it_is_what_another_implementation_writes(value: object) -> None:
    """Trail of Bits' `rfc8785`, where it is installed."""
    other = pytest.importorskip("rfc8785")
    assert other.dumps(value) == canonical(value)


@given(texts)
def test_texts_are_not_normalised(text: str) -> None:
    """Letters that look the same stay what they are."""
    for form in ("NFC", "NFD"):
        assert json.loads(canonical(unicodedata.normalize(form, text))) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("raw", [b'{"b":1,"a":2}', b'{"a": 1}', b'"\\u0061"', b'{"a":1,"a":1}', b"1.0", b"\xff", b"{"])
def test_other_forms_are_told_apart(raw: bytes) -> None:
    """What was not written in canonical form is not what was written."""
    with pytest.raises(NotCanonical):
        parse_canonical(raw)
