"""Starting, stopping, crashing and wrong commands, as an operator meets them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest

from tests.e2e.stack import ROOT, Stack, serve

DEMO = ROOT / "serving/models/demo/demo-q8_0.gguf"


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving", *argv], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def until(condition, timeout_s: float):
    """Poll with a deadline; the condition's first true value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, urllib.error.URLError, http.client.HTTPException):
            value = condition()
            if value:
                return value
        threading.Event().wait(0.02)
    raise AssertionError(f"not within {timeout_s} s")


def test_an_openai_client_just_works() -> None:
    """Chat, completions, streaming with usage, models, and an error it can understand."""
    with serve() as stack, openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["demo"]
        question = [{"role": "user", "content": "My code is K7QX-2M9D. What is my code?"}]
        whole = client.chat.completions.create(model="demo", messages=question, temperature=0)
        assert whole.choices[0].finish_reason == "stop"
        chunks = list(
            client.chat.completions.create(
                model="demo", messages=question, temperature=0, stream=True, stream_options={"include_usage": True}
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage is not None
        assert whole.usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        silent = list(
            client.chat.completions.create(model="demo", messages=question, temperature=0, stream=True, max_tokens=3)
        )
        assert all(chunk.usage is None for chunk in silent)
        assert client.completions.create(model="demo", prompt="Hello", max_tokens=2).usage.completion_tokens == 2
        with pytest.raises(openai.NotFoundError) as wrong_model:
            client.chat.completions.create(model="gpt-4", messages=question)
        assert wrong_model.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as too_long:
            client.completions.create(model="demo", prompt="long " * 6000, max_tokens=5)
        assert too_long.value.code == "context_length_exceeded"


def test_a_crashed_engine_is_told_and_comes_back() -> None:
    """kill -9 under 16 streams: each ends with an error event within 2 s, then 503, then service within 10 s."""
    with serve("--concurrency", "16") as stack:
        engine = stack.engine_pid()
        ends: list[tuple[float, bytes]] = []
        started = threading.Barrier(17)

        def stream() -> None:
            body = {"model": "demo", "prompt": "Tell me", "max_tokens": 3000, "stream": True, "ignore_eos": True}
            request = urllib.request.Request(
                f"{stack.url}/v1/completions",
                json.dumps(body).encode(),
                {"content-type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                data = response.readline()
                started.wait(30)
                while line := response.readline():
                    data += line
            ends.append((time.monotonic(), data))

        threads = [threading.Thread(target=stream) for _ in range(16)]
        for thread in threads:
            thread.start()
        started.wait(30)
        os.kill(engine, signal.SIGKILL)
        killed = time.monotonic()
        for thread in threads:
            thread.join(10)
        assert len(ends) == 16
        assert max(at for at, _ in ends) - killed < 2
        for _, data in ends:
            last = [line for line in data.split(b"\n") if line.startswith(b"data: ")][-1]
            assert json.loads(last[6:])["error"]["code"] == "engine_unavailable"
        refused = ask(stack)
        if refused is not None:
            assert refused.code == 503
            assert refused.headers["retry-after"] is not None
            assert json.loads(refused.read())["error"]["code"] == "engine_unavailable"
        until(lambda: ask(stack) is None, 10 - (time.monotonic() - killed))
        assert stack.metric("perimeter_engine_restarts_total") >= 1


def ask(stack: Stack) -> urllib.error.HTTPError | None:
    """One small completion; the error it was answered with, or None."""
    request = urllib.request.Request(
        f"{stack.url}/v1/completions",
        json.dumps({"model": "demo", "prompt": "Hello", "max_tokens": 1}).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read()
    except urllib.error.HTTPError as error:
        return error
    return None


def test_nothing_is_left_when_the_gateway_is_killed() -> None:
    """kill -9 of the gateway takes the engine with it within 5 s."""
    with serve() as stack:
        engine = stack.engine_pid()
        stack.process.kill()
        until(lambda: not Path(f"/proc/{engine}").exists(), 5)


def test_a_client_that_leaves_frees_its_place() -> None:
    """Ten clients hang up in mid-stream; nothing is running within a second."""
    with serve() as stack:
        for _ in range(10):
            connection = http.client.HTTPConnection(stack.url.removeprefix("http://"), timeout=30)
            body = {"model": "demo", "prompt": "Tell me", "max_tokens": 3000, "stream": True, "ignore_eos": True}
            connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
            connection.getresponse().readline()
            assert connection.sock is None or connection.sock.close() is None
            connection.close()
        until(lambda: stack.metric("perimeter_engine_running") == 0, 1.5)
        assert stack.metric("perimeter_engine_cancelled_total") >= 1


def test_sigterm_finishes_what_runs_and_exits_0() -> None:
    """A stream that is under way is completed, the exit status is 0."""
    with serve() as stack:
        body = {"model": "demo", "prompt": "Tell me", "max_tokens": 600, "stream": True, "ignore_eos": True}
        request = urllib.request.Request(
            f"{stack.url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            response.readline()
            stack.process.send_signal(signal.SIGTERM)
            data = response.read()
        assert data.rstrip().endswith(b"data: [DONE]")
        assert stack.process.wait(20) == 0


def test_wrong_commands_say_what_and_how(tmp_path: Path) -> None:
    """One error line with the value, one hint, the documented exit status, never a traceback."""
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(DEMO.read_bytes()[: DEMO.stat().st_size // 2])
    text = tmp_path / "text.gguf"
    text.write_text("this is no model")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        cases = [
            (("--model", "demmo"), 3, "demo"),
            (("--model", str(tmp_path / "absent.gguf")), 4, "absent.gguf"),
            (("--model", str(cut)), 5, "cut.gguf"),
            (("--model", str(text)), 5, "text.gguf"),
            (("--model", "demo", "--context", "100000000"), 6, "demo"),
            (("--model", "demo", "--port", port), 7, port),
            (("--model", "demo", "--host", "0.0.0.0"), 10, "0.0.0.0"),
            (("--model", "demo", "--no-such-flag"), 2, "--no-such-flag"),
        ]
        for argv, status, mentioned in cases:
            result = run(*argv)
            assert result.returncode == status, (argv, result.returncode, result.stderr)
            assert mentioned in result.stderr, (argv, result.stderr)
            assert "Traceback" not in result.stderr
            assert result.stdout == ""
