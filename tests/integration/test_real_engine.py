"""The gateway in front of the real llama.cpp engine with the demo model."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from tests.support.demo import MODEL, llamacpp, needs_demo
from tests.support.harness import Client, Gateway, chat, gateway, wait_until

pytestmark = needs_demo


def test_streaming_and_not_give_the_same(client: openai.OpenAI) -> None:
    """The official client gets the same greedy text, reason and usage either way."""
    asked = {"model": "m", "messages": chat("Who are you?")["messages"], "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert next(chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_the_engines_errors_arrive_typed(client: openai.OpenAI) -> None:
    """Overflow, an unknown token and an unknown model: the client's own exception classes, with our codes."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="m", messages=chat("x " * 4000)["messages"])
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="m", prompt="x", logit_bias={"999999": 1})
    assert caught.value.param == "logit_bias"
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="other", prompt="x")
    assert caught.value.code == "model_not_found"


def test_tokens_go_there_and_back(demo: Gateway) -> None:
    """Tokenise and detokenise are each other's inverse."""
    tokens = demo.post("/tokenize", {"prompt": "hello там", "add_special_tokens": False}).json["tokens"]
    assert demo.post("/detokenize", {"tokens": tokens}).json == {"prompt": "hello там"}


def long_stream(served: Gateway) -> Client:
    """A stream that goes on for a while, its first event read."""
    stream = served.client()
    body = {"model": "m", "prompt": "a", "max_tokens": 400, "ignore_eos": True, "stream": True}
    stream.post("/v1/completions", json.dumps(body).encode())
    assert stream.head()[0] == 200
    next(stream.chunks())
    return stream


def test_clients_that_leave_free_the_engine(demo: Gateway) -> None:
    """Ten abrupt disconnects: the engine's gauge is back to zero within a second."""
    streams = [long_stream(demo) for _ in range(10)]
    assert demo.metric("perimeter_engine_running{") > 0
    for stream in streams:
        stream.close()
    assert wait_until(lambda: demo.metric("perimeter_engine_running{") == 0, "no sequence runs", 5) < 1.0
    wait_until(demo.is_idle, "no place is lost")


def test_many_at_once(demo: Gateway) -> None:
    """Forty requests at once on sixteen sequences all complete."""

    def ask(place: int) -> int:
        body = {"model": "m", "prompt": f"{place}", "max_tokens": 8, "ignore_eos": True, "stream": place % 2 == 0}
        return demo.post("/v1/completions", body).status

    with ThreadPoolExecutor(40) as pool:
        assert set(pool.map(ask, range(40))) == {200}
    wait_until(demo.is_idle, "no place is lost")


def test_the_death_of_the_engine(directory: Path) -> None:
    """`kill -9` during 16 streams: each told within 2 s, 503 until it is back, the next success within 10 s."""
    with gateway(directory, **llamacpp(directory)) as served:
        streams = [long_stream(served) for _ in range(16)]
        os.kill(served.engine_pid, signal.SIGKILL)
        died = time.monotonic()
        for stream in streams:
            last = b"".join(stream.chunks()).rstrip().rpartition(b"\n\n")[2]
            assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_unavailable"
        assert time.monotonic() - died < 2.0
        refused = served.chat("x")
        assert (refused.status, refused.error["code"]) == (503, "engine_unavailable")
        assert refused.headers["retry-after"]
        wait_until(lambda: served.chat("x", max_tokens=1).status == 200, "the next success", 10)


