"""The egress process: what it lets out, and that nothing else leaves, whoever asks and whatever breaks."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.egress.conftest import CLEAN, SENSITIVE, Outside, body_of, command, policy_for
from tests.support.certificates import Authority
from tests.support.harness import wait_until
from tests.support.vendors.server import KEY, Fail, Say


def test_a_clean_request_goes_out_and_its_answer_comes_back(vendor: Outside) -> None:
    """With the credential that the process alone has, under the vendor's name for the model, and on record before."""
    told = vendor.chat(CLEAN)
    assert told.status == 200, told.body
    assert told.json["choices"][0]["message"]["content"] == Say().text
    assert vendor.emulator.last.json["model"] == "gpt-4.1"
    assert vendor.emulator.last.headers["authorization"] == f"Bearer {KEY}"
    assert [each["destination"] for each in _of(vendor, "intent")] == ["vendor"]
    wait_until(lambda: bool(_of(vendor, "outcome")), "the outcome is on record")
    assert [each["outcome"] for each in _of(vendor, "outcome")] == ["completed"]


def test_a_stream_goes_out_and_comes_back_as_events(vendor: Outside) -> None:
    """To its end."""
    told = vendor.chat(CLEAN, stream=True)
    assert told.status == 200
    events = [line[6:] for line in told.body.split(b"\n") if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    texts = [json.loads(each)["choices"][0]["delta"].get("content") or "" for each in events[:-1]]
    assert "".join(texts) == Say().text


@pytest.mark.parametrize(
    "change",
    [
        {"destination": None},
        {"destination": "elsewhere"},
        {"destination": "local"},
        {"classes": frozenset()},
        {"classes": frozenset({"another"})},
        {"residency": frozenset()},
        {"residency": frozenset({"us"})},
        {"asked_local": True},
        {"budget": "available"},
        {"budget": "spent"},
        {"attempt": "after-cloud"},
    ],
    ids=str,
)
def test_nothing_leaves_where_one_of_the_facts_is_against_it(vendor: Outside, change: dict) -> None:
    """Not a byte."""
    told = vendor.chat(CLEAN, dataclasses.replace(vendor.own, **change))
    assert (told.status, told.code) == (403, "stays_inside")
    assert vendor.sent == 0


PLACES = {
    "the user's words": {"messages": [{"role": "user", "content": SENSITIVE}]},
    "the system's words": {"messages": [{"role": "system", "content": SENSITIVE}, {"role": "user", "content": CLEAN}]},
    "history": {
        "messages": [
            {"role": "user", "content": CLEAN},
            {"role": "assistant", "content": SENSITIVE},
            {"role": "user", "content": CLEAN},
        ]
    },
    "a tool's result": {
        "messages": [
            {"role": "user", "content": CLEAN},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": json.dumps({"row": SENSITIVE})},
        ]
    },
    "a tool's arguments": {
        "messages": [
            {"role": "user", "content": CLEAN},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "find", "arguments": json.dumps({"who": SENSITIVE})},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "nothing"},
        ]
    },
    "a tool's description": {
        "tools": [
            {
                "type": "function",
                "function": {"name": "find", "description": SENSITIVE, "parameters": {"type": "object"}},
            }
        ]
    },
    "a schema": {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "find",
                    "parameters": {
                        "type": "object",
                        "properties": {"who": {"type": "string", "description": SENSITIVE}},
                    },
                },
            }
        ]
    },
}


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_is_sensitive_stays_wherever_it_stands(vendor: Outside, place: str) -> None:
    """In whatever part of a request; the same request without it leaves."""
    told = vendor.ask("/v1/chat/completions", {**body_of(CLEAN), **PLACES[place]})
    assert (told.status, told.code) == (403, "stays_inside"), told.body
    assert vendor.sent == 0
    harmless = json.loads(json.dumps({**body_of(CLEAN), **PLACES[place]}).replace(SENSITIVE, "nobody"))
    # elsewhere, where nothing of it was sensitive
    assert vendor.ask("/v1/chat/completions", harmless, vendor.others).status == 200


