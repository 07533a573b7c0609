"""OpenAI's own client is served by the stand-ins for OpenAI and Azure as by the vendors."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.support.vendors.openai_api import AzureServer, OpenAIServer
from tests.support.vendors.server import KEY, Emulator, Fail, Say

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
HELLO = [{"role": "user", "content": "Hello"}]


def client_of(server: Emulator, key: str = KEY, **more: object) -> openai.OpenAI:
    if isinstance(server, AzureServer):
        return openai.AzureOpenAI(
            azure_endpoint=server.origin, api_key=key, api_version="2024-10-21", max_retries=0, **more
        )
    return openai.OpenAI(base_url=f"{server.origin}/v1", api_key=key, max_retries=0, **more)


@pytest.fixture(params=["openai", "azure"])
def server(request: pytest.FixtureRequest) -> Iterator[OpenAIServer]:
    with AzureServer() if request.param == "azure" else OpenAIServer() as made:
        yield made


@pytest.fixture
def client(server: OpenAIServer) -> Iterator[openai.OpenAI]:
    with client_of(server) as made:
        yield made


def test_a_chat_and_its_usage(server: OpenAIServer, client: openai.OpenAI) -> None:
    """An answer has its text, why it ended, and counts that add up."""
    server.next.append(Say(cached=2))
    answer = client.chat.completions.create(model="our-gpt", messages=HELLO, temperature=0.5, max_completion_tokens=50)
    assert answer.choices[0].message.content == Say().text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert server.last.json["max_completion_tokens"] == 50
    assert server.bytes_received == len(server.last.body)


def test_a_stream_and_its_usage(server: OpenAIServer, client: openai.OpenAI) -> None:
    """The pieces of a stream are the text, and the usage comes last where it was asked for."""
    chunks = list(
        client.chat.completions.create(
            model="our-gpt", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == Say().text
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(Say().pieces)


def test_tools_whole_and_streamed(server: OpenAIServer, client: openai.OpenAI) -> None:
    """Calls come whole, and in pieces that are the same calls; their results are taken back."""
    say = Say(pieces=(), calls=(("weather", {"town": "Tver"}), ("weather", {"town": "Omsk"})))
    server.next.append(say)
    answer = client.chat.completions.create(model="our-gpt", messages=HELLO, tools=[WEATHER])
    calls = answer.choices[0].message.tool_calls
    assert [call.function.arguments for call in calls] == ['{"town": "Tver"}', '{"town": "Omsk"}']
    server.next.append(say)
    streamed = ["", ""]
    for chunk in client.chat.completions.create(model="our-gpt", messages=HELLO, tools=[WEATHER], stream=True):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                streamed[call.index] += call.function.arguments or ""
    assert streamed == [call.function.arguments for call in calls]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in calls]
    said = answer.choices[0].message.model_dump(exclude_none=True, exclude={"annotations"})
    client.chat.completions.create(model="our-gpt", messages=[*HELLO, said, *results], tools=[WEATHER])


def test_embeddings_and_completions(server: OpenAIServer, client: openai.OpenAI) -> None:
    """The two other routes answer, embeddings in the coding that the client asks for by itself."""
    found = client.embeddings.create(model="our-gpt", input=["a", "b"])
    assert [item.embedding[0] for item in found.data] == [0.5, 1.5]
    assert client.completions.create(model="our-gpt", prompt="Once").choices[0].text == Say().text


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError), (401, openai.AuthenticationError), (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError), (408, openai.APIStatusError), (429, openai.RateLimitError),
        (500, openai.InternalServerError), (529, openai.InternalServerError),
    ],
)  # fmt: skip
def test_errors(server: OpenAIServer, client: openai.OpenAI, status: int, error: type[openai.APIStatusError]) -> None:
    """A status is the client's own error for it, with the vendor's body and headers."""
    server.next.append(Fail(status, "some_code", {"retry-after": "7"}))
    with pytest.raises(error) as caught:
        client.chat.completions.create(model="our-gpt", messages=HELLO)
    assert caught.value.status_code == status
    assert caught.value.code == "some_code"
    assert caught.value.response.headers["retry-after"] == "7"


def test_a_wrong_key_and_a_wrong_field(server: OpenAIServer, client: openai.OpenAI) -> None:
    """What the vendor does not know is refused before anything is answered."""
    with client_of(server, "wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="our-gpt", messages=HELLO)
    for wrong in ({"top_k": 3}, {"temperature": 3}, {"stop": list("abcde")}, {"min_p": 0.1}):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="our-gpt", messages=HELLO, extra_body=wrong)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="our-gpt", messages=[{"role": "user", "content": "x", "bogus": 1}])


def test_azure_wants_its_version_and_its_deployment(azure_server: AzureServer) -> None:
    """Another version, or another deployment, is not there."""
    wrong = openai.AzureOpenAI(azure_endpoint=azure_server.origin, api_key=KEY, api_version="1999-01-01", max_retries=0)
    with wrong, pytest.raises(openai.NotFoundError):
        wrong.chat.completions.create(model="our-gpt", messages=HELLO)
    with client_of(azure_server) as client, pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="other", messages=HELLO)
    assert caught.value.code == "DeploymentNotFound"


def test_streams_that_break(server: OpenAIServer, client: openai.OpenAI) -> None:
    """An error in the middle, a cut and a silence are what the client takes them for."""
    server.next.append(Say(break_after=2))
    with pytest.raises(openai.APIError, match="The server had an error"):
        list(client.chat.completions.create(model="our-gpt", messages=HELLO, stream=True))
    server.next.append(Say(cut_after=2))
    with pytest.raises((openai.APIError, openai.APIConnectionError, Exception)) as caught:
        list(client.chat.completions.create(model="our-gpt", messages=HELLO, stream=True))
    assert "closed" in str(caught.value) or isinstance(caught.value, openai.APIConnectionError)
    server.next.append(Say(hang_after=0))
    with client_of(server, timeout=0.3) as hasty, pytest.raises(openai.APITimeoutError):
        hasty.chat.completions.create(model="our-gpt", messages=HELLO)
