"""The parts that connectors are made of: events out of bytes, fields that cannot be forgotten, errors without words."""

from __future__ import annotations

import json

import pytest

from serving.egress.vendors import Anthropic, Azure, Compatible, Gemini, OpenAI, OutCall
from serving.egress.vendors.calls import CHAT
from serving.egress.vendors.events import EVENT_CONTAINERS, Event, EventReader, NotEvents, read_object
from serving.egress.vendors.fields import Fields
from serving.egress.vendors.refusals import Refusal, error_in_stream, error_of, wait_of
from serving.errors import BadSettings, DestinationUnavailable, InvalidRequest, Overloaded, UnsupportedByDestination
from serving.openai import Usage

ALL = [OpenAI(name="far"), Azure(name="far"), Compatible(name="far"), Anthropic(name="far"), Gemini(name="far")]


def test_events_as_the_standard_reads_them() -> None:
    """Names, several data lines, comments, unknown fields, three line ends, and an event without its blank line."""
    data = b": hello\nevent: a\ndata: 1\ndata:2\nid: 7\n\ndata: 3\r\rdata: 4\r\n\r\nevent: b\n\ndata: 5"
    reader = EventReader()
    assert list(reader.feed(data)) == [Event("a", b"1\n2"), Event("", b"3"), Event("", b"4")]
    assert list(reader.feed(b"", at_end=True)) == [Event("", b"5")]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\n\n"])
@pytest.mark.parametrize("pieces", [1, 7])
def test_an_event_without_an_end_is_not_held(ending: bytes, pieces: int) -> None:
    """What is longer than a mebibyte is no event, whether it ends or not and however it arrives."""
    data = b"data: " + b"x" * (1 << 20) + ending
    size = len(data) // pieces + 1
    reader = EventReader()
    fed = (event for at in range(0, len(data), size) for event in reader.feed(data[at : at + size]))
    with pytest.raises(NotEvents):
        list(fed)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": "\xff"}', b'{"a":' * 200 + b"1" + b"}" * 200])
def test_what_is_no_object(raw: bytes) -> None:
    """Anything but one JSON object of reasonable depth is none."""
    assert read_object(raw) is None


def test_a_lone_surrogate_can_be_written_again() -> None:
    """Half a character is replaced, in values and in keys; a whole one stays."""
    assert read_object(b'{"\\ud83d": ["\\ud83d\\ude00", "\\udc00x"]}') == {"?": ["😀", "?x"]}


def test_a_field_that_nobody_took_is_refused() -> None:
    """Null is absent; everything else is taken, neutral, or refused with its path."""
    fields = Fields("far", {"a": None, "b": 1.0, "c": [], "d": 0}, "outer")
    assert fields.integer("b") == 1
    fields.neutral("c", [])
    with pytest.raises(UnsupportedByDestination) as caught:
        fields.end()
    assert caught.value.param == "outer.d"
    with pytest.raises(UnsupportedByDestination):
        Fields("far", {"a": True}).neutral("a", 1)
    for wrong in (Fields.text, Fields.flag, Fields.integer, Fields.number, Fields.mapping, Fields.strings):
        with pytest.raises(InvalidRequest):
            wrong(Fields("far", {"a": 1 + 2j}), "a")


@pytest.mark.parametrize("vendor", ALL, ids=lambda vendor: type(vendor).__name__)
def test_a_credential_that_no_header_carries(vendor: OpenAI) -> None:
    """Line ends and blanks in a key would be another header, or none; the error does not show the key."""
    for secret in ("", "two lines\r\nx: y", "sk-1 ", "ключ"):
        with pytest.raises(BadSettings) as caught:
            vendor.auth(secret)
        assert not secret or secret not in caught.value.for_terminal()
    assert len(vendor.auth("sk-1")) == 1


