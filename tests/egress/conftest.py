"""The real egress process before a stand-in of a vendor behind TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from serving.egress.asking import HEADER, Ask, write_ask
from tests.support.certificates import Authority
from tests.support.tls_front import TlsFront
from tests.support.vendors.openai_api import OpenAIServer
from tests.support.vendors.server import KEY, Emulator

SOURCE = Path(__file__).parents[2]
CLEAN = "Write a function that reverses a linked list, and say how long it takes."
SENSITIVE = "Please send the contract to maria.keller@example-bank.de, her IBAN is DE89 3704 0044 0532 0130 00."
POLICY = """
version = 1
cloud = "on"
[residency]
allowed = ["eu"]
[attestation]
most_retention_days = 0
[detection]
required = {required}
[detection.least_recall]
"email" = 0.5
[endpoints]
"chat.completions" = ["model", "messages.role", "messages.content", "max_tokens", "max_completion_tokens", "stream",
  "stream_options.include_usage", "temperature", "tools.type", "tools.function.name", "tools.function.description",
  "tools.function.parameters.*", "tool_choice", "messages.tool_call_id", "messages.tool_calls.id",
  "messages.tool_calls.type", "messages.tool_calls.function.name", "messages.tool_calls.function.arguments"]
[taint]
keep_days = 1
[classes.drafting]
destinations = ["vendor"]
residency = ["eu"]
labels = ["email"]
[classes.drafting.hard]
always = true
[destinations.vendor]
zone = "cloud"
vendor = "{vendor}"
url = "{url}"
region = "eu"
models = {{ "demo" = "gpt-4.1" }}
prices = "vendor"
timeout_s = 5
retries = 0
breaker = {{ failures = 3, window_s = 60, open_s = 1 }}
[destinations.vendor.attestation]
training_opt_out = true
retention_days = 0
dpa = "annex 2"
expires = 2099-01-01
"""
ASK = Ask(
    request="req-1",
    principal="team",
    key="k1",
    domain="team",
    classes=frozenset({"drafting"}),
    residency=frozenset({"eu"}),
    asked_local=False,
    destination="vendor",
    budget="reserved",
)


@dataclass
class Told:
    """An answer of the process."""

    status: int
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        return self.json["error"]["code"] if self.status != 200 else None


@dataclass
class Outside:
    """A running egress process, the vendor behind it, and what of it can be changed."""

    directory: Path
    emulator: Emulator
    front: TlsFront
    process: subprocess.Popen | None = None
    said: list[str] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.directory / "egress.sock"

    @property
    def policy(self) -> Path:
        return self.directory / "policy.toml"

    def write_policy(self, text: str) -> None:
        new = self.policy.with_suffix(".new")
        new.write_text(text)
        new.replace(self.policy)

    def start(self, *, egress: str = "") -> None:
        config = self.directory / "serving.toml"
        config.write_text(
            f'[egress]\npolicy = "{self.policy}"\ndirectory = "{self.directory}"\n'
            f'ca = "{self.directory / "pki" / "site-ca.pem"}"\nprivate_networks = ["127.0.0.0/8", "::1/128"]\n{egress}'
        )
        self.start_with(config)

    def start_with(self, config: Path) -> None:
        with (self.directory / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving", "egress", "--config", str(config), "--json"],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])},
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.directory / "stderr").read_text()
        self.said.append(line)

    def stop(self, *, kill: bool = False) -> None:
        if self.process is not None:
            self.process.kill() if kill else self.process.terminate()
            self.process.wait(30)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def ask(self, path: str, body: object, ask: Ask = ASK, headers: dict[str, str] | None = None) -> Told:
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(str(self.socket))
        with contextlib.closing(connection):
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            given = {"content-type": "application/json", HEADER: write_ask(ask), **(headers or {})}
            connection.request("POST", path, raw, given)
            answer = connection.getresponse()
            return Told(answer.status, answer.read())

    def chat(self, text: str, ask: Ask = ASK, **fields: object) -> Told:
        return self.ask("/v1/chat/completions", body_of(text, **fields), ask)


def body_of(text: str, **fields: object) -> dict:
    """A small chat."""
    return {"model": "demo", "messages": [{"role": "user", "content": text}], "max_tokens": 64, **fields}


def policy_for(url: str, vendor: str = "openai", required: tuple[str, ...] = ("numbers",)) -> str:
    """A policy that lets clean requests out to one vendor."""
    return POLICY.format(url=url, vendor=vendor, required=json.dumps(list(required)))


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: Unix sockets take 107 bytes."""
    return tmp_path_factory.mktemp("e")


@contextlib.contextmanager
def outside(directory: Path, emulator: Emulator, vendor: str = "openai") -> Iterator[Outside]:
    """All of it, stopped; `start` starts the process."""
    certificate, key = Authority(directory / "pki").issue("vendor")
    with emulator, TlsFront(emulator.origin, certificate, key) as front:
        made = Outside(directory, emulator, front)
        made.write_policy(policy_for(front.url, vendor))
        credentials = directory / "credentials"
        credentials.mkdir(mode=0o700)
        (credentials / "vendor").write_text(KEY)
        (credentials / "vendor").chmod(0o600)
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def vendor(directory: Path) -> Iterator[Outside]:
    """Everything runs, and nothing sensitive has ever been seen."""
    directory.chmod(0o700)
    with outside(directory, OpenAIServer()) as made:
        begin(made)
        made.start()
        yield made


def begin(made: Outside) -> None:
    """As an operator begins the store of sensitive texts."""
    config = made.directory / "begin.toml"
    config.write_text(f'[egress]\npolicy = "{made.policy}"\ndirectory = "{made.directory}"\n')
    argv = [sys.executable, "-m", "serving", "route", "begin", "--config", str(config)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])}
    subprocess.run(argv, check=True, env=environment)
