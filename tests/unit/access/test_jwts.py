"""What a token proves: which are taken, and every way in which one is not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from serving.access.jwts import (
    _FAMILIES,
    Group,
    Header,
    KeyRing,
    Rules,
    check_signature,
    decide_claims,
    id_of,
    read_header,
    read_keys,
)
from serving.access.keys import SCOPES, Denied, Principal
from serving.access.quota import Limits
from serving.settings.callers import Oidc, OidcGroup
from tests.support.identity import (
    AUDIENCE,
    ISSUER,
    Signer,
    b64,
    claims_at,
    ed,
    hmac_token,
    key_set,
    p256,
    rsa_key,
)

NOW = 1_800_000_000
STAFF = Group("staff", limits=Limits(requests_per_minute=3))
OPERATORS = Group("operators", frozenset({"metrics"}), frozenset({"demo"}), "shared")
RULES = Rules(ISSUER, AUDIENCE, (OPERATORS, STAFF), tuple(_FAMILIES))


def ring_of(*signers: Signer, rules: Rules = RULES) -> KeyRing:
    ring = read_keys(key_set(*signers), rules.algorithms)
    assert isinstance(ring, KeyRing), ring
    return ring


def outcome(token: str, ring: KeyRing, rules: Rules = RULES, now: int = NOW) -> Principal | str:
    """The principal, or the words in which the token is refused."""
    header = read_header(token, rules)
    if isinstance(header, str):
        return header
    key = ring.find(header)
    if key is None:
        return "unknown"
    if isinstance(key, str):
        return key
    claims = check_signature(token, key, rules)
    if isinstance(claims, str):
        return claims
    decided = decide_claims(claims, rules, now)
    return decided.message if isinstance(decided, Denied) else decided


SIGNERS = {
    "RS256": lambda: Signer(rsa_key()),
    "RS384": lambda: Signer(rsa_key()),
    "RS512": lambda: Signer(rsa_key()),
    "PS256": lambda: Signer(rsa_key()),
    "PS384": lambda: Signer(rsa_key()),
    "PS512": lambda: Signer(rsa_key()),
    "ES256": p256,
    "ES384": lambda: Signer(ec.generate_private_key(ec.SECP384R1())),
    "ES512": lambda: Signer(ec.generate_private_key(ec.SECP521R1())),
    "EdDSA": ed,
}


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_a_good_token_of_each_algorithm_is_taken(algorithm: str) -> None:
    """Signed by cryptography itself; changed in one letter of any part it is not."""
    signer = SIGNERS[algorithm]()
    token, ring = signer.token(claims_at(NOW), algorithm), ring_of(signer)
    found = outcome(token, ring)
    assert isinstance(found, Principal), found
    assert (found.owner, found.key_id, found.valid_until) == ("ann", id_of(ISSUER, "ann"), NOW + 300)
    assert (found.account, found.cache_domain) == (found.key_id, found.key_id)
    assert (found.name, found.scopes, found.limits) == ("staff", frozenset({"inference"}), STAFF.limits)
    for part in range(3):
        parts = token.split(".")
        parts[part] = parts[part][:6] + ("A" if parts[part][6] != "A" else "B") + parts[part][7:]
        assert not isinstance(outcome(".".join(parts), ring), Principal)


def test_the_settings_know_the_same_algorithms_and_scopes() -> None:
    """None of them takes a secret: what is not in the list cannot be set."""
    assert get_args(get_args(Oidc.model_fields["algorithms"].annotation)[0]) == tuple(_FAMILIES)
    assert get_args(get_args(OidcGroup.model_fields["scopes"].annotation)[0]) == SCOPES
    assert not [name for name in _FAMILIES if name.startswith("HS") or name == "none"]


def test_what_a_token_may_not_have_in_its_header() -> None:
    """Keys, addresses of keys, other ways to be read: refused before a signature is looked at, though it is right."""
    signer = p256()
    ring = ring_of(signer)
    other = ed().public
    for name, value in {
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/cert",
        "x5c": ["MIIB"],
        "jwk": other,
        "crit": ["exp"],
        "b64": True,
        "zip": "DEF",
        "enc": "A128GCM",
    }.items():
        found = outcome(signer.token(claims_at(NOW), header={name: value}), ring)
        assert isinstance(found, str), name
        assert f"`{name}`" in found
    assert isinstance(outcome(signer.token(claims_at(NOW), header={"x5t": "abc"}), ring), Principal)
    assert isinstance(outcome(signer.token(claims_at(NOW), header={"typ": "AT+JWT"}), ring), Principal)
    for header in (
        {"typ": "logout+jwt"},
        {"typ": 1},
        {"kid": 7},
        {"kid": "k" * 999},
        {"kid": None},
        {"alg": ["ES256"]},
    ):
        assert isinstance(outcome(signer.token(claims_at(NOW), header=header), ring), str), header


def test_algorithms_cannot_be_confused() -> None:
    """None, HMAC under a public key, one key's algorithm with another's kind: refused, each way of writing it."""
    signer = Signer(rsa_key())
    ring = ring_of(signer, p256())
    public = signer.key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    claims = claims_at(NOW)
    body = b64(json.dumps(claims).encode())
    for algorithm in ("none", "None", "NONE", "", "HS256"):
        header = b64(json.dumps({"alg": algorithm, "kid": "k1"}).encode())
        assert isinstance(outcome(f"{header}.{body}.", ring), str)
        assert isinstance(outcome(f"{header}.{body}.AAAA", ring), str)
    for secret in (pem, der, json.dumps(signer.public).encode(), b""):
        for algorithm in ("HS256", "RS256", "ES256"):
            forged = hmac_token(claims, secret, {"alg": algorithm, "kid": "k1", "typ": "JWT"})
            assert isinstance(outcome(forged, ring), str)
    # the key of one kind, the algorithm of another
    assert outcome(signer.token(claims, "RS256", {"alg": "ES256"}), ring) == (
        "the key that it names is not one of that algorithm"
    )
    assert "signature" in str(outcome(signer.token(claims, "RS256", {"alg": "PS256"}), ring))
    assert "signature" in str(outcome(signer.token(claims, "RS384", {"alg": "RS256"}), ring))
    bound = ring_of(Signer(rsa_key(), "k1", alg="RS512"))
    assert isinstance(outcome(signer.token(claims, "RS512"), bound), Principal)
    assert "not one of that algorithm" in str(outcome(signer.token(claims, "RS256"), bound))
    larger = Signer(ec.generate_private_key(ec.SECP384R1()))
    assert "not one of that algorithm" in str(outcome(larger.token(claims, "ES256"), ring_of(larger)))
    few = replace(RULES, algorithms=("ES256",))
    assert "algorithm" in str(outcome(signer.token(claims), ring, few))


def test_a_key_of_another_id_signs_nothing() -> None:
    """The id chooses the key; where it is missing there must be one only that it can be."""
    first, second, stranger = p256("a"), p256("b"), p256("c")
    ring = ring_of(first, second)
    claims = claims_at(NOW)
    assert outcome(first.token(claims, header={"kid": "b"}), ring) == "its signature is wrong"
    assert outcome(stranger.token(claims), ring) == "unknown"
    assert outcome(stranger.token(claims, header={"kid": "a"}), ring) == "its signature is wrong"
    first.kid = None
    assert "several" in str(outcome(first.token(claims), ring))
    alone = p256(None)
    assert isinstance(outcome(alone.token(claims), ring_of(alone, ed())), Principal)
    twice = [p256("same"), p256("same")]
    assert "several" in str(outcome(twice[0].token(claims), ring_of(*twice)))


CLAIMS = {
    "another issuer": ({"iss": ISSUER + "/"}, "issuer"),
    "no issuer": ({"iss": None}, "issuer"),
    "an issuer in a list": ({"iss": [ISSUER]}, "issuer"),
    "another audience": ({"aud": "perimeter2"}, "audience"),
    "no audience": ({"aud": None}, "audience"),
    "a list without it": ({"aud": ["a", "b"]}, "audience"),
    "a part of it": ({"aud": AUDIENCE[:4]}, "audience"),
    "its letters": ({"aud": {"perimeter": 1}}, "audience"),
    "expired this second": ({"exp": NOW}, "expired"),
    "expired within the leeway": ({"exp": NOW - 5}, "expired"),
    "no end": ({"exp": None}, "`exp`"),
    "an end in words": ({"exp": str(NOW + 300)}, "`exp`"),
    "an end that is true": ({"exp": True}, "`exp`"),
    "an end beyond all bounds": ({"exp": 10**15}, "`exp`"),
    "an end below zero": ({"exp": -1}, "`exp`"),
    "an end in a list": ({"exp": [NOW + 300]}, "`exp`"),
    "not yet": ({"nbf": NOW + 31}, "`nbf`"),
    "a beginning in words": ({"nbf": "0"}, "`nbf`"),
    "made in times to come": ({"iat": NOW + 31}, "`iat`"),
    "made in a list": ({"iat": []}, "`iat`"),
    "no subject": ({"sub": None}, "`sub`"),
    "an empty subject": ({"sub": ""}, "`sub`"),
    "a subject in a list": ({"sub": ["ann"]}, "`sub`"),
    "a number as subject": ({"sub": 7}, "`sub`"),
    "a long subject": ({"sub": "a" * 256}, "`sub`"),
    "a line in a subject": ({"sub": "ann\nroot"}, "`sub`"),
    "a terminal's code in a subject": ({"sub": "ann\x1b[2J"}, "`sub`"),
    "a turned subject": ({"sub": "ann\u202egnp"}, "`sub`"),
    "bound to another key": ({"cnf": {"jkt": "abc"}}, "`cnf`"),
    "groups that are a number": ({"groups": 7}, "groups"),
    "groups that are a table": ({"groups": {"staff": True}}, "groups"),
    "groups of numbers": ({"groups": ["staff", 7]}, "groups"),
    "groups in groups": ({"groups": [["staff"]]}, "groups"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_claims_that_are_not_taken(case: str) -> None:
    """With 401, in words that name the claim and say nothing of its value."""
    changed, word = CLAIMS[case]
    signer = ed()
    found = outcome(signer.token(claims_at(NOW, **changed)), ring_of(signer))
    assert isinstance(found, str)
    assert word in found
    denied = decide_claims(json.loads(json.dumps(claims_at(NOW, **changed))), RULES, NOW)
    assert isinstance(denied, Denied)
    assert (denied.reason, denied.http_status) == ("token", 401)


def test_claims_that_are() -> None:
    """Several audiences with ours among them, fractions of a second, a clock that is ahead by the leeway."""
    for changed in (
        {"aud": ["other", AUDIENCE]},
        {"exp": NOW + 1.9},
        {"nbf": NOW + 30, "iat": NOW + 30},
        {"iat": None},
        {"groups": "staff"},
        {"sub": "a" * 255},
        {"sub": "Ännchen Müller"},
    ):
        found = decide_claims(claims_at(NOW, **changed), RULES, NOW)
        assert isinstance(found, Principal), changed
    assert decide_claims(claims_at(NOW, exp=NOW + 1.9), RULES, NOW).valid_until == NOW + 1


def test_the_first_group_of_the_settings_counts_alone() -> None:
    """Whatever the order of the token's; in no group that is known: 403, and not as if the token were wrong."""
    found = decide_claims(claims_at(NOW, groups=["x", "staff", "operators"]), RULES, NOW)
    assert isinstance(found, Principal)
    assert (found.scopes, found.models, found.cache_domain) == (OPERATORS.scopes, OPERATORS.models, "shared")
    assert found.limits == Limits()
    for groups in ([], ["x"], "x", None, ["Staff"]):
        denied = decide_claims(claims_at(NOW, groups=groups), RULES, NOW)
        assert isinstance(denied, Denied)
        assert denied.http_status == 403


