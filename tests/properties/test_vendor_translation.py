"""Whatever is asked, and whatever a vendor sends: nothing is lost, nothing is let slip, and nothing breaks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from serving.egress.vendors import Anthropic, Azure, Compatible, Gemini, OpenAI, OutCall, StreamTranslator, Vendor
from serving.egress.vendors.calls import CHAT, EMBEDDINGS
from serving.errors import InvalidRequest, RequestError
from tests.support.vendors.anthropic_api import AnthropicServer
from tests.support.vendors.ask import chat
from tests.support.vendors.gemini_api import GeminiServer
from tests.support.vendors.openai_api import AzureServer, OpenAIServer
from tests.support.vendors.server import KEY, Emulator, Received, Refuse, Say

VENDORS: dict[str, tuple[Vendor, type[Emulator], str]] = {
    "openai": (OpenAI(name="far"), OpenAIServer, "gpt"),
    "azure": (Azure(name="far"), AzureServer, "our-gpt"),
    "anthropic": (Anthropic(name="far"), AnthropicServer, "claude"),
    "gemini": (Gemini(name="far"), GeminiServer, "gemini-test-4"),
}
SECRET = "4711-Иванов"

texts = st.text(min_size=1, max_size=20)
words = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12)
names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,20}", fullmatch=True)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, values, max_size=3)
schemas = st.builds(
    lambda properties, more: {**more, "type": "object", "properties": properties},
    st.dictionaries(names, st.builds(lambda text: {"type": "string", "description": text}, texts), max_size=2),
    st.dictionaries(texts.filter(lambda text: text[0] not in "$td"), values, max_size=1),
)


@st.composite
def conversations(draw: st.DrawFn, text: st.SearchStrategy[str], *, is_plain: bool) -> list[dict]:
    """Messages of any roles; plain ones are in an order, and in words, that every vendor takes."""
    content = text | st.lists(st.builds(lambda one: {"type": "text", "text": one}, text), min_size=1, max_size=3)
    messages = [{"role": draw(st.sampled_from(["system", "developer"])), "content": draw(content)}] * draw(
        st.integers(0, 1)
    )
    numbered = 0
    for _ in range(draw(st.integers(1, 3))):
        messages += [{"role": "user", "content": draw(content)}] * draw(st.integers(1, 2))
        calls = []
        for _ in range(draw(st.integers(0, 2))):
            numbered += 1
            arguments = draw(objects.map(json.dumps) | (st.just("") if is_plain else texts))
            function = {"name": draw(names if is_plain else names | texts), "arguments": arguments}
            calls.append({"id": f"call_{numbered}", "type": "function", "function": function})
        said: dict = {"role": "assistant"}
        if calls:
            said["tool_calls"] = calls
        if not calls or draw(st.booleans()):
            said["content"] = draw(content)
        messages.append(said)
        results = [{"role": "tool", "tool_call_id": call["id"], "content": draw(content)} for call in calls]
        messages += draw(st.permutations(results))
    messages.append({"role": "user", "content": draw(content)})
    if not is_plain and draw(st.booleans()):
        at = draw(st.integers(0, len(messages) - 1))
        if draw(st.booleans()):
            messages.pop(at)
        else:
            messages.insert(at, {"role": draw(st.sampled_from(["system", "user", "assistant"])), "content": draw(text)})
    if not is_plain and draw(st.booleans()):
        messages[0] = {**messages[0], "name": draw(texts)}
    return messages or [{"role": "user", "content": "x"}]


@st.composite
def bodies(draw: st.DrawFn, *, is_plain: bool) -> dict:
    """A body as its client would send it."""
    text = words if is_plain else texts | words
    body: dict = {"messages": draw(conversations(text, is_plain=is_plain))}
    tools = draw(st.lists(names, unique=True, max_size=2))
    if tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": draw(text),
                    "parameters": draw(schemas),
                    "strict": draw(st.booleans()),
                },
            }
            for name in tools
        ]
        named = {"type": "function", "function": {"name": tools[0]}}
        body["tool_choice"] = draw(st.sampled_from(["auto", "none", "required", named]))
    optional: dict[str, st.SearchStrategy] = {
        "max_tokens": st.integers(1, 4096),
        "stop": words | st.lists(words, max_size=4),
        "stream": st.booleans(),
        "top_k": st.just(0) if is_plain else st.integers(-1, 50),
        "n": st.just(1) if is_plain else st.integers(1, 8),
        "frequency_penalty": st.just(0) if is_plain else st.floats(-2, 2),
    }
    if not is_plain:
        optional |= {
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0.1, 1),
            "seed": st.integers(-(2**63), 2**63 - 1),
            "logit_bias": st.dictionaries(st.integers(0, 99).map(str), st.integers(-100, 100), max_size=2),
            "parallel_tool_calls": st.booleans(),
            "min_p": st.sampled_from([0, 0.5]),
            "stop": texts | st.lists(texts, max_size=6),
            "response_format": st.builds(
                lambda name, described, schema: {
                    "type": "json_schema",
                    "json_schema": {"name": name, "description": described, "schema": schema},
                },
                st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True),
                texts,
                schemas,
            ),
        }
    for name, strategy in optional.items():
        if draw(st.booleans()):
            body[name] = draw(strategy)
    return body


def said_in(value: object, *, key: str = "") -> Iterator[str]:
    """Every string that a client has said: texts, names, ids, keys and strings of schemas and of arguments."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in WORDS_OF_THE_PROTOCOL:
                yield name
            yield from said_in(item, key=name)
    elif isinstance(value, list):
        for item in value:
            yield from said_in(item, key=key)
    elif isinstance(value, str) and key == "arguments":
        try:
            parsed = json.loads(value or "{}")
        except ValueError:
            yield value
        else:
            yield from said_in(parsed) if isinstance(parsed, dict) else [value]
    elif isinstance(value, str) and key not in {"role", "type", "model", "tool_choice"}:
        yield value


