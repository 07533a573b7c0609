"""What a caller, another tenant or a vendor may try between the server and the process that sends."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest

from serving.egress.asking import HEADER, write_ask
from serving.egress.vendors import Anthropic, Gemini, OpenAI, OutCall
from serving.gateway.relay import usage_of_body
from serving.policy.replay import decided
from serving.store.files import write_whole
from tests.egress.conftest import ASK, CLEAN, SOURCE, Outside, body_of, outside, policy_for
from tests.egress.test_gateway import Both, ask, site
from tests.support.harness import wait_until
from tests.support.vendors.gemini_api import GeminiServer
from tests.support.vendors.openai_api import OpenAIServer
from tests.support.vendors.server import Fail, Received, Say

SECRET = "The bluebird undertaking will swallow the harbour mills before the second frost, and nobody may know of it"


@pytest.fixture
def both(directory: Path) -> Iterator[Both]:
    """A site of the test's own."""
    with site(directory) as made:
        yield made


@pytest.fixture
def vendor(fresh: Outside) -> Outside:
    """A process of the test's own."""
    fresh.start()
    return fresh


def _used(both: Both) -> list[dict]:
    argv = [sys.executable, "-m", "serving", "keys", "list", "--json", "--config", str(both.config)]
    told = json.loads(subprocess.run(argv, cwd=SOURCE, check=True, capture_output=True, text=True).stdout)
    return told["keys"]


def _retry(vendor: Outside, retries: int = 1) -> None:
    vendor.write_policy(policy_for(vendor.front.url).replace("retries = 0", f"retries = {retries}"))


# 1. leak


def test_what_is_answered_inside_after_the_egress_process_found_it_tainted_is_remembered(both: Both) -> None:
    """A request that was clean when it was judged, and tainted when it was to be sent: its answer is followed too."""
    _retry(both.vendor)
    client, other = both.enrolled(owner="team"), both.key(owner="team")
    both.vendor.emulator.next.append(Fail(429, headers={"retry-after": "2"}))
    got: list[tuple[str, str]] = []

    def late() -> None:
        raw = client.chat.completions.with_raw_response.create(
            model="demo",
            messages=[{"role": "user", "content": f"Who are you, and what can you do? {SECRET}"}],
            max_tokens=120,
            temperature=0,
        )
        got.append((raw.parse().choices[0].message.content or "", raw.headers["x-perimeter-route"]))

    thread = threading.Thread(target=late)
    thread.start()
    wait_until(lambda: len(both.vendor.emulator.received) == 1, 20)
    other.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": f"{SECRET}. Write to maria.keller@example-bank.de"}],
        max_tokens=1,
    )
    thread.join(60)
    words, way = got[0]
    assert way == "perimeter; rule=stays_inside", "it was found when it was decided anew"
    assert sum(map(str.isalnum, words)) >= 32, "enough to be recognised as a whole"
    assert len(both.vendor.emulator.received) == 1
    wait_until(lambda: ask(client, CLEAN)[1].startswith("cloud"), 10)
    assert ask(client, f"Translate this: {words}")[1].startswith("perimeter")


