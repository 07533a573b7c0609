"""What a policy would have changed by the record of a process, an outage that is played, and requests sent again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import openai
import pytest

from tests.egress.conftest import CLEAN, SENSITIVE, SOURCE, Outside, policy_for
from tests.egress.test_gateway import Both, site
from tests.support.vendors.server import Fail, Say


@pytest.fixture
def both(directory: Path) -> Iterator[Both]:
    """A site of the test's own: its records and metrics are counted."""
    with site(directory) as made:
        yield made


@pytest.fixture
def vendor(fresh: Outside) -> Outside:
    """A process of the test's own."""
    fresh.start()
    return fresh


def test_a_replay_says_which_requests_of_the_record_another_policy_would_have_let_out(both: Both) -> None:
    """By the names of the requests; what was sensitive stays whatever the policy says, and no word is on record."""
    client = both.enrolled()
    ways = []
    for text, fields in ((CLEAN, {}), (CLEAN, {"seed": 7, "user": "ivanov-4509123456"}), (SENSITIVE, {})):
        raw = client.chat.completions.with_raw_response.create(
            model="demo", messages=[{"role": "user", "content": text}], max_tokens=4, **fields
        )
        ways.append((raw.headers["x-request-id"], raw.headers["x-perimeter-route"]))
    assert [way.rpartition("=")[2] for _, way in ways] == ["passed", "field", "data"]
    operator = both.key(scopes=["metrics"])
    asked = Request(f"{both.stack.url}/metrics", headers={"authorization": f"Bearer {operator.api_key}"})
    with urlopen(asked, timeout=30) as response:
        metrics = response.read().decode()
    assert 'perimeter_routed_total{destination="vendor",rule="passed",zone="cloud"} 1.0' in metrics
    assert 'perimeter_routed_total{destination="local",rule="data",zone="perimeter"} 1.0' in metrics
    assert "perimeter_judged_seconds_count 3" in metrics
    same = _replay(both, both.vendor.policy.read_text())
    assert (same["requests"], same["unread"], same["changes"]) == (3, 0, [])
    wider = both.vendor.policy.read_text().replace('"temperature"', '"temperature", "seed", "user"')
    (change,) = _replay(both, wider)["changes"]
    assert (change["request"], change["before"], change["after"], change["zone"]) == (
        ways[1][0],
        "local",
        "vendor",
        "cloud",
    )
    closed = _replay(both, wider.replace('cloud = "on"', 'cloud = "off"'))["changes"]
    assert [(each["request"], each["after"], each["rule"]) for each in closed] == [(ways[0][0], "local", "switch")]
    log = b"".join(path.read_bytes() for path in (both.vendor.directory / "audit").glob("*.jsonl"))
    assert b'"kind":"route"' in log
    for word in (b"ivanov", b"keller", b"linked list"):
        assert word not in log


def test_an_application_may_ask_where_its_request_would_go(both: Both) -> None:
    """As its key would send it: what was found by place and kind and not by value, the rule, and nothing leaves."""
    enrolled, other = both.enrolled(), both.key(owner="another")

    def explained(client: openai.OpenAI, text: str, **headers: str) -> dict:
        body = {"model": "demo", "messages": [{"role": "user", "content": text}]}
        return client.post("/route/explain", body=body, options={"headers": headers}, cast_to=dict)

    told = explained(enrolled, CLEAN)
    assert (told["destination"], told["zone"], told["rule"]) == ("vendor", "cloud", "passed")
    assert explained(enrolled, CLEAN, **{"x-perimeter-route": "local"})["rule"] == "caller"
    assert explained(other, CLEAN)["rule"] == "class"
    told = explained(enrolled, SENSITIVE)
    assert (told["destination"], told["rule"], told["verdict"]) == ("local", "data", "sensitive")
    assert {"email", "iban"} <= {span["label"] for span in told["spans"]}
    assert "keller" not in json.dumps(told)
    assert explained(enrolled, CLEAN)["rule"] == "passed", "nothing is remembered by it"
    with pytest.raises(openai.BadRequestError):
        enrolled.post("/route/explain", body=["no request"], cast_to=dict)
    with pytest.raises(openai.AuthenticationError):
        explained(openai.OpenAI(api_key="none", base_url=f"{both.stack.url}/v1", max_retries=0), CLEAN)
    assert both.left == 0


