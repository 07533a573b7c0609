"""Servers named as inside: what no engine here can take goes there, leaves the same traces, and not a byte goes out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import openai
import pytest

from tests.egress.conftest import CLEAN, SENSITIVE, SOURCE, Outside, Told, body_of, outside, policy_for
from tests.egress.test_gateway import Both, site
from tests.support.harness import wait_until
from tests.support.vendors.openai_api import OpenAIServer
from tests.support.vendors.server import KEY, Fail, Received, Refuse, Say

SERVER = """
[destinations.{name}]
zone = "perimeter"
vendor = "openai-compatible"
url = "{url}"
models = {{ "demo" = "demo:8b", "far" = "far:70b" }}
connect_timeout_s = 5
timeout_s = 20
retries = 0
breaker = {{ failures = 1000, window_s = 60, open_s = 60 }}
"""
SUMMARY = "The customer wants the second clause struck out, and will sign on Thursday if the rate stays as offered."
CHAT = {"x-egress-path": "/v1/chat/completions"}
MORE = "most_chars = 4000\n[engines.restart]\nbackoff_s = 2\nbackoff_max_s = 2\nmax_crashes = 100\n"
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}


class Server(OpenAIServer):
    """One inside, that lets in whoever shows `key`, and with none everybody who shows nothing."""

    def __init__(self, key: str | None = None) -> None:
        super().__init__()
        self.key = key
        self.is_mute = False
        """A stream of its begins with its words, and with nothing before them."""

    def events(self, request: Received, say: Say) -> tuple[list[bytes], list[list[bytes]], list[bytes]]:
        before, pieces, behind = super().events(request, say)
        return [] if self.is_mute else before, pieces, behind

    def _let_in(self, request: Received) -> None:
        shown = request.headers.get("authorization")
        if shown != (None if self.key is None else f"Bearer {self.key}"):
            raise Refuse(401, {"error": {"message": f"no: {shown}", "code": "invalid_api_key"}})


@dataclass
class Place:
    """A process that sends, a vendor outside, and two servers inside."""

    vendor: Outside
    near: Server
    second: Server

    def policy(self, *, near: str | None = None, second: str | None = None) -> str:
        """With both of them, by other addresses where some are given."""
        return (
            policy_for(self.vendor.front.url)
            + SERVER.format(name="near", url=near or f"{self.near.origin}/v1")
            + SERVER.format(name="second", url=second or f"{self.second.origin}/v1")
        )

    def begin(self) -> None:
        """As it was, and nothing is counted yet."""
        for each in (self.near, self.second, self.vendor.emulator):
            each.received.clear()
            each.next.clear()
        self.near.is_mute = False
        self.vendor.switch.unlink(missing_ok=True)
        self.vendor.write_policy(self.policy())
        self.vendor.begin_test()

    def chat(self, text: str, to: str = "near", **fields: object) -> Told:
        """As a gateway hands over what is to go to a server inside."""
        return self.vendor.chat(text, dataclasses.replace(self.vendor.own, destination=to, local=False), **fields)

    def records(self, kind: str) -> list[dict]:
        """Of the process's own log."""
        return [
            record
            for path in sorted((self.vendor.directory / "audit").glob("*.jsonl"))
            for line in path.read_bytes().splitlines()
            if (record := json.loads(line)["record"])["kind"] == kind
        ]


@contextlib.contextmanager
def servers(vendor: Outside) -> Iterator[Place]:
    """Both of them, before the process of `vendor`."""
    with Server() as near, Server(KEY) as second:
        credential = vendor.directory / "credentials" / "second"
        credential.write_text(KEY)
        credential.chmod(0o600)
        made = Place(vendor, near, second)
        made.begin()
        yield made


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """For the tests of the process alone."""
    with outside(tmp_path_factory.mktemp("e"), OpenAIServer()) as vendor, servers(vendor) as made:
        vendor.start()
        yield made


@pytest.fixture
def place(standing: Place) -> Iterator[Place]:
    """Nothing is counted yet."""
    standing.begin()
    yield standing
    if standing.vendor.process is None:
        standing.vendor.start()


