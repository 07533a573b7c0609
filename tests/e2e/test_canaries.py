"""Words that were planted are looked for in everything that a running site leaves behind.

Planted are a prompt, what the model answered, the secret of an API key, the token of the hub and the key of a server
elsewhere. They are looked for as they are and as they would look in JSON, in a URL, in base64 and in hexadecimal.

An error may say back, to the client that sent it and to nobody else, what stands where a name belongs: a role, a type,
a field, a model, a path. Never the text of a prompt that is at its place, and never a key.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from serving.engines.runtime import session_members
from tests.e2e.stack import ENGINE, ROOT
from tests.support.harness import wait_until

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
TEMPORARY = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))


def forms_of(text: str) -> frozenset[bytes]:
    """How `text` may look in a file: as it is, in JSON, in a URL, in hexadecimal, and within a text in base64."""
    plain = text.encode()
    found = {plain, json.dumps(text)[1:-1].encode(), quote(text, safe="").encode(), plain.hex().encode()}
    found.add(text.encode("utf-16-le"))
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + plain)
        inner = whole[4 if shift else 0 : -4]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return frozenset(found)


def finds(data: bytes, planted: Iterable[str]) -> list[str]:
    return [text for text in planted if any(form in data for form in forms_of(text))]


class Talkative(BaseHTTPRequestHandler):
    """A server elsewhere that refuses every prompt, and says in its refusal all that it was told."""

    protocol_version = "HTTP/1.1"
    key: str
    keys_seen: list[str]

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(200, {"data": [{"id": "far", "max_model_len": 4096}]})

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers["content-length"])).decode()
        shown = str(self.headers.get("authorization"))
        self.keys_seen.append(shown)
        self.answer(
            500 if '"temperature"' in said else 400, {"error": {"message": f"{shown} said {said}", "type": "x"}}
        )

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextlib.contextmanager
def talkative(key: str) -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Talkative,), {"key": key, "keys_seen": seen}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Site:
    """A server with everything on that could write something down, and what its clients were answered."""

    directory: Path
    far: str
    far_key: str = field(default_factory=lambda: f"sk-far-{secrets.token_hex(16)}")
    hub_token: str = field(default_factory=lambda: f"hf_{secrets.token_hex(16)}")
    prompt: str = field(default_factory=lambda: f'vögel "{secrets.token_hex(12)}" & küken')
    """A text that JSON and URLs write differently; the part in quotes looks the same everywhere."""
    errors: list[bytes] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    url: str = ""
    key: str = ""

    @property
    def word(self) -> str:
        return self.prompt.split('"')[1]

    @property
    def config(self) -> Path:
        return self.directory / "site.toml"

    @property
    def secret(self) -> str:
        return self.key.rpartition("_")[2]

    @property
    def environment(self) -> dict[str, str]:
        own = {name: str(self.directory / "home" / name) for name in ("tmp", "state", "config", "cache", "data")}
        for path in own.values():
            Path(path).mkdir(parents=True, exist_ok=True)
        names = {"TMPDIR": "tmp", "XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config"}
        names |= {"XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data"}
        settled = {name: own[place] for name, place in names.items()}
        others = {name: value for name, value in os.environ.items() if not name.startswith("PERIMETER_")}
        return {**others, **settled, "HOME": str(self.directory / "home"), "PYTHONPATH": str(ROOT)}

    def write(self, sealed: str) -> None:
        vault = self.directory / "vault"
        vault.mkdir(mode=0o700)
        for name, text in (("far", self.far_key), ("hub", self.hub_token)):
            (vault / name).touch(mode=0o600)
            (vault / name).write_text(text)
        (self.directory / "run").mkdir(mode=0o700)
        self.config.write_text(
            f'sealed = "{sealed}"\n[access]\nopen = false\ndirectory = "{self.directory / "access"}"\n'
            f'[audit]\nenabled = true\ndirectory = "{self.directory / "audit"}"\n'
            f'[paths]\nruntime_dir = "{self.directory / "run"}"\n[log]\nlevel = "debug"\nformat = "json"\n'
            f'[store]\ntoken_file = "{vault / "hub"}"\n'
            f'[[models]]\nname = "demo"\nconcurrency = 4\n'
            f'[[models]]\nname = "far"\nurl = "{self.far}"\nkey_file = "{vault / "far"}"\n'
        )

    def make_key(self, *words: str) -> str:
        argv = [sys.executable, "-m", "serving", "keys", "create", "--owner", "ward", *words]
        done = subprocess.run(
            [*argv, "--config", str(self.config)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        out = (self.directory / "out").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving", "--port", "0", "--config", str(self.config)],
            cwd=self.directory,
            env=self.environment,
            stdout=out,
            stderr=out,
        )
        try:
            wait_until(lambda: bool(self.said("ready")) or self.process.poll() is not None, "it serves", 60)
            self.url = str(self.said("ready")[0]["url"]).removesuffix("/v1")
            yield
        finally:
            out.close()
            if self.process.returncode is None:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(20)
                self.process.kill()
                self.process.wait()

    def said(self, event: str) -> list[dict[str, object]]:
        lines = (self.directory / "out").read_text().splitlines()
        return [value for value in map(json.loads, filter(str.strip, lines)) if value.get("event") == event]

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """One request, with the key where nothing else is given; what a refusal says is kept."""
        where = urlsplit(self.url)
        sent = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        named = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)) as wire:
            wire.request(method, path, sent, named)
            answer = wire.getresponse()
            data = answer.read()
            if answer.status != 200:
                self.errors.append(repr(answer.getheaders()).encode() + data)
            return answer.status, data

    def raw(self, data: bytes) -> bytes:
        """What is answered to these bytes until the server closes, or nothing more is said for a moment."""
        where = urlsplit(self.url)
        with contextlib.closing(socket.create_connection((where.hostname, where.port), 10)) as wire:
            wire.sendall(data)
            wire.shutdown(socket.SHUT_WR)
            answered = b""
            with contextlib.suppress(OSError):
                while more := wire.recv(65536):
                    answered += more
        self.errors.append(answered)
        return answered

    def engine_pid(self) -> int:
        assert self.process is not None
        for record in (self.directory / "run").glob("*.d/engine.json"):
            leader = int(json.loads(record.read_text())["engine"]["pid"])
            for pid in sorted(session_members(leader), reverse=True):
                with contextlib.suppress(OSError):
                    said = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if ENGINE.search(said) and b"launch.py" not in said:
                        return pid
        raise AssertionError("no engine")

    def processes(self) -> set[int]:
        assert self.process is not None
        found = {self.process.pid}
        for record in (self.directory / "run").glob("*.d/engine.json"):
            found |= set(session_members(int(json.loads(record.read_text())["engine"]["pid"])))
        return found


@contextlib.contextmanager
def dumping() -> Iterator[None]:
    """Whatever is started meanwhile may write a core, as far as this host allows."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def this_host_dumps(directory: Path) -> bool:
    """Whether a process that takes no care leaves a core here: what the check of ours is worth."""
    directory.mkdir()
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    child = subprocess.Popen([sys.executable, "-c", crash], cwd=directory)
    status = os.waitpid(child.pid, 0)[1]
    child.returncode = -signal.SIGSEGV
    for core in directory.iterdir():
        core.unlink()
    return os.WCOREDUMP(status)


