"""Keys, limits and the audit log through the whole of `serve`, with the real client and a real engine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import openai
import pytest
from starlette.routing import Route

from serving.gateway.admin import Admin
from serving.gateway.app import build_app
from serving.gateway.config import GatewayConfig
from serving.gateway.guard import FREE
from serving.gateway.pipeline import Pipeline
from serving.telemetry.metrics import Metrics
from tests.e2e.stack import ROOT, Stack, serve
from tests.support.harness import wait_until

CANARY = "canary-7f3a91"


@dataclass
class Site:
    """A server that asks for keys, and its operator."""

    directory: Path
    stack: Stack | None = None

    @property
    def config(self) -> Path:
        return self.directory / "site.toml"

    def write(self, more: str = "") -> None:
        keys = self.directory / "audit-keys"
        self.config.write_text(
            f'[access]\nopen = false\ndirectory = "{self.directory / "access"}"\n'
            f'[audit]\nenabled = true\ndirectory = "{self.directory / "audit"}"\n'
            f'signing_key = "{keys / "signing.key"}"\nfingerprint_key = "{keys / "fingerprint.key"}"\n'
            f'[paths]\nruntime_dir = "{self.directory / "run"}"\n{more}'
        )

    def run(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "serving", *words, "--config", str(self.config)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout.strip()

    def key(self, *words: str) -> str:
        return self.run("keys", "create", "--owner", "radiology", *words)

    def client(self, key: str) -> openai.OpenAI:
        assert self.stack is not None
        return openai.OpenAI(base_url=f"{self.stack.url}/v1", api_key=key, max_retries=0, timeout=30)

    def records(self, kind: str) -> list[dict]:
        entries = json.loads(self.run("audit", "show", "--json", "--last", "0"))
        return [entry["record"] for entry in entries if entry["record"]["kind"] == kind]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    (tmp_path / "run").mkdir(mode=0o700)
    made.write()
    with serve(config=made.config, is_open=False) as stack:
        made.stack = stack
        yield made


def ask(client: openai.OpenAI, text: str = "Who are you?", **more: object) -> str:
    answer = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": text}], max_tokens=16, temperature=0, **more
    )
    return str(answer.choices[0].message.content)


def status_of(url: str, method: str, path: str, key: str | None = None) -> tuple[int, dict[str, str], bytes]:
    where = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)) as connection:
        connection.request(method, path, headers={} if key is None else {"authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def all_routes() -> list[tuple[str, str]]:
    """Every route of the application, from itself."""
    config, metrics = GatewayConfig(), Metrics()
    pending = list(build_app(config, Admin({}, metrics, Pipeline(config, {}, metrics))).routes)
    found = []
    while pending:
        route = pending.pop()
        if isinstance(route, Route):
            found += [(method, route.path) for method in route.methods or ()]
        else:  # a router that was included
            pending += route.original_router.routes
    assert len({path for _, path in found}) >= 13
    return [*found, ("GET", "/nowhere"), ("POST", "/invocations"), ("PUT", "/v1/models")]


def test_every_route_wants_a_key(site: Site) -> None:
    """401 in OpenAI's shape, before a body is read; /health and /ready alone are free, and say a status and no more."""
    assert site.stack is not None
    for method, path in all_routes():
        status, headers, body = status_of(site.stack.url, method, path.replace("{model:path}", "demo"))
        if path in FREE:
            assert status == 200, path
            assert method == "HEAD" or set(json.loads(body)) == {"status"}
            continue
        assert (status, headers["www-authenticate"]) == (401, "Bearer"), path
        assert method == "HEAD" or json.loads(body)["error"]["code"] == "invalid_api_key"
    key = site.key()
    for path, expected in (("/v1/models", 200), ("/docs", 200), ("/metrics", 403), ("/nowhere", 404)):
        assert status_of(site.stack.url, "GET", path, key)[0] == expected
    assert status_of(site.stack.url, "GET", "/metrics", site.key("--scope", "metrics"))[0] == 200
    assert len(site.records("authentication-failed")) <= 2
    wait_until(lambda: len(site.records("key-created")) == 2, "both keys are on record")