def test_a_claim_inside_another() -> None:
    """The whole name first, since some providers' claims are URLs; a text on the way is no group."""
    rules = replace(RULES, groups_claim="realm_access.roles")
    for more, is_taken in (
        ({"realm_access": {"roles": ["staff"]}}, True),
        ({"realm_access.roles": ["staff"]}, True),
        ({"realm_access.roles": ["x"], "realm_access": {"roles": ["staff"]}}, False),
        ({"realm_access": "staff"}, False),
        ({"realm_access": {}}, False),
        ({}, False),
    ):
        assert isinstance(decide_claims(claims_at(NOW, **more), rules, NOW), Principal) == is_taken, more
    url = replace(RULES, groups_claim="https://site.example/groups")
    assert isinstance(decide_claims(claims_at(NOW, **{url.groups_claim: ["staff"]}), url, NOW), Principal)


def test_a_token_that_two_readers_could_read_in_two_ways_is_none() -> None:
    """A name twice, NaN, depth beyond reason, other encodings: whether in the header or the claims."""
    signer = ed()
    ring = ring_of(signer)
    good = json.dumps(claims_at(NOW))[1:]
    deep = b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"," + good.encode()
    for body in (
        b'{"sub":"root",' + good.encode(),
        b'{"x":NaN,' + good.encode(),
        b"[" + json.dumps(claims_at(NOW)).encode() + b"]",
        json.dumps(claims_at(NOW)).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(claims_at(NOW)).encode(),
        b'{"exp":1e400,' + good.encode(),
        deep,
        b"",
        b"null",
    ):
        assert isinstance(outcome(signer.token(body), ring, replace(RULES, token_bytes=32_768)), str), body[:20]
    for header in (
        b'{"alg":"EdDSA","alg":"EdDSA","kid":"ed"}',
        b'{"alg":"EdDSA","kid":"other","kid":"ed"}',
        b'{"alg":"EdDSA","kid":"ed","x":' + b"[" * 600 + b"]" * 600 + b"}",
        b'["EdDSA"]',
        b"EdDSA",
    ):
        assert isinstance(outcome(signer.token(claims_at(NOW), header=header), ring), str), header


