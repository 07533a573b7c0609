"""What is answered, as the official client reads it."""

import json

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from serving.errors import EngineUnavailable
from serving.openai import ToolCall, Usage, responses

USAGE = Usage(5, 3, 2)
TEXTS = ["plain", 'quote " and \\ and \n', "éДا😀", "\x00\x1f", "\u2028", "</script>", ""]


def data(event: bytes) -> dict:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert b"\n" not in event[:-2]
    return json.loads(event[6:])


@pytest.mark.parametrize("text", TEXTS)
def test_a_chunk_holds_its_text(text: str) -> None:
    """The text of a chunk is read back unchanged, and the chunk is one event, whatever is in the text."""
    stream = responses.ChatStream("chatcmpl-1", "the model", 17)
    chunk = ChatCompletionChunk.model_validate(data(stream.text(text)), strict=True)
    assert chunk.choices[0].delta.content == text
    assert (chunk.id, chunk.model, chunk.created) == ("chatcmpl-1", "the model", 17)
    plain = responses.CompletionStream("cmpl-1", "the model", 17)
    assert data(plain.text(text))["choices"][0]["text"] == text


def test_a_stream_has_its_parts() -> None:
    """Role, reasoning, text, a tool call in pieces, the reason, the usage: chunks that the client accepts."""
    stream = responses.ChatStream("chatcmpl-1", 'odd "name"\x00text\x01', 17)
    events = [
        stream.start(),
        stream.reasoning("hm"),
        stream.text("x"),
        stream.call_start(0, "call-1", "f"),
        stream.call_arguments(0, '{"a":1}'),
        stream.finish("tool_calls"),
        stream.usage(USAGE),
    ]
    chunks = [ChatCompletionChunk.model_validate(data(event), strict=True) for event in events]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert data(events[1])["choices"][0]["delta"] == {"reasoning": "hm"}
    start, arguments = (chunk.choices[0].delta.tool_calls[0] for chunk in chunks[3:5])
    assert (start.index, start.id, start.function.name) == (0, "call-1", "f")
    assert (arguments.index, arguments.function.arguments) == (0, '{"a":1}')
    assert chunks[5].choices[0].finish_reason == "tool_calls"
    assert chunks[6].choices == []
    assert chunks[6].usage.prompt_tokens_details.cached_tokens == 2
    assert chunks[6].usage.total_tokens == 8


@pytest.mark.parametrize("text", TEXTS)
def test_whole_answers_hold_their_text(text: str) -> None:
    """Chat and text completions are read back by the client's own types."""
    choices = [responses.Choice(text, "length"), responses.Choice("another", "stop")]
    same = {"model": "m", "created": 17, "choices": choices, "usage": USAGE}
    chat = ChatCompletion.model_validate(json.loads(responses.chat_completion(response_id="chatcmpl-1", **same)))
    plain = Completion.model_validate(json.loads(responses.completion(response_id="cmpl-1", **same)))
    assert chat.choices[0].message.content == plain.choices[0].text == text
    assert [(choice.index, choice.finish_reason) for choice in chat.choices] == [(0, "length"), (1, "stop")]
    assert [choice.index for choice in plain.choices] == [0, 1]
    assert chat.usage.total_tokens == plain.usage.total_tokens == 8


def test_an_answer_with_tool_calls_may_have_no_text() -> None:
    """Content is null beside tool calls, as OpenAI has it, and text where there was some."""
    for text, content in (("", None), ("so", "so")):
        body = responses.chat_completion(
            response_id="x",
            model="m",
            created=1,
            choices=[responses.Choice(text, "tool_calls", [ToolCall("c", "f", "{}")])],
            usage=USAGE,
        )
        message = ChatCompletion.model_validate(json.loads(body)).choices[0].message
        assert message.content == content
        assert message.tool_calls[0].function.name == "f"


def test_errors_are_events_too() -> None:
    """An error event is the error's body as one event."""
    error = EngineUnavailable("gone")
    assert data(responses.error_event(error)) == json.loads(responses.error_body(error)) == error.for_client()


def test_ids_are_fresh() -> None:
    """Each id is new and has OpenAI's prefix."""
    assert len({responses.new_id("chatcmpl") for _ in range(100)}) == 100
    assert responses.new_id("cmpl").startswith("cmpl-")
