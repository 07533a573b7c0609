"""A server with an egress process beside it: what leaves, what stays, and what an OpenAI client sees of either."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from serving.access import administration
from serving.cli.options import settings_for
from serving.egress.asking import write_ask
from serving.settings import Settings
from tests.e2e.stack import Stack, serve
from tests.egress.conftest import ASK, CLEAN, SENSITIVE, SOURCE, Outside, outside
from tests.support.harness import wait_until
from tests.support.vendors.openai_api import OpenAIServer
from tests.support.vendors.server import Emulator, Fail, Say

_NUMBERS = itertools.count(1)
PRICES = """
version = 1
currency = "EUR"
[[prices]]
from = 2026-01-01
model = "*"
engine = "*"
input = 0
output = 0
[[prices]]
from = 2026-01-01
model = "*"
engine = "vendor"
input = 1000
output = 1000
"""


@dataclass
class Both:
    """A server, the way out, and the vendor behind it."""

    vendor: Outside
    stack: Stack
    config: Path

    @property
    def settings(self) -> Settings:
        """Those of the site."""
        return settings_for(self.config)

    def client(self, key: str) -> openai.OpenAI:
        """A client with that key."""
        return openai.OpenAI(api_key=key, base_url=f"{self.stack.url}/v1", max_retries=0)

    def key(self, *, owner: str | None = None, **fields: object) -> openai.OpenAI:
        """A client with a new key, of an owner that nobody else is where none is named; made as `serve keys` does."""
        body = {"owner": owner or f"owner-{next(_NUMBERS)}", "name": "key", **fields}
        return self.client(administration.ask(self.settings.access, os.environ, "create", body)["key"])

    def enrolled(self, **fields: object) -> openai.OpenAI:
        """A client whose clean requests may leave."""
        return self.key(classes=["drafting"], residency=["eu"], **fields)

    @property
    def left(self) -> int:
        """Bytes that left since the test began."""
        return self.vendor.sent

    def records(self) -> list[dict]:
        """The gateway's own records."""
        return [
            json.loads(line)["record"]
            for path in sorted((self.vendor.directory / "gateway-audit").glob("*.jsonl"))
            for line in path.read_bytes().splitlines()
            if b'"record"' in line
        ]


def ask(client: openai.OpenAI, text: str, **fields: object) -> tuple[str, str]:
    """The words of the answer, and by which way it came."""
    raw = client.chat.completions.with_raw_response.create(
        model="demo",
        messages=[{"role": "user", "content": text}],
        max_tokens=16,
        **fields,  # type: ignore[call-overload]
    )
    return raw.parse().choices[0].message.content or "", raw.headers["x-perimeter-route"]


@contextlib.contextmanager
def site(directory: Path, emulator: Emulator | None = None, more: str = "") -> Iterator[Both]:
    """Everything that a site has; `more` goes into its settings."""
    config, prices = directory / "site.toml", directory / "prices.toml"
    prices.write_text(PRICES)
    keys = directory / "gateway-keys"
    config.write_text(
        f'[access]\nopen = false\ndirectory = "{directory / "access"}"\nprice_book = "{prices}"\n'
        f'[audit]\nenabled = true\ndirectory = "{directory / "gateway-audit"}"\n'
        f'signing_key = "{keys / "signing.key"}"\nfingerprint_key = "{keys / "fingerprint.key"}"\n'
        f'[paths]\nruntime_dir = "{directory / "run"}"\n'
        f'[egress]\npolicy = "{directory / "policy.toml"}"\ndirectory = "{directory}"\n{more}'
    )
    with outside(directory, emulator or OpenAIServer()) as vendor:
        vendor.start(more=more)
        with serve(config=config, is_open=False) as stack:
            yield Both(vendor, stack, config)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """One for the tests of a module that leave it as it was."""
    with site(tmp_path_factory.mktemp("e")) as made:
        yield made


@pytest.fixture
def both(whole: Both) -> Iterator[Both]:
    """The same for every test, and nothing is counted yet."""
    whole.vendor.begin_test()
    yield whole
    whole.vendor.put_back()


def test_a_clean_request_of_an_enrolled_key_leaves_and_every_other_stays(both: Both) -> None:
    """And the client is told which way it went, by a header, and by nothing else."""
    argv = [sys.executable, "-m", "serving", "keys", "create", "--config", str(both.config), "--owner", "drafters"]
    argv += ["--class", "drafting", "--residency", "eu"]
    made = subprocess.run(argv, cwd=SOURCE, check=True, capture_output=True, text=True)
    enrolled, other, recorded = both.client(made.stdout.strip()), both.key(), len(both.records())
    words, way = ask(enrolled, CLEAN)
    assert words == Say().text
    assert way == "cloud; destination=vendor; rule=passed"
    left = both.left
    assert left > 0
    assert ask(enrolled, SENSITIVE)[1] == "perimeter; rule=data"
    assert ask(enrolled, CLEAN, extra_headers={"x-perimeter-route": "local"})[1] == "perimeter; rule=caller"
    assert ask(enrolled, CLEAN, seed=1)[1] == "perimeter; rule=field"
    with pytest.raises(openai.BadRequestError):
        ask(enrolled, CLEAN, extra_headers={"x-perimeter-route": "cloud"})
    plain = other.chat.completions.with_raw_response.create(
        model="demo", messages=[{"role": "user", "content": CLEAN}], max_tokens=4
    )
    assert "x-perimeter-route" not in plain.headers
    assert both.left == left
    records = both.records()[recorded:]
    went = [(each["destination"], each.get("reasons")) for each in records if each["kind"] == "intent"]
    assert went[0] == ("vendor", ["passed"])
    assert {each[0] for each in went[1:]} == {"local"}