# The process that sends


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_sensitive_goes_to_a_server_inside_and_not_a_byte_outside(place: Place, stream: bool) -> None:
    """By the same connectors, on record before; with the credential that the process has, or without one."""
    before = len(place.records("intent"))
    for to, server in (("near", place.near), ("second", place.second)):
        told = place.chat(SENSITIVE, to, stream=stream)
        assert told.status == 200, told.body
        assert server.last.json["model"] == "demo:8b"
        assert server.last.path == "/v1/chat/completions"
    intents = place.records("intent")[before:]
    assert [each["destination"] for each in intents] == ["near", "second"]
    assert all(each["reasons"][0] == "data" for each in intents)
    assert place.vendor.sent == 0


@pytest.mark.parametrize("how", ["thrown", "off"])
def test_the_kill_switch_is_about_the_cloud(place: Place, how: str) -> None:
    """A server inside is asked all the same, and a stream of it is not cut."""
    if how == "thrown":
        place.vendor.switch.touch()
    else:
        place.vendor.write_policy(place.policy().replace('cloud = "on"', 'cloud = "off"'))
    assert place.vendor.chat(CLEAN).code == "stays_inside"
    told = place.chat(CLEAN, stream=True)
    assert (told.status, told.body.rstrip().endswith(b"[DONE]")) == (200, True)
    assert place.vendor.sent == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://203.0.113.7/v1", "https://203.0.113.7/v1", "http://8.8.8.8/v1", "http://169.254.169.254/v1",
        "http://[fe80::1]/v1", "http://[fd00:ec2::254]/v1", "http://0.0.0.0:1/v1", "http://100.64.0.1/v1",
    ],
)  # fmt: skip
def test_an_address_outside_is_not_made_one_inside_by_its_zone(place: Place, url: str) -> None:
    """Refused before a connection is begun, for what is clean as well."""
    place.vendor.write_policy(place.policy(near=url))
    for text in (CLEAN, SENSITIVE):
        told = place.chat(text)
        assert (told.status, told.code) == (503, "destination_unavailable")
        assert b"not inside" in told.body
    assert place.vendor.sent == 0


def test_no_redirect_of_a_server_inside_is_followed(place: Place) -> None:
    """Wherever it points."""
    place.near.next.append(Fail(307, headers={"location": place.vendor.front.url}))
    assert place.chat(SENSITIVE).status == 503
    assert len(place.near.received) == 1
    assert place.vendor.sent == 0


def test_which_zone_a_destination_is_of_is_not_the_gateways_to_say(place: Place) -> None:
    """Whatever a gateway in an attacker's hands says beside a request, what is sensitive reaches no vendor."""
    vendor, own = place.vendor, place.vendor.own
    said = [
        {"destination": "vendor", "local": False},
        {"destination": "vendor", "local": False, "attempt": "after-local"},
        {"destination": "vendor", "watched": False},
        {"destination": "vendor", "failed": frozenset({"near", "second"}), "local": False},
        {"destination": "vendor", "watched": False, "local": False, "key": None},
    ]
    for changes in said:
        assert vendor.chat(SENSITIVE, dataclasses.replace(own, **changes)).code == "stays_inside"
    unwatched = dataclasses.replace(own, destination="vendor", watched=False)
    assert vendor.chat(CLEAN, unwatched).code == "stays_inside", "what was not scanned does not leave"
    for changes in ({"destination": "local"}, {"destination": "elsewhere"}, {"destination": None}):
        assert vendor.chat(SENSITIVE, dataclasses.replace(own, **changes)).code == "stays_inside"
    reserved = dataclasses.replace(own, destination="near", budget="reserved", attempt="first")
    assert vendor.chat(SENSITIVE, reserved).status == 200, "as if it were one outside: it goes inside"
    assert len(place.near.received) == 1
    assert vendor.sent == 0


def test_a_name_that_changes_its_zone_goes_by_what_the_policy_says_now(place: Place) -> None:
    """A destination that was inside and is a vendor's now gets nothing that is sensitive; and the other way round."""
    assert place.chat(SENSITIVE).status == 200
    moved = policy_for(place.vendor.front.url).replace("vendor]", "near]").replace('["vendor"]', '["near"]')
    moved = moved.replace("destinations.vendor.attestation", "destinations.near.attestation")
    (place.vendor.directory / "credentials" / "near").write_text(KEY)
    (place.vendor.directory / "credentials" / "near").chmod(0o600)
    place.vendor.write_policy(moved)
    try:
        assert place.chat(SENSITIVE).code == "stays_inside"
        assert place.vendor.sent == 0
        own = dataclasses.replace(place.vendor.own, domain="another", destination="near")
        assert place.vendor.chat(CLEAN, own).status == 200, "what is clean leaves, to the vendor"
        assert (len(place.near.received), place.vendor.sent > 0) == (1, True)
    finally:
        (place.vendor.directory / "credentials" / "near").unlink()


