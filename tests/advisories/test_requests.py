"""Requests that ended, stalled or confused servers of vLLM's or llama.cpp's, by the advisory that describes them.

Each gets a clear refusal or a sound answer, in seconds; no engine is restarted, and another client's answer goes on.
Where the dangerous field is unknown here it never reaches an engine; that it is refused by name is the point.
Sources: github.com/vllm-project/vllm/security/advisories, github.com/ggml-org/llama.cpp/security/advisories, cve.org.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conformance.conftest import Target

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "Hi"}]
BAD_PATTERN = {"type": "object", "properties": {"a": {"type": "string", "pattern": "["}}}
IMAGES = [{"role": "user", "content": "<|image_pad|>" * 50}]
DEEP: dict[str, Any] = {"type": "string"}
for _ in range(60):
    DEEP = {"type": "array", "items": DEEP}


def chat(**fields: Any) -> dict[str, Any]:
    """A short chat with these fields."""
    return {"messages": HI, "max_tokens": 4, **fields}


def text(**fields: Any) -> dict[str, Any]:
    """A short completion with these fields."""
    return {"prompt": "Hi", "max_tokens": 4, **fields}


def form(schema: dict[str, Any]) -> dict[str, Any]:
    """An answer held to a schema."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def tool(parameters: dict[str, Any]) -> dict[str, Any]:
    """One tool, which is forced."""
    function = {"name": "f", "parameters": parameters}
    return {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    }


REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("CVE-2026-34756 huge n", TEXT, text(n=1_000_000, temperature=1)),
    ("CVE-2025-61620 template in a request", CHAT, chat(chat_template="{% for i in range(10**9) %}x{% endfor %}")),
    ("CVE-2025-61620 template among its arguments", CHAT, chat(chat_template_kwargs={"chat_template": "x"})),
    ("CVE-2025-62426 tokenize among the template's arguments", CHAT, chat(chat_template_kwargs={"tokenize": True})),
    ("CVE-2025-62426 at /tokenize", "/tokenize", {"messages": HI, "chat_template_kwargs": {"tokenize": True}}),
    ("CVE-2025-62164 prompt embeddings", TEXT, text(prompt_embeds="AAAA")),
    ("GHSA-mcmc-2m55-j8jj prompt embeddings as prompt", TEXT, text(prompt={"prompt_embeds": "AAAA"})),
    ("CVE-2025-48942 guided_json", TEXT, text(guided_json={"type": "stsring"})),
    ("CVE-2025-48943 guided_regex", TEXT, text(guided_regex="(")),
    ("CVE-2026-55574 structured_outputs.regex", TEXT, text(structured_outputs={"regex": "(a+)+b"})),
    ("CVE-2026-73559 prompts without end", TEXT, text(prompt=["x"] * 50_000)),
    ("CVE-2026-100647 cache_salt without end", CHAT, chat(cache_salt="x" * 1_000_000)),
    ("CVE-2026-93840 allowed_token_ids", TEXT, text(allowed_token_ids=[2**31 - 1])),
    ("CVE-2026-93989 bad_words", TEXT, text(bad_words=["\u0000" * 9])),
    ("GHSA-fpch-3xrf-7q96 thinking_token_budget", CHAT, chat(thinking_token_budget=5)),
    ("CVE-2026-94622 kv_transfer_params", TEXT, text(kv_transfer_params={"do_remote_prefill": True})),
    ("CVE-2026-114053 mm_processor_kwargs", CHAT, chat(mm_processor_kwargs={"code_revision": "x"})),
    ("CVE-2026-105758 media_io_kwargs", "/tokenize", {"messages": HI, "media_io_kwargs": {"video": {"fps": 1e9}}}),
    ("vLLM priority", TEXT, text(priority=-(2**31))),
    ("vLLM logits_processors", TEXT, text(logits_processors=["os.system"])),
    (
        "CVE-2025-6242, CVE-2026-24779 image by URL",
        CHAT,
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x\\@10.0.0.1"}}]}
            ]
        },
    ),
    (
        "CVE-2026-54233 audio",
        CHAT,
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
                }
            ]
        },
    ),
    ("CVE-2026-21869 n_discard below 0", TEXT, text(n_discard=-1, n_keep=-1)),
    ("CVE-2026-43628 dry_allowed_length", TEXT, text(dry_allowed_length=2**31 - 1, dry_multiplier=1)),
    ("CVE-2026-107183 chat_parser", CHAT, chat(chat_parser="x")),
    ("CVE-2026-2069 grammar that nests", TEXT, text(grammar="root ::= " + "(" * 9999)),
    ("CVE-2026-93592 negative token id", TEXT, text(prompt=[-1])),
    ("CVE-2026-93841 token id beyond the vocabulary", TEXT, text(prompt=[2**31 - 1])),
]
"""What is refused: advisory, route, body."""

