"""`serve --model NAME --engine-url URL`: the gateway in front of a server that somebody else runs."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from benchmarks.peers.compare import free_port
from tests.e2e.stack import ROOT, serve


class Picky(BaseHTTPRequestHandler):
    """A server of one model that lets in who has the key, and keeps what it is sent."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str], bytes]]

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.reply(b"")

    def do_POST(self) -> None:
        self.reply(self.rfile.read(int(self.headers["content-length"])))

    def reply(self, body: bytes) -> None:
        self.seen.append((self.path, dict(self.headers), body))
        if self.headers.get("authorization") != "Bearer sk-theirs":
            self.answer(401, b'{"error": {"message": "no sk-theirs, no entry"}}')
        elif self.path == "/llm/v1/models":
            self.answer(200, b'{"data": [{"id": "far", "max_model_len": 99}]}')
        else:
            self.answer(200, b'{"id": "x", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}')

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def picky() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (Picky,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_answers_are_those_of_the_server_and_it_may_go_and_come_back() -> None:
    """Whole and streamed; while it is gone a request gets 503 with a time, and then it is served again."""
    port = free_port()
    with contextlib.ExitStack() as stacks:
        with serve("--port", str(port)) as behind:
            front = stacks.enter_context(serve("--engine-url", f"http://127.0.0.1:{port}/v1"))
            near, far = (
                stacks.enter_context(openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0))
                for stack in (front, behind)
            )
            asked: Any = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0}
            whole = near.chat.completions.create(**asked, max_tokens=24).choices[0].message.content
            assert whole == far.chat.completions.create(**asked, max_tokens=24).choices[0].message.content
            stream = near.chat.completions.create(**asked, max_tokens=24, stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == whole
            with pytest.raises(openai.NotFoundError):
                near.chat.completions.create(**{**asked, "model": "other"})
            (card,) = json.loads(front.get("/v1/models"))["data"]
            assert card["max_model_len"] == 4096
        with pytest.raises(openai.InternalServerError) as caught:
            near.chat.completions.create(**asked)
        assert caught.value.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) >= 1
        with serve("--port", str(port)):
            deadline = time.monotonic() + 30
            while True:
                try:
                    again = near.chat.completions.create(**asked, max_tokens=24).choices[0].message.content
                    break
                except openai.InternalServerError:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
            assert again == whole


def test_it_is_shown_its_key_and_nothing_of_the_client_or_the_cache(picky: ThreadingHTTPServer, tmp_path: Path) -> None:
    """The client's own key stays here; no field goes out that OpenAI's protocol does not have."""
    key = tmp_path / "key"
    key.write_text("sk-theirs\n")
    key.chmod(0o600)
    url = f"http://127.0.0.1:{picky.server_port}/llm/v1"
    with serve("--engine-url", url, "--engine-key-file", str(key), model="far") as front:
        body = {"model": "far", "messages": [{"role": "user", "content": "x"}], "cache_salt": "mine"}
        headers = {"authorization": "Bearer sk-mine", "x-cache-domain": "mine", "cookie": "a=b"}
        refused = httpx2.post(f"{front.url}/v1/chat/completions", json=body, headers=headers)
        assert refused.status_code == 400  # a field that nobody may send
        del body["cache_salt"]
        answer = httpx2.post(f"{front.url}/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200
        path, sent, raw = picky.RequestHandlerClass.seen[-1]  # type: ignore[attr-defined]
        assert path == "/llm/v1/chat/completions"
        assert sent["authorization"] == "Bearer sk-theirs"
        assert set(sent) == {"host", "content-length", "content-type", "x-request-id", "authorization"}
        assert set(json.loads(raw)) == {"model", "messages"}
        assert not any("sk-" in str(line) for line in front.log)


def test_a_server_that_refuses_the_key_is_told_at_the_start(picky: ThreadingHTTPServer, tmp_path: Path) -> None:
    """In our words: theirs may say what the key is."""
    config = tmp_path / "serving.toml"
    config.write_text("[engines.restart]\nstart_timeout_s = 0.5\n")
    argv = ["--model", "far", "--engine-url", f"http://127.0.0.1:{picky.server_port}/llm", "--config", str(config)]
    done = subprocess.run(
        [sys.executable, "-m", "serving", *argv, "--port", "0", "--open"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 9
    assert "cannot be had from http://127.0.0.1" in done.stderr
    assert "it wants a key" in done.stderr
    assert "sk-theirs" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--engine-url", "http://host", "--context", "512"), "nothing is planned for a server elsewhere"),
        (("--engine-url", "http://host", "--dummy-weights"), "nothing is planned for a server elsewhere"),
        (("--engine-url", "host:8000"), "not the URL of a server"),
        (("--engine-url", "http://host", "--model", "b"), "goes with one `--model`"),
        (("--engine-key-file", "/x"), "goes with `--engine-url`"),
    ],
)
def test_what_does_not_go_together_is_refused(flags: tuple[str, ...], says: str) -> None:
    """Before anything is asked of the server."""
    argv = [sys.executable, "-m", "serving", "--model", "a", *flags]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (2, 8)
    assert says in done.stderr
