"""API keys: their text, what is kept of them, and what a holder may do.

A key is `pk_<id>_<secret><checksum>`. The id is public and finds the record. The secret is 256 random bits in base 62.
The checksum is the CRC-32 of what stands before it, so that a mistyped key is told from a wrong one without asking
anybody (as GitHub's tokens do it). What is kept is HMAC-SHA256 under a pepper that lies in a file of its own: who has
the database alone can check no guess.
"""

from __future__ import annotations

import hmac
import secrets
import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal, get_args

from serving.access.quota import UNLIMITED, Limits

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Scope = Literal["inference", "metrics", "admin", "mirror"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
Reason = Literal["unknown", "revoked", "rotated", "expired", "network", "scope", "model", "token", "group"]

_PREFIX: Final = "pk"
_LETTERS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_CHARS: Final = 12
_SECRET_CHARS: Final = 43
"""62^43 is the first power beyond 2^256."""
_CHECK_CHARS: Final = 6
"""62^6 is the first power beyond 2^32."""
_NOBODY: Final = bytes(32)
"""What the digest of an unknown key is compared with; no digest that can be found has this value."""


@dataclass(frozen=True, slots=True)
class Presented:
    """What a caller shows: a key that is written correctly, valid or not."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key. Times are seconds since 1970, UTC."""

    id: str
    owner: str
    name: str
    digest: bytes = field(repr=False)
    created: int
    expires: int | None = None
    """It is valid before this second; None: always."""
    revoked: int | None = None
    rotated_to: str | None = None
    """The key that took its place."""
    grace_until: int | None = None
    """A rotated key is valid before this second."""
    scopes: frozenset[Scope] = frozenset({"inference"})
    models: frozenset[str] | None = None
    """Those it may use; None: all."""
    networks: tuple[Network, ...] = ()
    """Where it may be used from; empty: anywhere."""
    cache_domain: str = ""
    """Who shares computed prefixes with it; empty: the owner."""
    account: str = ""
    """Where its use is counted: the first key of a line of rotations, so that rotating buys nothing; empty: its id."""
    limits: Limits = UNLIMITED
    record_content: bool = False
    """Its prompts and answers are kept, sealed (docs/audit.md)."""
    classes: frozenset[str] = frozenset()
    """Classes of work of the policy that it is enrolled for; with none, nothing of it leaves (docs/routing.md)."""
    residency: frozenset[str] = frozenset()
    """Regions that its data may go to, in the policy's words."""

    @property
    def counted_at(self) -> str:
        """The account."""
        return self.account or self.id

    @property
    def valid_until(self) -> int | None:
        """The second at which it ends, as far as is known now; None: it does not."""
        ends = [end for end in (self.expires, self.grace_until, self.revoked) if end is not None]
        return min(ends, default=None)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and what they may do; made by `decide_access`, and of tokens by `jwts.decide_claims`."""

    key_id: str
    account: str
    owner: str
    name: str
    scopes: frozenset[Scope]
    models: frozenset[str] | None
    cache_domain: str
    limits: Limits
    valid_until: int | None
    record_content: bool = False
    classes: frozenset[str] = frozenset()
    residency: frozenset[str] = frozenset()

    def may_use(self, model: str) -> bool:
        """Whether the key is for that model."""
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a call is not let in."""

    reason: Reason
    message: str

    @property
    def http_status(self) -> int:
        """401 where another key is needed to be anybody, 403 where this one is not for that."""
        return 403 if self.reason in {"network", "scope", "model", "group"} else 401


def write_key(key_id: str, secret: bytes) -> str:
    """The text of a key. `secret` has 32 bytes."""
    body = f"{_PREFIX}_{key_id}_{_in_base_62(int.from_bytes(secret, 'big'), _SECRET_CHARS)}"
    return body + _checksum(body)


def parse_key(text: str) -> Presented | str:
    """The key that `text` is, or what is wrong with it, in words that say nothing of the text."""
    parts = text.split("_")
    length = _SECRET_CHARS + _CHECK_CHARS
    if len(parts) != 3 or parts[0] != _PREFIX:
        return "it has not the form of a key, `pk_…`"
    if len(parts[1]) != _ID_CHARS or len(parts[2]) != length or not text.isascii():
        return "it is too short or too long: it was cut or mistyped"
    if _checksum(text[:-_CHECK_CHARS]) != text[-_CHECK_CHARS:]:
        return "its checksum is wrong: it was mistyped"
    return Presented(parts[1], parts[2][:-_CHECK_CHARS])


def new_key() -> tuple[str, str]:
    """A new id and the text of a key with it: 256 bits of the kernel's randomness."""
    key_id = "".join(secrets.choice(_LETTERS) for _ in range(_ID_CHARS))
    return key_id, write_key(key_id, secrets.token_bytes(32))


class Hasher:
    """Turns keys into what is kept of them."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    def digest(self, presented: Presented) -> bytes:
        """32 bytes that only who has the pepper can make."""
        return hmac.digest(self._pepper, f"key {presented.id} {presented.secret}".encode(), "sha256")

    def witness(self) -> str:
        """What tells this pepper from another one, and tells nothing else of it."""
        return hmac.digest(self._pepper, b"witness of the pepper", "sha256").hex()

    def matches(self, presented: Presented, key: Key | None) -> bool:
        """Whether this is the key that is kept. The same work whether there is one of that id or not."""
        expected = _NOBODY if key is None else key.digest
        return hmac.compare_digest(self.digest(presented), expected) and key is not None


def decide_access(
    key: Key | None, now: float, route: Scope, model: str | None, source: Address | None
) -> Principal | Denied:
    """Who a caller is whose key has been found to be `key`, or why they are not let in.

    `now` in seconds since 1970; `model` is None where none is asked for, or not yet; `source` is None where the caller
    has no address, and is then in no network.
    """
    if key is None:
        return Denied("unknown", "the API key is not known here")
    ended = _ended(key, now)
    if ended is not None:
        return ended
    if key.networks and not is_within(source, key.networks):
        where = "a caller without an address" if source is None else f"`{source}`"
        return Denied("network", f"the API key `{key.id}` may not be used from {where}")
    if route not in key.scopes:
        has = ", ".join(f"`{scope}`" for scope in sorted(key.scopes))
        return Denied("scope", f"the API key `{key.id}` is not for `{route}`, but for {has}")
    if model is not None and key.models is not None and model not in key.models:
        return Denied("model", f"the API key `{key.id}` is not for this model")
    return Principal(
        key_id=key.id,
        account=key.counted_at,
        owner=key.owner,
        name=key.name,
        scopes=key.scopes,
        models=key.models,
        cache_domain=key.cache_domain or key.owner,
        limits=key.limits,
        valid_until=key.valid_until,
        record_content=key.record_content,
        classes=key.classes,
        residency=key.residency,
    )


def differences(before: Key, after: Key) -> tuple[str, ...]:
    """What of a key's rights is other than before, for people: `expires: none -> 1800000000`."""
    names = ("expires", "scopes", "models", "networks", "classes", "residency")
    told = [(name, getattr(before, name), getattr(after, name)) for name in names]
    told += [
        (each.name, getattr(before.limits, each.name), getattr(after.limits, each.name)) for each in fields(Limits)
    ]
    return tuple(f"{name}: {_in_words(old)} -> {_in_words(new)}" for name, old, new in told if old != new)


def _in_words(value: object) -> str:
    if isinstance(value, frozenset | tuple):
        value = ", ".join(sorted(map(str, value))) or None
    return "none" if value is None else str(value)


def _ended(key: Key, now: float) -> Denied | None:
    """Why the key is worth nothing any more, or None."""
    if key.revoked is not None:
        return Denied("revoked", f"the API key `{key.id}` was revoked")
    if key.grace_until is not None and now >= key.grace_until:
        return Denied("rotated", f"the API key `{key.id}` was replaced by `{key.rotated_to}`")
    if key.expires is not None and now >= key.expires:
        return Denied("expired", f"the API key `{key.id}` has expired")
    return None


def is_within(source: Address | None, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of them."""
    return source is not None and any(source.version == each.version and source in each for each in networks)


def _checksum(body: str) -> str:
    return _in_base_62(zlib.crc32(body.encode()), _CHECK_CHARS)


def _in_base_62(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, rest = divmod(number, 62)
        letters.append(_LETTERS[rest])
    return "".join(reversed(letters))