SURVIVED: list[tuple[str, str, dict[str, Any]]] = [
    ("CVE-2025-48944 a type that is none", CHAT, chat(**tool({"type": "something"}))),
    ("CVE-2025-48944 a pattern that is none", CHAT, chat(**tool(BAD_PATTERN))),
    ("CVE-2025-48942 a schema's type that is none", CHAT, chat(response_format=form({"type": "stsring"}))),
    (
        "CVE-2026-55574 a pattern that explodes",
        CHAT,
        chat(response_format=form({"type": "string", "pattern": "(a+)+b"})),
    ),
    ("CVE-2026-105757 a reference to nowhere", CHAT, chat(response_format=form({"$ref": "#/$defs/none"}))),
    ("CVE-2026-105757 a reference to itself", CHAT, chat(response_format=form({"$ref": "#"}))),
    ("CVE-2026-105757 nesting", CHAT, chat(response_format=form(DEEP))),
    ("CVE-2026-100654 stop_token_ids beyond the vocabulary", TEXT, text(stop_token_ids=[2**31 - 1], min_tokens=3)),
    ("CVE-2026-100652 stop_token_ids beyond the vocabulary", TEXT, text(stop_token_ids=[999_999])),
    ("CVE-2026-44223 penalties", TEXT, text(presence_penalty=2, frequency_penalty=-2, repetition_penalty=1.5)),
    ("CVE-2026-114051 min_tokens beyond everything", TEXT, text(min_tokens=2**31 - 1)),
    ("CVE-2026-93436 no token at all", TEXT, text(max_tokens=0)),
    ("CVE-2026-44222 text that spells an image's tokens", CHAT, chat(messages=IMAGES)),
    ("logit_bias of tokens that are not there", TEXT, text(logit_bias={"2147483647": 5})),
]
"""What may be answered, or refused; nobody dies of it."""

ROUTES = [
    "/invocations", "/v1/responses", "/pooling", "/score", "/v1/score", "/classify", "/inference/v1/generate",
    "/inference/v1/abort_requests", "/v1/chat/completions/render", "/v1/completions/derender", "/v1/messages",
    "/scale_elastic_ep", "/collective_rpc", "/sleep", "/wake_up", "/pause", "/reset_prefix_cache", "/server_info",
    "/v1/load_lora_adapter", "/tokenizer_info", "/start_profile", "/completion", "/infill", "/apply-template",
    "/slots/0", "/props", "/lora-adapters", "/v1/audio/transcriptions", "/v1/systemone", "/docs/../metrics",
    "//v1/models",
]  # fmt: skip
"""Routes of the engines that are not ours: CVE-2026-114051, CVE-2026-71486, vllm#58144, #18892."""


