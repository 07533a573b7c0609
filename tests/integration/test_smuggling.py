"""What was checked and what the engine receives are the same value, or the request is refused.

Each body here is one that two readers could understand differently. Where the gateway lets it through, the engine's
bytes are compared with the gateway's own reading.
"""

import gzip
import json
from contextlib import suppress

import pytest

from tests.support.harness import Gateway, chat

CHAT = "/v1/chat/completions"
GOOD = json.dumps(chat("tokens=1")).encode()

DUPLICATES = {
    "at the top": b'{"model":"m","model":"m","messages":[{"role":"user","content":"x"}]}',
    "at the top, escaped": b'{"model":"m","mod\\u0065l":"m","messages":[{"role":"user","content":"x"}]}',
    "in a message": b'{"model":"m","messages":[{"role":"system","content":"x","role":"user"}]}',
    "in a part": b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a","text":"b"}]}]}',
    "in a tool's schema": (
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":'
        b'{"name":"f","parameters":{"a":{"b":[{"c":1,"c":2}]}}}}]}'
    ),
    "in what is dropped": b'{"model":"m","messages":[{"role":"user","content":"x"}],"metadata":{"a":"1","a":"2"}}',
    "stream twice": b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":false,"stream":true}',
}

AMBIGUOUS = {
    "a byte-order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16 without a mark": GOOD.decode().encode("utf-16-le"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "Latin-1": '{"model":"m","messages":[{"role":"user","content":"é"}]}'.encode("latin-1"),
    "an overlong slash": GOOD.replace(b"tokens", b"\xc0\xaf"),
    "a raw surrogate": GOOD.replace(b"tokens", b"\xed\xa0\x80"),
    "a lone surrogate": GOOD.replace(b"tokens", b"\\ud800"),
    "a lone low surrogate": GOOD.replace(b"tokens", b"\\uDC00x"),
    "surrogates the wrong way round": GOOD.replace(b"tokens", b"\\udc00\\ud800"),
    "a surrogate in a key": GOOD.replace(b"model", b"\\ud800"),
    "NaN": GOOD[:-1] + b',"temperature":NaN}',
    "infinity": GOOD[:-1] + b',"temperature":-Infinity}',
    "a number that overflows": GOOD[:-1] + b',"temperature":1e999}',
    "an integer beyond 64 bits": GOOD[:-1] + b',"seed":9223372036854775808}',
    "a very long integer": GOOD[:-1] + b',"seed":' + b"9" * 5000 + b"}",
    "two values": GOOD + GOOD,
    "a tail": GOOD + b"\x00",
    "a comment": b"/* x */" + GOOD,
    "a trailing comma": GOOD[:-1] + b",}",
    "single quotes": GOOD.replace(b'"', b"'"),
    "a raw newline in a string": GOOD.replace(b"tokens", b"\n"),
    "depth": GOOD[:-1] + b',"metadata":' + b'{"a":' * 100 + b"1" + b"}" * 101,
    "great depth": b"[" * 100_000,
    "nothing": b"",
    "an array": b"[]",
    "null": b"null",
    "a string": b'"x"',
}


def refused(served: Gateway, body: bytes, headers: dict[str, str] | None = None) -> dict:
    """The error of a request that must be a 400 and must not reach the engine."""
    before = len(served.received)
    answer = served.post(CHAT, body, headers)
    assert answer.status == 400, answer
    assert len(served.received) == before
    return answer.error


@pytest.mark.parametrize("body", DUPLICATES.values(), ids=DUPLICATES)
def test_a_key_that_comes_twice_is_refused(served: Gateway, body: bytes) -> None:
    """At any depth, also in what would be dropped, also spelt with escapes; the error names the path."""
    error = refused(served, body)
    assert "twice" in error["message"]
    assert error["param"]


@pytest.mark.parametrize("body", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_is_not_plain_json_is_refused(served: Gateway, body: bytes) -> None:
    """Each is a 400 in OpenAI's shape, and the engine never sees it."""
    assert refused(served, body)["code"] == "invalid_request_error"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "x"])
