"""Ways round the boundary that were found once, and are closed."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from serving.egress.addresses import is_outside
from serving.policy.detect.names import open_names
from tests.egress.conftest import ASK, CLEAN, SENSITIVE, Outside, body_of, policy_for
from tests.egress.test_egress_process import _children, _command, _workers

SUMMARY = "The customer wants the second clause struck out, and will sign on Thursday if the rate stays as offered."
CHAT = {"x-egress-path": "/v1/chat/completions"}


def test_an_answer_that_is_still_being_given_stays_inside(vendor: Outside) -> None:
    """Nobody knows yet what the client has read of it."""
    judged = vendor.judge(f"Summarise: {SENSITIVE}")
    assert judged["answer"]
    vendor.chat(f"Shorten: {SUMMARY}")
    assert vendor.sent == 0
    assert vendor.tell(judged, "Done.").status == 200
    assert vendor.chat(CLEAN).status == 200, "all is known now"


def test_a_long_answer_is_remembered_or_everything_stays_inside(vendor: Outside) -> None:
    """Longer than a request may be."""
    judged = vendor.judge(f"Summarise: {SENSITIVE}")
    assert vendor.tell(judged, SUMMARY + " x" * (5 << 20)).status == 200
    vendor.chat(f"Shorten: {SUMMARY}")
    assert vendor.sent == 0


def test_a_policy_that_changes_while_a_request_is_scanned_is_the_one_it_is_decided_by(vendor: Outside) -> None:
    """What was read of it before the scan counts for nothing."""
    (worker,) = _workers(vendor)
    os.kill(worker, signal.SIGSTOP)
    told: list = []
    thread = threading.Thread(target=lambda: told.append(vendor.chat(f"{CLEAN} In C.")))  # scanned never before
    thread.start()
    time.sleep(1.5)
    vendor.write_policy(policy_for(vendor.front.url).replace("retention_days = 0\ndpa", "retention_days = 9\ndpa"))
    time.sleep(0.3)
    os.kill(worker, signal.SIGCONT)
    thread.join(20)
    assert vendor.sent == 0, told


@pytest.mark.parametrize("required", [("model",), ("nonsense",), ("site_patterns",)], ids=str)
def test_a_detector_that_the_policy_requires_and_that_does_not_run_keeps_all_inside(
    vendor: Outside, required: tuple[str, ...]
) -> None:
    """Also where the policy came to require it later."""
    vendor.write_policy(policy_for(vendor.front.url, required=required))
    vendor.chat(CLEAN)
    assert vendor.sent == 0


def test_a_detector_that_the_policy_comes_to_require_is_asked_from_then_on(vendor: Outside) -> None:
    """Names, where they are installed; else nothing leaves any more."""
    name = "Пришёл Ерофей Тутышкин домой, и что дальше?"
    assert vendor.chat(name, dataclasses.replace(ASK, domain="a")).status == 200, "nobody looks for names yet"
    before = vendor.front.bytes_in
    vendor.write_policy(policy_for(vendor.front.url, required=("names",)))
    assert vendor.chat(name, dataclasses.replace(ASK, domain="b")).code == "stays_inside"
    assert vendor.front.bytes_in == before
    is_installed = open_names() is not None
    assert (vendor.chat(CLEAN, dataclasses.replace(ASK, domain="c")).status == 200) == is_installed


def test_no_record_no_egress_whatever_the_audit_settings_say(fresh: Outside) -> None:
    """`audit.on_failure = "serve"` is for what is served inside."""
    fresh.start(more='\n[audit]\non_failure = "serve"\n')
    (writer,) = [pid for pid in _children(fresh) if "serving.audit" in _command(pid)]
    os.kill(writer, signal.SIGKILL)
    (fresh.directory / "audit").rename(fresh.directory / "away")
    (fresh.directory / "audit").write_text("")
    told = fresh.chat(CLEAN)
    assert fresh.sent == 0, told


def test_no_core_of_the_process_that_holds_credentials(vendor: Outside) -> None:
    """Nor of its workers."""
    assert vendor.process is not None
    for pid in (vendor.process.pid, *_workers(vendor)):
        limits = Path(f"/proc/{pid}/limits").read_text()
        (line,) = [each for each in limits.splitlines() if each.startswith("Max core")]
        assert line.split()[4:6] == ["0", "0"], (pid, line)
        assert Path(f"/proc/{pid}/coredump_filter").read_text().strip() == "00000000"


def test_one_owner_cannot_close_the_way_out_for_all_others(vendor: Outside) -> None:
    """A request that cannot be read is refused, and leaves nothing behind."""
    bad = body_of("[" * 100_000)
    vendor.ask("/judge", bad, dataclasses.replace(vendor.own, domain="attacker", principal="attacker"), headers=CHAT)
    assert vendor.chat(CLEAN).status == 200


def test_an_answer_that_is_told_after_a_restart_closes_its_hole(vendor: Outside) -> None:
    """The gateway says it again until it is heard."""
    judged = vendor.judge(f"Summarise: {SENSITIVE}")
    vendor.stop()
    vendor.start()
    assert vendor.chat(CLEAN, vendor.others).code == "stays_inside"
    assert vendor.tell(judged, SUMMARY).status == 200
    assert vendor.chat(CLEAN).status == 200


def test_a_tainted_text_is_found_in_names_and_ids(vendor: Outside) -> None:
    """Wherever a text can stand."""
    short = "He resigns on Friday and the shares fall"
    judged = vendor.judge(f"Summarise: {SENSITIVE}")
    vendor.tell(judged, short)
    assert vendor.chat(f"Shorten: {short}").code == "stays_inside"
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {short: {}}}}}
    vendor.chat(CLEAN, tools=[tool])
    in_keys = vendor.sent
    messages = [
        {"role": "user", "content": CLEAN},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": short, "type": "function", "function": {"name": "find", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": short, "content": "nothing"},
    ]
    vendor.ask("/v1/chat/completions", {**body_of(CLEAN), "messages": messages})
    assert (in_keys, vendor.sent) == (0, 0)


def test_what_is_found_only_in_what_would_be_sent_is_remembered(vendor: Outside) -> None:
    """The texts of a request that is refused at the last look are kept as well."""
    tail = "Also, the tunnel under the old mill is to be closed to the public before the winter comes again."
    told = vendor.chat(f"{SENSITIVE} {tail}")
    assert told.code == "stays_inside"
    vendor.chat(f"Say it better: {tail}")
    assert vendor.sent == 0


@pytest.mark.parametrize("address", ["fec0::1", "168.63.129.16"])
def test_an_address_inside_is_not_outside(address: str) -> None:
    """Site-local addresses of IPv6; the platform address of Azure."""
    assert not is_outside(ip_address(address))


def test_a_kill_switch_that_is_a_link_to_nothing_is_thrown(vendor: Outside) -> None:
    """There is a file of that name."""
    vendor.switch.symlink_to("nowhere")
    vendor.chat(CLEAN)
    assert vendor.sent == 0