WORDS_OF_THE_PROTOCOL = frozenset({
    "messages", "role", "content", "type", "text", "name", "tool_calls", "id", "function", "arguments", "tool_call_id",
    "tools", "description", "parameters", "strict", "tool_choice", "max_tokens", "stop", "stream", "top_k", "n",
    "frequency_penalty", "temperature", "top_p", "seed", "logit_bias", "parallel_tool_calls", "min_p", "json_schema",
    "response_format", "schema", "model",
})  # fmt: skip


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Emulator]]:
    """The stand-ins, whose checks are called without a connection."""
    made = {name: kind() for name, (_, kind, _) in VENDORS.items()}
    yield made
    for server in made.values():
        server._loop.close()


def checked(server: Emulator, vendor: Vendor, call: OutCall) -> dict:
    """The body of the vendor's request, which the vendor would take."""
    request = vendor.request(call)
    path, _, query = request.path.partition("?")
    pairs = dict(pair.split("=") for pair in query.split("&") if pair)
    received = Received(request.method, path, pairs, dict((*request.headers, *vendor.auth(KEY))), request.body)
    try:
        server.check(received)
    except Refuse as refusal:
        raise AssertionError(refusal.body) from None
    return received.json


def assert_all_is_said(call: OutCall, body: dict) -> None:
    """Every string of the call is in the body, as often as it was said."""
    wanted, found = Counter(said_in(dict(call.body))), Counter(said_in(body))
    names_of_schemas = Counter(text for text in said_in(body.get("response_format")))
    missing = {text for text in wanted if text.strip() and found[text] < wanted[text] - names_of_schemas[text]}
    assert not missing, (missing, body)


@pytest.mark.parametrize("name", VENDORS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=bodies(is_plain=False))
def test_a_request_is_said_whole_or_refused(servers: dict[str, Emulator], name: str, body: dict) -> None:
    """The vendor takes what it is sent, no string of the client's is missing, or a 400 names the field."""
    vendor, _, model = VENDORS[name]
    try:
        call = chat(model, **body)
    except InvalidRequest:
        return  # the gateway refuses it
    before = json.dumps(call.body)
    try:
        sent = checked(servers[name], vendor, call)
    except RequestError as refusal:
        found = refusal
    else:
        found = None
        assert_all_is_said(call, sent)
    assert found is None or (found.http_status == 400 and found.param)
    assert json.dumps(call.body) == before


