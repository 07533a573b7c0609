"""What a key looks like, and what each may do."""

from __future__ import annotations

import dataclasses
import hmac
import sys
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.access.keys import Denied, Hasher, Key, Presented, Principal, decide_access, new_key, parse_key, write_key

NOW = 1_800_000_000
HASHER = Hasher(b"p" * 32)
ID, TEXT = new_key()
SHOWN = parse_key(TEXT)
KEY = Key(ID, "radiology", "reports", HASHER.digest(SHOWN), NOW - 10)
HOME = ip_address("10.1.2.3")


def decide(scope="inference", model=None, source=HOME, now=NOW, **changes):
    return decide_access(dataclasses.replace(KEY, **changes), now, scope, model, source)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_read_back(secret: bytes) -> None:
    """Whatever its secret is; and none of it is in what is printed of it."""
    shown = parse_key(write_key(ID, secret))
    assert isinstance(shown, Presented)
    assert shown.id == ID
    assert shown.secret not in repr(shown)


@given(st.integers(3, len(TEXT) - 1), st.sampled_from("0aZ_é"))
def test_a_mistyped_key_is_told_offline(at: int, letter: str) -> None:
    """One wrong letter anywhere is told by the text alone, without saying any of it."""
    mistyped = TEXT[:at] + letter + TEXT[at + 1 :]
    answer = parse_key(mistyped)
    assert answer == SHOWN if mistyped == TEXT else isinstance(answer, str) and mistyped[:6] not in answer


@pytest.mark.parametrize("text", ["", "pk", "pk__", "sk-proj-1234", TEXT[:-1], TEXT + "0", TEXT.lower(), f" {TEXT}"])
def test_what_is_no_key_is_told(text: str) -> None:
    """Also the empty text, another provider's key, one cut or with more behind it."""
    assert isinstance(parse_key(text), str)


@given(st.text())
def test_any_text_is_a_key_or_not(text: str) -> None:
    """No text is a failure of ours."""
    parse_key(text)


def test_no_two_keys_are_the_same() -> None:
    """Ids and secrets are random."""
    assert len({part for _ in range(200) for part in new_key()}) == 400


def test_only_the_key_itself_matches() -> None:
    """Another secret under its id does not, nor another id's, nor itself under another pepper."""
    assert HASHER.matches(SHOWN, KEY)
    assert not HASHER.matches(parse_key(write_key(ID, bytes(32))), KEY)
    assert not HASHER.matches(SHOWN, None)
    assert not Hasher(b"q" * 32).matches(SHOWN, KEY)
    assert Hasher(b"q" * 32).witness() != HASHER.witness()


def test_an_unknown_id_is_as_much_work_as_a_wrong_secret() -> None:
    """The same functions are called the same number of times: how long it takes tells nothing."""

    def work(presented: Presented, key: Key | None) -> list[object]:
        calls: list[object] = []

        def seen(frame, event, arg) -> None:
            if event in {"call", "c_call"}:
                calls.append(frame.f_code if event == "call" else arg.__qualname__)

        sys.setprofile(seen)
        try:
            HASHER.matches(presented, key)
        finally:
            sys.setprofile(None)
        return calls[:-1]  # the last one ends the watching

    wrong = parse_key(write_key(ID, bytes(32)))
    known, unknown = work(wrong, KEY), work(wrong, None)
    assert known == unknown == work(SHOWN, KEY)
    assert hmac.compare_digest.__qualname__ in known
    assert Hasher.digest.__code__ in known


def test_a_good_key_becomes_a_principal() -> None:
    """With what the gateway has to know of it, and nothing of the secret."""
    principal = decide(models=frozenset({"demo"}), model="demo", expires=NOW + 5)
    assert isinstance(principal, Principal)
    assert (principal.key_id, principal.account, principal.cache_domain) == (ID, ID, "radiology")
    assert principal.valid_until == NOW + 5
    assert decide(account="first", cache_domain="ward").account == "first"
    assert decide(account="first", cache_domain="ward").cache_domain == "ward"


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"revoked": NOW - 1}, 401, "revoked"),
        ({"expires": NOW}, 401, "expired"),
        ({"rotated_to": "next", "grace_until": NOW}, 401, "rotated"),
        ({"networks": (ip_network("10.2.0.0/16"), ip_network("fd00::/8"))}, 403, "network"),
        ({"scope": "metrics"}, 403, "scope"),
        ({"models": frozenset({"other"}), "model": "demo"}, 403, "model"),
        ({"networks": (ip_network("10.0.0.0/8"),), "source": None}, 403, "network"),
    ],
)
def test_whoever_may_not_is_told_why(changes: dict, status: int, reason: str) -> None:
    """401 where the key is worth nothing, 403 where it is not for this."""
    denied = decide(**changes)
    assert isinstance(denied, Denied)
    assert (denied.http_status, denied.reason) == (status, reason)


def test_a_key_is_good_to_its_last_second() -> None:
    """Before its end, within the grace of a rotation, from its own network."""
    assert isinstance(decide(expires=NOW + 1), Principal)
    assert isinstance(decide(rotated_to="next", grace_until=NOW + 1), Principal)
    assert isinstance(decide(networks=(ip_network("10.0.0.0/8"),)), Principal)
    assert isinstance(decide(models=frozenset({"demo"}), model=None), Principal)


def test_nobody_is_let_in_without_a_key() -> None:
    """No record, no principal."""
    assert decide_access(None, NOW, "inference", None, HOME).http_status == 401
