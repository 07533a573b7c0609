"""A thousand malformed or hostile bodies: no 500, 502 or 504, no traceback in a body, and the server still answers."""

import json
import string

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.harness import Answer, Gateway, chat

PATHS = ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"]
CHAT_FIELDS = [
    "model", "messages", "temperature", "top_p", "top_k", "n", "stream", "stream_options", "stop", "max_tokens",
    "logit_bias", "tools", "tool_choice", "response_format", "seed", "user", "logprobs", "top_logprobs", "functions",
    "modalities", "prompt", "suffix", "tokens", "min_tokens", "stop_token_ids", "metadata",
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["m", "user", "auto", "text", "function", "data:,", "", "\x00", "\ud800"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*CHAT_FIELDS, "role", "content", "type", "function", "name"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(CHAT_FIELDS) | st.text(max_size=8), values, max_size=8)
almost = st.builds(
    lambda fields, told: {**chat(told), **fields},
    st.dictionaries(st.sampled_from(CHAT_FIELDS), values, max_size=3),
    st.text(string.printable, max_size=20),
)
SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))


def is_fine(answer: Answer) -> None:
    """The answer is one of ours: no server error, OpenAI's shape, no trace of code."""
    assert answer.status in {200, 400, 404, 405, 408, 413, 503}, answer
    assert b"Traceback" not in answer.body
    assert b".py" not in answer.body
    if answer.status != 200:
        error = answer.error
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert error["code"]


@settings(SETTINGS, max_examples=400)
@given(path=st.sampled_from(PATHS), body=bodies | almost)
def test_any_json_gets_a_proper_answer(served: Gateway, path: str, body: dict) -> None:
    """Objects with our field names and any values, from sensible to absurd."""
    is_fine(served.post(path, json.dumps(body).encode()))


@settings(SETTINGS, max_examples=300)
@given(
    path=st.sampled_from(PATHS),
    body=st.binary(max_size=200),
    cut=st.integers(0, 80),
    insert=st.binary(max_size=6),
)
def test_any_bytes_get_a_proper_answer(served: Gateway, path: str, body: bytes, cut: int, insert: bytes) -> None:
    """Random bytes, and a good body with bytes put in or cut off."""
    good = json.dumps(chat("tokens=1", stream=True, temperature=0.5, stop=["a"])).encode()
    is_fine(served.post(path, body))
    is_fine(served.post(path, good[:cut] + insert + good[cut:]))
    is_fine(served.post(path, good[:cut] + insert))


@settings(SETTINGS, max_examples=200)
@given(data=st.binary(max_size=300))
def test_any_bytes_on_the_wire_leave_the_server_standing(served: Gateway, data: bytes) -> None:
    """What is not HTTP at all is answered with an error or a closed connection."""
    client = served.client()
    client.send(data + b"\r\n\r\n")
    client.socket.settimeout(0.02)
    try:
        is_fine(client.answer())
    except (ConnectionError, TimeoutError, ValueError):
        pass  # an unfinished head is waited for; what matters is the next request
    finally:
        client.close()
        served.clients.remove(client)
    assert served.get("/health").status == 200


def test_the_published_schema_is_what_is_served(served: Gateway) -> None:
    """Bodies that schemathesis makes from our OpenAPI document, sound and broken: each answer fits the document."""
    document = served.get("/openapi.json").json
    schema = schemathesis.openapi.from_dict(document)
    count = 0

    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.method.upper() != "POST":
            continue
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

            @settings(SETTINGS, max_examples=60)
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: schemathesis.Case) -> None:
                nonlocal count
                count += 1
                try:
                    body = json.dumps(case.body).encode()
                except (TypeError, ValueError):
                    return
                answer = served.post(case.path, body)
                is_fine(answer)
                assert str(answer.status) in document["paths"][case.path]["post"]["responses"]

            check()
    assert count > 300
    assert served.chat("tokens=1").status == 200
