"""Decisions by hand: where a request goes, what is said of it, and what is not."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from serving.audit.canonical import canonical
from serving.errors import InvalidRequest
from serving.policy.body import complexity_of, without_names
from serving.policy.decide import decide
from serving.policy.explain import explain, explain_json, explain_text, route_header
from serving.policy.facts import Found, Published, Taint, asks_to_stay, from_record, taints
from serving.policy.model import Destination, Hard, RemoteModel, UnknownReason, WorkloadClass
from serving.policy.replay import Change, Decided, decided, recorded, replay, replay_text
from serving.policy.verdict import Verdict, worst
from tests.support.policies import LEAVING, OUT, POLICY

INSIDE = Destination("ollama", "perimeter", "openai-compatible", "http://10.0.0.1", (RemoteModel("m", "m:8b"),))


@dataclass(frozen=True)
class Span:
    where: str
    start: int
    end: int
    label: str
    detector: str


@dataclass(frozen=True)
class Finding:
    verdict: Verdict
    spans: tuple[Span, ...] = ()
    reasons: tuple[str, ...] = ()


def test_the_worst_of_parts_is_the_verdict_on_the_whole() -> None:
    """And of no parts nothing is known."""
    clean, unknown, sensitive = Verdict.CLEAN, Verdict.UNKNOWN, Verdict.SENSITIVE
    assert worst([clean, clean]) is clean
    assert worst([clean, unknown]) is unknown
    assert worst([unknown, sensitive, clean]) is sensitive
    assert worst([]) is unknown


def test_a_gateway_has_a_budget_reserved_and_the_egress_process_has_it() -> None:
    """What a gateway decides is never enough for a byte to leave."""
    available = replace(LEAVING, budget="available")
    decision = decide(replace(available, decider="gateway", only=None), POLICY)
    assert (decision.destination, decision.needs, decision.leaves) == ("vendor", ("reservation", "egress"), False)
    assert decide(available, POLICY).rule == "budget"


def test_after_a_cloud_destination_failed_a_request_is_served_inside() -> None:
    """By the engine here, and by no other vendor."""
    facts = replace(LEAVING, decider="gateway", only=None, attempt="after-cloud")
    decision = decide(facts, replace(POLICY, destinations=(OUT, replace(OUT, name="second"))))
    assert (decision.destination, decision.zone, decision.rule) == ("local", "perimeter", "attempt")


def test_after_the_engine_here_failed_the_full_rule_holds() -> None:
    """What may leave does; what may not is refused, or goes to another server inside."""
    failed = replace(LEAVING, decider="gateway", only=None, attempt="after-local")
    assert decide(failed, POLICY).destination == "vendor"
    sensitive = replace(failed, found=Found(Verdict.SENSITIVE))
    assert decide(sensitive, POLICY).destination == "refuse"
    policy = replace(POLICY, destinations=(OUT, INSIDE))
    well = replace(sensitive, healthy=frozenset({"vendor", "ollama"}))
    decision = decide(well, policy)
    assert (decision.destination, decision.zone, decision.remote_model) == ("ollama", "perimeter", "m:8b")
    assert decision.rule == "data"


def test_what_no_engine_here_can_take_goes_to_the_first_well_server_inside_that_has_the_model() -> None:
    """In the policy's order, also for keys that are enrolled for nothing, and whatever the kill switch says."""
    other = replace(INSIDE, name="other", models=(RemoteModel("another", "x"),))
    second = replace(INSIDE, name="second")
    policy = replace(POLICY, destinations=(other, OUT, INSIDE, second))
    facts = replace(
        LEAVING, decider="gateway", only=None, classes=frozenset(), local=False, cloud_open=False,
        healthy=frozenset({"ollama", "second", "other"}),
    )  # fmt: skip
    assert decide(facts, policy).destination == "ollama"
    assert decide(replace(facts, local=None), policy).destination == "ollama"
    assert decide(replace(facts, local=True), policy).destination == "local"
    assert decide(replace(facts, healthy=frozenset({"second", "other"})), policy).destination == "second"
    nowhere = decide(replace(facts, healthy=frozenset({"other"})), policy)
    assert (nowhere.destination, nowhere.is_turned_away) == ("refuse", False)
    assert {(each.destination, each.rule) for each in nowhere.not_taken} >= {("ollama", "availability")}


