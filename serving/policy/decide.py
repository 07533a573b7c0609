"""Where a request may go. Pure: the same facts and the same policy are always the same decision.

Rules stand in a fixed order. Each can only object; a request leaves where none of them does. The first rule that leaves
no destination in the cloud is the one that decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from serving.policy.facts import Facts, Taint
from serving.policy.model import LOCAL, REFUSE, Destination, Policy, WorkloadClass, Zone
from serving.policy.verdict import Verdict

PASSED: Final = "passed"
"""In place of a rule: none objected."""
TAINT_REASON: Final = "taint-store"
"""What a policy calls it, under `unknown`, that the store of tainted texts is lost."""
NOT_SCANNED: Final = "not-scanned"
_LARGE: Final = 5
"""Names of fields in one reason."""
Need = Literal["reservation", "egress"]


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a rule keeps a request from leaving."""

    rule: str
    why: str
    """One clause; no text of the request is in it."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A destination that the request did not go to, and the first rule against it."""

    destination: str
    rule: str
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes, and why not elsewhere."""

    destination: str
    """Its name in the policy, `local`, or `refuse`."""
    zone: Zone | None
    """None where it is refused."""
    rule: str
    """The code of the rule that decided; `passed` where none kept it inside."""
    reasons: tuple[Objection, ...]
    """All that objected and were asked, in the rules' order; then why it is not served inside, if it is not."""
    not_taken: tuple[NotTaken, ...]
    policy: str
    """The policy's digest."""
    needs: tuple[Need, ...] = ()
    """What must happen before a byte leaves: the budget is to be reserved, the egress process is to decide itself."""
    remote_model: str | None = None
    """What a destination other than `local` calls the model."""
    is_turned_away: bool = False
    """Refused by the policy's own word, whatever could take it."""

    @property
    def leaves(self) -> bool:
        """Nothing is in the way of its leaving now. A gateway's decision never says so."""
        return self.zone == "cloud" and not self.needs


Rule = Callable[[Facts, Policy], str | None]
Pair = tuple[WorkloadClass, Destination]
PairRule = Callable[[Facts, Policy, WorkloadClass, Destination], str | None]


def decide(facts: Facts, policy: Policy) -> Decision:
    """Where this request goes under this policy.

    Of several pairs of class and destination that all meet an objection, the one that came furthest says which rule
    decided: it is the rule at which the last of them was lost.
    """
    reasons = [Objection(code, why) for code, rule in RULES for why in (rule(facts, policy),) if why is not None]
    if reasons:
        first = reasons[0]
        against = {each.name: first for each in _in_cloud(policy)}
        return _inside(facts, policy, tuple(reasons), first.rule, against)
    tried = [(pair[1], _object(facts, policy, pair)) for pair in _pairs(facts, policy)]
    against = {}
    for destination, objection in sorted(tried, key=lambda each: -1 if each[1] is None else _PLACE[each[1].rule]):
        if objection is not None:
            against[destination.name] = objection
    for destination, objection in tried:
        if objection is None:
            return _outside(facts, policy, destination, against)
    reasons = sorted(set(against.values()), key=lambda each: (_PLACE[each.rule], each.why))
    return _inside(facts, policy, tuple(reasons), reasons[-1].rule, against)


def _object(facts: Facts, policy: Policy, pair: Pair) -> Objection | None:
    for code, rule in PAIR_RULES:
        why = rule(facts, policy, *pair)
        if why is not None:
            return Objection(code, why)
    return None


def _outside(facts: Facts, policy: Policy, taken: Destination, against: dict[str, Objection]) -> Decision:
    needs: tuple[Need, ...] = ()
    if facts.decider != "egress":
        needs = ("egress",) if facts.budget == "reserved" else ("reservation", "egress")
    return Decision(
        destination=taken.name,
        zone="cloud",
        rule=PASSED,
        reasons=(),
        not_taken=_not_taken(policy, taken.name, against, Objection(PASSED, f"`{taken.name}` was taken")),
        policy=policy.digest,
        needs=needs,
        remote_model=taken.remote_name(facts.model),
    )


def _inside(
    facts: Facts, policy: Policy, reasons: tuple[Objection, ...], rule: str, against: dict[str, Objection]
) -> Decision:
    """The first of the engines here and the servers named as inside that can take it; or nowhere."""
    why_not = _refused(facts, policy, rule)
    taken: str | None = None
    refusals: dict[str, Objection] = {}
    for name, objection in _inside_candidates(facts, policy):
        if why_not is not None:
            refusals[name] = Objection(rule, why_not)
        elif objection is not None:
            refusals[name] = Objection("availability", objection)
        elif taken is None:
            taken = name
    if taken is None:
        reasons += tuple(dict.fromkeys(refusals.values()))
    destination = policy.destination(taken) if taken is not None else None
    rest = Objection(rule, f"`{taken}` was taken")
    return Decision(
        destination=taken or REFUSE,
        zone="perimeter" if taken is not None else None,
        rule=rule,
        reasons=reasons,
        not_taken=_not_taken(policy, taken, against | refusals, rest),
        policy=policy.digest,
        remote_model=None if destination is None else destination.remote_name(facts.model),
        is_turned_away=why_not is not None,
    )


