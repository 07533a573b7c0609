"""The closed schema of each route: what is served, what is refused by name, what is unknown."""

import json
import typing

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

from serving.errors import InvalidRequest, UnsupportedFeature
from serving.openai import (
    DEFAULT_LIMITS,
    Limits,
    Serves,
    chat_schema,
    completion_schema,
    embeddings_schema,
    parse_chat,
    parse_completion,
    parse_detokenize,
    parse_tokenize,
)
from serving.openai.openapi import paths

USER = [{"role": "user", "content": "x"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ALL = Serves(choices=True, logprobs=True, structured_output=True, tools=True, images=True, audio=True)


def chat(**fields: object) -> dict[str, object]:
    return {"model": "m", "messages": USER, **fields}


def completion(**fields: object) -> dict[str, object]:
    return {"model": "m", "prompt": "x", **fields}


def test_every_published_field_is_known() -> None:
    """No field of OpenAI's own request types is an unknown one here."""
    published = typing.get_type_hints(chat_create_params.CompletionCreateParamsBase)
    streaming = typing.get_type_hints(chat_create_params.CompletionCreateParamsStreaming)
    assert set(published) | set(streaming) <= set(chat_schema().fields)
    published = typing.get_type_hints(completion_create_params.CompletionCreateParamsBase)
    streaming = typing.get_type_hints(completion_create_params.CompletionCreateParamsStreaming)
    assert set(published) | set(streaming) <= set(completion_schema().fields)
    published = typing.get_type_hints(embedding_create_params.EmbeddingCreateParams)
    assert set(published) <= set(embeddings_schema().fields)


NO_OPS = {
    "n": 1, "logprobs": False, "top_logprobs": 0, "store": False, "response_format": {"type": "text"},
    "service_tier": "auto", "parallel_tool_calls": True, "user": "me", "safety_identifier": "me",
    "metadata": {"a": "b"}, "modalities": ["text"], "tool_choice": "auto", "tools": [], "verbosity": "medium",
    "reasoning_effort": "none", "prompt_cache_key": "k", "prompt_cache_retention": "in_memory", "functions": [],
    "prompt_cache_options": {"mode": "implicit"},
}  # fmt: skip


@pytest.mark.parametrize("name", NO_OPS)
def test_what_asks_for_nothing_passes(name: str) -> None:
    """A value that only says what is the case anyway is accepted, and null says the same as leaving it out."""
    request = parse_chat(
        chat(**{"logprobs": False, name: NO_OPS[name]} if name == "top_logprobs" else {name: NO_OPS[name]})
    )
    assert name not in request.body or name in {
        "parallel_tool_calls",
        "n",
        "logprobs",
        "top_logprobs",
        "response_format",
    }
    assert parse_chat(chat(**{name: None})).body == chat()


REFUSED = [
    ({"store": True}, "store"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"moderation": {"model": "x"}}, "moderation"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"verbosity": "low"}, "verbosity"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
    ({"tools": [TOOL]}, "tools"),
    ({"tools": [TOOL], "tool_choice": "auto"}, "tools"),
    ({"tools": [TOOL], "tool_choice": "required"}, "tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice.type"),
    ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.0.type"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages.0.role"),
    (
        {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]},
        "messages.0.function_call",
    ),
    ({"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]}, "messages.0.audio"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]}]},
        "messages.0.content.0.type",
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}
            ]
        },
        "messages.0.content.0.type",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        "messages.0.content.0.type",
    ),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=[f"{index}-{row[1]}" for index, row in enumerate(REFUSED)])
def test_what_is_known_and_not_served_is_refused_by_name(fields: dict, param: str) -> None:
    """The error is `unsupported_feature`, names the field, and says what to do."""
    with pytest.raises(UnsupportedFeature) as caught:
        parse_chat(chat(**fields))
    assert caught.value.param == param
    assert caught.value.hint


