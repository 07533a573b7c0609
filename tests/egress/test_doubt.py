"""Requests that are judged while a sensitive one of their domain is being answered: kept inside, and not for longer."""

from __future__ import annotations

from dataclasses import replace

from tests.egress.conftest import ASK, SENSITIVE, Outside, body_of

ANSWER = (
    "The customer wants the second clause struck out, and will sign on Thursday if the rate stays as it was offered."
)
OTHER = "Write a function that reverses a linked list in place, and say how long it takes for a million entries of it."
OWN = "Our lunch menu of next week has lentil soup on Monday, dumplings on Tuesday and baked potatoes on Wednesday."


def judge(vendor: Outside, text: str, domain: str) -> dict:
    told = vendor.ask(
        "/judge", body_of(text), replace(ASK, domain=domain), headers={"x-egress-path": "/v1/chat/completions"}
    )
    assert told.status == 200
    return told.json


def rule(vendor: Outside, text: str, domain: str) -> str:
    told = vendor.ask("/explain", body_of(text), replace(ASK, domain=domain), {"x-egress-path": "/v1/chat/completions"})
    return told.json["explained"]["rule"]


def remember(vendor: Outside, text: str, number: str, domain: str) -> None:
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
    told = vendor.ask("/remember", answer, replace(ASK, domain=domain), headers={"x-egress-answer": number})
    assert told.status == 200


def test_a_conversation_beside_a_sensitive_one_may_go_on_outside(vendor: Outside) -> None:
    """What was judged meanwhile stayed inside; once all is known, neither it nor its answer is held back."""
    sensitive = judge(vendor, SENSITIVE, "beside")
    beside = judge(vendor, OTHER, "beside")
    assert (beside["destination"], beside["rule"]) == ("local", "taint")
    remember(vendor, OWN, beside["answer"], "beside")  # before the sensitive one has ended
    assert rule(vendor, f"{OTHER} {OWN}", "beside") == "taint"
    remember(vendor, ANSWER, sensitive["answer"], "beside")
    assert rule(vendor, ANSWER, "beside") == "taint"
    assert vendor.chat(f"{OTHER} {OWN} And then?", replace(ASK, domain="beside")).status == 200


def test_a_request_that_had_something_of_a_sensitive_answer_is_held_back_with_all_it_says(vendor: Outside) -> None:
    """Also what stood beside that, and its answer, though it was judged before the answer was known."""
    sensitive = judge(vendor, SENSITIVE, "copied")
    copied = judge(vendor, f"{ANSWER}\n\n{OTHER}", "copied")
    assert copied["rule"] == "taint"
    remember(vendor, OWN, copied["answer"], "copied")
    remember(vendor, ANSWER, sensitive["answer"], "copied")
    for text in (ANSWER, OTHER, OWN):
        told = vendor.chat(text, replace(ASK, domain="copied"))
        assert (told.status, told.code) == (403, "stays_inside"), text
