"""Google's own client is served by the stand-in as by the vendor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google import genai
from google.genai import errors, types

from tests.support.vendors.gemini_api import GeminiServer
from tests.support.vendors.server import KEY, Emulator, Fail, Say

WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            description="The weather of a town",
            parameters_json_schema={"type": "object", "properties": {"town": {"type": "string"}}},
        )
    ]
)


def client_of(server: Emulator, key: str = KEY, timeout_ms: int = 20_000) -> genai.Client:
    options = types.HttpOptions(
        base_url=server.origin, timeout=timeout_ms, retry_options=types.HttpRetryOptions(attempts=1)
    )
    return genai.Client(api_key=key, http_options=options)


@pytest.fixture
def client(gemini_server: GeminiServer) -> Iterator[genai.Client]:
    with client_of(gemini_server) as made:
        yield made


def test_content_and_its_usage(gemini_server: GeminiServer, client: genai.Client) -> None:
    """An answer has its parts, why it ended, and counts that add up."""
    gemini_server.next.append(Say(thoughts=("Hm.",), cached=4))
    answer = client.models.generate_content(
        model=gemini_server.model,
        contents="Hello",
        config=types.GenerateContentConfig(
            system_instruction="Be kind.", temperature=0.5, max_output_tokens=9, stop_sequences=["END"], seed=1,
            thinking_config=types.ThinkingConfig(include_thoughts=True),
        ),
    )  # fmt: skip
    assert answer.text == Say().text
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    told = answer.usage_metadata
    assert told.total_token_count == told.prompt_token_count + told.candidates_token_count + told.thoughts_token_count
    assert told.cached_content_token_count == 4
    assert gemini_server.last.json["generationConfig"]["maxOutputTokens"] == 9


def test_a_stream(gemini_server: GeminiServer, client: genai.Client) -> None:
    """The pieces of a stream are the text, and the last has why it ended."""
    chunks = list(client.models.generate_content_stream(model=gemini_server.model, contents="Hello"))
    assert "".join(chunk.text or "" for chunk in chunks) == Say().text
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP


def test_tools_there_and_back(gemini_server: GeminiServer, client: genai.Client) -> None:
    """Calls are answered in the next turn; a call that lost its signature is refused."""
    config = types.GenerateContentConfig(
        tools=[WEATHER],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        tool_config=types.ToolConfig(
            function_calling_config=types.FunctionCallingConfig(
                mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["weather"]
            )
        ),
    )
    gemini_server.next.append(Say(pieces=(), calls=(("weather", {"town": "Tver"}),)))
    answer = client.models.generate_content(model=gemini_server.model, contents="Hello", config=config)
    assert answer.function_calls[0].args == {"town": "Tver"}
    asked = types.Content(role="user", parts=[types.Part(text="Hello")])
    given = types.Content(
        role="user", parts=[types.Part.from_function_response(name="weather", response={"output": "rain"})]
    )
    said = answer.candidates[0].content
    client.models.generate_content(model=gemini_server.model, contents=[asked, said, given], config=config)
    said.parts[0].thought_signature = None
    with pytest.raises(errors.ClientError, match="thought_signature"):
        client.models.generate_content(model=gemini_server.model, contents=[asked, said, given], config=config)


def test_structured_output_and_embeddings(gemini_server: GeminiServer, client: genai.Client) -> None:
    """A schema goes with its content type, and texts are embedded in their order."""
    client.models.generate_content(
        model=gemini_server.model,
        contents="Hello",
        config=types.GenerateContentConfig(
            response_mime_type="application/json", response_json_schema={"type": "object", "properties": {}}
        ),
    )
    texts = [types.Content(parts=[types.Part(text=text)]) for text in ("a", "b")]
    found = client.models.embed_content(
        model=gemini_server.model, contents=texts, config=types.EmbedContentConfig(output_dimensionality=2)
    )
    assert [one.values for one in found.embeddings] == [[0.5, 0.5], [1.5, 1.5]]


def test_a_prompt_that_is_blocked(gemini_server: GeminiServer, client: genai.Client) -> None:
    """A blocked prompt has no candidate, and a reason."""
    gemini_server.next.append(Say(reason="BLOCKED"))
    answer = client.models.generate_content(model=gemini_server.model, contents="Hello")
    assert answer.candidates is None
    assert answer.prompt_feedback.block_reason == types.BlockedReason.SAFETY


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 429, 500, 503, 529])
def test_errors(gemini_server: GeminiServer, client: genai.Client, status: int) -> None:
    """A status is the client's own error for it, with the vendor's word for it."""
    gemini_server.next.append(Fail(status))
    with pytest.raises(errors.ClientError if status < 500 else errors.ServerError) as caught:
        client.models.generate_content(model=gemini_server.model, contents="Hello")
    assert caught.value.code == status
    assert caught.value.status.isupper()
    assert "refused" in caught.value.message


def test_what_is_refused(gemini_server: GeminiServer, client: genai.Client) -> None:
    """A wrong key, model or field."""
    with client_of(gemini_server, "wrong") as stranger, pytest.raises(errors.ClientError, match="API key not valid"):
        stranger.models.generate_content(model=gemini_server.model, contents="Hello")
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model="another", contents="Hello")
    assert caught.value.code == 404
    for wrong in ({"generationConfig": {"bogus": 1}}, {"bogus": 1}, {"generationConfig": {"temperature": 3}}):
        config = types.GenerateContentConfig(http_options=types.HttpOptions(extra_body=wrong))
        with pytest.raises(errors.ClientError) as caught:
            client.models.generate_content(model=gemini_server.model, contents="Hello", config=config)
        assert caught.value.status == "INVALID_ARGUMENT"


def test_streams_that_break(gemini_server: GeminiServer, client: genai.Client) -> None:
    """An error in the middle, a cut and a silence are what the client takes them for."""
    gemini_server.next.append(Say(break_after=2))
    with pytest.raises(errors.APIError, match="UNAVAILABLE"):
        list(client.models.generate_content_stream(model=gemini_server.model, contents="Hello"))
    gemini_server.next.append(Say(cut_after=2))
    with pytest.raises(Exception, match=r"closed|onnection"):
        list(client.models.generate_content_stream(model=gemini_server.model, contents="Hello"))
    gemini_server.next.append(Say(hang_after=0))
    with client_of(gemini_server, timeout_ms=300) as hasty, pytest.raises(Exception, match=r"timed out|imeout"):
        hasty.models.generate_content(model=gemini_server.model, contents="Hello")