@contextlib.contextmanager
def long_stream(site: Site) -> Iterator[http.client.HTTPResponse]:
    """A stream in the midst of its answer."""
    where = urlsplit(site.url)
    body = {"model": "demo", "prompt": site.prompt, "max_tokens": 3000, "stream": True, "ignore_eos": True}
    headers = {"authorization": f"Bearer {site.key}", "content-type": "application/json"}
    with contextlib.closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)) as wire:
        wire.request("POST", COMPLETIONS, json.dumps(body), headers)
        answer = wire.getresponse()
        assert answer.status == 200
        for _ in range(6):
            assert answer.readline()
        yield answer
        answer.close()


def answered_by(site: Site) -> str:
    """What the model says to the prompt, whole and streamed: at this temperature nobody has said it before."""
    body = {
        "model": "demo",
        "prompt": site.prompt,
        "temperature": 1.5,
        "max_tokens": 160,
        "ignore_eos": True,
        "seed": 5,
    }
    status, whole = site.ask("POST", COMPLETIONS, body)
    assert status == 200
    status, streamed = site.ask("POST", COMPLETIONS, {**body, "stream": True})
    assert status == 200
    assert b"[DONE]" in streamed
    text = str(json.loads(whole)["choices"][0]["text"])
    assert len(text) >= 64, text
    return text


