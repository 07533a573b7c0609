"""One identity provider: its tokens become principals, checked once each and remembered until they end."""

from __future__ import annotations

import hashlib
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from serving.access.jwts import (
    PREFIX,
    Group,
    KeyRing,
    Rules,
    check_signature,
    decide_claims,
    read_header,
)
from serving.access.keys import Denied, Principal, Scope
from serving.access.keyset import KeySet, Pace, check_file, context_of, fetch_url, read_file
from serving.access.prices import micro_of
from serving.access.quota import Limits
from serving.errors import BadSettings, Overloaded

if TYPE_CHECKING:
    from serving.settings.callers import Oidc, OidcGroup

_MOST_REMEMBERED: Final = 4096


class Issuer:
    """Whose tokens are taken. `decide` is for one thread at a time; the rest for any."""

    def __init__(self, rules: Rules, keys: KeySet) -> None:
        self._rules = rules
        self._keys = keys
        self._remembered: dict[bytes, Principal] = {}
        self._remembered_of: KeyRing | None = None
        self._watching = threading.Lock()
        self._ends: dict[int, set[str]] = {}

    @property
    def has_budget(self) -> bool:
        """Whether money of anybody is limited."""
        return any(group.limits.has_budget for group in self._rules.groups)

    def enrols(self, domain: str) -> bool:
        """Whether the members of some group with that cache domain are enrolled for work that may leave."""
        return any(group.cache_domain == domain and group.classes for group in self._rules.groups)

    def close(self) -> None:
        """Ask for keys no more."""
        self._keys.close()

    def decide(self, token: str, now: int, route: Scope, model: str | None) -> Principal | Denied:
        """Who shows this token, or why they are not let in. Raises Overloaded while the issuer's keys are not there."""
        ring = self._keys.ring
        if ring is not self._remembered_of:
            self._remembered, self._remembered_of = {}, ring
        digest = hashlib.sha256(token.encode("latin-1")).digest()
        principal = self._remembered.get(digest)
        if principal is None or principal.valid_until is None or now >= principal.valid_until:
            checked = self._check(token, ring, now)
            if isinstance(checked, Denied):
                return checked
            principal = checked
            if len(self._remembered) >= _MOST_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[digest] = principal
        if route not in principal.scopes:
            has = ", ".join(f"`{scope}`" for scope in sorted(principal.scopes))
            return Denied("scope", f"the token is not for `{route}`, but for {has}")
        if model is not None and not principal.may_use(model):
            return Denied("model", "the token is not for this model")
        return principal

    def watch(self, principal: Principal) -> None:
        """Something is to run for this principal: tell of its end."""
        if principal.key_id.startswith(PREFIX) and principal.valid_until is not None:
            with self._watching:
                self._ends.setdefault(principal.valid_until, set()).add(principal.key_id)

    def ended(self, now: int) -> set[str]:
        """The ids of those that were watched and of whom a token has ended; each is told once for each token."""
        with self._watching:
            return set().union(*(self._ends.pop(end) for end in [end for end in self._ends if end <= now]))

    def _check(self, token: str, ring: KeyRing | None, now: int) -> Principal | Denied:
        header = read_header(token, self._rules)
        if isinstance(header, str):
            return _denied(header)
        if ring is None:
            message = "the identity provider's keys are not there: no token can be checked"
            raise Overloaded(message, retry_after_s=10, hint="the server's log says why")
        key = ring.find(header)
        if key is None:
            self._keys.want()
            return _denied("the key that signed it is not known here")
        if isinstance(key, str):
            return _denied(key)
        claims = check_signature(token, key, self._rules)
        return _denied(claims) if isinstance(claims, str) else decide_claims(claims, self._rules, now)


def _denied(why: str) -> Denied:
    return Denied("token", f"the token is not taken: {why}")


def open_issuer(settings: Oidc) -> Issuer | None:
    """The issuer that the settings name, its keys being looked at; None where they name none.

    Raises FileMissing and BadFile for a file that cannot be used, BadSettings. A URL may be asked in vain for now:
    tokens are refused until it answers, and the log says so.
    """
    if settings.issuer is None or settings.audience is None:
        return None
    rules = Rules(
        issuer=settings.issuer,
        audience=settings.audience,
        groups=tuple(_group(each) for each in settings.groups),
        algorithms=tuple(settings.algorithms),
        groups_claim=settings.groups_claim,
        leeway_s=settings.leeway_s,
        token_bytes=settings.token_bytes,
    )
    path, url = settings.jwks_file, settings.jwks_url
    if path is not None:
        check_file(path, rules.algorithms)
        fetch = lambda: read_file(path)  # noqa: E731
    else:
        context = context_of(settings.ca_file)
        fetch = lambda: fetch_url(url or "", context)  # noqa: E731
    keys = KeySet(fetch, rules.algorithms, Pace(every_s=settings.refresh_s, stale_s=settings.stale_s))
    if path is not None:
        keys.look_if_due()
    keys.start()
    return Issuer(rules, keys)


def _group(settings: OidcGroup) -> Group:
    return Group(
        name=settings.group,
        scopes=frozenset(settings.scopes),
        models=None if settings.models is None else frozenset(settings.models),
        cache_domain=settings.cache_domain or "",
        classes=frozenset(settings.classes),
        residency=frozenset(settings.residency),
        limits=Limits(
            requests_per_minute=settings.requests_per_minute,
            requests_per_day=settings.requests_per_day,
            tokens_per_minute=settings.tokens_per_minute,
            tokens_per_day=settings.tokens_per_day,
            concurrency=settings.concurrency,
            cost_per_day=_micro(settings.budget_per_day, settings.group),
            cost_per_month=_micro(settings.budget_per_month, settings.group),
            cost_in_all=_micro(settings.budget, settings.group),
        ),
    )


def _micro(amount: float | None, group: str) -> int | None:
    if amount is None:
        return None
    micro = micro_of(Decimal(repr(amount)))
    if micro is None:
        message = f"a budget of the group `{group}`, {amount}, has more than six decimal places"
        raise BadSettings(message, hint="money is counted in millionths: `[[access.oidc.groups]]`")
    return micro