def test_the_egress_process_decides_on_the_one_server_inside_that_it_was_asked_about() -> None:
    """And on no engine: those are the gateway's."""
    policy = replace(POLICY, destinations=(OUT, INSIDE, replace(INSIDE, name="second")))
    facts = replace(LEAVING, found=Found(Verdict.SENSITIVE), only="second", healthy=frozenset({"ollama", "second"}))
    decision = decide(facts, policy)
    assert (decision.destination, decision.zone, decision.rule) == ("second", "perimeter", "data")
    assert not decision.leaves
    for only in ("vendor", "local", "elsewhere", None):
        assert decide(replace(facts, only=only), policy).zone is None
    assert decide(replace(facts, healthy=frozenset({"ollama"})), policy).zone is None
    assert decide(replace(facts, model="another"), policy).zone is None


def test_what_the_policy_turns_away_goes_to_no_server_inside_either() -> None:
    """And it is told from what nobody can take."""
    policy = replace(POLICY, destinations=(OUT, INSIDE), unknown=(UnknownReason("timeout", "refuse"),))
    found = Found(Verdict.UNKNOWN, reasons=("timeout:names",))
    facts = replace(LEAVING, decider="gateway", only=None, found=found, local=False, healthy=frozenset({"ollama"}))
    decision = decide(facts, policy)
    assert (decision.zone, decision.is_turned_away) == (None, True)


def test_the_first_class_and_destination_that_may_be_taken_is() -> None:
    """In the order of the policy; those before it say why not."""
    second = replace(OUT, name="second")
    classes = (
        WorkloadClass("hard", ("second",), frozenset({"eu"}), Hard(chars=10**6)),
        WorkloadClass("work", ("vendor", "second"), frozenset({"eu"}), Hard(chars=100)),
    )
    policy = replace(POLICY, classes=classes, destinations=(second, OUT))
    facts = replace(LEAVING, decider="gateway", only=None, classes=frozenset({"hard", "work"}))
    assert decide(facts, policy).destination == "vendor" if "vendor" in (facts.healthy or ()) else False
    down = replace(facts, healthy=frozenset({"second"}))
    decision = decide(down, policy)
    assert decision.destination == "second"
    assert ("vendor", "availability") in {(each.destination, each.rule) for each in decision.not_taken}


def test_the_rule_that_came_furthest_decides() -> None:
    """Of two classes one fails by its region, the other by nothing but the budget: it was the budget."""
    classes = (
        WorkloadClass("near", ("vendor",), frozenset({"ru"}), Hard(always=True)),
        WorkloadClass("work", ("vendor",), frozenset({"eu"}), Hard(always=True)),
    )
    facts = replace(LEAVING, classes=frozenset({"near", "work"}), budget="spent")
    assert decide(facts, replace(POLICY, classes=classes)).rule == "budget"


def test_a_label_that_is_found_too_seldom_keeps_its_class_inside() -> None:
    """And no other class."""
    low = replace(LEAVING, published=(Published("name.person", 9499),))
    decision = decide(low, POLICY)
    assert decision.rule == "recall"
    assert "`name.person`" in decision.reasons[0].why
    assert "`work`" in decision.reasons[0].why
    assert decide(replace(LEAVING, published=None), POLICY).rule == "recall"