def post(target: Target, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON of one request."""
    where = urlsplit(target.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    try:
        connection.request("POST", path, body, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        raw = answer.read()
        return answer.status, json.loads(raw) if raw[:1] == b"{" else {}
    finally:
        connection.close()


def ask(target: Target, path: str, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """As `post`, with a body of these fields for the model under test."""
    return post(target, path, json.dumps({"model": target.model, **fields}).encode())


@pytest.fixture(autouse=True)
def nobody_else_notices(target: Target) -> Iterator[None]:
    """Another client's stream goes on through it all, and no engine is restarted."""
    if target.metric is None:
        pytest.skip("the engine's restarts cannot be counted there")
    restarts = target.metric("perimeter_engine_restarts_total")
    stop = threading.Event()
    broken: list[BaseException] = []
    answers = 0

    def bystander() -> None:
        nonlocal answers
        while not stop.is_set() and not broken:
            try:
                chunks = list(target.complete("x", max_tokens=16, stream=True, extra_body={"ignore_eos": True}))
                assert chunks[-1].choices[0].finish_reason == "length"
                answers += 1
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
                broken.append(error)

    thread = threading.Thread(target=bystander)
    thread.start()
    try:
        yield
    finally:
        before, deadline = answers, time.monotonic() + 30
        while answers < before + 2 and not broken and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        stop.set()
        thread.join(60)
    assert not broken
    assert answers >= before + 2
    assert target.metric("perimeter_engine_restarts_total") == restarts


@pytest.mark.parametrize(("path", "fields"), [pytest.param(*rest, id=name) for name, *rest in REFUSED])
def test_what_is_not_a_clients_is_refused(target: Target, path: str, fields: dict[str, Any]) -> None:
    """One 400, before any engine has seen it."""
    status, answer = ask(target, path, fields)
    assert status == 400
    assert answer["error"]["message"]


@pytest.mark.parametrize(("path", "fields"), [pytest.param(*rest, id=name) for name, *rest in SURVIVED])
def test_what_may_be_asked_kills_nobody(target: Target, path: str, fields: dict[str, Any]) -> None:
    """Answered or refused within seconds, streamed or not; never a 5xx."""
    began = time.monotonic()
    status, answer = ask(target, path, fields)
    assert status in (200, 400)
    assert status == 200 or answer["error"]["message"]
    streamed, _ = ask(target, path, {**fields, "stream": True})
    assert streamed in (200, 400)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("route", ROUTES)
def test_an_engines_other_routes_are_not_there(target: Target, route: str) -> None:
    """The gateway forwards an allow-list."""
    status, _ = ask(target, route, {"prompt": "x", "token_ids": [1], "sampling_params": {"max_tokens": None}})
    assert status in (404, 405)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_a_temperature_that_is_no_number_is_refused(target: Target, number: bytes) -> None:
    """CVE-2026-54235: it reached the sampler."""
    body = b'{"model": "%b", "prompt": "x", "max_tokens": 2, "temperature": %b}' % (target.model.encode(), number)
    assert post(target, TEXT, body)[0] == 400


def test_a_header_without_end_is_refused(target: Target) -> None:
    """CVE-2025-48956: it was read to its end."""
    where = urlsplit(target.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    try:
        connection.request("GET", "/v1/models", headers={"x": "y" * 4_000_000})
        status = connection.getresponse().status
    except OSError:
        status = 431  # closed while it still wrote
    finally:
        connection.close()
    assert 400 <= status < 500


def test_a_method_of_many_names_is_refused(target: Target) -> None:
    """CVE-2026-105759: each became a metric's label."""
    where = urlsplit(target.url)
    for at in range(20):
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        try:
            connection.request(f"M{at}", "/v1/models")
            assert 400 <= connection.getresponse().status < 500
        finally:
            connection.close()


@pytest.mark.parametrize(("host", "status"), [("x/y", 421), ("x?y", 421), ("a b", 421), ("x" * 300, 404)])
def test_a_strange_host_changes_no_route(target: Target, host: str, status: int) -> None:
    """CVE-2026-48746: it changed the path that was checked. What is no name is refused before the path is looked at."""
    body = json.dumps({"prompt": "x"}).encode()
    assert post(target, "/invocations", body, {"host": host})[0] == status


def test_many_schemas_fill_nothing(target: Target) -> None:
    """CVE-2025-29770, GHSA-hf3c-wxg2-49q9: each distinct schema was kept for good. Transformers takes none."""
    for at in range(60):
        schema = {"type": "object", "properties": {f"p{at}": {"type": "integer"}}, "additionalProperties": False}
        status, answer = ask(target, CHAT, chat(response_format=form(schema), max_tokens=2))
        if target.name == "transformers":
            assert answer["error"]["code"] == "unsupported_feature"
        else:
            assert status == 200


def test_another_requests_id_changes_nothing(target: Target) -> None:
    """CVE-2026-105755: a second request with a victim's id got or broke its answer."""
    questions = {
        "What is the capital of France?": "The capital of France is Paris.",
        "What is your name?": "My name is Perimeter Demo.",
    }
    answers: dict[str, str] = {}

    def one(question: str) -> None:
        body = {"model": target.model, "messages": [{"role": "user", "content": question}], "temperature": 0}
        _, answer = post(target, CHAT, json.dumps(body).encode(), {"x-request-id": "victim"})
        answers[question] = answer["choices"][0]["message"]["content"]

    threads = [threading.Thread(target=one, args=(question,)) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == questions


def test_text_without_end_is_refused_before_it_is_tokenised(target: Target) -> None:
    """CVE-2025-52566: more text than a tokenizer's counter holds."""
    began = time.monotonic()
    status, answer = ask(target, TEXT, {"prompt": "a" * 8_000_000})
    assert status == 400
    assert answer["error"]["code"] == "context_length_exceeded"
    assert time.monotonic() - began < 10


def test_a_body_without_end_is_refused(target: Target) -> None:
    """Beyond `limits.body_bytes` it is not read to its end."""
    body = b'{"model": "%b", "prompt": "%b"}' % (target.model.encode(), b"a" * (20 << 20))
    try:
        status, _ = post(target, TEXT, body)
    except OSError:
        status = 413  # closed while this client still wrote
    assert status == 413
