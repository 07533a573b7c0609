"""Random policies, requests and what is said of them: mostly as they should be, and anything may be otherwise.

Every request has a mark in a text of its own, by which it is known again at a vendor's socket.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from benchmarks.corpus.labelled import requests
from serving.egress.asking import Ask, write_ask
from tests.egress.rule import PUBLISHED, Asked
from tests.support.vendors.server import Fail, Say

REGIONS = ("eu", "us", "ru")
VENDORS = ("alpha", "beta")
INSIDE = "inside"
CLASSES = ("drafting", "coding", "support")
MODELS = ("demo", "small")
LABELS = ("email", "card", "iban", "phone", "name.person", "address")
MARK = re.compile(rb"zqxj([a-p]{6})jxqz")
CHAT = (
    "model", "messages.role", "messages.content", "messages.name", "messages.refusal", "messages.content.type",
    "messages.content.text", "messages.tool_call_id", "messages.tool_calls.id", "messages.tool_calls.type",
    "messages.tool_calls.function.name", "messages.tool_calls.function.arguments", "tools.*", "response_format.*",
    "metadata.*", "stop", "user", "safety_identifier", "prompt_cache_key", "stream", "stream_options.include_usage",
    "max_tokens",
)  # fmt: skip
FIELDS = {
    "chat.completions": CHAT,
    "completions": ("model", "prompt", "stop", "user", "max_tokens"),
    "embeddings": ("model", "input", "user"),
    "rerank": ("model", "query", "documents", "documents.text", "user"),
}
FAILED = (Fail(500), Fail(503), Fail(429), Fail(401), Fail(400), Say(cut_after=0), Say(cut_after=1), Say(break_after=1))
SAID = ("classes", "residency", "asked_local", "destination", "budget", "attempt", "header", "path")
"""What is said of a request beside it, and can be wrong."""
PASTED = (
    "The second clause is to be struck out, and the board will sign on Thursday if the rate of number {} stays as it "
    "was offered in the spring, which nobody outside of this room is to hear before the winter."
)


def mark_of(number: int) -> str:
    """A word that nobody else writes."""
    return f"zqxj{''.join(chr(97 + (number >> 4 * at & 15)) for at in range(6))}jxqz"


def number_of(mark: bytes) -> int:
    """The request that has this mark."""
    return sum((byte - 97) << 4 * at for at, byte in enumerate(mark))


def random_policy(dice: Random, urls: dict[str, str]) -> dict[str, Any]:
    """A policy as its file has it."""
    share = dice.choice([0.94, 0.99])

    def mostly(good: Any, *other: Any) -> Any:
        return good if dice.random() < share else dice.choice(other)

    def some(of: tuple[str, ...], chance: float) -> list[str]:
        return [each for each in of if dice.random() < chance] or [dice.choice(of)]

    allowed = some(REGIONS, 0.85)
    labels = some(LABELS, 0.5)
    least = {
        label: round(mostly(max(0.01, PUBLISHED[label] - 0.05), min(1, PUBLISHED[label] + 0.02)), 3) for label in labels
    }
    destinations = {
        name: {
            "zone": "cloud",
            "vendor": dice.choice(["openai", "openai-compatible"]),
            "url": urls[name],
            "region": mostly(dice.choice(allowed), *REGIONS),
            "models": {model: f"{name}-{model}" for model in some(MODELS, 0.9)},
            "prices": "vendor",
            "connect_timeout_s": 2.0,
            "timeout_s": 2.0,
            "retries": dice.choice([0, 0, 2]),
            "breaker": {"failures": dice.choice([1000, 1000, 3]), "window_s": 5.0, "open_s": 0.1},
            "attestation": {
                "training_opt_out": mostly(True, False),
                "retention_days": mostly(0, 30, 365),
                "dpa": "annex 2",
                "expires": mostly("2099-01-01", "2026-01-01", "2020-02-29"),
            },
        }
        for name in VENDORS
    }
    hard = [{"always": True}, {"chars": 1}, {"turns": 1}, {"asked_tokens": 8}, {"tools": 1}, {"schema": True}]
    classes = {
        name: {
            "destinations": dice.sample(VENDORS, dice.choice([1, 2, 2])),
            "residency": some(tuple(allowed), 0.95),
            "hard": mostly(dice.choice(hard[:3]), *hard[3:], {"chars": 1_000_000}),
        }
        | ({} if dice.random() < 0.5 else {"labels": some(tuple(labels), 0.5)})
        for name in some(CLASSES, 0.8)
    }
    return {
        "version": 1,
        "cloud": mostly("on", "off"),
        "residency": {"allowed": allowed},
        "attestation": {"most_retention_days": dice.choice([0, 30])},
        "detection": {
            "required": mostly(["numbers"], ["numbers", "nonsense"], ["names"], ["site_patterns"]),
            "least_recall": least,
        },
        "unknown": {"timeout": dice.choice(["inside", "refuse"])},
        "endpoints": {route: some(names, mostly(1.0, 0.9)) for route, names in FIELDS.items() if dice.random() < 0.95},
        "taint": {"keep_days": 1},
        "classes": classes,
        "destinations": destinations
        | {INSIDE: {"zone": "perimeter", "vendor": "openai", "url": urls[INSIDE], "models": {"demo": "demo"}}},
    }


def broken(dice: Random, policy: dict[str, Any]) -> str:
    """The text of a policy that cannot be used, each time for another reason."""
    text = written(policy)
    breaks = (
        text[: len(text) // 2] + "[",
        "",
        text.replace("version = 1", "version = 2"),
        text.replace('cloud = "', 'clouds = "'),
        text + "\n[surprise]\nat = 1\n",
        re.sub(r"(?s)\[destinations\.\w+\.attestation\].*?(?=\n\[|$)", "", text),
        text.replace('"https://', '"http://'),
        re.sub(r'residency = \["\w+"', 'residency = ["atlantis"', text),
        text.replace('region = "', 'legion = "'),
        re.sub(r"2099-01-01|2026-01-01|2020-02-29", "soon", text),
        "\ufeff\x00" + text,
    )
    return dice.choice(breaks)


def written(policy: dict[str, Any]) -> str:
    """TOML."""
    lines: list[str] = []

    def table(path: tuple[str, ...], value: dict[str, Any]) -> None:
        if path:
            lines.append(f"[{'.'.join(json.dumps(name) if '.' in name else name for name in path)}]")
        inner = {name: below for name, below in value.items() if isinstance(below, dict)}
        for name, below in value.items():
            if name not in inner:
                shown = below if name == "expires" else json.dumps(below)
                lines.append(f"{json.dumps(name)} = {shown}" if "." in name else f"{name} = {shown}")
        for name, below in inner.items():
            table((*path, name), below)

    table((), policy)
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Case:
    """One request, as it is sent, and what is known of it."""

    number: int
    asked: Asked
    path: str
    """That it is posted to."""
    headers: tuple[tuple[str, str], ...]
    act: Say | Fail
    """What the vendor does with it."""
    label: str | None = None
    """Sensitive by construction, as this; None: it is not."""

    @property
    def raw(self) -> bytes:
        """Its body."""
        return json.dumps(self.asked.body).encode()


class Cases:
    """Requests without end: labelled ones, a sensitive one and a clean one by turns, and pasted ones among them."""

    def __init__(self, seed: int) -> None:
        self._labelled = requests(seed)
        self._numbers = itertools.count()

    def draw(
        self,
        dice: Random,
        policy: dict[str, Any],
        *,
        shared: str,
        tainted: tuple[str, ...],
        fails: bool,
        waiting: str,
        fair: bool,
    ) -> Case:
        """The next one.

        `shared` is a cache domain in which the texts `tainted` were sensitive, `waiting` one in which an answer to a
        sensitive request is being given; `fails`: most vendors fail; `fair`: nothing is against it but what is in it.
        """
        number = next(self._numbers)
        given = next(self._labelled)
        label, body, path = given.label if given.is_sensitive else None, dict(given.body), given.route
        domain = f"own-{number}"
        is_tainted = False
        if label is None and tainted and dice.random() < 0.15:
            path, body = (
                "/v1/chat/completions",
                {"messages": [{"role": "user", "content": f"Say it better: {dice.choice(tainted)}"}]},
            )
            domain, is_tainted = dice.choice([(shared, True), (f"other-{number}", False)])
        elif not fair and dice.random() < 0.06:
            domain, is_tainted = waiting, True
        ask, asked_path, headers, is_understood = _said(dice, policy, path, domain, number, fair=fair)
        body["model"] = dice.choice(MODELS) if dice.random() < 0.2 else _served(policy, ask.destination)
        if path not in {"/v1/embeddings", "/v1/rerank"} and dice.random() < 0.5:
            body["max_tokens"] = 64
        _mark(body, f"And the word {mark_of(number)}.")
        act = dice.choice(FAILED) if fails and dice.random() < 0.8 else Say()
        asked = Asked(
            path=asked_path,
            body=body,
            classes=ask.classes,
            residency=ask.residency,
            asked_local=ask.asked_local,
            destination=ask.destination,
            budget=ask.budget,
            attempt=ask.attempt,
            is_understood=is_understood,
            is_tainted=is_tainted,
            notes={"own": domain.startswith(("own", "other"))},
        )
        return Case(number, asked, path, headers, act, label)


def _said(
    dice: Random, policy: dict[str, Any], path: str, domain: str, number: int, *, fair: bool
) -> tuple[Ask, str, tuple[tuple[str, str], ...], bool]:
    """What is said of a request: as a gateway would, or not."""
    wrong = (
        set[str]()
        if fair
        else dice.choice([set(), {dice.choice(SAID)}, {dice.choice(SAID)}, set(dice.sample(SAID, 3))])
    )

    def said(name: str, good: Any, *other: Any) -> Any:
        return dice.choice(other) if name in wrong else good

    enrolled = dice.choice(list(policy["classes"]))
    to = dice.choice(policy["classes"][enrolled]["destinations"])
    ask = Ask(
        request=f"req-{number}",
        principal="team",
        key="k1",
        domain=domain,
        classes=frozenset(said("classes", {enrolled}, set(), {"another"}, set(CLASSES) - {enrolled})),
        residency=frozenset(
            said("residency", {policy["destinations"][to]["region"]}, set(), {"atlantis"}, {dice.choice(REGIONS)})
        ),
        asked_local=said("asked_local", False, True),
        destination=said("destination", to, None, "local", INSIDE, "elsewhere", *VENDORS),
        budget=said("budget", "reserved", "available", "spent"),
        attempt=said("attempt", "first", "after-local", "after-cloud", "after-cloud"),
    )
    told = write_ask(ask)
    bad = ["", "{}", told[:-1], told.replace("{", '{"verdict":"clean",', 1), told.replace('"reserved"', '"plenty"')]
    header = said("header", told, *(each for each in bad if each != told))
    junk = {"x-perimeter-route": dice.choice(["cloud", "local", "\x7f", "x" * 300])} if dice.random() < 0.1 else {}
    junk |= {"x-egress-verdict": "clean"} if dice.random() < 0.1 else {}
    asked_path = said("path", path, "/v1/embeddings", "chat.completions", "/v1/rerank", "/judge")
    if asked_path != path:
        junk["x-egress-path"] = asked_path
    headers = (("x-egress-ask", header), *junk.items())
    return ask, asked_path, headers, header == told


def _served(policy: dict[str, Any], destination: str | None) -> str:
    models: Iterator[str] = iter(policy["destinations"].get(destination, {}).get("models", ()))
    return next(models, MODELS[0])


def _mark(body: dict[str, Any], words: str) -> None:
    """Put words into a text of their own."""
    for name in ("messages", "prompt", "input", "documents"):
        value = body.get(name)
        if isinstance(value, list):
            body[name] = [*value, {"role": "user", "content": words} if name == "messages" else words]
        elif isinstance(value, str):
            body[name] = f"{value}\n{words}"