ROUTES = (
    "local",
    "LOCAL",
    " local ",
    "cloud",
    "perimeter",
    "",
    "local, cloud",
    "cloud; destination=vendor",
    "\xa0local",
)
JUNK = (
    ("x-egress-ask", write_ask(ASK)),
    ("x-egress-path", "/v1/embeddings"),
    ("x-egress-answer", "1"),
    ("x-egress-verdict", "clean"),
    ("x-perimeter-routes", "cloud"),
    ("forwarded", "for=127.0.0.1"),
    ("x-request-id", "req-1"),
)


def test_no_header_lets_anything_out_that_stays_without_it(both: Both) -> None:
    """Random ones, also twice: what leaves has no word of its caller against it, an enrolled key, and clean texts."""
    dice, left = random.Random(8), 0
    keys = {name: key.api_key for name, key in (("enrolled", both.enrolled()), ("another", both.key()))}
    keys["elsewhere"] = both.key(classes=["drafting"], residency=["us"]).api_key
    host = both.stack.url.removeprefix("http://")
    for number in range(int(os.environ.get("EGRESS_HEADERS", "150"))):
        whose, is_clean = dice.choice(["enrolled", "enrolled", *keys]), dice.random() < 0.7
        asked = [("x-perimeter-route", dice.choice(ROUTES)) for _ in range(dice.choice([0, 0, 1, 2]))]
        headers = [*asked, *dice.sample(JUNK, dice.randrange(3))]
        dice.shuffle(headers)
        before = both.left
        body = {"messages": [{"role": "user", "content": f"{CLEAN if is_clean else SENSITIVE} ({number})"}]}
        connection = http.client.HTTPConnection(host, timeout=30)
        raw = json.dumps({"model": "demo", "max_tokens": 4, **body}).encode()
        connection.putrequest("POST", "/v1/chat/completions")
        for name, value in [("authorization", f"Bearer {keys[whose]}"), ("content-length", str(len(raw))), *headers]:
            connection.putheader(name, value)
        connection.putheader("content-type", "application/json")
        connection.endheaders(raw)
        with contextlib.closing(connection), connection.getresponse() as answer:
            answer.read()
        may = whose == "enrolled" and is_clean and not asked
        assert may or both.left == before, (whose, is_clean, headers, answer.status)
        left += both.left > before
    assert left > 0


def test_a_stream_that_leaves_is_a_stream(both: Both) -> None:
    """With usage where the client asked for it."""
    client = both.enrolled()
    chunks = list(
        client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": CLEAN}],
            max_tokens=16,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == Say().text
    assert chunks[-1].usage is not None
    assert both.left > 0


def test_what_a_sensitive_request_was_answered_stays_inside(both: Both) -> None:
    """The engine's own words, in a new chat of the same owner, through the whole of it."""
    client = both.enrolled()
    answer = client.chat.completions.create(
        model="demo",
        messages=[
            {"role": "user", "content": "Who are you, and what can you do? Write to maria.keller@example-bank.de"}
        ],
        max_tokens=120,
        temperature=0,
    )
    words = answer.choices[0].message.content or ""
    assert len(words) > 40, "the demo says enough to be recognised"
    wait_until(lambda: ask(client, f"Translate this: {words}")[1] == "perimeter; rule=taint", 10)
    assert both.left == 0


@pytest.mark.parametrize("failure", [Fail(500), Fail(429), Fail(401), Fail(400), Say(cut_after=0)], ids=str)
def test_where_the_vendor_fails_the_request_is_answered_inside(both: Both, failure: Fail | Say) -> None:
    """As if there were none."""
    both.vendor.emulator.next.append(failure)
    words, way = ask(both.enrolled(), CLEAN)
    assert way.startswith("perimeter; rule=")
    assert words != Say().text
    assert both.left > 0


def test_without_the_egress_process_nothing_leaves_and_what_it_would_have_to_see_is_not_served(both: Both) -> None:
    """Until it is back; keys that have nothing to do with it are served all the same."""
    client, other = both.enrolled(), both.key()
    both.vendor.stop(kill=True)
    with pytest.raises(openai.InternalServerError) as refused:
        ask(client, CLEAN)
    assert refused.value.status_code == 503
    assert other.chat.completions.create(model="demo", messages=[{"role": "user", "content": CLEAN}], max_tokens=4)
    assert both.left == 0
    both.vendor.start()
    assert ask(client, CLEAN)[0] == Say().text


def test_a_budget_is_never_exceeded_by_requests_that_leave_together(both: Both) -> None:
    """Two hundred at once, some of which fail outside and are served inside."""
    client = both.enrolled(limits={"cost_in_all": 20 * 10**6})
    both.vendor.emulator.next.extend([Fail(500), Say()] * 2)
    lock, ways = threading.Lock(), []

    def one(_: int) -> None:
        try:
            way = ask(client, CLEAN)[1]
        except openai.APIStatusError as error:
            way = str(error.status_code)
        with lock:
            ways.append(way)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(one, range(200)))
    assert len(ways) == 200
    argv = [sys.executable, "-m", "serving", "keys", "list", "--json", "--config", str(both.config)]
    told = json.loads(subprocess.run(argv, cwd=SOURCE, check=True, capture_output=True, text=True).stdout)
    (key,) = [each for each in told["keys"] if each["limits"]["cost_in_all"]]
    assert key["used"]["cost"] <= key["limits"]["cost_in_all"]
    assert any(way.startswith("cloud") for way in ways)
    assert any(way.startswith("perimeter") for way in ways)