def test_complexity_plays_no_part_before_a_verdict() -> None:
    """What is sensitive is not said to be simple, and the other way round."""
    both = replace(LEAVING, complexity=None, found=Found(Verdict.SENSITIVE))
    decision = decide(both, POLICY)
    assert decision.rule == "data"
    assert "complexity" not in {each.rule for each in decision.reasons}


def test_a_policy_may_refuse_what_could_not_be_read() -> None:
    """By the kind of the reason, where that decided; it never leaves either way."""
    facts = replace(LEAVING, decider="gateway", only=None)
    policy = replace(POLICY, unknown=(UnknownReason("timeout", "refuse"), UnknownReason("taint-store", "refuse")))
    late = replace(facts, found=Found(Verdict.UNKNOWN, reasons=("timeout:names",)))
    assert decide(late, POLICY).destination == "local"
    assert decide(late, policy).destination == "refuse"
    assert decide(replace(late, found=Found(Verdict.UNKNOWN, reasons=("too_long",))), policy).destination == "local"
    assert decide(replace(facts, taint=Taint.UNKNOWN), policy).destination == "refuse"
    assert decide(replace(facts, taint=Taint.TAINTED), policy).destination == "local"
    assert decide(replace(late, cloud_open=False), policy).destination == "local"


def test_a_field_that_may_not_leave_is_named_by_its_first_name() -> None:
    """What is below may be a caller's own word."""
    facts = replace(LEAVING, fields=frozenset({"model", "metadata.diagnosis-of-ivanov"}))
    decision = decide(facts, POLICY)
    assert decision.rule == "field"
    assert "`metadata`" in decision.reasons[0].why
    assert "ivanov" not in str(decision)


def test_a_header_can_only_keep_a_request_inside() -> None:
    """Any other value is refused, and no value loosens."""
    assert not asks_to_stay(None)
    assert asks_to_stay(" Local ")
    for value in ("cloud", "", "vendor", "local, cloud"):
        with pytest.raises(InvalidRequest):
            asks_to_stay(value)


def test_what_is_not_known_to_be_clean_is_remembered() -> None:
    """Sensitive, unknown, tainted, and what was never looked at."""
    assert not taints(LEAVING)
    for change in (
        {"found": Found(Verdict.SENSITIVE)},
        {"found": Found(Verdict.UNKNOWN)},
        {"found": None},
        {"taint": Taint.TAINTED},
        {"taint": Taint.UNKNOWN},
        {"taint": None},
    ):
        assert taints(replace(LEAVING, **change))


def test_an_explanation_has_places_and_kinds_and_no_values() -> None:
    """Names that a caller may have chosen are blanked; so is what looks like no code of ours."""
    finding = Finding(
        Verdict.SENSITIVE,
        (
            Span("/messages/0/content", 4, 18, "ru.snils", "identifiers"),
            Span("/messages/1/tool_calls/0/function/arguments#/Ivanov Ivan/text", 0, 9, "name.person", "names"),
            Span("/messages/0/content", 0, 2, "Ivanov Ivan", "names"),
        ),
        ("timeout:names", "could not read Ivanov"),
    )
    decision = decide(replace(LEAVING, decider="gateway", only=None, found=Found(Verdict.SENSITIVE)), POLICY)
    told = explain(decision, finding)
    assert told["verdict"] == "sensitive"
    assert told["policy"] == POLICY.digest
    assert told["rule"] == "data"
    assert told["spans"][1] == {
        "where": "/messages/0/content",
        "start": 4,
        "end": 18,
        "label": "ru.snils",
        "detector": "identifiers",
    }
    assert told["spans"][2]["where"] == "/messages/1/tool_calls/0/function/arguments#/?/text"
    assert told["unknown_because"] == ["timeout:names", "?"]
    assert {each["destination"] for each in told["not_taken"]} == {"vendor"}
    text = explain_text(decision, finding)
    assert "to `local` (perimeter): rule `data`" in text
    assert "/messages/0/content 4–18: ru.snils (identifiers)" in text
    assert POLICY.digest in text
    for shown in (text, explain_json(decision, finding), json.dumps(told)):
        assert "Ivan" not in shown