def ask_all_ways(site: Site) -> None:
    """Requests that carry the prompt, or the key, to every place where a server could trip over it."""
    word, long = site.word, f"{site.prompt} " * 4000
    message = {"role": "user", "content": site.prompt}
    good = {"model": "demo", "messages": [message]}
    cut = json.dumps(good).encode()
    # The prompt is in the text, and something else is wrong.
    for body in (
        {**good, "temperature": "hot"},
        {**good, "max_tokens": -1},
        {**good, "messages": [message, {"role": "nobody", "content": site.prompt}]},
        {**good, "messages": [message, {"role": "user", "content": [{"type": "text", "texts": site.prompt}]}]},
        {**good, "stop": [site.prompt, 7]},
        {**good, "stop": site.prompt * 100},
        {**good, "messages": [message, {"role": "user", "content": long}]},
        {**good, "model": "far", "temperature": 0.5},
        {"model": "demo", "prompt": [site.prompt, site.prompt]},
        {"model": "demo", "prompt": [7, site.prompt]},
        cut[: cut.index(word.encode()) + 6],
        cut + cut,
        cut.replace(b"vo", b"\xff", 1)[:-2],
        b'"' + cut,
        b"\xff" + cut,
    ):
        path = COMPLETIONS if isinstance(body, dict) and "prompt" in body else CHAT
        assert site.ask("POST", path, body)[0] in {400, 500}, body
    for error in site.errors:
        assert not finds(error, [site.prompt, word]), error
    # It is where a name belongs: that may be said back to who sent it.
    for body in (
        {**good, "messages": [{"role": word, "content": "a"}]},
        {**good, "messages": [{"role": "user", "content": [{"type": word}]}]},
        {**good, "temperature": site.prompt},
        {**good, "logit_bias": {site.prompt: 1}},
        {**good, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": site.prompt}}},
        {**good, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": word}}}},
        {**good, "tools": [{"type": "function", "function": {"name": site.prompt}}]},
        {**good, word: 1},
        {**good, "model": "far"},
    ):
        assert site.ask("POST", CHAT, body)[0] == 400, body
    assert site.ask("POST", CHAT, {**good, "model": word})[0] == 404
    assert site.ask("POST", CHAT, cut, content_type=f"text/{word}")[0] == 400
    assert site.ask("POST", CHAT, cut, content_encoding=word)[0] == 400
    assert site.ask("GET", f"/v1/{word}?prompt={quote(site.prompt)}&key={site.key}")[0] == 404
    assert max(map(len, site.errors)) < 3000
    # A key is nowhere to be said back, wherever it was put.
    for header in (f"Basic {site.key}", f"Bearer {site.key[:-1]}", f"Bearer {site.key} {word}"):
        assert site.ask("GET", "/v1/models", authorization=header)[0] == 401
    assert site.ask("GET", f"/v1/models?api_key={site.key}", authorization="Bearer x")[0] == 401
    assert site.ask("GET", f"/v1/{site.key}", authorization="Bearer x")[0] == 401
    assert site.ask("POST", CHAT, good, authorization="Bearer x", x_api_key=site.key)[0] == 401
    assert site.ask("POST", CHAT, good, host=f"{site.secret}.example")[0] == 421
    assert site.ask("POST", CHAT, {**good, "max_tokens": 4}, x_request_id=site.key)[0] == 200
    assert (
        site.ask("POST", CHAT, {**good, "max_tokens": 4}, x_request_id=site.prompt.encode().decode("latin-1"))[0] == 200
    )
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {site.key}\r\n"
    for rest in ("content-length: x\r\n\r\n", "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n"):
        assert site.raw((head + rest + site.prompt).encode()).startswith(b"HTTP/1.1 400")
    assert site.raw(f"{site.prompt} {site.key}\r\n\r\n".encode()).startswith(b"HTTP/1.1 400")
    site.raw((head + f"content-length: 1000\r\n\r\n{site.prompt}").encode())  # leaves in the midst of its body
    for error in site.errors:
        assert not finds(error, [site.secret, site.far_key, site.hub_token]), error


def files_of(site: Site, since: float) -> Iterator[tuple[str, bytes]]:
    """All that the site wrote, and whatever was written meanwhile to where temporary files go."""
    meant = {site.directory / "vault" / "far", site.directory / "vault" / "hub"}
    for root in (site.directory, *TEMPORARY):
        for folder, _, names in os.walk(root):
            for path in (Path(folder) / name for name in names):
                with contextlib.suppress(OSError):
                    facts = path.lstat()
                    is_new = facts.st_mtime >= since or root == site.directory
                    if path not in meant and path.is_file() and is_new and facts.st_size < 1 << 28:
                        yield str(path), path.read_bytes()


def traces(site: Site) -> Iterator[tuple[str, bytes]]:
    """What can be read of its processes from beside them."""
    for pid in site.processes():
        for name in ("cmdline", "environ", "comm"):
            with contextlib.suppress(OSError):
                yield f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes()


@pytest.mark.parametrize("sealed", ["best-effort", "off"])
def test_nothing_that_was_planted_is_found_anywhere(tmp_path: Path, sealed: str) -> None:
    """Not in logs, records, keys, metrics, errors, /proc, temporary files or cores; with walls and without."""
    began = time.time() - 1
    with talkative("") as (far, keys_seen), dumping():
        dumps = this_host_dumps(tmp_path / "control")
        site = Site(tmp_path, far)
        site.write(sealed)
        site.key = site.make_key()
        operator = site.make_key("--scope", "metrics")
        with site.served():
            assert site.process is not None
            answer = answered_by(site)
            ask_all_ways(site)
            assert f"Bearer {site.far_key}" in keys_seen, "the server elsewhere was shown its key"
            planted = [site.prompt, site.word, answer[16:40], answer[-24:], site.secret, site.far_key, site.hub_token]
            _, metrics = site.ask("GET", "/metrics", authorization=f"Bearer {operator}")
            assert b"perimeter_requests_total" in metrics
            assert not finds(metrics, planted), "in the metrics"
            assert all(each.strip(b"\0") for _, each in traces(site))
            for where, data in traces(site):
                assert not finds(data, planted), where

            with long_stream(site) as stream:
                engine = site.engine_pid()
                check_leaves_no_core(engine)
                os.kill(engine, signal.SIGSEGV)
                assert b'"engine_unavailable"' in stream.read()
            wait_until(lambda: site.ask("POST", COMPLETIONS, {"model": "demo", "prompt": "a"})[0] == 200, "it is back")
            with long_stream(site):
                check_leaves_no_core(site.process.pid)
                os.kill(site.process.pid, signal.SIGSEGV)
                status = os.waitpid(site.process.pid, 0)[1]
                site.process.returncode = -os.WTERMSIG(status)
        assert os.WTERMSIG(status) == signal.SIGSEGV
        assert not os.WCOREDUMP(status)
        may_dump = resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
        assert dumps or not (may_dump and Path("/proc/sys/kernel/core_pattern").read_text().startswith("core"))
    assert site.said("request"), "requests were logged, so that there was something to look through"
    assert any("engine" in path for path, data in files_of(site, began) if path.endswith(".log") and data)
    for path, data in files_of(site, began):
        assert not Path(path).name.startswith("core"), path
        assert not finds(data, planted), path


def check_leaves_no_core(pid: int) -> None:
    """Both of the kernel's ways are shut: a file of no bytes, and nothing in what a program would be given."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]
    assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) == 0