@pytest.mark.parametrize("vendor", ALL, ids=lambda vendor: type(vendor).__name__)
def test_a_field_that_is_new(vendor: OpenAI) -> None:
    """A field that the connector does not know is refused, even if the gateway let it through one day."""
    call = OutCall(CHAT, {"messages": [{"role": "user", "content": "x"}], "brand_new": "y"}, "m")
    with pytest.raises(UnsupportedByDestination) as caught:
        vendor.request(call)
    assert caught.value.param == "brand_new"
    with pytest.raises(UnsupportedByDestination):
        vendor.request(OutCall("/v1/rerank", {"query": "x"}, "m"))


def test_a_name_cannot_lead_elsewhere() -> None:
    """A model's name is one segment of the path, whatever is in it."""
    body = {"messages": [{"role": "user", "content": "x"}]}
    for vendor in (Azure(name="far"), Gemini(name="far")):
        path = vendor.request(OutCall(CHAT, body, "../a?b#c/ü\r\n")).path
        assert "..%2Fa%3Fb%23c%2F%C3%BC%0D%0A" in path


def test_nothing_is_shown_of_a_call() -> None:
    """What is printed of calls and requests has sizes and names, and no text."""
    call = OutCall(CHAT, {"messages": [{"role": "user", "content": "secret"}]}, "m")
    request = OpenAI(name="far").request(call)
    answered = OpenAI(name="far").answer(call, 200, {}, b'{"choices": [{"message": {"content": "secret"}}]}')
    assert "secret" not in repr(call) + repr(request) + repr(answered)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0"}, 1),
        ({"retry-after": "99999"}, 3600),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 2),
        ({"retry-after": "Fri, 31 Dec 2027 23:59:59 GMT"}, None),
        ({"retry-after": "-5"}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], wait_s: int | None) -> None:
    """Seconds or milliseconds, within bounds; a date is left, since nothing here knows what time it is."""
    assert wait_of(headers) == wait_s


def test_codes_are_passed_on_from_a_list_only() -> None:
    """A code that nobody has listed is left out, wherever it came from."""
    known = error_of("far", 400, Refusal(code="invalid_value"))
    assert "(400 `invalid_value`)" in known.message
    assert "secret" not in error_of("far", 400, Refusal(code="secret")).message
    assert "secret" not in error_in_stream("far", Refusal(code="secret")).message
    assert isinstance(error_in_stream("far", Refusal(code="overloaded_error")), Overloaded)
    assert isinstance(error_of("far", 302, Refusal()), DestinationUnavailable)
    assert "not followed" in error_of("far", 302, Refusal()).message


def test_a_stream_that_ends_without_its_last_event() -> None:
    """A server that leaves out `[DONE]` has ended well where every answer has said why it ended, and only then."""
    call = OutCall(CHAT, {"n": 2}, "m")
    ended = [b'data: {"choices":[{"index":%d,"delta":{},"finish_reason":"stop"}]}\n\n' % index for index in (0, 1)]
    whole, half = Compatible(name="far").stream(call), Compatible(name="far").stream(call)
    assert [*whole.feed(b"".join(ended)), *whole.close()] == [*ended, b"data: [DONE]\n\n"]
    assert half.feed(ended[0]) == [ended[0]]
    assert half.close()[-1].startswith(b'data: {"error":')
    assert not half.is_complete


def test_a_line_end_of_two_bytes_that_arrives_in_two_parts() -> None:
    """It is one line end: the two lines of data stay one event."""
    reader = EventReader()
    data = b"data: 1\r\ndata: 2\r\n\r\n"
    assert [event for at in range(len(data)) for event in reader.feed(data[at : at + 1])] == [Event("", b"1\n2")]


@pytest.mark.parametrize("vendor", ALL, ids=lambda vendor: type(vendor).__name__)
def test_options_of_a_stream_are_fields_too(vendor: OpenAI) -> None:
    """What is not known inside `stream_options` is refused by its path."""
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "stream_options": {"brand_new": True}}
    with pytest.raises(UnsupportedByDestination) as caught:
        vendor.request(OutCall(CHAT, body, "m"))
    assert caught.value.param == "stream_options.brand_new"