def test_the_form_of_a_token() -> None:
    """Exactly three parts, in plain base64url, of bounded length."""
    signer = ed()
    ring, token = ring_of(signer), signer.token(claims_at(NOW))
    head, body, signature = token.split(".")
    for text in (
        "",
        ".",
        "..",
        head,
        f"{head}.{body}",
        f"{head}.{body}.",
        f"{token}.{token}",
        f"{head}==.{body}.{signature}",
        f"{head}.{body}.{signature}=",
        f"{head}.{body}.{signature}\n",
        f" {token}",
        token.replace("_", "/").replace("-", "+") + "/",
        "ä" * 600,
        signer.token(claims_at(NOW, padding="x" * 9000)),
    ):
        assert isinstance(outcome(text, ring), str), text[:40]
    assert isinstance(outcome(token, ring), Principal)


WEAK = {
    "secret": {"kty": "oct", "k": b64(b"s" * 32), "kid": "k"},
    "short RSA": Signer(rsa_key(1024), "k").public,
    "a small exponent": {**Signer(rsa_key(), "k").public, "e": "Aw"},
    "a private key": {**Signer(rsa_key(), "k").public, "d": b64(b"d" * 256)},
    "for encryption": Signer(rsa_key(), "k", use="enc").public,
    "for signing only": Signer(rsa_key(), "k", key_ops=["sign"]).public,
    "of a secret's algorithm": Signer(rsa_key(), "k", alg="HS256").public,
    "of no algorithm": Signer(rsa_key(), "k", alg="none").public,
    "of another curve": {**p256("k").public, "crv": "P-384"},
    "of a curve that is not offered": Signer(ec.generate_private_key(ec.SECP256K1()), "k").public,
    "not on its curve": {**p256("k").public, "y": b64(b"\x01" * 32)},
    "Ed448": {"kty": "OKP", "crv": "Ed448", "x": b64(b"x" * 57), "kid": "k"},
    "short Ed25519": {"kty": "OKP", "crv": "Ed25519", "x": b64(b"x" * 31), "kid": "k"},
    "no numbers": {"kty": "RSA", "n": 5, "e": [], "kid": "k"},
    "no type": {"n": "AQAB"},
    "a list as type": {"kty": ["RSA"]},
    "a list as curve": {"kty": "EC", "crv": ["P-256"], "x": "AA", "y": "AA"},
    "a list as id": {**Signer(rsa_key()).public, "kid": ["k"]},
    "no table": "key",
}


