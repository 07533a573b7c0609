"""Each connector against its vendor's stand-in: OpenAI's words in, the vendor's on the wire, OpenAI's out.

What comes out is read with the types of OpenAI's own client.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion import Completion

from serving.egress.vendors import Anthropic, Azure, Compatible, Gemini, OpenAI, OutCall, Vendor
from serving.egress.vendors.calls import COMPLETIONS, EMBEDDINGS
from serving.errors import (
    ContextLengthExceeded,
    DestinationRefused,
    DestinationUnavailable,
    Overloaded,
    RequestTooLarge,
    ServingError,
    UnsupportedByDestination,
)
from tests.support.vendors.anthropic_api import AnthropicServer
from tests.support.vendors.ask import ask, chat, listen
from tests.support.vendors.gemini_api import GeminiServer
from tests.support.vendors.openai_api import AzureServer, OpenAIServer
from tests.support.vendors.server import Emulator, Fail, Say

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
    {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "and good day"}]},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Tver"}'}},
            {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Omsk"}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "snow"}]},
    {"role": "user", "content": "And?"},
]


@dataclass(frozen=True)
class Kind:
    """A connector, and what stands in for its vendor."""

    vendor: Vendor
    server: Callable[[], Emulator]
    model: str
    says_reasoning: bool = True
    """Whether it tells what the model thought."""


KINDS = {
    "openai": Kind(OpenAI(name="far"), OpenAIServer, "gpt", says_reasoning=False),
    "compatible": Kind(Compatible(name="far"), OpenAIServer, "gpt", says_reasoning=False),
    "azure": Kind(Azure(name="far"), AzureServer, "our-gpt", says_reasoning=False),
    "anthropic": Kind(Anthropic(name="far"), AnthropicServer, "claude"),
    "gemini": Kind(Gemini(name="far"), GeminiServer, "gemini-test-4"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def server(kind: Kind) -> Iterator[Emulator]:
    with kind.server() as made:
        yield made


def chunks_of(data: bytes) -> tuple[list[ChatCompletionChunk], list[dict]]:
    """The chunks of a stream, and its error events."""
    events = [part.removeprefix(b"data: ") for part in data.split(b"\n\n") if part]
    values = [json.loads(event) for event in events if event != b"[DONE]"]
    chunks = [ChatCompletionChunk.model_validate(value) for value in values if "error" not in value]
    return chunks, [value["error"] for value in values if "error" in value]


def put_together(chunks: list[ChatCompletionChunk]) -> dict:
    """What a client makes of a stream with one choice."""
    made: dict = {"content": "", "reasoning": "", "calls": [], "reason": None}
    for chunk in chunks:
        for choice in chunk.choices:
            made["content"] += choice.delta.content or ""
            made["reasoning"] += (choice.delta.model_extra or {}).get("reasoning", "")
            made["reason"] = choice.finish_reason or made["reason"]
            for call in choice.delta.tool_calls or []:
                if call.id:
                    made["calls"].append([call.id, call.function.name, ""])
                made["calls"][call.index][2] += call.function.arguments or ""
    return made


def test_a_whole_chat(kind: Kind, server: Emulator) -> None:
    """The text comes back with why it ended and what it cost, counted as OpenAI counts."""
    server.next.append(Say(cached=2, thoughts=("Hm, ", "well.")))
    answered = ask(kind.vendor, server, chat(kind.model, messages=TALK, tools=[WEATHER], max_tokens=50))
    assert answered.error is None
    answer = ChatCompletion.model_validate_json(answered.body)
    assert answer.choices[0].message.content == Say().text
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.choices[0].message.model_extra or {}).get("reasoning") == (
        "Hm, well." if kind.says_reasoning else None
    )
    usage = answered.usage
    assert usage.cached_tokens == answer.usage.prompt_tokens_details.cached_tokens == 2
    assert usage.prompt_tokens + usage.completion_tokens == answer.usage.total_tokens
    assert usage.completion_tokens == len(Say().pieces) + 2 or not kind.says_reasoning
    assert usage.reasoning_tokens == 2


def test_a_stream_is_the_whole_answer_in_pieces(kind: Kind, server: Emulator) -> None:
    """Streamed or not, the answer has the same text, thoughts, calls, reason and usage."""
    say = Say(thoughts=("Hm, ", "well."), calls=(("weather", {"town": "Tver", "n": [1, {}]}), ("now", {})), cached=2)
    server.next += [say, say]
    call = chat(kind.model, messages=TALK, tools=[WEATHER])
    whole = ChatCompletion.model_validate_json(ask(kind.vendor, server, call).body)
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    data, translator = listen(kind.vendor, server, chat(kind.model, messages=TALK, tools=[WEATHER], **streaming))
    assert data.endswith(b"data: [DONE]\n\n")
    assert translator.is_complete
    chunks, errors = chunks_of(data)
    assert not errors
    made, message = put_together(chunks), whole.choices[0].message
    assert made["content"] == message.content == say.text
    assert made["reasoning"] == ((message.model_extra or {}).get("reasoning") or "")
    assert made["reason"] == whole.choices[0].finish_reason == "tool_calls"
    told = [(call.id, call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
    assert [(one, name, json.loads(text)) for one, name, text in made["calls"]] == told
    assert told[0][2] == {"town": "Tver", "n": [1, {}]}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == translator.usage.completion_tokens > 0
    assert translator.usage.cached_tokens == 2


def test_the_usage_is_kept_from_clients_that_did_not_ask(kind: Kind, server: Emulator) -> None:
    """It is always asked for and known here; the client sees it only where it asked."""
    data, translator = listen(kind.vendor, server, chat(kind.model, stream=True))
    assert translator.usage.prompt_tokens > 0
    chunks, _ = chunks_of(data)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_where_it_goes_and_with_what(kind: Kind, server: Emulator) -> None:
    """The credential is in the headers of `auth` alone, and what is sent is what `request` says, to the byte."""
    call = chat(kind.model)
    request = kind.vendor.request(call)
    ask(kind.vendor, server, call)
    assert server.last.body == request.body
    assert server.bytes_received == len(request.body)
    assert "test-key" not in repr(request) + repr(request.headers) + request.path
    assert all(server.last.headers[name] == value for name, value in request.headers)
    assert b"anything" not in request.body  # the name that the model has here


def test_several_answers() -> None:
    """`n` is passed on where a vendor gives several answers, whole and streamed, and refused where it gives one."""
    for name in ("openai", "gemini"):
        kind = KINDS[name]
        with kind.server() as server:
            answered = ask(kind.vendor, server, chat(kind.model, n=2))
            whole = ChatCompletion.model_validate_json(answered.body)
            assert [choice.index for choice in whole.choices] == [0, 1]
    with KINDS["gemini"].server() as server:
        data, translator = listen(KINDS["gemini"].vendor, server, chat("gemini-test-4", n=2, stream=True))
        assert translator.is_complete
        said = {choice.index for chunk in chunks_of(data)[0] for choice in chunk.choices if choice.delta.content}
        assert said == {0, 1}
    with pytest.raises(UnsupportedByDestination) as caught:
        KINDS["anthropic"].vendor.request(chat("claude", n=2))
    assert caught.value.param == "n"


@pytest.mark.parametrize(
    ("choice", "anthropic", "gemini"),
    [
        ("auto", None, None),
        ("none", {"type": "none"}, {"mode": "NONE"}),
        ("required", {"type": "any"}, {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "weather"}},
            {"type": "tool", "name": "weather"},
            {"mode": "ANY", "allowedFunctionNames": ["weather"]},
        ),
    ],
)
def test_which_tool_is_to_be_called(choice: object, anthropic: object, gemini: object) -> None:
    """Each choice has its word with each vendor, and each vendor takes it."""
    with AnthropicServer() as server:
        answered = ask(Anthropic(name="far"), server, chat("claude", tools=[WEATHER], tool_choice=choice))
        assert answered.error is None
        assert server.last.json.get("tool_choice") == anthropic
        kept = chat("claude", tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
        assert ask(Anthropic(name="far"), server, kept).error is None
        assert server.last.json["tool_choice"].get("disable_parallel_tool_use", choice == "none") is True
    with GeminiServer() as server:
        answered = ask(Gemini(name="far"), server, chat("gemini-test-4", tools=[WEATHER], tool_choice=choice))
        assert answered.error is None
        assert server.last.json.get("toolConfig", {}).get("functionCallingConfig") == gemini


def test_a_format_with_a_schema(kind: Kind, server: Emulator) -> None:
    """The schema goes where the vendor wants it, with its name and description inside it where need be."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    told = {"name": "thing", "description": "A thing", "schema": schema, "strict": True}
    wanted = {"type": "json_schema", "json_schema": told}
    assert ask(kind.vendor, server, chat(kind.model, response_format=wanted)).error is None
    body = server.last.json
    labelled = {**schema, "title": "thing", "description": "A thing"}
    if isinstance(kind.vendor, Anthropic):
        assert body["output_config"] == {"format": {"type": "json_schema", "schema": labelled}}
    elif isinstance(kind.vendor, Gemini):
        assert body["generationConfig"] == {"responseMimeType": "application/json", "responseJsonSchema": labelled}
    else:
        assert body["response_format"] == wanted