def event_of(kind: str, **fields: object) -> bytes:
    return b"data: " + json.dumps({"type": kind, **fields}).encode() + b"\n\n"


@pytest.mark.parametrize(
    "events",
    [
        [event_of("message_start", message={}), event_of("message_stop")],
        [event_of("content_block_delta", index=0, delta={"text": "x"})],
        [event_of("message_start", message={}), event_of("message_start", message={})],
    ],
    ids=["no reason", "no beginning", "two beginnings"],
)
def test_messages_that_are_told_wrong(events: list[bytes]) -> None:
    """An end without a reason, a middle without a beginning, a second beginning: errors, not answers."""
    translator = Anthropic(name="far").stream(OutCall(CHAT, {}, "m"))
    out = b"".join([*translator.feed(b"".join(events)), *translator.close()])
    assert isinstance(translator.error, DestinationUnavailable)
    assert b"[DONE]" not in out


def test_events_that_are_new_are_passed_by() -> None:
    """Kinds of events and of blocks that nobody knew when this was written change nothing."""
    events = [
        event_of("message_start", message={"usage": {"input_tokens": 3, "output_tokens": 1}}),
        event_of("brand_new", delta={"text": "no"}),
        event_of("content_block_start", index=0, content_block={"type": "brand_new"}),
        event_of("content_block_delta", index=0, delta={"type": "text_delta", "text": "yes"}),
        event_of("message_delta", delta={"stop_reason": "brand_new"}, usage={"output_tokens": 2}),
        event_of("message_stop"),
    ]
    translator = Anthropic(name="far").stream(OutCall(CHAT, {}, "m"))
    out = b"".join(translator.feed(b"".join(events)))
    assert b'"content":"yes"' in out
    assert b"no" not in out
    assert b'"finish_reason":"stop"' in out
    assert translator.usage == Usage(3, 2)
    assert translator.is_complete


def test_what_one_name_says_twice_is_refused() -> None:
    """A schema that has another title or description than the format has no place for the format's."""
    for label in ("name", "description"):
        schema = {"type": "object", "title": "other", "description": "other"}
        told = {"schema": schema, label: "mine"}
        body = {
            "messages": [{"role": "user", "content": "x"}],
            "response_format": {"type": "json_schema", "json_schema": told},
        }
        for vendor in (Anthropic(name="far"), Gemini(name="far")):
            with pytest.raises(UnsupportedByDestination) as caught:
                vendor.request(OutCall(CHAT, body, "m"))
            assert caught.value.param == f"response_format.json_schema.{label}"


@pytest.mark.parametrize("piece", [b"[]", b"{}", b"[[0]]", b'{"a":{}}'])
def test_more_arrays_and_objects_than_an_answer_has_are_not_parsed(piece: bytes) -> None:
    """They would hold the interpreter, and with it every stream, for seconds."""
    within = b'{"a":[' + b",".join([piece] * 4_000) + b"]}"
    beyond = b'{"a":[' + b",".join([piece] * 300_000) + b"]}"
    assert read_object(within, EVENT_CONTAINERS) is not None
    assert read_object(beyond) is None
    assert read_object(beyond[: len(piece) * 20_000] + b"]}", EVENT_CONTAINERS) is None


def test_more_values_than_an_answer_has_are_not_parsed() -> None:
    """Numbers without end, in one array; as many as embeddings have are read."""
    assert read_object(b'{"a":[' + b"0," * 1_600_000 + b"0]}") is not None
    assert read_object(b'{"a":[' + b"0," * 2_200_000 + b"0]}") is None


def test_a_long_text_is_an_answer() -> None:
    """What counts is what is nested, and not the length."""
    assert read_object(b'{"a":"' + b"x" * (8 << 20) + b'"}') is not None
