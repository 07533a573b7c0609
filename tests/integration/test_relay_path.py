"""One request through a real gateway to a real process, when all goes well or the request is at fault."""

import json
import time

import pytest

from tests.support.harness import Gateway, chat, wait_until


def test_a_whole_answer_arrives_as_the_engine_wrote_it(served: Gateway) -> None:
    """The body of an answer that is not streamed is the engine's, byte for byte, with the request's id beside it."""
    answer = served.chat("tokens=3", headers={"x-request-id": "abc-1"})
    assert answer.status == 200
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.json["choices"][0]["message"]["content"] == "t0 t1 t2"
    assert served.received[-1]["headers"]["x-request-id"] == "abc-1"


def test_usage_is_withheld_from_a_client_that_did_not_ask(served: Gateway) -> None:
    """The gateway asks the engine for usage on every stream, and passes the chunk on only where the client asked."""
    plain = served.chat("tokens=2", stream=True)
    asked = served.chat("tokens=2", stream=True, stream_options={"include_usage": True})
    assert [event["choices"] for event in plain.events[:-1]] == [event["choices"] for event in asked.events[:-2]]
    assert plain.events[-1] == asked.events[-1] == "[DONE]"
    assert asked.events[-2]["usage"]["prompt_tokens"] == 7
    assert not any("usage" in event for event in plain.events[:-1])
    assert all(json.loads(one["body"])["stream_options"] == {"include_usage": True} for one in served.received[-2:])


def test_a_stream_that_ends_without_done_gets_one(served: Gateway) -> None:
    """A clean end without `[DONE]` is completed by the gateway."""
    assert served.chat("tokens=1 then=nodone", stream=True).events[-1] == "[DONE]"


def test_a_stream_without_usage_is_settled_by_estimate(served: Gateway) -> None:
    """Without a usage chunk the tokens are counted from what was relayed, and marked as estimated."""
    before = served.metric("perimeter_usage_estimated_total"), served.metric('perimeter_tokens_total{kind="output"')
    served.chat("tokens=5 then=nousage", stream=True)
    assert served.metric("perimeter_usage_estimated_total") == before[0] + 1
    assert served.metric('perimeter_tokens_total{kind="output"') == before[1] + 5


def test_comments_are_relayed_and_are_no_events(served: Gateway) -> None:
    """Keep-alive comments reach the client at once and do not count as the first token."""
    client = served.client()
    client.post("/v1/chat/completions", json.dumps(chat("tokens=1 comments=2 gap=0.05", stream=True)).encode())
    client.head()
    chunks = list(client.chunks())
    assert chunks[0].startswith(b": waiting")
    assert chunks[-1].endswith(b"data: [DONE]\n\n")


def test_events_are_relayed_as_they_come(served: Gateway) -> None:
    """The first event is with the client long before the last one is made."""
    client = served.client()
    began = time.monotonic()
    client.post("/v1/chat/completions", json.dumps(chat("tokens=5 gap=0.1", stream=True)).encode())
    client.head()
    next(client.chunks())
    assert time.monotonic() - began < 0.3
    client.close()
    wait_until(served.is_idle, "the engine is idle")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_the_engine(served: Gateway, stream: bool) -> None:
    """When the client's connection closes, the engine's is closed at once, and the request counts as cancelled."""
    before = served.metric("perimeter_engine_cancelled_total"), served.metric('perimeter_requests_total{code="client')
    client = served.client()
    client.post("/v1/chat/completions", json.dumps(chat("tokens=1000 gap=0.05", stream=stream)).encode())
    if stream:
        client.head()
    wait_until(lambda: served.metric("perimeter_engine_running") == 1, "the engine works")
    client.close()
    wait_until(served.is_idle, "the engine is idle", 1.0)
    assert served.metric("perimeter_engine_cancelled_total") == before[0] + 1
    assert served.metric('perimeter_requests_total{code="client_gone",model="m",outcome="cancelled"') == before[1] + 1


