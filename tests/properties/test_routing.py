"""Where requests go, over the whole truth table and over random policies: one row leaves, nothing else ever does."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.policy.decide import ALL_RULES, PASSED, decide
from serving.policy.facts import Facts, Found, Taint, from_record, to_record
from serving.policy.model import LOCAL, REFUSE, WHOLE, Complexity, LeastRecall, Policy, WorkloadClass
from serving.policy.verdict import Verdict
from tests.support.policies import LEAVING, OUT, POLICY, TODAY, random_facts, random_policy

SEEDS = st.integers(0, 2**64 - 1)
CASES = 10_000


SENSITIVE = {"found": Found(Verdict.SENSITIVE, frozenset({"name.person"}))}
UNREAD = {"found": Found(Verdict.UNKNOWN, reasons=("timeout:names",))}
EXPIRED = OUT.attestation.expires if OUT.attestation is not None else TODAY
ASKED: tuple[tuple[str, tuple[dict[str, Any], ...]], ...] = (
    ("switch", ({"cloud_open": False},)),
    ("attempt", ({"attempt": "after-cloud"},)),
    ("endpoint", ({"route": "files"},)),
    ("field", ({"fields": frozenset({"model", "messages.content", "user"})},)),
    ("caller", ({"asked_local": True},)),
    ("class", ({"classes": frozenset()},)),
    ("recall", ({"published": ()},)),
    ("data", (SENSITIVE, UNREAD, {"found": None})),
    ("taint", ({"taint": Taint.TAINTED}, {"taint": Taint.UNKNOWN}, {"taint": None})),
    ("destination", ({"only": "another"},)),
    ("residency", ({"residency": frozenset({"ru"})},)),
    ("attestation", ({"today": EXPIRED},)),
    ("complexity", ({"complexity": Complexity()},)),
    ("budget", ({"budget": "available"},)),
    ("availability", ({"healthy": frozenset()},)),
)
"""What each rule asks, in their order, as it should not be; as it should be it is in LEAVING."""


@pytest.mark.parametrize("decider", ["egress", "gateway"])
@pytest.mark.parametrize("is_on", [True, False])
def test_one_row_of_the_truth_table_leaves(is_on: bool, decider: str) -> None:
    """Of all combinations of what each rule asks: that in which all is as it should be; else the first rule decides."""
    assert tuple(rule for rule, _ in ASKED) == ALL_RULES
    policy = replace(POLICY, cloud=is_on)
    # a gateway may still reserve the budget, and so its own rows are those in which nothing is left of one
    asked = [(rule, ({"budget": "spent"},) if rule == "budget" else wrong) for rule, wrong in ASKED]
    base, left, count = replace(LEAVING, decider=decider), [], 0
    for row in itertools.product(*((None, *wrong) for _, wrong in (ASKED if decider == "egress" else asked))):
        changes: dict[str, Any] = {}
        for change in row:
            changes |= change or {}
        decision = decide(replace(base, **changes), policy)
        count += 1
        wrong = next((rule for rule, change in zip(ALL_RULES, row, strict=True) if change is not None), PASSED)
        if decision.zone == "cloud":
            left.append(wrong)
            assert decision.leaves == (decider == "egress")
            assert decision.needs == (() if decider == "egress" else ("egress",))
        else:
            assert decision.rule == (wrong if is_on else "switch")
            assert decision.destination == (REFUSE if decider == "egress" else LOCAL)
    assert count == 2**13 * 4 * 4
    assert left == ([PASSED] if is_on else [])


@pytest.mark.parametrize("name", [each.name for each in fields(Facts)])
def test_a_fact_that_is_missing_keeps_a_request_inside(name: str) -> None:
    """Each of them, but for `local`, which says only whether an engine here could take it."""
    decision = decide(replace(LEAVING, **{name: None}), POLICY)
    assert decision.leaves == (name == "local")


def test_a_body_without_fields_is_no_body() -> None:
    """An empty set of fields is one that nobody looked at."""
    assert decide(replace(LEAVING, fields=frozenset()), POLICY).rule == "field"


def test_nothing_leaves_of_no_facts_or_by_no_policy() -> None:
    """What was not established is not assumed, and what was not written is not allowed."""
    assert decide(Facts(), POLICY).zone is None
    assert decide(Facts(local=True), POLICY).destination == LOCAL
    assert decide(LEAVING, Policy()).zone is None


@given(SEEDS)
@settings(max_examples=CASES)
def test_a_decision_is_right_by_a_second_reading_of_the_rules(seed: int) -> None:
    """It leaves where no rule objects, by rules written a second time here; and the rule that is named does object."""
    random = Random(seed)
    policy, facts = random_policy(random), random_facts(random)
    decision = decide(facts, policy)
    assert decision == decide(facts, policy)
    assert decision.policy == policy.digest
    objections = {
        (workload.name, name): set(_against(facts, policy, workload, name))
        for workload in policy.classes
        for name in workload.destinations
        if workload.name in (facts.classes or ())
        for each in (policy.destination(name),)
        if each is not None and each.zone == "cloud"
    }
    free = [name for (_, name), rules in objections.items() if not rules]
    assert (decision.zone == "cloud") == bool(free)
    if decision.zone == "cloud":
        assert decision.destination in free
        assert decision.rule == PASSED
        assert decision.remote_model == (facts.model or "") * 2
        assert decision.leaves == (facts.decider == "egress")
        assert ("reservation" in decision.needs) == (facts.budget == "available")
    else:
        assert decision.reasons
        assert decision.rule == "class" if not objections and _is_whole(facts, policy) else decision.rule != PASSED
        assert decision.rule in ALL_RULES
        assert not objections or any(decision.rule in rules for rules in objections.values())
        place = ALL_RULES.index(decision.rule)
        # each pair was lost at this rule or at one before it
        assert all(min(map(ALL_RULES.index, rules)) <= place for rules in objections.values())
    taken = {each.destination for each in decision.not_taken} | {decision.destination}
    assert taken >= {each.name for each in policy.destinations} | {LOCAL}
    assert decision.destination not in {each.destination for each in decision.not_taken}


@given(SEEDS)
@settings(max_examples=CASES)
def test_nothing_that_is_tightened_lets_a_request_out(seed: int) -> None:
    """Whatever one fact or part of the policy becomes stricter: what was inside stays inside."""
    random = Random(seed)
    policy, facts = random_policy(random), random_facts(random)
    before = decide(facts, policy)
    tighter_facts, tighter_policy = _tightened(facts, policy, random)
    after = decide(tighter_facts, tighter_policy)
    assert after.zone != "cloud" or before.zone == "cloud"
    assert not after.leaves or before.leaves


@given(SEEDS)
@settings(max_examples=CASES)
def test_unknown_is_sensitive(seed: int) -> None:
    """Neither leaves, of no facts and by no policy; and but for its words a decision is the same, unless it refuses."""
    random = Random(seed)
    policy, facts = random_policy(random), random_facts(random)
    is_found = random.random() < 0.5
    sensitive = replace(facts, found=Found(Verdict.SENSITIVE)) if is_found else replace(facts, taint=Taint.TAINTED)
    unknown = replace(
        facts,
        **random.choice(
            [{"found": Found(Verdict.UNKNOWN, reasons=("a:x",))}, {"found": None}]
            if is_found
            else [{"taint": Taint.UNKNOWN}, {"taint": None}]
        ),
    )
    one, other = decide(sensitive, policy), decide(unknown, policy)
    assert one.zone != "cloud"
    assert other.zone != "cloud"
    assert one.rule == other.rule
    assert other.destination in (one.destination, REFUSE)
    if not policy.unknown:
        assert other.destination == one.destination


@given(SEEDS)
@settings(max_examples=2000)
def test_facts_are_read_back_as_they_were_written(seed: int) -> None:
    """So that a record can be decided again under another policy."""
    facts = random_facts(Random(seed))
    assert from_record(to_record(facts)) == facts


def test_random_cases_leave_often_enough_to_say_something() -> None:
    """And every rule decides some of them."""
    decided = Counter[str]()
    for seed in range(4000):
        random = Random(seed)
        policy = random_policy(random)
        decided[decide(random_facts(random), policy).rule] += 1
    assert decided.keys() == {*ALL_RULES, PASSED}
    assert decided[PASSED] > 400


def _is_whole(facts: Facts, policy: Policy) -> bool:
    """Whether no rule before `class` objects."""
    return not set(_of_request(facts, policy))


def _of_request(facts: Facts, policy: Policy) -> Iterator[str]:
    if not (policy.cloud and facts.cloud_open):
        yield "switch"
    if facts.attempt not in ("first", "after-local") or facts.decider is None:
        yield "attempt"
    entry = {each.route: each.fields for each in policy.endpoints}.get(facts.route or "")
    if entry is None:
        yield "endpoint"
    elif not facts.fields:
        yield "field"
    else:
        for path in facts.fields:
            if path not in entry and not (path.startswith("tools.") and "tools.*" in entry):
                yield "field"
    if facts.asked_local is None or facts.asked_local:
        yield "caller"
    if facts.found is None or facts.found.verdict != Verdict.CLEAN:
        yield "data"
    if facts.taint != Taint.NONE:
        yield "taint"


def _against(facts: Facts, policy: Policy, workload: WorkloadClass, name: str) -> Iterator[str]:
    """Every rule that objects to one class and destination."""
    yield from _of_request(facts, policy)
    published = {each.label: each.recall for each in facts.published or ()}
    least = {each.label: each.least for each in policy.least_recall}
    labels = least.keys() if workload.labels is None else workload.labels
    if not labels or any(label not in least or published.get(label, -1) < least[label] for label in labels):
        yield "recall"
    to = next(each for each in policy.destinations if each.name == name)
    if facts.model not in {each.name for each in to.models}:
        yield "destination"
    if facts.only != name and not (facts.only is None and facts.decider == "gateway"):
        yield "destination"
    if to.region not in policy.residency & workload.residency & (facts.residency or frozenset()):
        yield "residency"
    word = to.attestation
    if (
        word is None
        or facts.today is None
        or word.expires <= facts.today
        or not (word.training_opt_out and word.dpa)
        or word.retention_days not in range(policy.most_retention_days + 1)
    ):
        yield "attestation"
    seen, hard = facts.complexity, workload.hard
    if seen is None or not (
        hard.always
        or (hard.chars is not None and seen.chars >= hard.chars)
        or (hard.turns is not None and seen.turns >= hard.turns)
        or (hard.code and seen.code)
    ):
        yield "complexity"
    if to.prices is None or facts.budget not in ("reserved", "available" if facts.decider == "gateway" else "reserved"):
        yield "budget"
    if name not in (facts.healthy or ()):
        yield "availability"


def _tightened(facts: Facts, policy: Policy, random: Random) -> tuple[Facts, Policy]:
    """The same, with one thing stricter."""
    if random.random() < 0.5:
        name = random.choice([each.name for each in fields(Facts) if each.name not in ("local", "fields", "only")])
        value = getattr(facts, name)
        stricter: dict[str, list[Any]] = {
            "attempt": ["after-cloud"],
            "asked_local": [True],
            "found": [Found(Verdict.SENSITIVE), Found(Verdict.UNKNOWN)],
            "taint": [Taint.TAINTED, Taint.UNKNOWN],
            "budget": ["spent", *(["available"] if value == "reserved" else [])],
            "cloud_open": [False],
            "complexity": [Complexity()],
            "published": [tuple(replace(each, recall=each.recall - 1000) for each in facts.published or ())],
            "today": [facts.today + timedelta(days=400)] if facts.today is not None else [],
        }
        options = [None, *stricter.get(name, [])]
        if isinstance(value, frozenset) and value:
            options.append(value - {random.choice(sorted(value))})
        if random.random() < 0.1:
            return replace(facts, fields=(facts.fields or frozenset()) | {"user", "?"}), policy
        return replace(facts, **{name: random.choice(options)}), policy
    to = [
        random.choice(
            [
                replace(each, attestation=None),
                replace(each, prices=None),
                replace(each, models=each.models[1:]),
                replace(each, region="nowhere"),
                each,
            ]
        )
        for each in policy.destinations
    ]
    classes = [
        random.choice(
            [
                replace(each, destinations=each.destinations[1:]),
                replace(each, residency=frozenset()),
                replace(each, hard=replace(each.hard, always=False, chars=None)),
                each,
            ]
        )
        for each in policy.classes
    ]
    change: dict[str, Any] = random.choice(
        [
            {"cloud": False},
            {"residency": frozenset()},
            {"most_retention_days": 0},
            {"least_recall": tuple(LeastRecall(each.label, WHOLE) for each in policy.least_recall)},
            {"endpoints": policy.endpoints[1:]},
            {"endpoints": tuple(replace(each, fields=each.fields[1:]) for each in policy.endpoints)},
            {"classes": tuple(classes)},
            {"classes": policy.classes[1:]},
            {"destinations": tuple(to)},
            {"destinations": policy.destinations[1:]},
        ]
    )
    return facts, replace(policy, **change)