INVALID = [
    ({"temprature": 1}, "temprature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"n": 0}, "n"),
    ({"n": 9}, "n"),
    ({"n": True}, "n"),
    ({"n": "1"}, "n"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": False, "top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": 2}, "logprobs"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": []}}},
     "response_format.json_schema.schema"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"max_tokens": 5, "min_tokens": 6}, "min_tokens"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": "x" * 513}, "stop"),
    ({"stop": [1]}, "stop.0"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"٣": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1"),
    ({"logit_bias": {"1": 1, "01": 2}}, "logit_bias"),
    ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
    ({"stream": "true"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include": True}}, "stream_options.include"),
    ({"messages": []}, "messages"),
    ({"messages": "x"}, "messages"),
    ({"messages": [{"content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages.0.tool_calls"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
    ({"messages": [{"role": "assistant"}]}, "messages.0.content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}]},
        "messages.0.content.0.image_url.url",
    ),
    ({"messages": USER * 4097}, "messages"),
    ({"tools": [TOOL] * 129}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ({"tool_choice": "sometimes", "tools": [TOOL]}, "tool_choice"),
    ({"metadata": {str(place): "x" for place in range(17)}}, "metadata"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"chat_template": "{{ evil }}"}, "chat_template"),
    ({"chat_template_kwargs": {}}, "chat_template_kwargs"),
    ({"cache_salt": "x"}, "cache_salt"),
    ({"priority": 1}, "priority"),
    ({"vllm_xargs": {}}, "vllm_xargs"),
    ({"model": ""}, "model"),
    ({"model": None}, "model"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), INVALID, ids=[f"{index}-{row[1]}" for index, row in enumerate(INVALID)])
def test_what_is_wrong_is_named(fields: dict, param: str) -> None:
    """Unknown, wrongly typed, out of bounds, missing: a 400 with the path of the field."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(chat(**fields))
    assert not isinstance(caught.value, UnsupportedFeature)
    assert caught.value.param == param


def test_an_unknown_field_gets_the_nearest_known_name() -> None:
    """The hint names what was probably meant."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(chat(max_token=5))
    assert caught.value.hint == "did you mean `max_tokens`?"


def test_unknown_fields_are_dropped_where_so_configured() -> None:
    """At every level, and what is known and not served is refused all the same."""
    lax = Limits(unknown_fields="ignore")
    body = chat(
        chat_template="x",
        messages=[{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}], "y": 2}],
        stream=True,
        stream_options={"z": 1},
    )
    assert parse_chat(body, lax).body == {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "stream": True,
        "stream_options": {},
    }
    with pytest.raises(UnsupportedFeature):
        parse_chat(chat(store=True), lax)


def test_the_view_of_a_chat_is_typed() -> None:
    """Every served field is where an engine looks for it, and the body is what goes to the engine."""
    body = chat(
        temperature=0.5, top_p=0.9, top_k=-1, min_p=0.1, frequency_penalty=1, presence_penalty=-1,
        repetition_penalty=1.1, seed=-7, stop="END", stop_token_ids=[3], ignore_eos=True, min_tokens=2,
        logit_bias={"5": -100, "6": 1.5}, max_completion_tokens=9, stream=True, stream_options={"include_usage": True},
        tools=[TOOL], tool_choice="auto",
    )  # fmt: skip
    request = parse_chat(body, serves=ALL)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 0, 0.1)
    assert (sampling.frequency_penalty, sampling.presence_penalty, sampling.repetition_penalty) == (1.0, -1.0, 1.1)
    assert (sampling.seed, sampling.stop, sampling.stop_token_ids) == (-7, ("END",), (3,))
    assert (sampling.ignore_eos, sampling.min_tokens, sampling.max_tokens) == (True, 2, 9)
    assert sampling.logit_bias == ((5, -100.0), (6, 1.5))
    assert (request.stream, request.include_usage, request.n, request.logprobs) == (True, True, 1, None)
    assert request.tools == (TOOL,)
    assert request.body == body
    assert parse_chat(request.body, serves=ALL).body == body


def test_tools_that_may_not_be_called_are_not_shown() -> None:
    """With `tool_choice` none the template sees no tools, and nothing need know how a call is written."""
    assert parse_chat(chat(tools=[TOOL], tool_choice="none")).tools == ()


def test_messages_are_shaped_for_templates() -> None:
    """Parts are joined, arguments become objects where they are, developer speaks as system, refusals are content."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    broken = {"id": "d", "type": "function", "function": {"name": "f", "arguments": "[" * 9999}}
    request = parse_chat(
        chat(
            messages=[
                {"role": "developer", "content": "be good", "name": "dev"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [call, broken],
                    "refusal": None,
                    "annotations": [],
                },
                {"role": "tool", "content": "1", "tool_call_id": "c"},
                {"role": "assistant", "refusal": "no"},
            ]
        )
    )
    shaped = [message.for_template() for message in request.messages]
    assert shaped[0] == {"role": "system", "content": "be good", "name": "dev"}
    assert shaped[1] == {"role": "user", "content": "a\nb"}
    functions = [one["function"]["arguments"] for one in shaped[2]["tool_calls"]]
    assert functions == [{"a": 1}, "[" * 9999]
    assert shaped[3] == {"role": "tool", "content": "1", "tool_call_id": "c"}
    assert shaped[4] == {"role": "assistant", "content": "no"}
    assert parse_chat(request.body).messages == request.messages


def test_reprs_hold_no_text() -> None:
    """A request or message that ends in a log by accident shows sizes only."""
    request = parse_chat(chat(messages=[{"role": "user", "content": "secret"}]))
    others = (parse_completion(completion(prompt="secret")), parse_tokenize({"prompt": "secret"}))
    assert "secret" not in repr(request) + repr(request.messages[0]) + "".join(map(repr, others))


@pytest.mark.parametrize(
    ("prompt", "parsed"),
    [("x", "x"), (["x"], "x"), ([1, 2], (1, 2)), ([[1, 2]], (1, 2)), ("", "")],
)
def test_a_prompt_in_each_of_its_forms(prompt: object, parsed: object) -> None:
    """Text, a list of one text, token ids, a list of one list of ids."""
    assert parse_completion(completion(prompt=prompt)).prompt == parsed


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (["x", "y"], UnsupportedFeature),
        ([[1], [2]], UnsupportedFeature),
        ([], InvalidRequest),
        ([[]], InvalidRequest),
        ([1, "x"], InvalidRequest),
        ([True], InvalidRequest),
        ([-1], InvalidRequest),
        ([2**31], InvalidRequest),
        (None, InvalidRequest),
        ({}, InvalidRequest),
        (5, InvalidRequest),
    ],
)
def test_other_prompts_are_refused(prompt: object, kind: type[InvalidRequest]) -> None:
    """Several prompts are refused as such; the rest is malformed."""
    with pytest.raises(InvalidRequest) as caught:
        parse_completion(completion(prompt=prompt))
    assert type(caught.value) is kind
    assert str(caught.value.param).startswith("prompt")


@pytest.mark.parametrize("fields", [{"echo": True}, {"suffix": "x"}, {"best_of": 2}, {"best_of": 1, "n": 2}])
def test_what_completions_do_not_serve(fields: dict) -> None:
    """Refused by name; their defaults pass."""
    with pytest.raises(UnsupportedFeature) as caught:
        parse_completion(completion(**fields))
    assert caught.value.param in fields
    assert parse_completion(completion(echo=False, suffix="", best_of=1, logprobs=None)).body == completion()
    assert parse_completion(completion(best_of=3, n=3)).body == completion(n=3)


def test_an_engine_that_serves_less_is_asked_for_less() -> None:
    """The same table closes down with what the engine does not serve."""
    for fields in (
        {"n": 2},
        {"logprobs": True},
        {"logprobs": False, "top_logprobs": 3},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
    ):
        with pytest.raises(UnsupportedFeature) as caught:
            parse_chat(chat(**fields), serves=Serves())
        assert caught.value.param == list(fields)[-1]
    with pytest.raises(UnsupportedFeature):
        parse_completion(completion(logprobs=0), serves=Serves())


def test_an_engine_that_serves_more_is_allowed_more() -> None:
    """The same table opens up with what the engine serves."""
    body = chat(
        n=3,
        logprobs=True,
        top_logprobs=5,
        response_format={"type": "json_object"},
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}],
    )
    request = parse_chat(body, DEFAULT_LIMITS, serves=ALL)
    assert (request.n, request.logprobs, request.tool_choice) == (3, 5, "required")
    assert request.parallel_tool_calls is False
    assert request.body == body


def test_tokenize_takes_text_or_messages() -> None:
    """Exactly one of them; special tokens come by default with text only, since a template writes its own."""
    assert parse_tokenize({"prompt": "x"}).add_special_tokens is True
    assert parse_tokenize({"messages": USER}).add_special_tokens is False
    for body in ({}, {"prompt": "x", "messages": USER}, {"prompt": "x", "add_generation_prompt": True}):
        with pytest.raises(InvalidRequest):
            parse_tokenize(body)
    assert parse_detokenize({"tokens": [1, 2]}).tokens == (1, 2)


def test_the_document_describes_every_field() -> None:
    """The OpenAPI document is made from the same table, and is plain JSON."""
    document = paths()
    schema = document["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == set(chat_schema().fields)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["model", "messages"]
    json.dumps(document)