@pytest.mark.parametrize("case", WEAK)
def test_keys_that_are_left_out(case: str) -> None:
    """With a reason; the others of the set are used all the same, and alone they are no set."""
    good = ed()
    ring = read_keys(json.dumps({"keys": [WEAK[case], good.public]}).encode(), RULES.algorithms)
    assert isinstance(ring, KeyRing)
    assert ring.count == 1
    assert ring.left_out[0].startswith("key 1 is secret" if case in {"secret", "a private key"} else "key 1 ")
    assert isinstance(ring.find(Header("RS256", "k")), (str, type(None)))
    alone = read_keys(json.dumps({"keys": [WEAK[case]]}).encode(), RULES.algorithms)
    assert isinstance(alone, str)
    assert "key 1 " in alone


def test_documents_that_are_no_key_set() -> None:
    """Not JSON, another shape, too many, too deep, a name twice."""
    one = ed().public
    for document in (
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        json.dumps({"keys": [one] * 65}).encode(),
        json.dumps({"keys": [one], "x": [[[[[[[[1]]]]]]]]}).encode(),
        b'{"keys": [], "keys": [' + json.dumps(one).encode() + b"]}",
        b"[" * 100_000,
        b'{"keys": [' + b" " * (1 << 18) + b"]}",
    ):
        assert isinstance(read_keys(document, RULES.algorithms), str), document[:30]


