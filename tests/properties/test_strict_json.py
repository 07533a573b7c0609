"""Strict reading of JSON, as properties."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidRequest
from serving.openai import Limits, parse_body, serialise

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
objects = st.dictionaries(text, values, max_size=5)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def same(left: object, right: object) -> bool:
    """Equal in value and in type: 1, 1.0 and true are three things in JSON."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right


@given(value=objects, ascii_only=st.booleans(), indent=st.none() | st.integers(0, 3))
def test_what_is_sound_is_read_and_written_unchanged(value: dict, ascii_only: bool, indent: int | None) -> None:
    """However a client writes a value, what is read is the value, and what is written reads the same."""
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    read = parse_body(raw)
    assert same(read, value)
    assert same(parse_body(serialise(read)), value)
    assert serialise(parse_body(serialise(read))) == serialise(read)


@given(value=objects, most=st.integers(1, 6))
def test_depth_is_counted_exactly(value: dict, most: int) -> None:
    """A body passes exactly where it nests no deeper than allowed."""
    raw = json.dumps(value).encode()
    if depth(value) <= most:
        assert same(parse_body(raw, Limits(depth=most)), value)
    else:
        with pytest.raises(InvalidRequest, match="deeper"):
            parse_body(raw, Limits(depth=most))


@given(value=objects, data=st.data())
def test_a_second_key_anywhere_is_refused(value: dict, data: st.DataObject) -> None:
    """Wherever an object is given a key that it has already, the body is refused."""
    sound = json.dumps({"top": value})
    spots = [place for place, letter in enumerate(sound) if letter == "{"]
    if len(spots) != sum(1 for _ in objects_in({"top": value})):
        return  # a brace inside a string, where no object begins
    inside = data.draw(st.sampled_from(spots)) + 1
    raw = sound[:inside] + '"k":1,"\\u006b":2' + ("" if sound[inside] == "}" else ",") + sound[inside:]
    with pytest.raises(InvalidRequest, match="twice") as caught:
        parse_body(raw.encode())
    assert caught.value.param is not None


def objects_in(value: object):
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from objects_in(child)
    elif isinstance(value, list):
        for child in value:
            yield from objects_in(child)


@given(raw=st.binary(max_size=64))
def test_any_bytes_give_a_value_or_an_error(raw: bytes) -> None:
    """No bytes raise anything but InvalidRequest, and what is read can be written."""
    try:
        read = parse_body(raw)
    except InvalidRequest:
        return
    serialise(read)


@given(
    raw=st.lists(
        st.sampled_from(["{", "}", "[", "]", ",", ":", '"', "\\", "\\u", "d8", "00", "dc", "e", "E", "1", "9" * 19,
                         "-", ".", "NaN", "null", "true", " ", '"a"', "\ufeff", "1e400", '"a":']),
        max_size=24,
    )
)  # fmt: skip
def test_near_json_gives_a_value_or_an_error(raw: list[str]) -> None:
    """The pieces of JSON in any order: never another exception, and nothing beyond 64 bits or finite numbers."""
    try:
        read = parse_body(b'{"a":' + "".join(raw).encode() + b"}")
    except InvalidRequest:
        return
    assert same(parse_body(serialise(read)), read)