def _inside_candidates(facts: Facts, policy: Policy) -> list[tuple[str, str | None]]:
    """Each with what is in its way."""
    here = None
    if facts.decider == "egress":
        here = "the egress process hands nothing to the engines here: the gateway does"
    elif facts.attempt == "after-local":
        here = "the engine here was tried and failed"
    elif facts.local is not True:
        here = "no engine here can take it"
    found: list[tuple[str, str | None]] = [(LOCAL, here)]
    found += [(each.name, _against_inside(facts, each)) for each in policy.destinations if each.zone == "perimeter"]
    return found


def _against_inside(facts: Facts, to: Destination) -> str | None:
    """What is in the way of a server inside."""
    if to.remote_name(facts.model) is None:
        return "it does not serve this model"
    if facts.decider == "egress" and to.name != facts.only:
        return "it is not the destination that was asked about"
    return _unwell(facts, to)


def _refused(facts: Facts, policy: Policy, rule: str) -> str | None:
    """Why the policy wants a request refused that could be served inside."""
    reasons: tuple[str, ...] = ()
    if rule == "data" and (facts.found is None or facts.found.verdict is Verdict.UNKNOWN):
        reasons = (NOT_SCANNED,) if facts.found is None else facts.found.reasons
    if rule == "taint" and facts.taint is not Taint.TAINTED:
        reasons = (TAINT_REASON,)
    if any(policy.is_refused(each) for each in reasons):
        return "the policy refuses what could not be read for this reason"
    return None


def _not_taken(
    policy: Policy, taken: str | None, against: dict[str, Objection], rest: Objection
) -> tuple[NotTaken, ...]:
    found = []
    for name in (LOCAL, *(each.name for each in policy.destinations)):
        if name != taken:
            objection = against.get(name, rest)
            found.append(NotTaken(name, objection.rule, objection.why))
    return tuple(found)


def _in_cloud(policy: Policy) -> list[Destination]:
    return [each for each in policy.destinations if each.zone != "perimeter"]


def _classes(facts: Facts, policy: Policy) -> list[WorkloadClass]:
    """Those of the policy that the key is enrolled for, and that have somewhere to go."""
    names = {each.name for each in _in_cloud(policy)}
    enrolled = facts.classes or frozenset()
    return [each for each in policy.classes if each.name in enrolled and not names.isdisjoint(each.destinations)]


def _pairs(facts: Facts, policy: Policy) -> list[Pair]:
    """What may come into question, in the order of the policy's classes and of their destinations."""
    return [
        (each, destination)
        for each in _classes(facts, policy)
        if _short_of(facts, policy, each) is None
        for name in each.destinations
        for destination in (policy.destination(name),)
        if destination is not None and destination.zone != "perimeter"
    ]


def _switch(facts: Facts, policy: Policy) -> str | None:
    if not policy.cloud:
        return "the policy has `cloud` off"
    if facts.cloud_open is not True:
        return "the kill switch was thrown" if facts.cloud_open is False else "nobody knows how the kill switch stands"
    return None


def _attempt(facts: Facts, _policy: Policy) -> str | None:
    if facts.attempt == "after-cloud":
        return "a cloud destination failed, and after that a request is served inside"
    if facts.attempt not in ("first", "after-local"):
        return "it is not known what was tried before"
    if facts.decider not in ("gateway", "egress"):
        return "it is not known who decides"
    return None


def _endpoint(facts: Facts, policy: Policy) -> str | None:
    if policy.endpoint(facts.route) is None:
        return "the policy lets nothing of this route leave"
    return None


def _field(facts: Facts, policy: Policy) -> str | None:
    endpoint = policy.endpoint(facts.route)
    if endpoint is None:
        return None  # the rule before this one has objected
    if not facts.fields:
        return "it is not known which fields there are"
    refused = sorted({path.partition(".")[0] for path in endpoint.refuses(facts.fields)})
    if not refused:
        return None
    # deeper names may be a caller's own
    named = ", ".join(f"`{name}`" for name in refused[:_LARGE]) + (", …" if len(refused) > _LARGE else "")
    return f"the policy does not let all of {named} leave"


def _caller(facts: Facts, _policy: Policy) -> str | None:
    if facts.asked_local is not False:
        return "the caller asked for it" if facts.asked_local else "it is not known what the caller asked for"
    return None


def _class(facts: Facts, policy: Policy) -> str | None:
    if _classes(facts, policy):
        return None
    if not facts.classes:
        return "the key is enrolled for no class of work"
    return "the policy has no cloud destination for what the key is enrolled for"