def test_a_file_that_is_no_model_is_told(directory: Path) -> None:
    """The engine's own refusal of a file becomes the command's error and exit status."""
    broken = directory / "broken.gguf"
    broken.write_bytes(MODEL.read_bytes()[:100_000])
    given = llamacpp(directory)
    given["argv"][given["argv"].index(str(MODEL))] = str(broken)
    with gateway(directory, wait=False, **given) as served:
        assert served.process.wait(60) == 5
        assert "error: " in served.errors
        assert "Traceback" not in served.errors


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1e-39},
        {"temperature": 5e-324, "top_p": 0.05},
        {"temperature": 1e-39, "top_k": 5, "top_p": 0.5},
        {"temperature": 1e-6, "min_p": 5e-324},
        {"top_p": 5e-324},
        {"min_p": 1.0, "top_p": 1e-300},
        {"repetition_penalty": 5e-324, "frequency_penalty": 2},
        {"repetition_penalty": 10, "logit_bias": {str(token): -100 for token in range(900)}},
        {"logit_bias": {"5": 100}, "temperature": 2, "top_k": 1},
    ],
    ids=str,
)
def test_no_option_at_its_edge_ends_the_engine(demo: Gateway, fields: dict) -> None:
    """The least and largest values that the schema takes, alone and together: an answer, and the same engine."""
    pid = demo.engine_pid
    answer = demo.post(
        "/v1/completions", {"model": "m", "prompt": "a b a b", "max_tokens": 8, "ignore_eos": True, **fields}
    )
    assert answer.status == 200
    assert answer.json["usage"]["completion_tokens"] == 8
    assert demo.engine_pid == pid
    assert demo.chat("Who are you?", max_tokens=4).status == 200


def test_as_cold_as_can_be_is_greedy(demo: Gateway) -> None:
    """Next to zero, temperature takes the likeliest token."""
    asked = {"model": "m", "prompt": "My code", "max_tokens": 12}
    answers = {
        demo.post("/v1/completions", {**asked, "temperature": t}).json["choices"][0]["text"] for t in (0, 1e-300)
    }
    assert len(answers) == 1


def test_many_token_ids_hold_nobody_up(demo: Gateway) -> None:
    """More ids than a context are refused before each is looked at; so is a body of more than any context."""
    for path, field in (("/detokenize", "tokens"), ("/v1/completions", "prompt")):
        refused = demo.post(path, {"model": "m", field: [5] * 600_000})
        assert refused.status == 400
        began = time.monotonic()
        refused = demo.post(path, {"model": "m", field: [5] * 2_000_000})
        assert (refused.status, refused.error["param"]) == (400, field)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "arguments", ['{"a":"\\ud800"}', '{"a":' * 900 + "1" + "}" * 900, "[" + "[]," * 5000 + "[]]", "{" * 9000]
)
def test_the_arguments_of_a_tool_call_are_only_text(demo: Gateway, arguments: str) -> None:
    """Whatever a client claims that a tool was called with: an answer or a 400."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "y"},
    ]
    answer = demo.post("/v1/chat/completions", {"model": "m", "messages": messages, "max_tokens": 2})
    assert answer.status in {200, 400}


def test_a_prompt_is_dropped_when_its_client_leaves(demo: Gateway) -> None:
    """Long prompts that wait to be prepared do not hold up those who stay."""
    body = json.dumps({"model": "m", "prompt": "<|im_start|>" * 600, "max_tokens": 1}).encode()
    for _ in range(20):
        gone = demo.client()
        gone.post("/v1/completions", body)
        gone.close()
    began = time.monotonic()
    assert demo.chat("x", max_tokens=1).status == 200
    assert time.monotonic() - began < 3
    wait_until(demo.is_idle, "no place is lost")


def test_prefixes_are_shared_only_where_they_may_be(directory: Path) -> None:
    """`share_prefixes = false`: the same prompt twice is computed twice."""
    asked = {"model": "m", "prompt": "one two three four five six seven eight nine ten " * 4, "max_tokens": 1}
    for share in (True, False):
        with gateway(
            directory / str(share), **llamacpp(directory / str(share)), config={"share_prefixes": share}
        ) as served:
            usages = [served.post("/v1/completions", asked).json["usage"] for _ in range(2)]
            assert (usages[1]["prompt_tokens_details"]["cached_tokens"] > 0) is share