def test_a_field_that_the_policy_does_not_name_keeps_a_request_inside(vendor: Outside) -> None:
    """However harmless it is."""
    assert vendor.chat(CLEAN, seed=7).code == "stays_inside"
    assert vendor.sent == 0


def test_what_was_sensitive_stays_inside_when_it_comes_again_without_what_made_it_so(vendor: Outside) -> None:
    """A summary that was made inside, pasted into a new chat of the same owner, also after a restart."""
    summary = "The customer wants the second clause struck out, and will sign on Thursday if the rate stays as offered."
    judged = vendor.judge(f"Summarise: {SENSITIVE}")
    assert judged["destination"] == "local"
    assert vendor.tell(judged, summary).status == 200
    again = f"Make this shorter, please: {summary.upper()}"
    assert vendor.chat(again).code == "stays_inside"
    vendor.stop()
    vendor.start()
    assert vendor.chat(again).code == "stays_inside"
    assert vendor.sent == 0
    assert vendor.chat(again, vendor.others).status == 200, "it is theirs alone"


def test_a_lost_store_of_what_was_sensitive_keeps_everything_inside(vendor: Outside) -> None:
    """Until an operator says that it begins anew."""
    vendor.stop()
    marker = vendor.directory / "taint" / "marker"
    marker.unlink()
    vendor.start()
    assert vendor.chat(CLEAN).code == "stays_inside"
    assert vendor.sent == 0
    vendor.stop()
    command(vendor, "begin")
    vendor.start()
    assert vendor.chat(CLEAN).status == 200


def test_the_kill_switch_stops_what_comes_and_what_streams(vendor: Outside) -> None:
    """Within a second, though the vendor sends nothing meanwhile."""
    vendor.emulator.next.append(Say(hang_after=2))
    body = body_of(CLEAN, stream=True)
    told: list = []
    thread = threading.Thread(target=lambda: told.append(vendor.ask("/v1/chat/completions", body)))
    thread.start()
    wait_until(lambda: vendor.sent > 0 and vendor.emulator.last.json.get("stream") is True, "it is there")
    command(vendor, "close")
    thread.join(5)
    assert told, "the stream went on"
    assert b"stays_inside" in told[0].body
    before = vendor.sent
    assert vendor.chat(CLEAN).code == "stays_inside"
    assert vendor.sent == before
    command(vendor, "open")
    assert vendor.chat(CLEAN).status == 200


def test_a_policy_that_changes_is_in_force_at_once_and_a_broken_one_lets_nothing_out(vendor: Outside) -> None:
    """Each is on record before."""
    assert vendor.chat(CLEAN).status == 200
    before, recorded = vendor.sent, len(_policies(vendor))
    vendor.write_policy("version = 1\n[nonsense")
    assert vendor.chat(CLEAN).code == "stays_inside"
    vendor.write_policy(policy_for(vendor.front.url).replace('cloud = "on"', 'cloud = "off"'))
    assert vendor.chat(CLEAN).code == "stays_inside"
    vendor.policy.unlink()
    assert vendor.chat(CLEAN).code == "stays_inside"
    assert vendor.sent == before
    vendor.write_policy(policy_for(vendor.front.url))
    assert vendor.chat(CLEAN).status == 200
    used = _policies(vendor)[recorded:]
    assert len({record["sha256"] for record in used}) == 2


def test_a_worker_that_dies_hangs_or_is_not_there_keeps_its_request_inside(vendor: Outside) -> None:
    """The next one is scanned by another."""
    (worker,) = _workers(vendor)
    os.kill(worker, signal.SIGSTOP)
    try:
        assert vendor.chat(f"{CLEAN} In C.").code == "stays_inside"
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has been ended already
            os.kill(worker, signal.SIGKILL)
    assert vendor.sent == 0
    wait_until(lambda: vendor.chat(f"{CLEAN} In Rust.").status == 200, "another one has begun", 20)
    (worker,) = _workers(vendor)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: worker not in _workers(vendor), "it is gone")
    assert vendor.chat("Another one: " + CLEAN).status in (200, 403)
    wait_until(lambda: vendor.chat(f"{CLEAN} In Go.").status == 200, "and another one", 20)