def _recall(facts: Facts, policy: Policy) -> str | None:
    classes = _classes(facts, policy)
    short = [_short_of(facts, policy, each) for each in classes]
    if not classes or None in short:
        return None
    return "; ".join(dict.fromkeys(each for each in short if each is not None))


def _short_of(facts: Facts, policy: Policy, workload: WorkloadClass) -> str | None:
    """The labels of a class that are not found well enough, or whose figure is not published; None where all are."""
    wanted = {each.label: each.least for each in policy.least_recall}
    labels = wanted.keys() if workload.labels is None else workload.labels
    published = {each.label: each.recall for each in facts.published or ()}
    if not labels or not wanted:
        return f"no label is named whose recall is to be published for `{workload.name}`"
    short = sorted(each for each in labels if each not in wanted or published.get(each, -1) < wanted[each])
    if not short:
        return None
    named = ", ".join(f"`{label}`" for label in short)
    return f"the published recall of {named} is less than the policy wants for `{workload.name}`, or missing"


def _data(facts: Facts, _policy: Policy) -> str | None:
    if facts.found is None:
        return "it was not read by the detectors"
    if facts.found.verdict is Verdict.SENSITIVE:
        return "the detectors found what must stay inside"
    if facts.found.verdict is not Verdict.CLEAN:
        return "the detectors could not read all of it, which counts as sensitive"
    return None


def _taint(facts: Facts, _policy: Policy) -> str | None:
    if facts.taint is Taint.TAINTED:
        return "part of it was in a sensitive request, or in the answer to one"
    if facts.taint is not Taint.NONE:
        return "it is not known what was in sensitive requests, which counts as sensitive"
    return None


def _destination(facts: Facts, _policy: Policy, _workload: WorkloadClass, to: Destination) -> str | None:
    if to.remote_name(facts.model) is None:
        return "it does not serve this model"
    if to.name != facts.only and (facts.only is not None or facts.decider != "gateway"):
        return "it is not the destination that was asked about"
    return None


def _residency(facts: Facts, policy: Policy, workload: WorkloadClass, to: Destination) -> str | None:
    if to.region not in policy.residency:
        return "data of this site may not go to its region"
    if to.region not in workload.residency:
        return f"data of `{workload.name}` may not go to its region"
    if to.region not in (facts.residency or ()):
        return "data of this key may not go to its region"
    return None


def _attestation(facts: Facts, policy: Policy, _workload: WorkloadClass, to: Destination) -> str | None:
    word = to.attestation
    if word is None:
        return "it has no attestation"
    if facts.today is None or facts.today >= word.expires:
        return "its attestation has expired" if facts.today is not None else "it is not known what day it is"
    if not word.training_opt_out:
        return "what is sent there may train models"
    if not word.dpa:
        return "its attestation names no data processing agreement"
    if not 0 <= word.retention_days <= policy.most_retention_days:
        return "it keeps what is sent for longer than the policy allows"
    return None


def _complexity(facts: Facts, _policy: Policy, workload: WorkloadClass, _to: Destination) -> str | None:
    if facts.complexity is None or not workload.hard.is_met_by(facts.complexity):
        return f"it is not hard by the bounds of `{workload.name}`"
    return None


def _budget(facts: Facts, _policy: Policy, _workload: WorkloadClass, to: Destination) -> str | None:
    if to.prices is None:
        return "it has no prices, so that no budget can be reserved"
    if facts.budget == "reserved" or (facts.budget == "available" and facts.decider == "gateway"):
        return None
    return "no budget is reserved for it"


def _availability(facts: Facts, _policy: Policy, _workload: WorkloadClass, to: Destination) -> str | None:
    return _unwell(facts, to)


def _unwell(facts: Facts, to: Destination) -> str | None:
    return None if to.name in (facts.healthy or ()) else "it is not known to be well"


RULES: Final[tuple[tuple[str, Rule], ...]] = (
    ("switch", _switch),
    ("attempt", _attempt),
    ("endpoint", _endpoint),
    ("field", _field),
    ("caller", _caller),
    ("class", _class),
    ("recall", _recall),
    ("data", _data),
    ("taint", _taint),
)
"""Of the request, in order."""
PAIR_RULES: Final[tuple[tuple[str, PairRule], ...]] = (
    ("destination", _destination),
    ("residency", _residency),
    ("attestation", _attestation),
    ("complexity", _complexity),
    ("budget", _budget),
    ("availability", _availability),
)
"""Of the request and one destination of one of its classes, in order, once none of those above objects."""
_PLACE: Final = {code: place for place, (code, _) in enumerate(PAIR_RULES)}
ALL_RULES: Final = (*(code for code, _ in RULES), *_PLACE)
"""The codes of all rules, in order. They never change meaning."""