def test_while_the_policy_cannot_be_used_no_server_counts_as_inside(place: Place) -> None:
    """Its last good words may name one that was taken away."""
    place.vendor.write_policy(place.policy() + "[surprise]\n")
    assert place.chat(SENSITIVE).code == "stays_inside"
    assert place.near.received == []
    place.vendor.write_policy(place.policy())
    assert place.chat(SENSITIVE).status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_its_answer_to_what_is_sensitive_is_remembered_also_after_a_restart(place: Place, stream: bool) -> None:
    """By the process itself: no gateway has to say it."""
    place.near.next.append(Say(pieces=(SUMMARY[:40], SUMMARY[40:])))
    assert place.chat(f"Summarise: {SENSITIVE}", stream=stream).status == 200
    assert place.vendor.chat(f"Shorten: {SUMMARY}").code == "stays_inside"
    place.vendor.stop()
    place.vendor.start()
    assert place.vendor.chat(f"Shorten: {SUMMARY}").code == "stays_inside"
    told = place.vendor.ask("/explain", body_of(f"Shorten: {SUMMARY}"), headers=CHAT).json
    assert told["explained"]["rule"] == "taint"
    assert place.vendor.sent == 0
    assert place.vendor.chat(CLEAN).status == 200, "everything else leaves"


def test_its_answer_to_what_is_clean_is_not(place: Place) -> None:
    """Nor is anything of a cache domain of which nobody may send work out."""
    place.near.next.extend([Say(pieces=(SUMMARY,)), Say(pieces=(SUMMARY,))])
    assert place.chat(CLEAN).status == 200
    unwatched = dataclasses.replace(place.vendor.own, destination="near", local=False, watched=False)
    assert place.vendor.chat(f"Summarise: {SENSITIVE}", unwatched).status == 200
    assert place.vendor.chat(f"Shorten: {SUMMARY}").status == 200