def test_the_real_client_is_told_what_its_key_may(site: Site) -> None:
    """Served with a key; refused without, with a wrong or revoked one, another model's, or beyond a limit."""
    key = site.key("--requests-per-minute", "3")
    with site.client(key) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="demo", messages=[{"role": "user", "content": "Who are you?"}], max_tokens=16, temperature=0
        )
        assert "Perimeter" in str(raw.parse().choices[0].message.content)
        assert raw.headers["x-ratelimit-limit-requests"] == "3"
        assert raw.headers["x-ratelimit-remaining-requests"] == "2"
        streamed = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "Who are you?"}], max_tokens=16, stream=True
        )
        assert len(list(streamed)) > 3
        ask(client)
        with pytest.raises(openai.RateLimitError) as limited:
            ask(client)
        assert limited.value.code == "rate_limit_exceeded"
        assert int(limited.value.response.headers["retry-after"]) > 0
    with site.client(key[:-8] + "AAAAAAAA") as client, pytest.raises(openai.AuthenticationError):
        ask(client)
    with site.client(site.key("--model", "other")) as client:
        assert not client.models.list().data
        with pytest.raises(openai.PermissionDeniedError, match="not for the model"):
            ask(client)
    key = site.key()
    site.run("keys", "revoke", key.split("_")[1])
    with site.client(key) as client, pytest.raises(openai.AuthenticationError):
        ask(client)


def test_a_revoked_key_cuts_its_streams(site: Site) -> None:
    """Within a second, with the reason as the stream's last event; another key's stream runs on."""
    mine, other = site.key(), site.key("--name", "other")
    begun, told = threading.Barrier(3), {}

    def stream(name: str, key: str, tokens: int) -> None:
        with site.client(key) as client:
            events = client.completions.create(
                model="demo", prompt="x", max_tokens=tokens, stream=True, extra_body={"ignore_eos": True}
            )
            next(iter(events))
            begun.wait(30)
            try:
                told[name] = sum(1 for _ in events)
            except openai.APIError as error:
                told[name] = error.message
            told[f"{name} at"] = time.monotonic()

    threads = [
        threading.Thread(target=stream, args=("cut", mine, 3000)),
        threading.Thread(target=stream, args=("kept", other, 400)),
    ]
    for thread in threads:
        thread.start()
    begun.wait(30)
    site.run("keys", "revoke", mine.split("_")[1])
    revoked = time.monotonic()
    for thread in threads:
        thread.join(60)
    assert "revoked" in str(told["cut"])
    assert told["cut at"] - revoked < 1.0
    assert told["kept"] >= 390


def ask_many(site: Site, key: str, count: int, seed: int) -> None:
    """So many at once, of random cost, some with several answers, some that leave after some chunk of theirs."""
    chance = Random(seed)
    plans = [(chance.randint(1, 60), chance.choice([1, 1, 2, 3]), chance.random() < 0.3) for _ in range(count)]

    def one(plan: tuple[int, int, bool]) -> None:
        tokens, answers, leaves = plan
        leaves_at = Random(tokens).randrange(tokens) if leaves else tokens * answers + 1
        with site.client(key) as client, contextlib.suppress(openai.APIError):
            events = client.completions.create(
                model="demo",
                prompt="one two",
                max_tokens=tokens,
                n=answers,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            for at, _ in enumerate(events):
                if at >= leaves_at:
                    break
            events.close()

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, plans))


def engines(site: Site, admin: str, name: str) -> float:
    """The sum of a metric that engines count."""
    assert site.stack is not None
    page = status_of(site.stack.url, "GET", "/metrics", admin)[2].decode()
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name + "{"))


def computed(site: Site, admin: str) -> float:
    """Tokens of prompts and answers, by the engine's own count."""
    return sum(engines(site, admin, f"perimeter_engine_{kind}_tokens_total") for kind in ("generated", "prompt"))


def settled(site: Site) -> tuple[int, int]:
    """Requests and tokens of the one key that was used."""
    (row,) = json.loads(site.run("keys", "usage", "--json"))["usage"]
    return row["requests"], row["output"] + row["fresh"] + row["cached"]


def test_looking_up_tokens_costs_none(site: Site) -> None:
    """`/tokenize` and `/detokenize` run no model: they are requests of the key, without tokens, and not estimated."""
    key = site.key("--tokens-per-minute", "1")
    assert site.stack is not None
    with site.client(key).with_options(base_url=site.stack.url) as client:
        for _ in range(2):
            told = client.post("/tokenize", body={"prompt": "one two three"}, cast_to=dict)
            client.post("/detokenize", body={"tokens": told["tokens"]}, cast_to=dict)
    wait_until(lambda: settled(site) == (4, 0), "four requests and no token are in the ledger", 20)
    (row,) = json.loads(site.run("keys", "usage", "--json"))["usage"]
    assert row["estimated"] == 0, row


def test_a_scope_is_not_got_round_by_another_spelling(site: Site) -> None:
    """Of a path: whatever a router takes for the same."""
    key = site.key()
    assert site.stack is not None
    for path in ("/metrics", "/metrics%0a", "/metrics%0A", "/%6detrics", "/metrics/", "//metrics", "/metrics%00"):
        status, _, body = status_of(site.stack.url, "GET", path, key)
        assert status in (307, 403, 404), (path, status)
        assert b"perimeter_requests" not in body, path