def test_an_encoded_body_is_refused(served: Gateway, encoding: str) -> None:
    """Only the identity encoding: a bound on the bytes read is then a bound on the bytes parsed."""
    refused(served, gzip.compress(GOOD), {"content-encoding": encoding})
    refused(served, GOOD, {"content-encoding": encoding})
    assert served.post(CHAT, GOOD, {"content-encoding": "identity"}).status == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "", "json"]
)
def test_another_content_type_is_refused(served: Gateway, kind: str) -> None:
    """A browser can send some of these across origins without asking first."""
    refused(served, GOOD, {"content-type": kind})


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_in_its_spellings_is_accepted(served: Gateway, kind: str) -> None:
    """Type and charset are compared without regard to case."""
    assert served.post(CHAT, GOOD, {"content-type": kind}).status == 200


def test_both_lengths_are_refused(served: Gateway) -> None:
    """`content-length` and `transfer-encoding: chunked` together are a 400, and the connection ends there."""
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    heads = [
        b"content-length: %d\r\ntransfer-encoding: chunked\r\n" % len(GOOD),
        b"transfer-encoding: chunked\r\ncontent-length: %d\r\n" % len(GOOD),
        b"content-length: %d\r\ncontent-length: 5\r\n" % len(GOOD),
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"content-length: +%d\r\n" % len(GOOD),
        b"content-length : %d\r\n" % len(GOOD),
    ]
    for head in heads:
        client = served.client()
        before = len(served.received)
        line = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
        client.send(line + head + b"\r\n" + chunked)
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (400, "invalid_request_error"), head
        assert client.socket.recv(1) == b""
        assert len(served.received) == before


def test_a_chunked_body_is_read(served: Gateway) -> None:
    """Chunked alone is fine, however it is cut."""
    client = served.client()
    client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    for place in range(0, len(GOOD), 7):
        part = GOOD[place : place + 7]
        client.send(b"%x\r\n%s\r\n" % (len(part), part))
    client.send(b"0\r\n\r\n")
    assert client.answer().status == 200


def test_the_engine_receives_the_value_that_was_checked(served: Gateway) -> None:
    """The engine's bytes are ours: compact, with what was dropped gone, and equal in value."""
    spaced = (
        '{ "model" : "m", "user": "me", "metadata": {"k": "v"}, "store": false, "n": 2, "logprobs": null,\n'
        '"messages": [ {"role": "user", "content": "tokens=1 \\u00e9\\ud83d\\ude00 \\u0000"} ], "temperature": 1.50 }'
    )
    assert served.post(CHAT, spaced.encode()).status == 200
    got = served.received[-1]["body"]
    assert json.loads(got) == {
        "model": "m",
        "messages": [{"role": "user", "content": "tokens=1 é😀 \x00"}],
        "n": 2,
        "temperature": 1.5,
    }
    assert "é😀" in got
    assert " : " not in got


def test_too_large_is_told(served: Gateway) -> None:
    """A body over the limit is a 413, whether its length is declared or found out."""
    big = json.dumps(chat("x" * (9 << 20))).encode()
    client = served.client()
    client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(big)
    )
    assert client.answer().error["code"] == "request_too_large"
    client = served.client()
    client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(big)
    )
    with suppress(ConnectionError):  # refused while we were still sending
        client.send(big)
    with suppress(ConnectionError):  # the answer may be lost with the connection, as TCP has it
        assert client.answer().error["code"] == "request_too_large"
    assert served.chat("tokens=1").status == 200


def test_a_long_head_is_refused(served: Gateway) -> None:
    """A head without an end is cut off at 64 KiB."""
    client = served.client()
    client.send(b"GET /health HTTP/1.1\r\nhost: h\r\n")
    with suppress(ConnectionError):
        for _ in range(100):
            client.send(b"x-filler: " + b"y" * 4096 + b"\r\n")
    with suppress(ConnectionError):
        assert client.answer().error["code"] == "request_too_large"
    assert served.get("/health").status == 200


def test_a_body_that_does_not_come_is_timed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """408 after `body_timeout_s`."""
    from tests.support.harness import gateway

    with gateway(tmp_path_factory.mktemp("g"), config={"body_timeout_s": 0.3}) as served:
        client = served.client()
        client.post(CHAT, b'{"model"', {"content-length": "100"})
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