@pytest.mark.parametrize("name", VENDORS)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=bodies(is_plain=True))
def test_a_plain_request_is_never_refused(servers: dict[str, Emulator], name: str, body: dict) -> None:
    """What every vendor can express goes to every vendor; arguments of calls keep their very values."""
    vendor, _, model = VENDORS[name]
    call = chat(model, **body)
    sent = checked(servers[name], vendor, call)
    assert_all_is_said(call, sent)
    given_arguments = [
        json.loads(one["function"]["arguments"] or "{}")
        for message in call.body["messages"]
        for one in message.get("tool_calls", ())
    ]
    if name == "anthropic":
        blocks = [block for message in sent["messages"] for block in message["content"]]
        assert [block["input"] for block in blocks if block["type"] == "tool_use"] == given_arguments
    elif name == "gemini":
        parts = [part for content in sent["contents"] for part in content["parts"]]
        assert [part["functionCall"]["args"] for part in parts if "functionCall" in part] == given_arguments


# Streams.


says = st.builds(
    Say,
    pieces=st.lists(texts, min_size=1, max_size=4).map(tuple),
    thoughts=st.lists(texts, max_size=2).map(tuple),
    calls=st.lists(st.tuples(names, objects), max_size=2).map(tuple),
    cached=st.integers(0, 9),
)


def stream_of(server: Emulator, vendor: Vendor, call: OutCall, say: Say) -> bytes:
    """The bytes of a stream."""
    request = vendor.request(call)
    received = Received("POST", request.path.partition("?")[0], {}, {}, request.body)
    before, pieces, behind = server.events(received, say)
    return b"".join([*before, *(event for piece in pieces for event in piece), *behind])


def fed(translator: StreamTranslator, parts: list[bytes]) -> tuple[bytes, object, object, bool]:
    """Everything that comes of a stream in these parts."""
    out = [event for part in parts for event in translator.feed(part)] + translator.close()
    error = None if translator.error is None else translator.error.for_terminal()
    return b"".join(out), translator.usage, error, translator.is_complete


