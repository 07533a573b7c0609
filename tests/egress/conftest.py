"""The real egress process before a stand-in of a vendor behind TLS."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import itertools
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
from serving.egress.process import begin_taint
from serving.egress.rooms import Rooms
from tests.support.certificates import Authority
from tests.support.harness import wait_until
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
    own: Ask = ASK
    """As whom requests are sent where nobody else is named: in each test of a cache domain that no other one has."""
    _before: int = 0

    @property
    def socket(self) -> Path:
        return self.directory / "egress.sock"

    @property
    def policy(self) -> Path:
        return self.directory / "policy.toml"

    @property
    def switch(self) -> Path:
        """The kill switch."""
        return self.directory / "closed"

    @property
    def sent(self) -> int:
        """Bytes that left since the test began."""
        return self.front.bytes_in - self._before

    @property
    def others(self) -> Ask:
        """Somebody of another cache domain."""
        return dataclasses.replace(self.own, domain=f"others-{self.own.domain}")

    def begin_test(self) -> None:
        """From now on what leaves is counted anew, for an owner of its own."""
        number = next(_NUMBERS)
        self.own = dataclasses.replace(ASK, domain=f"team-{number}", request=f"req-{number}")
        self._before = self.front.bytes_in

    def write_policy(self, text: str) -> None:
        new = self.policy.with_suffix(".new")
        new.write_text(text)
        new.replace(self.policy)

    def start(self, *, pki: str = "pki", networks: str = '"127.0.0.0/8", "::1/128"', more: str = "") -> None:
        """`pki`: whose certificates vendors are verified by; `networks`: where they may be inside; `more` settings."""
        config = self.directory / "serving.toml"
        config.write_text(
            f'[egress]\npolicy = "{self.policy}"\ndirectory = "{self.directory}"\n'
            f'ca = "{self.directory / pki / "site-ca.pem"}"\nprivate_networks = [{networks}]\n{more}'
        )
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

    def ask(self, path: str, body: object, ask: Ask | None = None, headers: dict[str, str] | None = None) -> Told:
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(str(self.socket))
        with contextlib.closing(connection):
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            given = {"content-type": "application/json", HEADER: write_ask(ask or self.own), **(headers or {})}
            connection.request("POST", path, raw, given)
            answer = connection.getresponse()
            return Told(answer.status, answer.read())

    def chat(self, text: str, ask: Ask | None = None, **fields: object) -> Told:
        return self.ask("/v1/chat/completions", body_of(text, **fields), ask)

    def judge(self, text: str, ask: Ask | None = None) -> dict:
        """As the gateway asks first."""
        return self.ask("/judge", body_of(text), ask, headers={"x-egress-path": "/v1/chat/completions"}).json

    def tell(self, judged: dict, text: str) -> Told:
        """As the gateway tells which answer was given inside."""
        answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
        return self.ask("/remember", answer, headers={"x-egress-answer": judged["answer"]})

    def put_back(self) -> None:
        """As it was before a test. Fails where a clean request does not leave then."""
        self.emulator.next.clear()
        self.switch.unlink(missing_ok=True)
        self.write_policy(policy_for(self.front.url))
        if self.process is None:
            self.start()
        self.begin_test()
        wait_until(lambda: self.chat(f"{CLEAN} {self.own.domain}").status == 200, "a clean request leaves again", 15)


_NUMBERS = itertools.count(1)


def body_of(text: str, **fields: object) -> dict:
    """A small chat."""
    return {"model": "demo", "messages": [{"role": "user", "content": text}], "max_tokens": 64, **fields}


def policy_for(url: str, vendor: str = "openai", required: tuple[str, ...] = ("numbers",)) -> str:
    """A policy that lets clean requests out to one vendor."""
    return POLICY.format(url=url, vendor=vendor, required=json.dumps(list(required)))


@contextlib.contextmanager
def outside(directory: Path, emulator: Emulator, vendor: str = "openai") -> Iterator[Outside]:
    """All of it, stopped, with the store begun; `start` starts the process."""
    directory.chmod(0o700)
    certificate, key = Authority(directory / "pki").issue("vendor")
    with emulator, TlsFront(emulator.origin, certificate, key) as front:
        made = Outside(directory, emulator, front)
        made.write_policy(policy_for(front.url, vendor))
        credentials = directory / "credentials"
        credentials.mkdir(mode=0o700)
        (credentials / "vendor").write_text(KEY)
        (credentials / "vendor").chmod(0o600)
        begin_taint(Rooms(directory, made.socket, credentials))  # as `serve route begin` does
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: Unix sockets take 107 bytes."""
    return tmp_path_factory.mktemp("e")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A process for the tests of a module that leave it as it was."""
    with outside(tmp_path_factory.mktemp("e"), OpenAIServer()) as made:
        made.start()
        yield made


@pytest.fixture
def vendor(shared: Outside) -> Iterator[Outside]:
    """Everything runs, nothing sensitive has been seen of the test's owner, and nothing is counted yet."""
    shared.begin_test()
    yield shared
    shared.put_back()


@pytest.fixture
def fresh(directory: Path) -> Iterator[Outside]:
    """For a test after which the process is of no use; not started."""
    with outside(directory, OpenAIServer()) as made:
        yield made
        made.stop(kill=True)


def command(made: Outside, *words: str) -> None:
    """Run `serve route …`, as an operator does."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])}
    config = made.directory / "serving.toml"
    argv = [sys.executable, "-m", "serving", "route", *words, "--config", str(config)]
    subprocess.run(argv, check=True, env=environment)
