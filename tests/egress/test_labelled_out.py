"""Requests out of the labelled corpus, at every place that a text can stand in, against the real process."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
from collections import Counter

from benchmarks.corpus.labelled import requests
from serving.policy.detect import Scanner, Verdict, parts_of
from tests.egress.conftest import ASK, Outside

COUNT = int(os.environ.get("EGRESS_REQUESTS", "400"))
TIGHTER = (
    {},
    {},
    {},
    {"classes": frozenset()},
    {"residency": frozenset({"us"})},
    {"asked_local": True},
    {"budget": "available"},
    {"destination": "elsewhere"},
    {"attempt": "after-cloud"},
)
"""What is said of a request beside it; most of the time nothing is against it."""


def test_nothing_leaves_that_the_detectors_know_or_cannot_read_or_the_policy_forbids(vendor: Outside) -> None:
    """Counted at the vendor's socket; what leaves by the rules does leave."""
    scanner, dice = Scanner(), random.Random(7)
    left, leaked = 0, Counter[str | None]()
    for number, given in enumerate(itertools.islice(requests(7), COUNT)):
        change = dice.choice(TIGHTER)
        before = vendor.sent
        told = vendor.ask(
            given.route, {**given.body, "model": "demo"}, dataclasses.replace(ASK, domain=f"domain-{number}", **change)
        )
        has_left = vendor.sent > before
        assert has_left == (told.status == 200)
        if has_left:
            left += 1
            assert not change, "a fact was against it"
            leaked[given.label] += given.is_sensitive
            assert given.route == "/v1/chat/completions", "the policy has no other route"
            assert scanner.scan(parts_of(given.body)).verdict is Verdict.CLEAN
    assert left > COUNT // 50
    # what the detectors do not know leaves: docs/detection-quality.md says how much that is
    print(f"{COUNT} requests, {left} left; sensitive by construction among them: {dict(+leaked)}")  # noqa: T201