def cut_up(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces, cut at the places."""
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@pytest.mark.parametrize("name", VENDORS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    say=says,
    places=st.lists(st.integers(0, 1 << 16), max_size=8),
    end=st.integers(0, 1 << 16),
    line=st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_a_stream_however_it_is_cut(
    servers: dict[str, Emulator], name: str, say: Say, places: list[int], end: int, line: bytes
) -> None:
    """The same events come of it in whatever pieces it arrives; cut short, it is as much of them and an error."""
    vendor, _, model = VENDORS[name]
    call = chat(model, stream=True, stream_options={"include_usage": True})
    data = stream_of(servers[name], vendor, call, say)
    whole = fed(vendor.stream(call), [data])
    assert whole[3], whole
    other_ends = data.replace(b"\n", line)
    assert fed(vendor.stream(call), cut_up(other_ends, places)) == whole
    every_byte = [data[at : at + 1] for at in range(len(data))]
    assert fed(vendor.stream(call), every_byte) == whole
    short = data[: end % (len(data) + 1)]
    once = fed(vendor.stream(call), [short])
    assert fed(vendor.stream(call), cut_up(short, places)) == once
    if not once[3]:
        told, _, error = once[0].rpartition(b"data: ")
        assert json.loads(error)["error"]["code"] == "destination_unavailable"
        assert whole[0].startswith(told)


@pytest.mark.parametrize("name", VENDORS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(say=says)
def test_usage_adds_up(servers: dict[str, Emulator], name: str, say: Say) -> None:
    """Whole and streamed, an answer has the same text and the same counts, and parts are never more than the whole."""
    vendor, _, model = VENDORS[name]
    streaming = chat(model, stream=True, stream_options={"include_usage": True})
    out, streamed, _, _ = fed(vendor.stream(streaming), [stream_of(servers[name], vendor, streaming, say)])
    chunks = [json.loads(event[6:]) for event in out.split(b"\n\n") if event and event != b"data: [DONE]"]
    read = [ChatCompletionChunk.model_validate(chunk) for chunk in chunks]
    # the same request, so that as many tokens are counted
    request = vendor.request(streaming)
    received = Received("POST", request.path.partition("?")[0], {}, {}, request.body)
    body = json.dumps(servers[name].whole(received, say)).encode()
    answered = vendor.answer(streaming, 200, {}, body)
    answer = ChatCompletion.model_validate_json(answered.body)
    assert answered.usage == streamed
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert read[-1].usage.total_tokens == answer.usage.total_tokens
    assert streamed.cached_tokens + streamed.cache_write_tokens <= streamed.prompt_tokens + say.cached
    assert (streamed.reasoning_tokens or 0) <= streamed.completion_tokens
    said = "".join(choice.delta.content or "" for chunk in read for choice in chunk.choices)
    assert said == (answer.choices[0].message.content or "") == say.text


# What a vendor must not be able to do.

VOCABULARY = (
    "error", "type", "message", "code", "status", "details", "error_code", "param", "content", "usage", "choices",
    "candidates", "parts", "functionCall", "args", "name", "id", "input", "text", "thinking", "delta", "index",
    "stop_reason", "finishReason", "usageMetadata", "promptTokenCount", "prompt_tokens", "content_block",
    "partial_json", "promptFeedback", "blockReason", "embeddings", "values", "data", "reason", "retryDelay",
    "input_tokens", "output_tokens", "prompt_tokens_details", "cached_tokens", "modelVersion", "model", "thought",
)  # fmt: skip
KINDS = (
    "message", "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
    "message_stop", "error", "tool_use", "text", "end_turn", "STOP", "SAFETY", "INVALID_ARGUMENT", "rate_limit_error",
    "invalid_api_key",
)  # fmt: skip
secrets = st.sampled_from([SECRET, f"prompt: {SECRET}", f"{SECRET}.x", f"messages[0].{SECRET}"])
hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | secrets | st.sampled_from(KINDS) | st.just("\ud83d"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(VOCABULARY) | secrets, inner, max_size=5)
    ),
    max_leaves=20,
)
statuses = st.sampled_from([200, 301, 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 529, 600])
CALLS = [
    OutCall(CHAT, {"messages": [{"role": "user", "content": SECRET}], "stream": True}, "m", id="r"),
    OutCall(EMBEDDINGS, {"input": [SECRET]}, "m", id="r"),
]
ALL = [*(vendor for vendor, _, _ in VENDORS.values()), Compatible(name="far")]


@settings(max_examples=400)
@given(
    vendor=st.sampled_from(ALL),
    call=st.sampled_from(CALLS),
    status=statuses,
    value=hostile,
    raw=st.none() | st.binary(max_size=40),
    headers=st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=8)),
)
@example(
    ALL[0], CALLS[0], 400, {"error": {"message": SECRET, "code": SECRET, "type": SECRET, "param": SECRET}}, None, {}
)
def test_nothing_of_an_error_is_repeated(
    vendor: Vendor, call: OutCall, status: int, value: object, raw: bytes | None, headers: dict[str, str]
) -> None:
    """Whatever a vendor answers, it is an answer or an error of ours; no error repeats a word of the vendor's."""
    body = json.dumps(value).encode() if raw is None else raw
    answered = vendor.answer(call, status, headers, body)
    assert (answered.error is None) <= (status == 200)
    if answered.error is not None:
        assert SECRET not in answered.body.decode() + answered.error.for_terminal() + str(answered.error.for_client())
        assert answered.body.startswith(b'{"error":')


@settings(max_examples=400)
@given(
    vendor=st.sampled_from(ALL),
    events=st.lists(hostile | st.sampled_from(["[DONE]"]), max_size=5),
    raw=st.binary(max_size=30),
)
def test_no_stream_breaks_the_translator(vendor: Vendor, events: list, raw: bytes) -> None:
    """Whatever events come, the client gets a stream that ends with `[DONE]`, or with an error that repeats nothing."""
    data = b"".join(
        b"data: "
        + (event.encode("utf-8", "replace") if isinstance(event, str) else json.dumps(event).encode())
        + b"\n\n"
        for event in events
    )
    translator = vendor.stream(CALLS[0])
    out = [*translator.feed(data), *translator.feed(raw), *translator.close()]
    assert translator.is_complete != (translator.error is not None)
    if translator.error is not None:
        assert SECRET not in out[-1].decode() + translator.error.for_terminal()
        assert out[-1].startswith(b'data: {"error":')
    else:
        assert out[-1] == b"data: [DONE]\n\n"
    assert all(event.endswith(b"\n\n") and event.count(b"\n\n") == 1 for event in out)


def test_deep_answers_are_no_answers() -> None:
    """What nests beyond reason is refused as no answer, and does not exhaust the stack."""
    deep = b'{"type":"message","content":[{"type":"tool_use","input":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}]}"
    for vendor in ALL:
        assert vendor.answer(replace(CALLS[0], body={}), 200, {}, deep).error is not None
