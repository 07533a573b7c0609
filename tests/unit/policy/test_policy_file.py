"""The policy's file: what ships lets nothing out, and every mistake in one is named."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from serving.errors import BadSettings
from serving.policy.decide import ALL_RULES, decide
from serving.policy.load import load_policy, parse_policy
from serving.policy.model import Destination, Policy, canonical
from tests.support.policies import LEAVING, OUT

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "configs" / "policy.toml"
WHOLE = """
version = 1
cloud = "on"
[residency]
allowed = ["eu"]
[attestation]
most_retention_days = 7
[detection]
required = ["names"]
[detection.least_recall]
"name.person" = 0.95
[unknown]
timeout = "refuse"
[endpoints]
"chat.completions" = ["model", "messages.content"]
[classes.work]
destinations = ["vendor"]
residency = ["eu"]
labels = ["name.person"]
[classes.work.hard]
chars = 100
schema = true
[destinations.vendor]
zone = "cloud"
vendor = "openai"
url = "https://api.vendor.example/v1"
region = "eu"
models = { m = "vendor-m" }
prices = "vendor"
timeout_s = 30
breaker = { failures = 3 }
[destinations.vendor.attestation]
training_opt_out = true
retention_days = 7
dpa = "contract 17"
expires = 2027-01-01
[destinations.other]
zone = "perimeter"
vendor = "openai-compatible"
url = "http://10.1.2.3:8000/v1"
models = { m = "m" }
"""


def parse(text: str) -> Policy:
    return parse_policy(text.encode(), "the policy `p.toml`")


def test_the_policy_that_ships_lets_nothing_out() -> None:
    """It is off; and switched on as it is, it still has no destination, class or region."""
    policy = load_policy(SHIPPED)
    assert not policy.cloud
    assert policy.detectors == ("names",)
    assert policy.endpoint("chat.completions") is not None
    for each in (policy, replace(policy, cloud=True)):
        assert decide(LEAVING, each).zone is None


def test_the_example_in_it_is_a_policy() -> None:
    """With its comments taken away: everything that it shows is taken."""
    lines = SHIPPED.read_text().splitlines()
    begin = next(place for place, line in enumerate(lines) if line.startswith("# [classes."))
    text = "\n".join([*lines[:begin], *(line.removeprefix("# ") for line in lines[begin:])])
    policy = parse(text.replace("allowed = []", 'allowed = ["eu"]').replace('cloud = "off"', 'cloud = "on"'))
    destination, inside = policy.destinations
    assert (inside.zone, inside.region, inside.attestation) == ("perimeter", "", None)
    assert destination.attestation is not None
    assert destination.breaker.window_s == 60
    assert policy.classes[0].hard.tools == 4


def test_a_file_says_all_of_a_policy() -> None:
    """Each field arrives; a request that meets all of it leaves."""
    policy = parse(WHOLE)
    vendor = policy.destination("vendor")
    assert vendor is not None
    assert (vendor.remote_name("m"), vendor.timeout_s, vendor.breaker.failures) == ("vendor-m", 30, 3)
    assert vendor.attestation is not None
    assert vendor.attestation.expires == date(2027, 1, 1)
    assert policy.least_recall[0].least == 9500
    assert policy.is_refused("timeout:names")
    assert not policy.is_refused("timeouts")
    assert policy.classes[0].hard.schema
    assert decide(LEAVING, policy).leaves


def test_a_digest_stands_for_all_of_a_policy() -> None:
    """The same file gives the same one, comments and all; any other value gives another."""
    policy = parse(WHOLE)
    assert policy.digest == parse(f"# a comment\n{WHOLE}").digest
    assert len(policy.digest) == 64
    others = [
        parse(WHOLE.replace(old, new)).digest
        for old, new in (
            ('cloud = "on"', 'cloud = "off"'),
            ("most_retention_days = 7", "most_retention_days = 8"),
            ("0.95", "0.96"),
            ("timeout_s = 30", "timeout_s = 31"),
            ("chars = 100", "chars = 101"),
            ("2027-01-01", "2027-01-02"),
            ('"vendor-m"', '"vendor-n"'),
            ('timeout = "refuse"', 'timeout = "inside"'),
        )
    ]
    assert len({policy.digest, *others}) == len(others) + 1
    assert canonical(policy) == canonical(parse(WHOLE))
    assert replace(policy, cloud=False).digest != policy.digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('cloud = "on"', 'clowd = "on"', "the top level has no field `clowd`"),
        ("chars = 100", "char = 100", "table `[classes.work.hard]` has no field `char`"),
        ("dpa =", "dpo =", "`[destinations.vendor.attestation]` has no field `dpo`"),
        ("failures = 3", "failure = 3", "`[destinations.vendor.breaker]` has no field `failure`"),
        ("[unknown]", "[unknowns]", "has no field `unknowns`"),
        ('region = "eu"\n', "", "has `region` too"),
        ('prices = "vendor"\n', "", "has `prices` too"),
        ("https://api", "http://api", "begins with `https://`"),
        ("https://api", "https://name:word@api", "must be the address of a server"),
        ('timeout = "refuse"', 'timeout = "send"', '`unknown.timeout` = `"send"`'),
        ("0.95", "1.5", "must be at most 1"),
        ("0.95", "0", "must be more than 0"),
        ('required = ["names"]', "required = []", "goes with `detection.required`"),
        ('"name.person" = 0.95', "", "`name.person`"),
        ("retention_days = 7\ndpa", "retention_days = -1\ndpa", "must be at least 0"),
        ("2027-01-01", '"soon"', "expires"),
        ("2027-01-01", "2027-01-01T12:00:00", "expires"),
        ('destinations = ["vendor"]', 'destinations = ["other"]', "no destination of zone `cloud`"),
        ('residency = ["eu"]', 'residency = ["us"]', "`us`"),
        ("chars = 100\nschema = true", "", "must have one bound at least"),
        ("[destinations.other]", "[destinations.local]", "`local` has a meaning of its own"),
        ('"chat.completions" =', '"files" =', "endpoints.files"),
        ('"messages.content"]', '"messages.*.content"]', "must match"),
        ('vendor = "openai"\n', 'vendor = "azure-openai"\n', "`api_version`"),
        ("version = 1", "version = 2", "version"),
        ("version = 1", "", "`version` is missing"),
        ("[residency]", "[residency", "is not TOML"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, said: str) -> None:
    """File, table, field and value."""
    assert old in WHOLE
    with pytest.raises(BadSettings) as caught:
        parse(WHOLE.replace(old, new))
    assert "the policy `p.toml`" in caught.value.message
    assert said in caught.value.message
    assert caught.value.hint is not None


def test_an_unknown_field_has_what_was_meant_beside_it() -> None:
    """In tables by name too."""
    with pytest.raises(BadSettings) as caught:
        parse(WHOLE.replace("schema = true", "shema = true"))
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("did you mean `schema`?")


def test_a_policy_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """And not one that lets nothing out: who names a file means it."""
    with pytest.raises(BadSettings, match="does not exist"):
        load_policy(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["local", "refuse", "vendor"])
def test_no_two_destinations_have_one_name(name: str) -> None:
    """Nor one that means something else in a decision."""
    with pytest.raises(ValueError, match="name"):
        Policy(destinations=(OUT, Destination(name, "perimeter", "openai", "http://a")))


def test_the_documentation_has_every_rule_and_every_table() -> None:
    """In the order in which they are asked."""
    text = (ROOT / "docs" / "routing.md").read_text()
    places = [text.find(f"| `{rule}` |") for rule in ALL_RULES]
    assert -1 not in places
    assert places == sorted(places)
    for table in ("residency", "attestation", "detection", "unknown", "endpoints", "classes", "destinations", "taint"):
        assert f"`[{table}" in text
