"""What a token of an identity provider proves: pure functions of its bytes, the provider's keys and the time.

PyJWT checks signatures; each of its keys is bound to one algorithm beforehand, so that a token cannot choose how it is
read (RFC 8725, 3.1). What else is in a token is read here, strictly, and decided here: PyJWT has a clock of its own,
takes texts for numbers, and lets the last of two equal names win.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from serving.access.keys import Denied, Principal, Scope
from serving.access.quota import UNLIMITED, Limits
from serving.errors import RequestError
from serving.openai.limits import Limits as Bounds
from serving.openai.strict import parse_body

PREFIX: Final = "oidc:"
"""What the id of a principal begins with that comes from a token; no key's id has a colon."""
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]{2,2048})\.([A-Za-z0-9_-]{2,})\.([A-Za-z0-9_-]{2,})")
"""Three parts in base64url without padding, the last of which is not empty: an unsigned token has none."""
_REFUSED_HEADERS: Final = ("crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc")
"""What would have us take keys from the token, or read it in another way. `x5t` only names a key, and is not read."""
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""`typ`, RFC 9068. A provider's other tokens, such as those that log somebody out, have others."""
_FAMILIES: Final[Mapping[str, tuple[str, str | None]]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Type and curve of the key that an algorithm takes (RFC 7518, RFC 8037)."""
_SECRET_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_RSA_BITS: Final = range(2048, 8193)
"""The least is NIST SP 800-131A's; the most keeps a check below a millisecond."""
_LEAST_EXPONENT: Final = 65_537
_MOST_KEYS: Final = 64
_MOST_CHARS: Final = 255
"""Of a subject (OpenID Connect Core, 2)."""
_MOST_SECONDS: Final = 10**11
_TOKEN_BOUNDS: Final = Bounds(body_bytes=1 << 16, depth=8, containers=512)
_SET_BOUNDS: Final = Bounds(body_bytes=1 << 18, depth=6, containers=2048)
SET_BYTES: Final = _SET_BOUNDS.body_bytes
"""Longest key set that is read."""
_JWS: Final = jwt.PyJWS(algorithms=list(_FAMILIES), options={"enforce_minimum_key_length": True})


@dataclass(frozen=True, slots=True)
class Group:
    """What the members of a group may do."""

    name: str
    scopes: frozenset[Scope] = frozenset({"inference"})
    models: frozenset[str] | None = None
    cache_domain: str = ""
    """Empty: each subject has its own."""
    limits: Limits = UNLIMITED
    classes: frozenset[str] = frozenset()
    residency: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """Which tokens are taken, and what they are worth."""

    issuer: str
    audience: str
    groups: tuple[Group, ...]
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    groups_claim: str = "groups"
    leeway_s: int = 30
    token_bytes: int = 8192


@dataclass(frozen=True, slots=True)
class Header:
    """What a token says of its signature."""

    algorithm: str
    kid: str | None


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The provider's keys that can be used, by key id and algorithm; by None those of every id."""

    keys: Mapping[tuple[str | None, str], tuple[jwt.PyJWK, ...]]
    count: int
    left_out: tuple[str, ...] = ()
    """Why others cannot be used."""

    def find(self, header: Header) -> jwt.PyJWK | str | None:
        """The one key that fits; why there is none; None where it is not known, and a later set may have it."""
        found = self.keys.get((header.kid, header.algorithm), ())
        if len(found) == 1:
            return found[0]
        if found:
            return "it does not say which key signed it, and several could have"
        if any(kid == header.kid for kid, _ in self.keys if kid is not None):
            return "the key that it names is not one of that algorithm"
        return None


def read_header(token: str, rules: Rules) -> Header | str:
    """What stands before the signature is checked, or what is wrong, in words that say nothing of the token."""
    parts = None if len(token) > rules.token_bytes else _COMPACT.fullmatch(token)
    header = None if parts is None else _object(_decoded(parts[1]), _TOKEN_BOUNDS)
    if header is None:
        return f"it has not the form of a signed token of at most {rules.token_bytes} bytes"
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    refused = next((name for name in _REFUSED_HEADERS if name in header), None)
    if refused is not None:
        return f"its header has `{refused}`, which is not taken here"
    if algorithm not in rules.algorithms or algorithm not in _FAMILIES:
        return "its algorithm is not one that is taken here"
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        return "it is of another type than those that let somebody in"
    if "kid" in header and (not isinstance(kid, str) or len(kid) > _MOST_CHARS):
        return "the id of its key is no short text"
    return Header(algorithm, kid)


def check_signature(token: str, key: jwt.PyJWK, rules: Rules) -> dict[str, object] | str:
    """The claims, once that key has been found to have signed them; else what is wrong."""
    try:
        payload = _JWS.decode_complete(token, key, algorithms=rules.algorithms)["payload"]
    except (jwt.PyJWTError, ValueError, TypeError):
        return "its signature is wrong"
    claims = _object(payload, _TOKEN_BOUNDS)
    return "its claims are no JSON object that can be read in one way only" if claims is None else claims


def decide_claims(claims: Mapping[str, object], rules: Rules, now: int) -> Principal | Denied:
    """Who the subject of these claims is, which the issuer has signed. `now` in seconds since 1970.

    `exp` has no leeway: what runs with the token is cut then.
    """
    wrong = _wrong_in(claims, rules, now)
    subject, expires = claims.get("sub"), _seconds(claims.get("exp"))
    if wrong is not None or not isinstance(subject, str) or expires is None:
        return Denied("token", f"the token is not taken: {wrong}")
    names = _groups_in(claims, rules.groups_claim)
    if names is None:
        return Denied("token", "the token is not taken: its groups are no list of names")
    group = next((each for each in rules.groups if each.name in names), None)
    if group is None:
        return Denied("group", "the token is of nobody who may use this server: none of its groups is known here")
    key_id = id_of(rules.issuer, subject)
    return Principal(
        key_id=key_id,
        account=key_id,
        owner=subject,
        name=group.name,
        scopes=group.scopes,
        models=group.models,
        # not the subject's bare name, which may be that of a key's owner
        cache_domain=group.cache_domain or key_id,
        limits=group.limits,
        valid_until=expires,
        classes=group.classes,
        residency=group.residency,
    )


def id_of(issuer: str, subject: str) -> str:
    """What usage, limits and the audit call a subject: 31 characters, always the same, from which nothing is told."""
    told = f"{len(issuer)}:{issuer}{subject}".encode("utf-8", "surrogatepass")
    return PREFIX + base64.b32encode(hashlib.sha256(told).digest()[:16]).decode("ascii").rstrip("=").lower()


def read_keys(document: bytes, algorithms: Sequence[str]) -> KeyRing | str:
    """The keys of a JSON Web Key Set (RFC 7517) that can check signatures of these algorithms, or what is wrong.

    A key that cannot be used safely is left out: a secret one, a weak one, one that is not for signatures.
    """
    content = _object(document, _SET_BOUNDS)
    found = None if content is None else content.get("keys")
    if not isinstance(found, list):
        return "it is no JSON Web Key Set, an object with a list `keys`"
    if len(found) > _MOST_KEYS:
        return f"it has {len(found)} keys, at most {_MOST_KEYS} are taken"
    keys: dict[tuple[str | None, str], tuple[jwt.PyJWK, ...]] = {}
    left_out, count = [], 0
    for number, data in enumerate(found, 1):
        usable = _usable(data, algorithms)
        if isinstance(usable, str):
            left_out.append(f"key {number} {usable}")
            continue
        count += 1
        for algorithm, key in usable.items():
            for kid in {data.get("kid"), None}:
                keys[kid, algorithm] = (*keys.get((kid, algorithm), ()), key)
    if not count:
        return "it has no key that can be used" + "".join(f"; {each}" for each in left_out[:4])
    return KeyRing(keys, count, tuple(left_out))


def _usable(data: Any, algorithms: Sequence[str]) -> dict[str, jwt.PyJWK] | str:
    """A key for each algorithm that it may be used with, or why it is left out."""
    if not isinstance(data, dict) or not isinstance(data.get("kty"), str):
        return "is none"
    kid, operations = data.get("kid"), data.get("key_ops", ["verify"])
    is_named = kid is None or (isinstance(kid, str) and len(kid) <= _MOST_CHARS)
    is_for_signatures = data.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if data["kty"] == "oct" or _SECRET_MEMBERS & data.keys():
        return "is secret, and a published secret is known to everybody"
    if not is_named or not is_for_signatures:
        return "is not for signatures, or its id is no short text"
    own = "EdDSA" if data.get("alg") == "Ed25519" else data.get("alg")
    fitting = [
        each
        for each in dict.fromkeys(algorithms)
        if own in (None, each) and _FAMILIES[each] in ((data["kty"], None), (data["kty"], data.get("crv")))
    ]
    if not fitting:
        return "is of no algorithm that is taken here"
    try:
        made = {each: jwt.PyJWK(data, each) for each in fitting}
    except (jwt.PyJWTError, KeyError, ValueError, TypeError):
        return "cannot be read"
    return made if all(_is_strong(each.key) for each in made.values()) else "is too weak, or too large"


def _is_strong(key: object) -> bool:
    """Whether it is a public key of a kind and size that can be relied upon."""
    if isinstance(key, RSAPublicKey):
        return key.key_size in _RSA_BITS and key.public_numbers().e >= _LEAST_EXPONENT
    return isinstance(key, (EllipticCurvePublicKey, Ed25519PublicKey))


def _wrong_in(claims: Mapping[str, object], rules: Rules, now: int) -> str | None:
    """The first thing for which the claims are worth nothing here."""
    audience, subject, expires = claims.get("aud"), claims.get("sub"), _seconds(claims.get("exp"))
    early = next((name for name in ("nbf", "iat") if name in claims and not _has_begun(claims[name], rules, now)), None)
    is_ours = audience == rules.audience or (isinstance(audience, list) and rules.audience in audience)
    is_named = isinstance(subject, str) and 0 < len(subject) <= _MOST_CHARS and subject.isprintable()
    found = {
        "it is of another issuer": claims.get("iss") != rules.issuer,
        "it is for another audience": not is_ours,
        "it does not say when it ends (`exp`)": expires is None,
        "it has expired": expires is not None and now >= expires,
        f"it is not valid yet, or its `{early}` is no time": early is not None,
        f"its subject (`sub`) is no printable text of at most {_MOST_CHARS} characters": not is_named,
        "it is bound to a proof that is not asked for here (`cnf`)": "cnf" in claims,
    }
    return next((text for text, is_wrong in found.items() if is_wrong), None)


def _has_begun(value: object, rules: Rules, now: int) -> bool:
    begins = _seconds(value)
    return begins is not None and begins <= now + rules.leeway_s


def _seconds(value: object) -> int | None:
    """A NumericDate in whole seconds, rounded down; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_SECONDS:
        return None
    return math.floor(value)


def _groups_in(claims: Mapping[str, object], name: str) -> frozenset[str] | None:
    """The subject's groups; none where the claim is missing, None where it is of another form."""
    found: object = claims
    for part in [name] if name in claims else name.split("."):
        if not isinstance(found, Mapping):
            return None
        if part not in found:
            return frozenset()
        found = found[part]
    if isinstance(found, str):
        return frozenset({found})
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        return None
    return frozenset(found)


def _object(raw: bytes | None, bounds: Bounds) -> dict[str, Any] | None:
    """A JSON object that every strict reader would read the same way."""
    if raw is None:
        return None
    try:
        return parse_body(raw, bounds)
    except RequestError:
        return None


def _decoded(part: str) -> bytes | None:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return None