def test_a_drill_leaves_a_kill_switch_that_an_operator_threw_meanwhile(both: Both) -> None:
    """`serve route close` during the drill is meant: it is not undone by its end."""
    key = both.vendor.directory / "drill.key"
    key.write_text(both.enrolled().api_key)
    key.chmod(0o600)
    both.vendor.emulator.next.extend([Say(), Say(), Say(hang_after=2), Say()])
    switch = both.vendor.directory / "closed"
    argv = [sys.executable, "-m", "serving", "route", "drill", "--model", "demo", "--key-file", str(key), "--url",
            both.stack.url, "--json", "--yes", "--config", str(both.config)]  # fmt: skip
    with subprocess.Popen(argv, cwd=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as drill:
        while not switch.exists():
            assert drill.poll() is None
        write_whole(switch, b"", 0o600)  # what `serve route close` does, without its start-up
        drill.wait(60)
    assert switch.exists(), "the operator closed it, and the drill opened it"


# 2. others are harmed


def test_a_tenant_that_has_used_up_its_rate_fills_no_store_of_everybody(both: Both) -> None:
    """What is refused with 429 is not remembered at the cost of the others' way out."""
    both.vendor.stop()
    both.vendor.write_policy(policy_for(both.vendor.front.url).replace("keep_days = 1", "keep_days = 1\nmost = 65536"))
    both.vendor.start()
    bystander = both.enrolled(owner="bystander")
    assert ask(bystander, CLEAN)[1].startswith("cloud")
    hostile = both.key(limits={"requests_per_minute": 1}, owner="hostile")
    both.enrolled(owner="hostile")
    seen = []
    for number in range(7):
        words = random.Random(number).randbytes(170_000).hex()
        try:
            hostile.chat.completions.create(
                model="demo",
                messages=[{"role": "user", "content": f"a.b@example-bank.de {words}"}],
                max_tokens=1,
            )
            seen.append(200)
        except openai.APIStatusError as error:
            seen.append(error.status_code)
    assert seen.count(429) >= 5, seen
    assert ask(bystander, CLEAN)[1].startswith("cloud"), "another tenant, another cache domain"


def test_answers_that_a_tenant_can_provoke_close_no_circuit_for_others(directory: Path) -> None:
    """A model that writes a malformed call is not a vendor that is down."""
    with outside(directory, GeminiServer("gpt-4.1"), "gemini") as vendor:
        vendor.write_policy(vendor.policy.read_text().replace("open_s = 1", "open_s = 60"))
        vendor.start()
        vendor.emulator.next.extend([Say(reason="MALFORMED_FUNCTION_CALL")] * 3)
        for _ in range(3):
            assert vendor.chat(CLEAN).status == 503
        told = vendor.chat(CLEAN, replace(ASK, domain="other", principal="other", key="k2"))
        assert told.status == 200, told.body


def test_a_request_that_is_too_big_for_the_vendors_rate_closes_no_circuit_for_others(vendor: Outside) -> None:
    """429 for one request's own size, which OpenAI says so."""
    vendor.write_policy(vendor.policy.read_text().replace("open_s = 1", "open_s = 60"))
    vendor.emulator.next.extend([Fail(429, "rate_limit_exceeded", message="Request too large for gpt-4.1")] * 3)
    for _ in range(3):
        vendor.chat(CLEAN)
    told = vendor.chat(CLEAN, replace(ASK, domain="other", principal="other", key="k2"))
    assert told.status == 200, told.body


def test_a_long_stream_that_tries_a_destination_again_keeps_nobody_else_inside(vendor: Outside) -> None:
    """Once its first words have come the destination is known to be well."""
    vendor.emulator.next.extend([Fail(500)] * 3)
    for _ in range(3):
        vendor.chat(CLEAN)
    time.sleep(1.2)  # breaker.open_s
    vendor.emulator.next.append(Say(hang_after=2))
    with socket.socket(socket.AF_UNIX) as trial:
        trial.connect(str(vendor.socket))
        raw = json.dumps(body_of(CLEAN, stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{HEADER}: "
        trial.sendall(f"{head}{write_ask(ASK)}\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw)
        seen = b""
        while b"Good " not in seen:
            seen += trial.recv(65536)
        told = vendor.chat(CLEAN, replace(ASK, domain="other", principal="other", key="k2"))
        assert told.status == 200, told.body


def test_one_slow_caller_keeps_nobody_from_an_explanation(both: Both) -> None:
    """A body that does not come takes no turn."""
    slow, other = both.enrolled(owner="slow"), both.enrolled()
    parts = urlsplit(both.stack.url)
    with socket.create_connection((parts.hostname, parts.port)) as held:
        head = "POST /v1/route/explain HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n"
        held.sendall(f'{head}authorization: Bearer {slow.api_key}\r\n\r\n{{"model"'.encode())
        time.sleep(1)
        body = {"model": "demo", "messages": [{"role": "user", "content": CLEAN}]}
        assert other.post("/route/explain", body=body, cast_to=dict)["rule"] == "passed"


def test_explanations_count_towards_the_rate_of_a_key(both: Both) -> None:
    """They cost as much scanning as requests do."""
    client = both.enrolled(limits={"requests_per_minute": 1})
    body = {"model": "demo", "messages": [{"role": "user", "content": CLEAN}]}
    client.post("/route/explain", body=body, cast_to=dict)
    with pytest.raises(openai.RateLimitError):
        client.post("/route/explain", body=body, cast_to=dict)


# 3. what fails is served inside


class _Mute(OpenAIServer):
    """Takes a request, and answers with a head alone."""

    def events(self, request: Received, say: Say) -> tuple[list[bytes], list[list[bytes]], list[bytes]]:
        return [], *super().events(request, say)[1:]


@pytest.fixture
def hasty(directory: Path) -> Iterator[Both]:
    """As `both`, with the server's patience for a first byte no longer than the policy's for the vendor."""
    with site(directory, _Mute(), "[limits]\nfirst_byte_timeout_s = 5\n") as made:
        yield made


def test_a_stream_of_a_vendor_that_says_nothing_is_served_inside(hasty: Both) -> None:
    """`timeout_s` and `limits.first_byte_timeout_s` are equal here, as both defaults are (120 s)."""
    hasty.vendor.emulator.next.append(Say(hang_after=0))
    chunks = list(
        hasty.enrolled().chat.completions.create(
            model="demo", messages=[{"role": "user", "content": CLEAN}], max_tokens=8, stream=True
        )
    )
    assert chunks


# 4. money


@pytest.mark.parametrize("vendor", [Anthropic(name="v"), Gemini(name="v")], ids=["anthropic", "gemini"])
@pytest.mark.parametrize("usage", [None, {"input_tokens": -5, "promptTokenCount": -5}], ids=["none", "negative"])
def test_an_answer_whose_usage_nobody_said_is_not_settled_as_free(vendor: Anthropic | Gemini, usage: object) -> None:
    """The gateway reads the usage out of the body that the connector made: a zero there is a refund."""
    said = {
        "id": "x",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "yes"}],
        "candidates": [{"content": {"parts": [{"text": "yes"}]}, "finishReason": "STOP"}],
        "stop_reason": "end_turn",
        "usage": usage,
        "usageMetadata": usage,
    }
    call = OutCall("/v1/chat/completions", body_of(CLEAN), "m")
    answered = vendor.answer(call, 200, {}, json.dumps(said).encode())
    settled = usage_of_body(answered.body)
    assert settled is None or settled.prompt > 0, settled


class _Cut(OpenAIServer):
    """Computes an answer, and then says that it is too busy, in one write."""

    def events(self, request: Received, say: Say) -> tuple[list[bytes], list[list[bytes]], list[bytes]]:
        before, pieces, _ = super().events(request, say)
        error = b'data: {"error": {"message": "busy", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}\n\n'
        return [b"".join([*before, *(each for piece in pieces for each in piece), error])], [], []


def test_a_stream_that_was_being_answered_is_not_sent_again(directory: Path) -> None:
    """What may have been taken may be charged for: whether the words and the error came in one packet is chance."""
    with outside(directory, _Cut()) as vendor:
        _retry(vendor, 2)
        vendor.start()
        vendor.chat(CLEAN, stream=True)
        assert len(vendor.emulator.received) == 1


def test_a_request_without_a_bound_is_charged_with_what_there_may_be_of_an_answer(both: Both) -> None:
    """A vendor that fails leaves the reservation standing, and of what has no bound that is 2**40 tokens."""
    client = both.enrolled()
    both.vendor.emulator.next.append(Fail(500))
    client.chat.completions.create(model="demo", messages=[{"role": "user", "content": CLEAN}])
    (key,) = _used(both)
    assert key["used"]["tokens"] < 150_000, "no more than the longest answer that there is"


_WHOLE = {
    "anthropic": b'{"id": "x", "type": "message", "role": "assistant", "stop_reason": "tool_use", "content": '
    b'[{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1e999}}]}',
    "gemini": b'{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"a": 1e999}}}]}}]}',
}
_EVENTS = {
    "anthropic": b'data: {"type": "message_start", "message": {}}\n\ndata: {"type": "content_block_start", "index": 0, '
    b'"content_block": {"type": "tool_use", "input": {"a": 1e999}}}\n\n'
    b'data: {"type": "content_block_stop", "index": 0}\n\n',
    "gemini": b"data: " + _WHOLE["gemini"] + b"\n\n",
    "openai": b'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "a"}, "x": 1e999}]}\n\n',
}
_VENDORS = {"anthropic": Anthropic(name="v"), "gemini": Gemini(name="v"), "openai": OpenAI(name="v")}


@pytest.mark.parametrize("vendor", ["anthropic", "gemini"])
def test_a_number_that_json_cannot_say_is_an_answer_that_is_broken(vendor: str) -> None:
    """`1e999`: refused as NaN is, and raised out of no connector."""
    call = OutCall("/v1/chat/completions", body_of(CLEAN), "m")
    assert _VENDORS[vendor].answer(call, 200, {}, _WHOLE[vendor]).error is not None


@pytest.mark.parametrize("vendor", ["anthropic", "gemini", "openai"])
def test_a_number_that_json_cannot_say_breaks_a_stream(vendor: str) -> None:
    """As an error event, and raised out of no connector."""
    translator = _VENDORS[vendor].stream(OutCall("/v1/chat/completions", body_of(CLEAN, stream=True), "m"))
    translator.feed(_EVENTS[vendor])
    assert translator.error is not None


def test_gateway_and_egress_process_read_the_same_usage() -> None:
    """Of an answer that has the word twice: what is recorded as used is what is charged."""
    raw = (
        b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 5}, '
        b'"extra": {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}}'
    )
    answered = OpenAI(name="v").answer(OutCall("/v1/chat/completions", body_of(CLEAN), "m"), 200, {}, raw)
    settled = usage_of_body(answered.body)
    assert answered.usage is not None
    assert settled is not None
    assert (settled.prompt, settled.output) == (answered.usage.prompt_tokens, answered.usage.completion_tokens)


def test_nothing_is_sent_again_for_a_client_that_has_left_during_the_pause(vendor: Outside) -> None:
    """Nobody is there to be answered, and it would be charged."""
    _retry(vendor)
    vendor.emulator.next.extend([Fail(429, headers={"retry-after": "2"}), Say()])
    with socket.socket(socket.AF_UNIX) as leaving:
        leaving.connect(str(vendor.socket))
        raw = json.dumps(body_of(CLEAN)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{HEADER}: "
        leaving.sendall(f"{head}{write_ask(ASK)}\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw)
        wait_until(lambda: len(vendor.emulator.received) == 1, 20)
        time.sleep(0.3)
    time.sleep(4)
    intents = sum(path.read_bytes().count(b'"kind":"intent"') for path in (vendor.directory / "audit").glob("*.jsonl"))
    assert (len(vendor.emulator.received), intents) == (1, 1)


# 5. the record


@pytest.mark.parametrize("wrong", [{"fields": [1, "a"]}, {"classes": [1]}, {"fields": [1]}], ids=str)
def test_a_record_with_facts_of_wrong_types_counts_as_unread(wrong: dict) -> None:
    """And ends no replay."""
    with pytest.raises((ValueError, KeyError)):
        decided({"facts": {"decider": "gateway", **wrong}, "request": "r", "destination": "local"}, ())