def test_sampling_goes_where_it_is_known(kind: Kind, server: Emulator) -> None:
    """Temperature and the like reach every vendor that still takes them."""
    call = chat(kind.model, temperature=0.5, top_p=0.9, stop=["END"], seed=7, presence_penalty=0.5)
    if isinstance(kind.vendor, Anthropic):
        with pytest.raises(UnsupportedByDestination) as caught:
            kind.vendor.request(call)
        assert caught.value.param == "temperature"
        older = replace(kind.vendor, version="2023-06-01")
        assert ask(older, server, chat(kind.model, temperature=0.5, top_p=0.9, top_k=3, stop="END")).error is None
        assert server.last.json["stop_sequences"] == ["END"]
        with pytest.raises(UnsupportedByDestination):
            older.request(chat(kind.model, temperature=1.5))
        return
    assert ask(kind.vendor, server, call).error is None
    body = server.last.json
    config = body.get("generationConfig", body)
    assert config["temperature"] == 0.5
    assert config["seed"] == 7
    assert config.get("stop") == ["END"] or config.get("stopSequences") == ["END"]


@pytest.mark.parametrize(
    ("field", "value", "but"),
    [
        ("min_p", 0.5, ("compatible",)),
        ("repetition_penalty", 1.5, ("compatible",)),
        ("min_tokens", 5, ("compatible",)),
        ("ignore_eos", True, ("compatible",)),
        ("stop_token_ids", [1], ("compatible",)),
        ("logit_bias", {"5": 1}, ("compatible", "openai", "azure")),
        ("logprobs", True, ("compatible", "openai", "azure")),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(field: str, value: object, but: tuple[str, ...]) -> None:
    """A field that a vendor's API does not have is a 400 that names it; nothing is dropped."""
    for name, kind in KINDS.items():
        if name in but:
            assert json.loads(kind.vendor.request(chat(kind.model, **{field: value})).body)[field] == value
            continue
        with pytest.raises(UnsupportedByDestination) as caught:
            kind.vendor.request(chat(kind.model, **{field: value}))
        assert caught.value.param == field
        assert caught.value.http_status == 400
        assert "unsupported by destination `far`" in caught.value.message


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": "x", "name": "ann"}], "messages.0.name"),
        ([{"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}], "messages.0.role"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}], "messages.1.role"),
        ([{"role": "user", "content": ""}], "messages.0.content"),
        ([TALK[2], {**TALK[3], "tool_calls": [TALK[3]["tool_calls"][0]]}], "messages.1.tool_calls.0"),
        ([TALK[2], TALK[4]], "messages.1.tool_call_id"),
    ],
)
def test_conversations_that_other_apis_do_not_know(messages: list, param: str) -> None:
    """Names, a first or last turn of the assistant's, calls without results: refused with the place."""
    for name in ("anthropic", "gemini"):
        with pytest.raises(ServingError) as caught:
            KINDS[name].vendor.request(chat("x", messages=messages))
        assert caught.value.param == param
        assert caught.value.http_status == 400


def test_images_never_leave(kind: Kind) -> None:
    """Whatever the vendor could read, only text goes out."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    call = OutCall("/v1/chat/completions", {"messages": [{"role": "user", "content": [image]}]}, kind.model)
    with pytest.raises(UnsupportedByDestination) as caught:
        kind.vendor.request(call)
    assert caught.value.param == "messages.0.content.0.type"


def test_arguments_that_are_no_object(kind: Kind) -> None:
    """Arguments that a model wrote wrong are text to OpenAI, and refused where the API wants an object."""
    bad = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1, "a": 2}'}}
    call = chat(kind.model, messages=[TALK[2], {"role": "assistant", "tool_calls": [bad]}, TALK[4]])
    if kind.says_reasoning:
        with pytest.raises(UnsupportedByDestination) as caught:
            kind.vendor.request(call)
        assert caught.value.param == "messages.1.tool_calls.0.function.arguments"
    else:
        assert json.loads(kind.vendor.request(call).body)["messages"][1]["tool_calls"] == [bad]


def test_instructions_in_the_middle() -> None:
    """Anthropic takes them right behind the user's turn; Gemini nowhere."""
    inside = [
        {"role": "user", "content": "x"},
        {"role": "system", "content": "Hurry."},
        {"role": "assistant", "content": "y"},
        {"role": "user", "content": "z"},
    ]
    with AnthropicServer() as server:
        assert ask(Anthropic(name="far"), server, chat("claude", messages=inside)).error is None
        assert [one["role"] for one in server.last.json["messages"]] == ["user", "system", "assistant", "user"]
    with pytest.raises(UnsupportedByDestination):
        Anthropic(name="far").request(chat("claude", messages=[inside[0], inside[2], inside[1], inside[3]]))
    with pytest.raises(UnsupportedByDestination):
        Gemini(name="far").request(chat("gemini", messages=inside))


def test_the_other_routes() -> None:
    """Completions and embeddings go where they are known, and are refused elsewhere."""
    completion = OutCall(COMPLETIONS, {"model": "x", "prompt": "Once", "max_tokens": 5}, "our-gpt")
    embedding = OutCall(EMBEDDINGS, {"model": "x", "input": ["a", "b"], "dimensions": 3}, "our-gpt")
    for name in ("openai", "compatible", "azure"):
        with KINDS[name].server() as server:
            vendor = KINDS[name].vendor
            assert Completion.model_validate_json(ask(vendor, server, completion).body).choices[0].text == Say().text
            found = CreateEmbeddingResponse.model_validate_json(ask(vendor, server, embedding).body)
            assert [item.embedding for item in found.data] == [[0.5] * 3, [1.5] * 3]
    with GeminiServer() as server:
        gemini = Gemini(name="far")
        answered = ask(gemini, server, replace(embedding, model=server.model))
        found = CreateEmbeddingResponse.model_validate_json(answered.body)
        assert [item.embedding for item in found.data] == [[0.5] * 3, [1.5] * 3]
        assert answered.is_estimated
        coded = replace(embedding, model=server.model, body={**embedding.body, "encoding_format": "base64"})
        assert json.loads(ask(gemini, server, coded).body)["data"][0]["embedding"] == "AAAAPwAAAD8AAAA/"
    for vendor, call in ((Anthropic(name="far"), completion), (Anthropic(name="far"), embedding), (gemini, completion)):
        with pytest.raises(UnsupportedByDestination):
            vendor.request(call)


@pytest.mark.parametrize(
    ("status", "kinds"),
    [
        (400, DestinationRefused), (401, DestinationUnavailable), (403, DestinationUnavailable),
        (404, DestinationUnavailable), (408, DestinationUnavailable), (429, Overloaded),
        (413, RequestTooLarge), (500, DestinationUnavailable), (503, Overloaded), (529, Overloaded),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_errors_before_an_answer(
    kind: Kind, server: Emulator, status: int, kinds: type[ServingError], stream: bool
) -> None:
    """A status is an error of ours; the vendor's message, which repeats the prompt, is not in it."""
    server.next.append(Fail(status, headers={"retry-after": "7"}))
    secret = [{"role": "user", "content": "my secret is 4711-0815"}]
    answered = ask(kind.vendor, server, chat(kind.model, messages=secret, stream=stream))
    assert type(answered.error) is kinds
    assert answered.usage is None
    assert answered.status == answered.error.http_status
    assert json.loads(answered.body)["error"]["code"] == answered.error.code
    assert "4711" not in answered.body.decode() + answered.error.for_terminal() + repr(answered)
    if status == 429:
        assert answered.error.retry_after_s == 7


def test_a_wrong_key_is_the_sites_own_trouble(kind: Kind, server: Emulator) -> None:
    """A credential that is not taken is no error of the client's: 503, and a word to the operator."""
    answered = ask(kind.vendor, server, chat(kind.model), key="wrong")
    assert isinstance(answered.error, DestinationUnavailable)
    assert "does not let this site in" in answered.error.message


@pytest.mark.parametrize(
    ("name", "fail", "kinds"),
    [
        ("openai", Fail(400, "context_length_exceeded"), ContextLengthExceeded),
        ("anthropic", Fail(400, message="prompt is too long: 200001 tokens > 200000 maximum"), ContextLengthExceeded),
        (
            "gemini",
            Fail(
                400, message="The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)."
            ),
            ContextLengthExceeded,
        ),
        ("openai", Fail(429, "insufficient_quota"), DestinationUnavailable),
        ("anthropic", Fail(429, "enforced_spend_limit_reached"), DestinationUnavailable),
        ("gemini", Fail(400, "API_KEY_INVALID"), DestinationUnavailable),
        ("azure", Fail(400, "content_filter"), DestinationRefused),
    ],
)
def test_errors_that_say_more_than_their_status(name: str, fail: Fail, kinds: type[ServingError]) -> None:
    """A context that is too small, and a budget that is spent, are told apart from their neighbours."""
    with KINDS[name].server() as server:
        server.next.append(fail)
        answered = ask(KINDS[name].vendor, server, chat(KINDS[name].model))
    assert type(answered.error) is kinds
    if kinds is DestinationUnavailable and fail.status == 429:
        assert answered.error.retry_after_s == 3600


def test_a_wait_that_google_tells_in_the_body() -> None:
    """Without a header, the wait is the one that the error's details give."""
    with GeminiServer() as server:
        server.next.append(Fail(429))
        answered = ask(Gemini(name="far"), server, chat(server.model))
    assert answered.error.retry_after_s == 13


@pytest.mark.parametrize("code", ["", "some secret 4711"])
def test_an_error_in_the_middle_of_a_stream(kind: Kind, server: Emulator, code: str) -> None:
    """What came before it is passed on; it is an error event of ours, and no `[DONE]` follows."""
    server.next.append(Say(break_after=2, break_code=code))
    secret = [{"role": "user", "content": "my secret is 4711-0815"}]
    data, translator = listen(kind.vendor, server, chat(kind.model, stream=True, messages=secret))
    chunks, errors = chunks_of(data)
    assert put_together(chunks)["content"] == "".join(Say().pieces[:2])
    assert [error["code"] for error in errors] == [translator.error.code]
    assert b"[DONE]" not in data
    assert b"4711" not in data
    assert not translator.is_complete
    assert translator.feed(b'data: {"choices": []}\n\n') == translator.close() == []


def test_a_stream_that_is_cut(kind: Kind, server: Emulator) -> None:
    """A connection that ends too early is an error event, never a silent end."""
    server.next.append(Say(cut_after=3))
    data, translator = listen(kind.vendor, server, chat(kind.model, stream=True))
    chunks, errors = chunks_of(data)
    assert Say().text.startswith(put_together(chunks)["content"])
    assert [error["code"] for error in errors] == ["destination_unavailable"]
    assert b"[DONE]" not in data
    assert not translator.is_complete


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "reason", "ours"),
    [
        ("anthropic", "max_tokens", "length"), ("anthropic", "model_context_window_exceeded", "length"),
        ("anthropic", "stop_sequence", "stop"), ("anthropic", "refusal", "content_filter"),
        ("gemini", "MAX_TOKENS", "length"), ("gemini", "SAFETY", "content_filter"),
        ("gemini", "RECITATION", "content_filter"), ("gemini", "BLOCKED", "content_filter"),
        ("openai", "content_filter", "content_filter"), ("azure", "length", "length"),
    ],
)  # fmt: skip
def test_why_answers_end(name: str, reason: str, ours: str, stream: bool) -> None:
    """Each of a vendor's reasons is one of OpenAI's."""
    kind = KINDS[name]
    with kind.server() as server:
        server.next.append(Say(reason=reason))
        if stream:
            data, translator = listen(kind.vendor, server, chat(kind.model, stream=True))
            assert translator.is_complete
            assert put_together(chunks_of(data)[0])["reason"] == ours
        else:
            answer = ChatCompletion.model_validate_json(ask(kind.vendor, server, chat(kind.model)).body)
            assert answer.choices[0].finish_reason == ours


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_came_to_nothing(stream: bool) -> None:
    """Gemini's malformed calls are an error, not an answer that ended well."""
    with GeminiServer() as server:
        server.next.append(Say(reason="MALFORMED_FUNCTION_CALL"))
        if stream:
            _, translator = listen(Gemini(name="far"), server, chat(server.model, stream=True))
            error = translator.error
        else:
            error = ask(Gemini(name="far"), server, chat(server.model)).error
    assert isinstance(error, DestinationUnavailable)
    assert "MALFORMED_FUNCTION_CALL" in error.message


def test_what_a_site_may_set() -> None:
    """Settings of a connector are on the wire."""
    with AnthropicServer() as server:
        vendor = Anthropic(name="far", thinking=True, inference_geo="us", max_tokens=5)
        assert ask(vendor, server, chat("claude")).error is None
        assert server.last.json["thinking"] == {"type": "adaptive", "display": "summarized"}
        assert server.last.json["inference_geo"] == "us"
        assert server.last.json["max_tokens"] == 5
    with GeminiServer() as server:
        assert ask(Gemini(name="far", thoughts=True, prefix="/v1beta"), server, chat(server.model)).error is None
        assert server.last.json["generationConfig"] == {"thinkingConfig": {"includeThoughts": True}}
        assert server.last.json["store"] is False
    with OpenAIServer() as server:
        vendor = OpenAI(name="far", organization="org-1", project="proj-1")
        assert ask(vendor, server, chat("gpt", max_tokens=5)).error is None
        assert server.last.headers["openai-project"] == "proj-1"
        assert server.last.json["store"] is False
        assert server.last.json["max_completion_tokens"] == 5
    with AzureServer("other name", "2030-01-01") as server:
        vendor = Azure(name="far", api_version="2030-01-01", longest="max_tokens")
        server.deployment = "other%20name"
        assert ask(vendor, server, chat("other name", max_tokens=5)).error is None
        assert server.last.json["max_tokens"] == 5
