"""Everything of a request that would be serialised is read, and what is no text is said."""

from __future__ import annotations

import json

import pytest

from serving.policy.detect import Scanner, Verdict, parts_of

SCANNER = Scanner()
SECRET = "снилс 112-233-445 95"


def scan(body):
    return SCANNER.scan(parts_of(body))


def at(body, where: str):
    value = body
    for step in where.split("/")[1:]:
        value = value[int(step)] if isinstance(value, list) else value[step.replace("~1", "/").replace("~0", "~")]
    return value


PLACES = [
    ("/messages/0/content", {"model": "m", "messages": [{"role": "system", "content": SECRET}]}),
    ("/messages/0/content/1/text",
     {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": SECRET}]}]}),
    ("/messages/0/name", {"messages": [{"role": "user", "name": SECRET, "content": "hi"}]}),
    ("/messages/0/tool_calls/0/function/arguments",
     {"messages": [{"role": "assistant", "tool_calls": [
         {"id": "1", "type": "function", "function": {
             "name": "f", "arguments": json.dumps({"a": SECRET}, ensure_ascii=False)}}]}]}),
    ("/messages/0/content", {"messages": [{"role": "tool", "tool_call_id": "1", "content": SECRET}]}),
    ("/messages/0/refusal", {"messages": [{"role": "assistant", "refusal": SECRET}]}),
    ("/tools/0/function/description", {"tools": [{"type": "function", "function": {"name": "f", "description":
    SECRET}}]}), ("/tools/0/function/parameters/properties/id/enum/0",
     {"tools": [{"type": "function", "function": {
         "name": "f", "parameters": {"properties": {"id": {"enum": [SECRET]}}}}}]}),
    ("/response_format/json_schema/schema/description",
     {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"description": SECRET}}}}),
    ("/metadata/note", {"metadata": {"note": SECRET}}),
    ("/user", {"user": SECRET}),
    ("/stop/0", {"stop": [SECRET]}),
    ("/stop", {"stop": SECRET}),
    ("/prompt", {"prompt": SECRET}),
    ("/prompt/1", {"prompt": ["a", SECRET]}),
    ("/suffix", {"suffix": SECRET}),
    ("/input", {"input": SECRET}),
    ("/input/0", {"input": [SECRET, "b"]}),
    ("/instructions", {"instructions": SECRET}),
    ("/input/0/content/0/text", {"input": [{"type": "message", "content": [{"type": "input_text", "text": SECRET}]}]}),
    ("/input/0/output", {"input": [{"type": "function_call_output", "call_id": "c", "output": SECRET}]}),
    ("/query", {"query": SECRET, "documents": ["a"]}),
    ("/documents/1", {"query": "a", "documents": ["b", SECRET]}),
    ("/documents/0/text", {"query": "a", "documents": [{"text": SECRET}]}),
    ("/a~1b~0c", {"a/b~c": SECRET}),
    ("/prediction/content", {"prediction": {"type": "content", "content": SECRET}}),
    ("/something/new/0/1", {"something": {"new": [["x", SECRET]]}}),
]  # fmt: skip


@pytest.mark.parametrize(("where", "body"), PLACES)
def test_whatever_would_be_serialised_is_read(where: str, body: dict) -> None:
    """The span names the place by a JSON pointer, and its offsets are of the text there."""
    span = next(span for span in scan(body).spans if span.label == "ru.snils")
    assert span.where == where
    assert at(body, where)[span.start : span.end] == "112-233-445 95"


def test_keys_of_objects_are_read() -> None:
    """A key that is a value is found; a key is the context of what it names; so is it for a number."""
    (span,) = scan({"metadata": {SECRET: "x"}}).spans
    assert span.where == f"/metadata/{SECRET}#"
    assert scan({"metadata": {"inn": "7707083893"}}).labels == {"ru.inn_company"}
    assert scan({"metadata": {"client_inn": 7707083893}}).labels == {"ru.inn_company"}
    assert scan({"logit_bias": {"4111111111111111": -100}}).labels == {"card"}


def test_json_in_a_string_is_read_as_what_it_says() -> None:
    """Escaped twice over, the text itself shows nothing."""
    inner = json.dumps({"note": "снилс 112\\u002d233\\u002d445 95"})
    arguments = json.dumps({"payload": inner})
    body = {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]}
    finding = scan(body)
    assert finding.labels == {"ru.snils"}
    pointer = "/messages/0/tool_calls/0/function/arguments#/payload#/note"
    assert pointer in {part.where for part in parts_of(body)}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url":
        "data:image/png;base64,AA"}}]}]}, "unread:image_url"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format":
        "wav"}}]}]}, "unread:input_audio"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]}, "unread:file"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram", "x": 1}]}]}, "unread:hologram"),
        ({"messages": [{"role": "user", "content": [{"type": 7}]}]}, "unread:int"),
        ({"input": [{"type": "input_image", "image_url": "https://example.com/a.png"}]}, "unread:input_image"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "unread:item_reference"),
        ({"previous_response_id": "resp_1", "input": "go on"}, "unread:previous_response_id"),
        ({"prompt": [1, 2, 3]}, "unread:token_ids"),
        ({"prompt": [[1, 2, 3]]}, "unread:token_ids"),
        ({"input": [[1, 2], [3]]}, "unread:token_ids"),
        ({"input": b"bytes"}, "unread:not_json"),
    ],
)  # fmt: skip
def test_what_is_no_text_makes_it_unknown(body: dict, reason: str) -> None:
    """Pictures, sound, files, types that nobody knows, tokens, and what lies elsewhere."""
    finding = scan(body)
    assert finding.verdict is Verdict.UNKNOWN
    assert reason in finding.reasons


def test_what_is_no_text_hides_nothing_beside_it() -> None:
    """The request is SENSITIVE, and the reason is told as well."""
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    finding = scan({"messages": [{"role": "user", "content": [picture, {"type": "text", "text": SECRET}]}]})
    assert finding.verdict is Verdict.SENSITIVE
    assert finding.reasons == ("unread:image_url",)


def test_depth_is_bounded() -> None:
    """What is nested deeper than anybody writes is said to be unread, and no recursion is spent on it."""
    body: object = SECRET
    for _ in range(100_000):
        body = [body]
    assert scan({"metadata": body}).reasons == ("unread:too_deep",)
    assert scan({"prompt": "\\" + "[" * 100_000}).verdict is Verdict.CLEAN


def test_an_ordinary_request_is_clean() -> None:
    """With settings, tools and a conversation, and nothing of anybody in it."""
    body = {
        "model": "llama3-8b",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the capital of France?"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {
                    "name": "search", "arguments": '{"q": "capital of France"}'}}
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"result": "Paris"}'},
        ],
        "tools": [{"type": "function", "function": {"name": "search", "parameters": {
            "type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}}}],
        "temperature": 0.7, "max_tokens": 256, "seed": 1234567890, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    finding = scan(body)
    assert finding.verdict is Verdict.CLEAN, finding