def test_an_explanation_of_what_was_not_read_says_so() -> None:
    """The verdict is unknown, and many spans are counted."""
    decision = decide(replace(LEAVING, found=None), POLICY)
    assert explain(decision, None)["verdict"] == "unknown"
    assert explain_text(decision, None).startswith("refused: rule `data`")
    many = Finding(Verdict.SENSITIVE, tuple(Span("/prompt", at, at + 1, "card", "x") for at in range(130)))
    assert explain(decision, many)["spans_left_out"] == 30
    assert "and 30 more" in explain_text(decision, many)


def test_a_header_says_zone_and_rule() -> None:
    """In answers: `x-perimeter-route`."""
    assert route_header(decide(LEAVING, POLICY)) == "cloud; rule=passed"
    assert route_header(decide(replace(LEAVING, taint=Taint.TAINTED), POLICY)) == "refused; rule=taint"


def test_a_replay_shows_what_another_policy_would_have_done() -> None:
    """From the facts of the record alone; what would have left stands first."""
    gateway = replace(LEAVING, decider="gateway", only=None)
    sensitive = replace(gateway, found=Found(Verdict.SENSITIVE))
    lines = [
        {
            "request": name,
            "destination": decide(facts, POLICY).destination,
            "facts": json.loads(canonical(recorded(facts, POLICY))),
        }
        for name, facts in (("1", sensitive), ("2", gateway), ("3", sensitive))
    ]
    assert decided({**lines[1], "facts": {**lines[1]["facts"], "decider": "egress"}}, LEAVING.published) is None
    record = [decided(line, LEAVING.published) for line in lines]
    assert replay(record, POLICY) == []
    closed = replay(record, replace(POLICY, cloud=False))
    assert [(each.at, each.before, each.after.destination) for each in closed] == [("2", "vendor", "local")]
    opened = replay([Decided("9", gateway, "local"), *record], POLICY)
    assert [each.at for each in opened] == ["9"]
    assert replay_text(opened, 4) == (
        "9: `local` → `vendor` (rule `passed`)\n1 of 4 requests would go elsewhere, 1 of them to a cloud"
    )
    mixed = [Change("1", "vendor", decide(sensitive, POLICY)), *opened]
    assert replay_text(mixed, 4).startswith("9: ")


def test_no_name_that_a_caller_made_gets_into_the_record() -> None:
    """Names of fields that no schema has are blanked, below a name that may leave too; and a text that is none is."""
    strange = frozenset({"model", "4509123456", "metadata.ivanov", "tools.function.parameters.properties.ivanov"})
    facts = replace(
        LEAVING, fields=strange, model="m" * 300 + "\ud800", complexity=complexity_of({"max_tokens": 10**40})
    )
    told = canonical(recorded(facts, POLICY)).decode()
    assert "ivanov" not in told
    assert "4509123456" not in told
    assert from_record(json.loads(told)).fields == {
        "model",
        "?",
        "metadata.?",
        "tools.function.parameters.properties.?",
    }
    assert canonical(recorded(replace(LEAVING, model="\ud800"), POLICY))
    assert without_names(frozenset({"site_field"}), frozenset({"site_field"})) == {"site_field"}


@pytest.mark.parametrize(
    "record",
    [
        {"decider": "nobody"},
        {"fields": "model"},
        {"found": {"verdict": "clean", "more": 1}},
        {"found": {"verdict": "fine", "labels": [], "reasons": []}},
        {"today": "soon"},
        {"cloud_open": 1},
        {"unheard": True},
        {"complexity": {"chars": "1"}},
        {"published": 3},
    ],
)
def test_what_are_no_facts_is_refused(record: dict[str, object]) -> None:
    """A record is data from outside by then."""
    with pytest.raises(ValueError):
        from_record(record)