def test_while_it_answers_what_is_sensitive_all_else_of_the_domain_stays(place: Place) -> None:
    """Nobody knows yet what is read of it; and what breaks off is remembered as far as it came."""
    place.near.next.append(Say(pieces=(SUMMARY, " more"), hang_after=1))
    with socket.socket(socket.AF_UNIX) as reading:
        reading.connect(str(place.vendor.socket))
        ask = dataclasses.replace(place.vendor.own, destination="near", local=False)
        raw = json.dumps(body_of(f"Summarise: {SENSITIVE}", stream=True)).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        reading.sendall(f"{head}x-egress-ask: {_written(ask)}\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw)
        seen = b""
        while b"Thursday" not in seen:
            seen += reading.recv(65536)
        assert place.vendor.chat(CLEAN).code == "stays_inside"
    wait_until(lambda: place.vendor.chat(CLEAN).status == 200, "its reader has left", 20)
    before = place.vendor.sent
    assert place.vendor.chat(f"Shorten: {SUMMARY}").code == "stays_inside"
    assert place.vendor.sent == before


def test_a_process_that_is_killed_while_it_answers_knows_that_something_is_missing(place: Place) -> None:
    """A hole in the store, as for an answer of an engine."""
    place.near.next.append(Say(pieces=(SUMMARY, " more"), hang_after=1))
    thread = threading.Thread(target=lambda: _quietly(lambda: place.chat(SENSITIVE, stream=True)))
    thread.start()
    wait_until(lambda: bool(place.near.received), "it is being answered", 20)
    place.vendor.stop(kill=True)
    thread.join(20)
    place.vendor.start()
    assert place.vendor.chat(CLEAN).code == "stays_inside"
    assert place.vendor.sent == 0
    place.vendor.stop()
    subprocess.run(
        [sys.executable, "-m", "serving", "route", "begin", "--config", str(place.vendor.directory / "serving.toml")],
        check=True,
        cwd=SOURCE,
    )
    place.vendor.start()


def test_one_that_fails_is_left_alone_for_a_while(place: Place) -> None:
    """As a destination outside is, also where nobody listens; and the next one is named."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    place.vendor.stop()
    place.vendor.write_policy(place.policy(near=nobody).replace("failures = 1000", "failures = 3"))
    place.vendor.start()
    judged = dataclasses.replace(place.vendor.own, destination=None, local=False)
    assert place.vendor.ask("/judge", body_of(SENSITIVE), judged, CHAT).json["destination"] == "near"
    failed = dataclasses.replace(judged, failed=frozenset({"near"}))
    assert place.vendor.ask("/judge", body_of(SENSITIVE), failed, CHAT).json["destination"] == "second"
    for _ in range(3):
        assert place.chat(SENSITIVE).code == "stays_inside", "it cannot be reached"
    assert place.vendor.ask("/judge", body_of(SENSITIVE), judged, CHAT).json["destination"] == "second"
    place.vendor.stop()
    place.vendor.write_policy(place.policy())
    place.vendor.start()


def _written(ask: object) -> str:
    told = dataclasses.asdict(ask)  # type: ignore[call-overload]
    return json.dumps({name: sorted(value) if isinstance(value, frozenset) else value for name, value in told.items()})


def _quietly(act: object) -> None:
    with contextlib.suppress(OSError, Exception):
        act()  # type: ignore[operator]


# A server before it


@dataclass
class Whole:
    """A site with servers inside."""

    both: Both
    place: Place


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """One for all tests that leave it as it was."""
    with site(tmp_path_factory.mktemp("e"), more=MORE) as both, servers(both.vendor) as place:
        yield Whole(both, place)


@pytest.fixture
def whole(built: Whole) -> Iterator[Whole]:
    """Nothing is counted yet, the gateway knows the models, and the engine is ready."""
    built.place.begin()
    client = built.both.key()
    wait_until(lambda: "far" in {each.id for each in client.models.list()}, "the models are known", 20)
    yield built
    if built.both.vendor.process is None:
        built.both.vendor.start(more=MORE)


def ask(client: openai.OpenAI, text: str, model: str = "far", **fields: object) -> tuple[str, str]:
    """The words of the answer, and by which way it came."""
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        max_tokens=32,
        **fields,  # type: ignore[call-overload]
    )
    return raw.parse().choices[0].message.content or "", raw.headers["x-perimeter-route"]


def test_a_model_that_only_a_server_inside_has_is_listed_and_answers(whole: Whole) -> None:
    """Also to a key that is enrolled for nothing: whole, with usage and calls, and the client is told by whom."""
    client = whole.both.key()
    assert [each.id for each in client.models.list()] == ["demo", "far"]
    assert client.models.retrieve("far").id == "far"
    assert ask(client, SENSITIVE) == (Say().text, "perimeter; destination=near; rule=class")
    whole.place.near.next.append(Say(calls=(("find", {"who": "anybody"}),)))
    told = client.chat.completions.create(
        model="far",
        messages=[{"role": "user", "content": CLEAN}],
        tools=[TOOL],  # type: ignore[list-item]
    )
    assert told.choices[0].message.tool_calls is not None
    assert told.choices[0].message.tool_calls[0].function.name == "find"  # type: ignore[union-attr]
    assert told.usage is not None
    assert told.usage.prompt_tokens > 0
    assert whole.place.near.last.json["model"] == "far:70b"
    assert whole.both.left == 0


def test_a_stream_of_it_is_a_stream(whole: Whole) -> None:
    """With usage for those who ask, and on both records as what went there."""
    client = whole.both.enrolled()
    raw = client.chat.completions.with_raw_response.create(
        model="far",
        messages=[{"role": "user", "content": SENSITIVE}],
        stream=True,
        stream_options={"include_usage": True},
    )
    assert raw.headers["x-perimeter-route"] == "perimeter; destination=near; rule=data"
    chunks = list(raw.parse())
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == Say().text
    assert chunks[-1].usage is not None
    request = raw.headers["x-request-id"]

    def found() -> list[dict]:
        return [each for each in whole.both.records() if each.get("request") == request]

    wait_until(lambda: len(found()) == 2, "intent and outcome are on record", 20)
    intent, outcome = found()
    assert (intent["destination"], intent["reasons"]) == ("near", ["data"])
    assert (outcome["outcome"], outcome["output_tokens"]) == ("completed", chunks[-1].usage.completion_tokens)
    metrics = _metrics(whole.both)
    assert 'perimeter_routed_total{destination="near",rule="data",zone="perimeter"}' in metrics
    assert whole.both.left == 0


def test_a_key_that_is_not_for_a_model_inside_is_told_so(whole: Whole) -> None:
    """And does not see it; nor is a model that nobody has one that is served."""
    client = whole.both.key(models=["demo"])
    assert [each.id for each in client.models.list()] == ["demo"]
    with pytest.raises(openai.PermissionDeniedError):
        ask(client, CLEAN)
    with pytest.raises(openai.NotFoundError, match="`far`"):
        ask(whole.both.key(), CLEAN, model="nowhere")
    with pytest.raises(openai.BadRequestError):
        whole.both.key().post("/rerank", body={"model": "far", "query": "a", "documents": ["b"]}, cast_to=dict)
    assert whole.place.near.received == []


def test_a_sensitive_answer_from_inside_keeps_a_later_request_in(whole: Whole) -> None:
    """In a new chat, with a model that may leave, after a restart of the process that sends."""
    client = whole.both.enrolled()
    whole.place.near.next.append(Say(pieces=(SUMMARY,)))
    assert ask(client, f"Summarise: {SENSITIVE}") == (SUMMARY, "perimeter; destination=near; rule=data")
    whole.both.vendor.stop()
    whole.both.vendor.start(more=MORE)
    wait_until(lambda: ask(client, f"Shorten: {SUMMARY}", "demo")[1] == "perimeter; rule=taint", "it is tainted", 20)
    assert whole.both.left == 0
    # until it is known how the last answer ended, nothing of the domain leaves
    wait_until(lambda: ask(client, CLEAN, "demo")[1] == "cloud; destination=vendor; rule=passed", "it is known", 20)
    assert ask(client, f"Shorten: {SUMMARY}", "demo")[1] == "perimeter; rule=taint"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("is_enrolled", [False, True])
def test_an_engine_that_is_killed_is_stood_in_for(whole: Whole, stream: bool, is_enrolled: bool) -> None:
    """By a server inside that has its model, until it is back: at once, and while it is started again."""
    both = whole.both
    client, rule = (both.enrolled(), "data") if is_enrolled else (both.key(), "class")
    wait_until(lambda: _is_ready(both), "the engine is there", 60)
    for pid in _engine(both):
        os.kill(pid, signal.SIGKILL)
    for _ in range(3):
        raw = client.chat.completions.with_raw_response.create(
            model="demo", messages=[{"role": "user", "content": SENSITIVE}], stream=stream
        )
        got = raw.parse()
        words = (
            "".join(each.choices[0].delta.content or "" for each in got if each.choices)
            if stream
            else got.choices[0].message.content
        )
        assert (words, raw.headers["x-perimeter-route"]) == (Say().text, f"perimeter; destination=near; rule={rule}")
    assert len(whole.place.near.received) == 3
    assert both.left == 0
    wait_until(lambda: _is_ready(both), "the engine is back", 60)
    told = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Hello"}], max_tokens=4)
    assert told.choices
    assert len(whole.place.near.received) == 3, "and goes first"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "failure", [Fail(500), Fail(503), Fail(401), Say(cut_after=0)], ids=["500", "503", "401", "cut"]
)
def test_one_that_fails_before_it_has_answered_is_stood_in_for_by_the_next(
    whole: Whole, failure: Fail | Say, stream: bool
) -> None:
    """And what was sensitive is remembered all the same."""
    if isinstance(failure, Say) and stream:
        failure = Say(hang_after=0)  # it says nothing for `timeout_s`: what was cut has begun
        whole.both.vendor.write_policy(whole.place.policy().replace("timeout_s = 20", "timeout_s = 1"))
        whole.place.near.is_mute = True
    client = whole.both.enrolled()
    whole.place.near.next.append(failure)
    raw = client.chat.completions.with_raw_response.create(
        model="far", messages=[{"role": "user", "content": SENSITIVE}], stream=stream
    )
    assert raw.headers["x-perimeter-route"] == "perimeter; destination=second; rule=data"
    list(raw.parse()) if stream else raw.parse()
    assert (len(whole.place.near.received), len(whole.place.second.received)) == (1, 1)
    assert whole.both.left == 0


def test_where_none_inside_answers_nobody_outside_is_asked(whole: Whole) -> None:
    """A clear error, with the way out; for what is clean as for what is not."""
    client = whole.both.enrolled()
    for text in (SENSITIVE, CLEAN):
        whole.place.near.next.append(Fail(500))
        whole.place.second.next.append(Fail(500))
        with pytest.raises(openai.InternalServerError) as refused:
            ask(client, text)
        assert refused.value.status_code == 503
        assert refused.value.code == "destination_unavailable"
        assert refused.value.response.headers["retry-after"]
    assert whole.both.left == 0
    assert whole.both.vendor.emulator.received == []


def test_what_a_server_inside_refuses_is_refused(whole: Whole) -> None:
    """The request itself is at fault: no other one is asked."""
    whole.place.near.next.append(Fail(400, "invalid_value"))
    with pytest.raises(openai.BadRequestError):
        ask(whole.both.key(), CLEAN)
    assert whole.place.second.received == []


def test_without_the_egress_process_no_server_inside_is_asked(whole: Whole) -> None:
    """Clients of engines here that it need not see notice nothing."""
    client = whole.both.key()
    wait_until(lambda: _is_ready(whole.both), "the engine is there", 60)
    whole.both.vendor.stop(kill=True)
    with pytest.raises(openai.InternalServerError) as refused:
        ask(client, CLEAN)
    assert refused.value.status_code == 503
    told = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": CLEAN}], max_tokens=4)
    assert told.choices
    assert {each.id for each in client.models.list()} == {"demo", "far"}, "as it was told last"


def test_what_the_policy_turns_away_is_turned_away(whole: Whole) -> None:
    """`"refuse"` under `[unknown]`: by the engine here as by servers inside."""
    refusing = whole.place.policy().replace("[taint]\n", '[unknown]\n"too_long" = "refuse"\n[taint]\n')
    whole.both.vendor.write_policy(refusing)
    client = whole.both.enrolled()
    for model in ("demo", "far"):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            ask(client, "word " * 2000, model)
        assert refused.value.code == "stays_inside"
    assert whole.place.near.received == []
    assert whole.both.left == 0
    assert ask(client, CLEAN, "demo")[1].startswith("cloud"), "no answer is waited for"


def test_explanation_and_replay_name_the_server_inside(whole: Whole) -> None:
    """For an application, for an operator, and by the record."""
    client = whole.both.enrolled()
    body = {"model": "far", "messages": [{"role": "user", "content": SENSITIVE}]}
    told = client.post("/route/explain", body=body, cast_to=dict)
    assert (told["destination"], told["zone"], told["rule"]) == ("near", "perimeter", "data")
    assert {"destination": "local", "rule": "availability", "why": "no engine here can take it"} in told["not_taken"]
    assert whole.place.near.received == []
    for flag, destination in (("--no-engine", "near"), ("--engine", "local")):
        made = _route(whole.both, "explain", "--json", "--model", "far", "--class", "drafting", flag, text=SENSITIVE)
        assert json.loads(made)["destination"] == destination
    assert ask(client, SENSITIVE)[1].startswith("perimeter; destination=near")
    without = whole.both.vendor.directory / "without.toml"
    without.write_text(policy_for(whole.both.vendor.front.url))
    changes = json.loads(_route(whole.both, "replay", "--json", "--policy", str(without)))["changes"]
    assert changes[-1]["before"] == "near"
    assert changes[-1]["after"] == "refuse"


def _is_ready(both: Both) -> bool:
    with contextlib.suppress(OSError):
        return bool(both.stack.get("/ready"))
    return False


def _engine(both: Both) -> list[int]:
    """The processes of the engine: one computes, and one above it may have put it behind its walls."""
    pid = both.stack.engine_pid()
    argv = ["ps", "--no-headers", "-o", "pid", "--ppid", str(pid)]
    below = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
    return [*map(int, below), pid]


def _metrics(both: Both) -> str:
    operator = both.key(scopes=["metrics"])
    return operator.with_options(base_url=both.stack.url).get("/metrics", cast_to=str)


def _route(both: Both, *words: str, text: str = "") -> str:
    argv = [sys.executable, "-m", "serving", "route", *words, "--config", str(both.config)]
    return subprocess.run(argv, cwd=SOURCE, check=True, capture_output=True, text=True, input=text).stdout