def test_a_vendor_with_a_foreign_certificate_or_without_any_is_sent_nothing(fresh: Outside) -> None:
    """What it could have read is counted behind the handshake."""
    Authority(fresh.directory / "other")
    fresh.start(pki="other")
    assert fresh.chat(CLEAN).code == "destination_unavailable"
    fresh.write_policy(policy_for(fresh.front.url.replace("https", "http")))
    assert fresh.chat(CLEAN).status != 200
    assert fresh.sent == 0


def test_a_destination_inside_is_no_cloud(fresh: Outside) -> None:
    """Without the operator's word a name that resolves to this host is not connected to."""
    fresh.start(networks="")
    assert fresh.chat(CLEAN).code == "destination_unavailable"
    assert fresh.front.connections == 0


def test_a_failing_vendor_is_left_alone_for_a_while(vendor: Outside) -> None:
    """Its errors repeat the request; ours do not."""
    for _ in range(3):
        vendor.emulator.next.append(Fail(500))
        told = vendor.chat(CLEAN)
        assert told.code == "destination_unavailable"
        assert CLEAN.encode() not in told.body
    before = vendor.sent
    assert vendor.chat(CLEAN).code == "stays_inside"
    assert vendor.sent == before
    wait_until(lambda: vendor.chat(CLEAN).status == 200, "it is tried again")


def test_a_full_disk_keeps_everything_inside(fresh: Outside) -> None:
    """No record, no egress."""
    fresh.start()
    (writer,) = [pid for pid in _children(fresh) if "serving.audit" in _command(pid)]
    os.kill(writer, signal.SIGKILL)
    log = fresh.directory / "audit"
    log.chmod(0o500)
    if os.geteuid() == 0:
        log.rename(fresh.directory / "away")
        log.write_text("")
    told = fresh.chat(CLEAN)
    assert told.status == 503
    assert fresh.sent == 0
    log.chmod(0o700)


def test_another_user_is_not_served(vendor: Outside) -> None:
    """Nor told anything; the same words from this user are answered."""
    if os.geteuid() != 0:
        pytest.skip("needs root to be somebody else")

    def told(uid: int) -> str:
        script = (
            f"import os, socket; os.chdir({str(vendor.directory)!r}); os.setuid({uid});"
            f"s = socket.socket(socket.AF_UNIX); s.connect({vendor.socket.name!r}); s.settimeout(10);"
            "s.sendall(b'GET /ready HTTP/1.1\\r\\nhost: e\\r\\n\\r\\n'); print(s.recv(100))"
        )
        argv = [sys.executable, "-S", "-c", script]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    vendor.directory.chmod(0o711)
    vendor.socket.chmod(0o666)
    try:
        assert "200" in told(0)
        assert "200" not in told(65534)
    finally:
        vendor.directory.chmod(0o700)
        vendor.socket.chmod(0o600)


def _log(made: Outside) -> list[bytes]:
    lines = [
        line for path in sorted((made.directory / "audit").glob("*.jsonl")) for line in path.read_bytes().splitlines()
    ]
    return [line for line in lines if b'"record"' in line]


def _of(made: Outside, kind: str) -> list[dict]:
    """What is on record of this test's request."""
    records = [json.loads(line)["record"] for line in _log(made)]
    return [each for each in records if each["kind"] == kind and each["request"] == made.own.request]


def _policies(made: Outside) -> list[dict]:
    """The policies that are on record."""
    records = [json.loads(line)["record"] for line in _log(made)]
    return [each for each in records if each["kind"] == "policy"]


def _children(made: Outside) -> list[int]:
    assert made.process is not None
    found = subprocess.run(
        ["ps", "--no-headers", "-o", "pid", "--ppid", str(made.process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(word) for word in found.stdout.split()]


def _workers(made: Outside) -> list[int]:
    return [pid for pid in _children(made) if "serving.egress.worker" in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