@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        ("status=400 code=context_length_exceeded", 400, "context_length_exceeded"),
        ("status=400", 400, "invalid_request_error"),
        ("status=404 code=model_not_found", 404, "model_not_found"),
        ("status=422", 400, "invalid_request_error"),
        ("status=429", 503, "overloaded"),
        ("status=503 code=overloaded", 503, "overloaded"),
        ("status=503 code=engine_unavailable", 503, "engine_unavailable"),
        ("status=500", 500, "internal_error"),
        ("status=502", 500, "internal_error"),
    ],
)
def test_an_engines_refusal_becomes_ours(served: Gateway, told: str, status: int, code: str) -> None:
    """Whatever status an engine refuses with, the client gets one of our codes in OpenAI's shape."""
    answer = served.chat(told, stream=True)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status == 503)


def test_an_engines_error_event_ends_the_stream_as_failed(served: Gateway) -> None:
    """An error event of the engine is passed on as it is, nothing follows it, and the request counts as failed."""
    name = 'perimeter_requests_total{code="internal_error",model="m",outcome="failed",route="chat.completions"}'
    before = served.metric(name)
    answer = served.chat("tokens=2 then=error", stream=True)
    assert answer.events[-1]["error"]["message"] == "told to fail"
    assert served.metric(name) == before + 1


def test_errors_have_openais_shape_everywhere(served: Gateway) -> None:
    """No route answers an error in another shape, with another method or at a path that there is not."""
    answers = {
        "not_found": served.get("/v1/nothing"),
        "method_not_allowed": served.get("/v1/chat/completions"),
        "model_not_found": served.post("/v1/completions", {"model": "other", "prompt": "x"}),
    }
    for code, answer in answers.items():
        assert answer.error["code"] == code
        assert set(answer.error) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]
    assert served.get("/v1/models/other").error["code"] == "model_not_found"
    assert served.get("/v1/models/m").json["id"] == "m"
    assert served.get("/v1/models").json["data"][0]["max_model_len"] == 128


@pytest.mark.parametrize("given", ["a" * 129, "a b", 'x"y', "a\tb", ""])
def test_a_request_id_that_may_not_be_logged_is_replaced(served: Gateway, given: str) -> None:
    """Only a short id of safe characters is taken over."""
    answer = served.chat("tokens=1", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] != given
    assert answer.headers["x-request-id"].startswith("req-")


def test_a_client_cannot_choose_its_cache_domain(served: Gateway) -> None:
    """The engine sees the domain that the gateway sets, whatever the client's header says."""
    served.chat("tokens=1", headers={"x-cache-domain": "someone-else"})
    assert served.received[-1]["headers"]["x-cache-domain"] == "default"


def test_tokenize_and_detokenize_reach_the_engine(served: Gateway) -> None:
    """Both are relayed, with the model left out too, since one model is served."""
    assert served.post("/tokenize", {"prompt": "x"}).json["tokens"] == [1]
    assert served.post("/detokenize", {"model": "m", "tokens": [1]}).json == {"prompt": "x"}


def test_no_prompt_text_in_log_or_metrics(served: Gateway) -> None:
    """What a client wrote, and what the engine answered, is in no log line and no metric."""
    served.chat("tokens=2 Zanzibar", stream=True)
    served.post("/v1/completions", {"model": "m", "prompt": "x", "Zanzibar": 1})
    served.post("/v1/completions", {"model": "Zanzibar", "prompt": "x"})
    served.post("/v1/completions", b'{"Zanzibar": "Zanzibar"')
    text = served.errors + served.get("/metrics").body.decode()
    assert "Zanzibar" not in text
    assert "t0 t1" not in text


def test_connections_are_kept(served: Gateway) -> None:
    """Requests follow each other on one connection, streamed or not, refused or not."""
    client = served.client()
    for fields in ({}, {"stream": True}, {"n": 99}, {"stream": True}):
        client.post("/v1/chat/completions", json.dumps(chat("tokens=1", **fields)).encode())
        assert client.answer().status == (400 if "n" in fields else 200)


def test_health_ready_and_documents(served: Gateway) -> None:
    """Health, readiness, the OpenAPI document and its page are answered without an engine's help."""
    assert served.get("/health").json == {"status": "ok"}
    assert served.get("/ready").json["engines"]["m"]["phase"] == "ready"
    paths = served.get("/openapi.json").json["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/v1/models"} <= set(paths)
    page = served.get("/docs").body.decode()
    assert "http://" not in page
    assert "https://" not in page
