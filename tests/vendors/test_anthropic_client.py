"""Anthropic's own client is served by the stand-in as by the vendor."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest

from tests.support.vendors.anthropic_api import AnthropicServer
from tests.support.vendors.server import KEY, Emulator, Fail, Say

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "name": "weather",
    "description": "The weather of a town",
    "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


def client_of(server: Emulator, key: str = KEY, **more: object) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.origin, api_key=key, max_retries=0, **more)


@pytest.fixture
def client(anthropic_server: AnthropicServer) -> Iterator[anthropic.Anthropic]:
    with client_of(anthropic_server) as made:
        yield made


def test_a_message_and_its_usage(anthropic_server: AnthropicServer, client: anthropic.Anthropic) -> None:
    """An answer has its blocks, why it ended, and its counts."""
    anthropic_server.next.append(Say(thoughts=("Hm, ", "well."), cached=5))
    message = client.messages.create(
        model="claude", max_tokens=100, system="Be kind.", messages=HELLO, stop_sequences=["END"],
        thinking={"type": "adaptive"},
    )  # fmt: skip
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[1].text == Say().text
    assert message.stop_reason == "end_turn"
    assert message.usage.cache_read_input_tokens == 5
    assert anthropic_server.last.headers["anthropic-version"] == "2026-10-21"


def test_a_stream(anthropic_server: AnthropicServer, client: anthropic.Anthropic) -> None:
    """The client puts the message of a stream together again, calls and thoughts included."""
    anthropic_server.next.append(Say(thoughts=("Hm, ", "well."), calls=(("weather", {"town": "Tver"}), ("now", {}))))
    with client.messages.stream(model="claude", max_tokens=100, messages=HELLO, tools=[WEATHER]) as stream:
        assert "".join(stream.text_stream) == Say().text
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert message.content[2].input == {"town": "Tver"}
    assert message.content[3].input == {}
    assert message.stop_reason == "tool_use"
    assert message.usage.output_tokens > 1


def test_tools_there_and_back(anthropic_server: AnthropicServer, client: anthropic.Anthropic) -> None:
    """Calls are answered in the next turn, and what does not belong together is refused."""
    anthropic_server.next.append(Say(pieces=(), calls=(("weather", {"town": "Tver"}),)))
    message = client.messages.create(
        model="claude", max_tokens=100, messages=HELLO, tools=[WEATHER], tool_choice={"type": "any"}
    )
    said = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]}
    result = {"type": "tool_result", "tool_use_id": message.content[0].id, "content": "rain"}
    given = {"role": "user", "content": [result]}
    client.messages.create(model="claude", max_tokens=100, messages=[*HELLO, said, given], tools=[WEATHER])
    with pytest.raises(anthropic.BadRequestError, match="tool_result"):
        client.messages.create(model="claude", max_tokens=100, messages=[*HELLO, said, *HELLO], tools=[WEATHER])


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (408, anthropic.APIStatusError, "timeout_error"),
        (413, anthropic.APIStatusError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_errors(
    anthropic_server: AnthropicServer,
    client: anthropic.Anthropic,
    status: int,
    error: type[anthropic.APIStatusError],
    kind: str,
) -> None:
    """A status is the client's own error for it, with the vendor's body and headers."""
    anthropic_server.next.append(Fail(status, "some_code", {"retry-after": "7"}))
    with pytest.raises(error) as caught:
        client.messages.create(model="claude", max_tokens=100, messages=HELLO)
    assert (caught.value.status_code, caught.value.type, caught.value.error_code) == (status, kind, "some_code")
    assert caught.value.response.headers["retry-after"] == "7"


def test_what_is_refused(anthropic_server: AnthropicServer, client: anthropic.Anthropic) -> None:
    """A wrong key, version or field, and what this version of the API has no more."""
    with client_of(anthropic_server, "wrong") as stranger, pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model="claude", max_tokens=100, messages=HELLO)
    wrong: list[dict] = [
        {"extra_body": {"temperature": 0.5}},
        {"extra_body": {"bogus": 1}},
        {"extra_headers": {"anthropic-version": "2020-01-01"}},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [*HELLO, {"role": "assistant", "content": "I"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "bogus": 1}]}]},
        {"tool_choice": {"type": "any"}},
        {"stop_sequences": [" "]},
    ]
    for one in wrong:
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(**{"model": "claude", "max_tokens": 100, "messages": HELLO, **one})
    older = {"anthropic-version": "2023-06-01"}
    client.messages.create(
        model="claude", max_tokens=9, messages=HELLO, extra_headers=older, extra_body={"temperature": 0.5}
    )


def test_streams_that_break(anthropic_server: AnthropicServer, client: anthropic.Anthropic) -> None:
    """An error in the middle, a cut and a silence are what the client takes them for."""
    anthropic_server.next.append(Say(break_after=2))
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(client.messages.create(model="claude", max_tokens=100, messages=HELLO, stream=True))
    assert caught.value.type == "overloaded_error"
    anthropic_server.next.append(Say(cut_after=2))
    with pytest.raises(Exception, match=r"closed|onnection"):
        list(client.messages.create(model="claude", max_tokens=100, messages=HELLO, stream=True))
    anthropic_server.next.append(Say(hang_after=0))
    with client_of(anthropic_server, timeout=0.3) as hasty, pytest.raises(anthropic.APITimeoutError):
        hasty.messages.create(model="claude", max_tokens=100, messages=HELLO)