def test_what_is_settled_is_never_less_than_what_was_computed(site: Site) -> None:
    """Two hundred at once: at least the engine's count."""
    key, admin = site.key(), site.key("--scope", "metrics")
    ask_many(site, key, 200, seed=7)
    wait_until(lambda: engines(site, admin, "perimeter_requests_in_flight") == 0, "all have ended")
    wait_until(lambda: engines(site, admin, "perimeter_engine_running") == 0, "the engine is idle")
    requests, tokens = settled(site)
    assert requests == 200
    assert tokens >= computed(site, admin) > 0


def test_an_engine_that_is_killed_gives_nothing_back(site: Site) -> None:
    """Nor more than the limit: what it computed is settled or stands as reserved, and no limit is passed."""
    limit = 40_000
    key, admin = site.key("--tokens-per-day", str(limit)), site.key("--scope", "metrics")
    assert site.stack is not None
    many = threading.Thread(target=ask_many, args=(site, key, 200, 11))
    many.start()
    wait_until(lambda: engines(site, admin, "perimeter_engine_generated_tokens_total") > 500, "it is at work")
    before = computed(site, admin)
    os.kill(site.stack.engine_pid(), signal.SIGKILL)
    many.join(120)
    wait_until(lambda: status_of(site.stack.url if site.stack else "", "GET", "/ready")[0] == 200, "it is back", 30)
    wait_until(lambda: engines(site, admin, "perimeter_requests_in_flight") == 0, "all have ended")
    wait_until(lambda: engines(site, admin, "perimeter_engine_running") == 0, "the engine is idle")
    _, tokens = settled(site)
    assert before + computed(site, admin) <= tokens <= limit


def test_the_record_holds_no_word_and_verifies(site: Site) -> None:
    """Each answered request has its intent and its outcome; the prompt is nowhere; a changed line is found."""
    key = site.key()
    (made,) = site.records("key-created")
    assert (made["owner"], made["by"].split(" (")[0]) == ("radiology", f"uid {os.getuid()}")
    (loaded,) = site.records("model-load")
    assert (loaded["model"], loaded["engine"], len(loaded["weights"])) == ("demo", "llamacpp", 64)
    assert len(site.records("settings")[0]["sha256"]) == 64
    with site.client(key) as client:
        for at in range(5):
            ask(client, f"{CANARY} {at}")
    assert site.stack is not None
    site.stack.process.send_signal(signal.SIGTERM)
    assert site.stack.process.wait(30) == 0
    intents, outcomes = site.records("intent"), site.records("outcome")
    assert [record["principal"] for record in intents] == ["radiology"] * 5
    assert [record["outcome"] for record in outcomes] == ["completed"] * 5
    assert len({record["prompt"] for record in intents}) == 5
    assert {record["weights"] for record in intents} == {loaded["weights"]}
    site.key("--name", "without a server")
    again, another = site.records("key-created")
    assert (again, another["by"]) == (made, made["by"])
    assert all(record["output_tokens"] > 0 for record in outcomes)
    assert site.run("audit", "verify")
    for path in site.directory.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
            assert key.encode() not in path.read_bytes(), path
            assert key.rpartition("_")[2].encode() not in path.read_bytes(), path
    segment = next((site.directory / "audit").glob("*.jsonl"), None) or next(
        path for path in sorted((site.directory / "audit").iterdir()) if path.stat().st_size > 1000
    )
    whole = segment.read_bytes()
    segment.write_bytes(whole.replace(b'"completed"', b'"cancelled"', 1))
    site.run("audit", "verify", status=21)


def test_a_server_that_a_command_starts_for_itself_wants_no_key(site: Site) -> None:
    """`serve bench run` beside the site's server takes neither its ledger nor its record, and adds nothing to them."""
    result = site.directory / "result.json"
    site.run("bench", "run", "chat", "--model", "demo", "--requests", "4", "-o", str(result))
    assert json.loads(result.read_text())["stages"]
    assert not site.records("intent")


def test_a_killed_server_loses_no_intent(site: Site) -> None:
    """`kill -9` in the midst of requests: each that was answered is on record, and the log verifies."""
    key = site.key()
    answered: list[str] = []

    def many() -> None:
        with site.client(key) as client, contextlib.suppress(openai.APIError):
            while True:
                raw = client.completions.with_raw_response.create(model="demo", prompt="x", max_tokens=1)
                answered.append(raw.headers["x-request-id"])

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answered) > 40, "some were answered")
    assert site.stack is not None
    os.kill(site.stack.process.pid, signal.SIGKILL)
    for thread in threads:
        thread.join(30)
    recorded = {record["request"] for record in site.records("intent")}
    assert set(answered) <= recorded
    with serve(config=site.config, is_open=False) as again:
        site.stack = again
        with site.client(key) as client:
            assert "Perimeter" in ask(client)
    site.run("audit", "verify")