def test_ids_of_subjects() -> None:
    """Stable, of a bounded length, without the subject in them, and of one issuer and subject only."""
    found = id_of(ISSUER, "ann")
    assert found == "oidc:drxswbp44cpxxpc4x4kztnjlj4"
    assert id_of("a", "bc") != id_of("ab", "c")
    assert id_of(ISSUER, "ann") != id_of(ISSUER + "2", "ann")


TEXT = st.sampled_from(
    [ISSUER, AUDIENCE, "ann", "staff", "RSA", "EC", "P-256", "AQAB", "\x1b", "", "ä", "sig", "ES256"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "groups", "cnf"]), JSON))
def test_only_claims_as_they_should_be_let_in(changed: dict[str, object]) -> None:
    """Whatever else stands there: a principal is one of a known group, of this issuer and audience, in its time."""
    claims = {**claims_at(NOW), **changed}
    found = decide_claims(claims, RULES, NOW)
    if isinstance(found, Principal):
        assert claims["iss"] == ISSUER
        assert AUDIENCE in ([claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"])
        assert NOW < found.valid_until <= claims["exp"]
        assert found.owner == claims["sub"]
        assert "cnf" not in claims
        assert {"staff", "operators"} & set(
            [claims["groups"]] if isinstance(claims["groups"], str) else claims["groups"]
        )
    else:
        assert found.reason in {"token", "group"}


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_document_is_more_than_refused(document: bytes) -> None:
    """Neither as a key set nor as a token does anything raise."""
    assert isinstance(read_keys(document, RULES.algorithms), str)
    assert isinstance(read_header(document.decode("latin-1"), RULES), str)
    assert isinstance(read_header(f"{b64(document)}.AAAA.AAAA", RULES), (str, Header))


@given(st.dictionaries(st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "d"]), JSON))
def test_no_key_is_more_than_left_out(changed: dict[str, object]) -> None:
    """Whatever stands in its members."""
    for signer in (Signer(rsa_key()), ED, P256):
        document = json.dumps({"keys": [{**signer.public, **changed}]}).encode()
        assert isinstance(read_keys(document, RULES.algorithms), (str, KeyRing))


ED, P256 = ed(), p256()


def test_weak_keys_are_what_they_are_called() -> None:
    """The tests above would prove nothing with strong ones."""
    assert rsa_key(1024).key_size == 1024
    assert isinstance(rsa_key(), rsa.RSAPrivateKey)
