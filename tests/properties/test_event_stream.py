"""What is read of a relayed stream does not depend on how its bytes arrive."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.relay import EventStream, Settled, estimate, settled_from, usage_of_body

contents = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"usage"', '{"usage":{"prompt_tokens":1}}', "[DONE]", "data: [DONE]\n\n", '"error"', "\n\n", ": x", "\\"]
)
text_events = contents.map(lambda text: {"choices": [{"index": 0, "delta": {"content": text}}]})
usages = st.builds(
    lambda prompt, output, cached: {
        "choices": [],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    },
    *(st.integers(0, 1000),) * 3,
)


def encode(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


@given(
    events=st.lists(text_events, max_size=8),
    comments=st.integers(0, 2),
    usage=st.none() | usages,
    withhold=st.booleans(),
    places=st.lists(st.integers(0, 4000), max_size=10),
)
def test_any_cut_of_a_stream_gives_the_same(
    events: list[dict], comments: int, usage: dict | None, withhold: bool, places: list[int]
) -> None:
    """However a stream is cut into arrivals: the same bytes go out, whole events only, and the same is read."""
    comment = b": waiting\n\n" * comments
    body = b"".join(map(encode, events))
    data = comment + body + (encode(usage) if usage else b"") + b"data: [DONE]\n\n"
    stream = EventStream(withhold_usage=withhold)
    out = [stream.feed(part) for part in cut(data, places)]
    assert all(part == b"" or part.endswith(b"\n\n") for part in out)
    assert stream.close() == b""
    kept = encode(usage) if usage and not withhold else b""
    assert b"".join(out) == comment + body + kept + b"data: [DONE]\n\n"
    assert stream.is_done
    assert not stream.has_error
    assert stream.events == len(events)
    assert (stream.usage is None) == (usage is None)
    if usage is not None:
        assert stream.usage == settled_from(usage["usage"])


@given(data=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=6), withhold=st.booleans())
def test_any_bytes_are_passed_on(data: bytes, places: list[int], withhold: bool) -> None:
    """What is no event stream at all is neither lost nor changed, and raises nothing."""
    if b"usage" in data:
        return
    stream = EventStream(withhold_usage=withhold)
    assert b"".join(stream.feed(part) for part in cut(data, places)) + stream.close() == data


@given(
    text=contents,
    usage=st.dictionaries(
        st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_tokens_details"]),
        st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.booleans() | st.just({"cached_tokens": -1}),
    ),
)
def test_usage_of_a_body_is_counts_or_nothing(text: str, usage: dict) -> None:
    """Whatever an engine reports, what is counted are non-negative integers."""
    body = json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}, ensure_ascii=False).encode()
    settled = usage_of_body(body)
    if settled is not None:
        assert min(settled.prompt, settled.cached, settled.output) >= 0
        assert settled.prompt == usage["prompt_tokens"]


def test_an_event_with_text_and_usage_is_relayed() -> None:
    """Only the chunk without choices is withheld: some servers report usage on each chunk."""
    stream = EventStream(withhold_usage=True)
    both = encode({"choices": [{"delta": {"content": "x"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    assert stream.feed(both) == both
    assert stream.usage == Settled(3, 0, 1, is_estimated=False)


def test_events_that_end_with_returns_are_events() -> None:
    """CRLF is as good as LF."""
    stream = EventStream(withhold_usage=True)
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\r\n\r\n'
    assert stream.feed(b"data: {}\r\n\r\n" + usage[:20]) == b"data: {}\r\n\r\n"
    assert stream.feed(usage[20:] + b"data: [DONE]\r\n\r\n") == b"data: [DONE]\r\n\r\n"
    assert (stream.events, stream.is_done) == (1, True)
    assert stream.usage is not None


def test_an_estimate_is_marked() -> None:
    """One token per event, one per four bytes of the request."""
    assert estimate(400, 7) == Settled(100, 0, 7, is_estimated=True)


def test_an_engines_own_error_is_told_in_our_words() -> None:
    """vLLM says 500 when what computes is gone; the client hears that it may come back, and no [DONE] follows."""
    stream = EventStream(withhold_usage=True)
    died = {"error": {"message": "EngineCore encountered an issue. See stack trace", "type": "x", "code": 500}}
    out = stream.feed(b"data: " + json.dumps(died).encode() + b"\n\ndata: [DONE]\n\n")
    told = json.loads(out.removeprefix(b"data: "))
    assert told["error"]["code"] == "engine_unavailable"
    assert "EngineCore" not in told["error"]["message"]
    assert stream.has_error
    assert b"[DONE]" not in out
    other = EventStream(withhold_usage=True)
    secret = other.feed(b'data: {"error": {"message": "at /srv/x.py line 3", "code": 500}}\n\n')
    assert b"/srv" not in secret
    assert json.loads(secret.removeprefix(b"data: "))["error"]["code"] == "internal_error"