def test_a_drill_finds_a_site_that_keeps_serving_and_leaves_it_as_it_was(both: Both) -> None:
    """The outage, the switch, a stream that is cut: on the real process, with a vendor that answers for long."""
    both.enrolled()
    key = both.vendor.directory / "drill.key"
    key.write_text(both.enrolled().api_key)
    key.chmod(0o600)
    both.vendor.emulator.next.extend([Say(), Say(), Say(hang_after=2), Say()])
    told = _drill(both, "--yes")
    assert told.returncode == 0, told.stdout + told.stderr
    steps = json.loads(told.stdout)["steps"]
    assert [each["well"] for each in steps] == [True] * 6
    assert "error event" in steps[3]["seen"]
    assert len(both.vendor.emulator.received) == 4
    assert not (both.vendor.directory / "closed").exists()
    assert not (both.vendor.directory / "drill").exists()


def test_a_drill_that_finds_something_says_so_and_one_that_is_not_meant_does_nothing(both: Both) -> None:
    """Where nothing leaves in the first place there is nothing to try."""
    key = both.vendor.directory / "drill.key"
    key.write_text(both.enrolled().api_key)
    key.chmod(0o600)
    unmeant = _drill(both)
    assert unmeant.returncode == 2
    assert "`--yes`" in unmeant.stderr
    both.vendor.write_policy(both.vendor.policy.read_text().replace('cloud = "on"', 'cloud = "off"'))
    told = _drill(both, "--yes")
    assert told.returncode == 1
    assert json.loads(told.stdout)["steps"] == [
        {"name": "a clean request leaves", "well": False, "seen": "perimeter; rule=switch"}
    ]
    assert both.left == 0


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_vendor_did_not_take_is_sent_again_as_often_as_the_policy_says(vendor: Outside, stream: bool) -> None:
    """Each time with an intent of its own; what it may have taken is sent once."""
    vendor.write_policy(policy_for(vendor.front.url).replace("retries = 0", "retries = 2"))
    vendor.emulator.next.extend([Fail(429), Fail(503), Say()])
    assert vendor.chat(CLEAN, stream=stream).status == 200
    assert len(vendor.emulator.received) == 3
    vendor.emulator.next.extend([Fail(429), Fail(429), Fail(429), Say()])
    assert vendor.chat(CLEAN, stream=stream).status == 503
    assert len(vendor.emulator.received) == 6
    vendor.emulator.next.clear()
    vendor.write_policy(vendor.policy.read_text().replace("failures = 3", "failures = 30"))
    vendor.emulator.next.extend([Fail(500), Say()])
    vendor.stop()
    vendor.start()
    assert vendor.chat(CLEAN, stream=stream).status == 503
    assert len(vendor.emulator.received) == 7, "it may have been read"
    kinds = [
        json.loads(line)["record"]["kind"]
        for path in (vendor.directory / "audit").glob("*.jsonl")
        for line in path.read_bytes().splitlines()
    ]
    assert kinds.count("intent") == 7


def test_who_is_to_be_asked_much_later_is_not_asked_again(vendor: Outside) -> None:
    """The request is served inside instead of waiting."""
    vendor.write_policy(policy_for(vendor.front.url).replace("retries = 0", "retries = 2"))
    vendor.emulator.next.extend([Fail(429, headers={"retry-after": "30"}), Say()])
    assert vendor.chat(CLEAN).status == 503
    assert len(vendor.emulator.received) == 1


def _replay(both: Both, policy: str) -> dict:
    new = both.vendor.directory / "new.toml"
    new.write_text(policy)
    argv = ["route", "replay", "--policy", str(new), "--json", "--config", str(both.config)]
    told = subprocess.run(
        [sys.executable, "-m", "serving", *argv], cwd=SOURCE, check=True, capture_output=True, text=True
    )
    return json.loads(told.stdout)


def _drill(both: Both, *flags: str) -> subprocess.CompletedProcess[str]:
    argv = [
        "--model",
        "demo",
        "--key-file",
        str(both.vendor.directory / "drill.key"),
        "--url",
        both.stack.url,
        "--json",
    ]
    return subprocess.run(
        [sys.executable, "-m", "serving", "route", "drill", *argv, *flags, "--config", str(both.config)],
        cwd=SOURCE,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
