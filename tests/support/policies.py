"""Policies and facts of which every rule lets one request out, to be changed one thing at a time; and random ones."""

from __future__ import annotations

from datetime import date
from random import Random
from typing import Any

from serving.policy.facts import Facts, Found, Published, Taint
from serving.policy.model import (
    Attestation,
    Complexity,
    Destination,
    Endpoint,
    Hard,
    LeastRecall,
    Policy,
    RemoteModel,
    UnknownReason,
    WorkloadClass,
)
from serving.policy.verdict import Verdict

TODAY = date(2026, 5, 1)
WORD = Attestation(training_opt_out=True, retention_days=0, dpa="contract 17", expires=date(2027, 1, 1))
OUT = Destination(
    name="vendor",
    zone="cloud",
    vendor="openai",
    url="https://api.vendor.example/v1",
    models=(RemoteModel("m", "vendor-m"),),
    region="eu",
    attestation=WORD,
    prices="vendor",
)
POLICY = Policy(
    cloud=True,
    residency=frozenset({"eu"}),
    detectors=("names",),
    least_recall=(LeastRecall("name.person", 9500),),
    endpoints=(Endpoint("chat.completions", ("model", "messages.content", "tools.*")),),
    classes=(WorkloadClass("work", ("vendor",), frozenset({"eu"}), Hard(chars=100)),),
    destinations=(OUT,),
)
LEAVING = Facts(
    decider="egress",
    attempt="first",
    route="chat.completions",
    fields=frozenset({"model", "messages.content"}),
    model="m",
    classes=frozenset({"work"}),
    residency=frozenset({"eu"}),
    asked_local=False,
    found=Found(Verdict.CLEAN),
    taint=Taint.NONE,
    published=(Published("name.person", 9900),),
    complexity=Complexity(chars=200),
    budget="reserved",
    cloud_open=True,
    healthy=frozenset({"vendor"}),
    local=True,
    today=TODAY,
    only="vendor",
)

NAMES = ("one", "two", "three")
REGIONS = ("eu", "us", "ru")
LABELS = ("a", "b", "c")
MODELS = ("m", "n")
FIELDS = ("model", "messages.content", "tools.function.name", "user", "?")
DAYS = (date(2026, 1, 1), TODAY, date(2027, 1, 1))


def random_policy(random: Random) -> Policy:
    """One in which much is as it should be, and anything may be otherwise."""
    share = random.choice([0.9, 0.99])

    def mostly(good: Any, *other: Any) -> Any:
        return good if random.random() < share else random.choice(other)

    def some(of: tuple[str, ...], share: float = 0.8) -> list[str]:
        return [each for each in of if random.random() < share]

    destinations = [
        Destination(
            name=name,
            zone=mostly("cloud", "perimeter"),
            vendor=random.choice(["openai", "anthropic"]),
            url="https://api.example/v1",
            models=tuple(RemoteModel(model, model * 2) for model in some(MODELS, 0.9)),
            region=random.choice(REGIONS),
            attestation=mostly(
                Attestation(
                    mostly(True, False), mostly(0, 30, -1), mostly("contract", ""), mostly(DAYS[2], DAYS[0], DAYS[1])
                ),
                None,
            ),
            prices=mostly("p", None),
        )
        for name in some(NAMES)
    ]
    classes = [
        WorkloadClass(
            name,
            tuple(random.sample(NAMES, random.choice([0, 2, 3, 3]))),
            frozenset(some(REGIONS, 0.9)),
            Hard(
                always=mostly(False, True),
                chars=random.choice([None, 10, 10, 100]),
                turns=random.choice([None, 5]),
                code=random.random() < 0.5,
            ),
            random.choice([None, None, frozenset(some(LABELS, 0.4))]),
        )
        for name in some(NAMES)
    ]
    return Policy(
        cloud=mostly(True, False),
        residency=frozenset(some(REGIONS, 0.9)),
        most_retention_days=random.choice([0, 30]),
        least_recall=tuple(LeastRecall(label, random.choice([1, 9000, 9000, 10_000])) for label in some(LABELS)),
        unknown=tuple(UnknownReason(reason, random.choice(["inside", "refuse"])) for reason in some(LABELS, 0.3)),
        endpoints=tuple(
            Endpoint(route, tuple(some(("model", "messages.content", "tools.*", "user"), 0.95)))
            for route in ("chat.completions", "embeddings")
            if random.random() < 0.95
        ),
        classes=tuple(classes),
        destinations=tuple(destinations),
    )


def random_facts(random: Random) -> Facts:
    """The same of facts; each of them may be missing."""
    share = random.choice([0.9, 0.99])

    def mostly(good: Any, *other: Any) -> Any:
        return good if random.random() < share else random.choice([None, *other])

    def some(of: tuple[str, ...], share: float) -> frozenset[str]:
        return frozenset(each for each in of if random.random() < share)

    decider = mostly(random.choice(["gateway", "egress"]))
    return Facts(
        decider=decider,
        attempt=mostly("first", "after-local", "after-cloud"),
        route=mostly("chat.completions", "embeddings", "rerank"),
        fields=mostly(some(FIELDS[:2], 0.9), some(FIELDS, 0.5)),
        model=mostly("m", "n", "x"),
        classes=mostly(some(NAMES, 0.8)),
        residency=mostly(some(REGIONS, 0.9)),
        asked_local=mostly(False, True),
        found=mostly(
            Found(Verdict.CLEAN), Found(Verdict.SENSITIVE, frozenset({"a"})), Found(Verdict.UNKNOWN, reasons=("a:x",))
        ),
        taint=mostly(Taint.NONE, *Taint),
        published=mostly(tuple(Published(label, random.choice([9500, 10_000, 10_000])) for label in LABELS), ()),
        complexity=mostly(Complexity(chars=random.choice([0, 50, 500, 500]), turns=random.choice([1, 9]), code=True)),
        budget=mostly("reserved", "available", "spent"),
        cloud_open=mostly(True, False),
        healthy=mostly(some(NAMES, 0.9)),
        local=mostly(True, False),
        today=mostly(TODAY, *DAYS),
        only=None if decider == "gateway" and random.random() < 0.8 else random.choice([None, *NAMES, *NAMES]),
    )
