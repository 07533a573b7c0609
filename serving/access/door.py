"""Who may call: the one object that a server asks, with the keys in memory and the ledger behind it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from serving.access.database import Database, Total
from serving.access.keys import (
    Address,
    Denied,
    Hasher,
    Key,
    Network,
    Presented,
    Principal,
    Scope,
    decide_access,
    new_key,
    parse_key,
)
from serving.access.ledger import Ledger, Reservation
from serving.access.pepper import another, load_pepper, lost, make_pepper
from serving.access.prices import NO_PRICES, Price, PriceBook, load_prices
from serving.access.quota import SECOND_NS, Limits, Refused, Usage
from serving.access.sources import AttemptLimits, FailedAttempts, source_of
from serving.audit.records import KeyCreated, KeyRevoked, KeyRotated, Record
from serving.errors import (
    BadSettings,
    BudgetSpent,
    CapacityError,
    FileMissing,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
    UsageError,
)
from serving.settings import Access as AccessSettings

if TYPE_CHECKING:
    from serving.access.certificates import Certificates, Shown
    from serving.access.oidc import Issuer

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""
_log: Final = logging.getLogger("serving.access")
_RENEW: Final = "ask the identity provider for a new token"
_WITNESS: Final = "pepper"
_NEVER_S: Final = 86_400
"""Retry-After where waiting does not help, for clients that retry whatever they are told."""
_MOST_PRICED: Final = 4096
_MOST_KNOWN: Final = 4096
_ITSELF: Final = "this process"
"""Who does what nobody else asked for."""
_MARK: Final = secrets.token_bytes(32)
"""Of this process: nobody can choose two texts with one mark."""
_WORDS: Final = {
    "concurrency": "requests at one time",
    "requests_per_minute": "requests per minute",
    "tokens_per_minute": "tokens per minute",
    "requests_per_day": "requests per day",
    "tokens_per_day": "tokens per day",
    "cost_per_day": "money per day",
    "cost_per_month": "money per month",
    "cost_in_all": "money in all",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt to get in that failed; for the audit, which makes one record of a source's in a minute."""

    source: Address | None
    reason: str
    key_id: str | None
    """The id that was shown, where it is one of a key that is known."""


class Access:
    """Keys and quotas of a host; one process has them."""

    def __init__(
        self,
        ledger: Ledger,
        hasher: Hasher,
        prices: PriceBook,
        proxies: tuple[Network, ...],
        attempts: FailedAttempts,
        clock: Callable[[], int],
    ) -> None:
        self.ledger = ledger
        self.prices = prices
        self._hasher = hasher
        self._proxies = proxies
        self._attempts = attempts
        self._clock = clock
        self.keeps_content = False
        """There is a place for what keys with `record_content` say and hear; where not, there can be no such keys."""
        self._changing = threading.Lock()
        self._keys: dict[str, Key] = {key.id: key for key in ledger.database.all_keys()}
        self._revoked: list[Callable[[str], None]] = []
        self._failed: list[Callable[[Failure], None]] = []
        self._acts: list[Callable[[Record], None]] = []
        self._unkept: dict[str, Key] = {}
        """Keys that were revoked, which the database does not say yet."""
        self._known: dict[bytes, tuple[Key, Principal]] = {}
        self._priced: dict[tuple[str, str, int], Price | None] = {}
        self._looked = self._now()
        self._issuer: Issuer | None = None
        self._certificates: Certificates | None = None
        ledger.on_tick(self._look_for_ends)
        ledger.on_tick(self._keep_ends)

    @classmethod
    def open(
        cls, settings: AccessSettings, environment: Mapping[str, str], clock: Callable[[], int] = time.time_ns
    ) -> Access:
        """Open the keys and the ledger, made if there are none.

        Raises StartError where another process has them, BadSettings, BadFile, FileMissing, Untrusted.
        """
        directory = access_directory(settings.directory, environment)
        _private(directory)
        prices = NO_PRICES if settings.price_book is None else load_prices(settings.price_book)
        ledger = Ledger(directory, timeout_s=settings.reservation_timeout_s, clock=clock)
        try:
            hasher = _hasher(ledger.database, settings.pepper_file or directory / "pepper")
        except BaseException:
            ledger.close()
            raise
        limits = AttemptLimits(settings.failed_burst, settings.failed_per_minute, settings.failed_sources)
        proxies = tuple(ip_network(each) for each in settings.trusted_proxies)
        return cls(ledger, hasher, prices, proxies, FailedAttempts(limits), clock)

    def close(self) -> None:
        """Carry everything into the database, and let another process have it."""
        if self._issuer is not None:
            self._issuer.close()
        self.ledger.close()

    def also_take(self, issuer: Issuer | None, certificates: Certificates | None) -> None:
        """Let in also who shows a token or a certificate of these; to be said before the first call.

        Raises BadSettings where a group has a budget and there are no prices.
        """
        self._issuer, self._certificates = issuer, certificates
        if issuer is not None and issuer.has_budget and self.prices is NO_PRICES:
            message = "a group of access.oidc has a budget, which is counted in prices, and there are none"
            raise BadSettings(message, hint="set access.price_book; configs/prices.toml is an example")
        for key_id in sorted(certificates.key_ids - self._keys.keys()) if certificates is not None else ():
            _log.warning("certificates are mapped to the key `%s`, which is not known here", key_id)

    def on_revoked(self, callback: Callable[[str], None]) -> None:
        """Call this with a key's id within a second of its end, from whichever thread: its streams are to be cut."""
        self._revoked.append(callback)

    def on_act(self, callback: Callable[[Record], None]) -> None:
        """Call this with the record of each act before it is done, in the thread that does it.

        Nothing is done where it raises.
        """
        self._acts.append(callback)

    def on_failed(self, callback: Callable[[Failure], None]) -> None:
        """Call this with each attempt that fails, in the thread of `authenticate`."""
        self._failed.append(callback)

    # Calls

    def authenticate(
        self,
        headers: Headers,
        peer: str | None,
        route: Scope,
        model: str | None = None,
        certificate: Shown | None = None,
    ) -> Principal:
        """Who calls, before anything of a body is read. `peer` is the address of the connection's other end, if any.

        `certificate` gives the one that this connection has shown; it counts where there is no authorization header.

        Raises Unauthenticated (401), PermissionDenied (403), RateLimited (429) where a source sent too many wrong
        keys, Overloaded (503) where no token can be checked. A right key is let in however many wrong ones came from
        the same place: nobody can lock others out.
        """
        authorizations = [value for name, value in headers if name == b"authorization"]
        known = self._known.get(_mark(authorizations[0])) if len(authorizations) == 1 else None
        if known is not None and self._still_is(known, route, model):
            return known[1]
        source = self._source(headers, peer)
        if not authorizations:
            if certificate is not None and self._certificates is not None and (shown := certificate()) is not None:
                return self._holder(self._certificates, shown, source, route, model)
            self._tell(Failure(source, "missing", None))
            raise _unauthenticated("the request has no API key")
        presented = _presented(authorizations)
        if isinstance(presented, str):
            if self._issuer is not None and (token := _token(authorizations)) is not None:
                outcome = self._issuer.decide(token, self._now(), route, model)
                return self._let_in(outcome, None, source, _RENEW)
            raise self._refusal(Failure(source, "malformed", None), f"the API key is none: {presented}")
        key = self._keys.get(presented.id)
        if not self._hasher.matches(presented, key):
            reason = "unknown" if key is None else "wrong"
            raise self._refusal(
                Failure(source, reason, None if key is None else key.id), "the API key is not known here"
            )
        outcome = decide_access(key, self._now(), route, model, source)
        if not isinstance(outcome, Principal):
            return self._let_in(outcome, presented.id, source)
        self._remember(authorizations[0], key, outcome)
        return outcome

    def source(self, headers: Headers, peer: str | None) -> str | None:
        """The address that a call came from: the connection's other end, or who a trusted proxy says that it was."""
        found = self._source(headers, peer) if self._proxies else peer
        return None if found is None else str(found)

    def _source(self, headers: Headers, peer: str | None) -> Address | None:
        forwarded = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        return source_of(peer, forwarded, self._proxies)

    def _remember(self, authorization: bytes, key: Key | None, principal: Principal) -> None:
        """Spare the next request of a right key the same work. What is kept of it is a keyed hash."""
        if key is not None and not key.networks:  # the others depend on where it is used from
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[_mark(authorization)] = (key, principal)

    def _still_is(self, known: tuple[Key, Principal], route: Scope, model: str | None) -> bool:
        """Whether `decide_access` would say the same now: the key has not been changed, and has not ended."""
        key, principal = known
        ends = principal.valid_until
        return (
            self._keys.get(key.id) is key
            and (ends is None or self._now() < ends)
            and route in principal.scopes
            and (model is None or principal.may_use(model))
        )

    def check_model(self, principal: Principal, model: str) -> None:
        """See that the key is for this model, once the body has told which. Raises PermissionDenied."""
        if not principal.may_use(model):
            message = f"the API key `{principal.key_id}` is not for the model `{model}`"
            raise PermissionDenied(message, param="model", hint="`GET /v1/models` lists those that it is for")

    def reserve(self, principal: Principal, *, model: str, engine: str, prompt: int, answer: int) -> Reservation:
        """Set aside what a request uses at most: tokens of the prompt, and of all answers to it together.

        Raises Unauthenticated where the key has ended meanwhile, RateLimited, BudgetSpent (429), PermissionDenied (403)
        where money is limited and the model has no price, CapacityError (503) where it cannot be written down.
        """
        if self._issuer is not None:
            self._issuer.watch(principal)
        if not self.is_valid(principal):
            raise _unauthenticated(f"the API key `{principal.key_id}` has ended")
        limits, account = principal.limits, principal.account
        price = self._price(model, engine)
        if price is None and limits.has_budget:
            message = f"the model `{model}` has no price, and the API key `{principal.key_id}` has a budget"
            raise PermissionDenied(message, hint="the operator enters it in the price book, `access.price_book`")
        made = self.ledger.reserve(
            principal.key_id, account, limits, model=model, engine=engine, prompt=prompt, answer=answer, price=price
        )
        if isinstance(made, Refused):
            raise _limited(made, limits, self.headers(principal))
        return made

    def is_valid(self, principal: Principal) -> bool:
        """Whether the key has not ended since. To be asked once a stream can be cut: an end is told once."""
        key = self._keys.get(principal.key_id)
        if key is None:  # a token's: it ends when it says, and nothing ends it before
            return (
                self._issuer is not None and principal.valid_until is not None and self._now() < principal.valid_until
            )
        return key.revoked is None and (key.valid_until is None or self._now() < key.valid_until)

    def headers(self, principal: Principal) -> dict[str, str]:
        """`x-ratelimit-*` of the principal's account as it is now."""
        return self.ledger.headers(principal.account, principal.limits)

    # Administration

    def all_keys(self) -> list[Key]:
        """All keys, in the order they were made."""
        return sorted(self._keys.values(), key=lambda key: (key.created, key.id))

    def find(self, key_id: str) -> Key:
        """The key of that id. Raises FileMissing."""
        key = self._keys.get(key_id)
        if key is None:
            raise FileMissing(f"there is no key `{key_id[:40]}`", hint="`serve keys list` shows those that there are")
        return key

    def create(self, wanted: Key, by: str = _ITSELF) -> tuple[Key, str]:
        """Make a key like `wanted`, with an id and a secret of its own; returns it and its text, which is not kept.

        `by` says who wants it; so with the other acts. Raises UsageError.
        """
        if wanted.limits.has_budget and self.prices is NO_PRICES:
            message = "a budget is counted in prices, and there are none"
            raise UsageError(message, hint="set access.price_book; configs/prices.toml is an example")
        if wanted.expires is not None and wanted.expires <= self._now():
            raise UsageError("a key that has expired already is of no use", hint="name a time to come")
        if wanted.record_content and not self.keeps_content:
            raise _kept_nowhere("a key cannot have its content recorded", "")
        with self._changing:
            key, text = self._made(wanted)
            self._about_to(KeyCreated(key=key.id, owner=key.owner, by=by))
            self.ledger.database.add_key(key)
            self._keys = self._keys | {key.id: key}
        return key, text

    def rotate(self, key_id: str, grace_s: int, expires: int | None = None, by: str = _ITSELF) -> tuple[Key, str]:
        """Make a key in place of another, which is valid for `grace_s` seconds more. Raises FileMissing, UsageError.

        What was used of the limits stays used. It expires as the other one would have, or at `expires`.
        """
        with self._changing:
            before, now = self.find(key_id), self._now()
            if before.valid_until is not None and before.valid_until <= now:
                raise UsageError(
                    f"the key `{key_id}` is not valid any more", hint="`serve keys create` makes a new one"
                )
            if before.rotated_to is not None:
                message = f"the key `{key_id}` was replaced by `{before.rotated_to}` already"
                raise UsageError(message, hint=f"`serve keys rotate {before.rotated_to}`")
            wanted = replace(before, expires=expires or before.expires, account=before.counted_at)
            key, text = self._made(wanted)
            changed = replace(before, rotated_to=key.id, grace_until=now + grace_s)
            self._about_to(KeyRotated(key=key_id, successor=key.id, by=by))
            self.ledger.database.add_key(key, changed)
            self._keys = self._keys | {key.id: key, changed.id: changed}
        if grace_s <= 0:
            self._ended(key_id)
        return key, text

    def revoke(self, key_id: str, by: str = _ITSELF) -> Key:
        """End a key at once. Raises FileMissing, UsageError where it was revoked before."""
        with self._changing:
            before = self.find(key_id)
            if before.revoked is not None:
                raise UsageError(f"the key `{key_id}` was revoked already")
            changed = replace(before, revoked=self._now())
            # at once, whatever becomes of the record and the database
            self._keys = self._keys | {key_id: changed}
            self._ended(key_id)
            self._unkept[key_id] = changed
            self._about_to(KeyRevoked(key=key_id, by=by))
            self._keep_ends()
            if self._unkept:
                message = f"the key `{key_id}` is revoked, and the database does not take that yet"
                raise CapacityError(message, retry_after_s=10, hint="it is tried again; see that it is, then restart")
        return changed

    def _keep_ends(self) -> None:
        """Write down the ends that are not; tried again with each tick."""
        for key_id, key in list(self._unkept.items()):
            with contextlib.suppress(SQLAlchemyError):
                self.ledger.database.change_key(key)
                self._unkept.pop(key_id, None)

    def check_content(self) -> None:
        """See that there is a place for the content of every valid key that has it recorded. Raises BadSettings."""
        for key in self.all_keys():
            has_ended = key.valid_until is not None and key.valid_until <= self._now()
            if key.record_content and not has_ended and not self.keeps_content:
                raise _kept_nowhere(f"the content of the key `{key.id}` is to be recorded", f"revoke {key.id}")

    def usage(self, key: Key) -> Usage:
        """What the key's account has used and reserved in the windows of its last request."""
        return self.ledger.usage(key.counted_at)

    def totals(self, key_id: str | None, since: int, before: int) -> list[Total]:
        """What was settled of requests made in that span of seconds since 1970, by key and model."""
        if key_id is not None and ":" not in key_id:  # with one it is the subject of a token
            self.find(key_id)
        self.ledger.flush()
        return self.ledger.database.totals(key_id, since * SECOND_NS, before * SECOND_NS)

    def _made(self, wanted: Key) -> tuple[Key, str]:
        key_id, text = new_key()
        while key_id in self._keys:
            key_id, text = new_key()
        presented = parse_key(text)
        if isinstance(presented, str):
            raise TypeError(presented)
        key = replace(
            wanted,
            id=key_id,
            digest=self._hasher.digest(presented),
            created=self._now(),
            account=wanted.account or key_id,
        )
        return key, text

    def _price(self, model: str, engine: str) -> Price | None:
        """The price of today, found once a day."""
        now = self._now()
        wanted = (model, engine, now // 86_400)
        if wanted not in self._priced:
            if len(self._priced) >= _MOST_PRICED:
                self._priced.clear()
            self._priced[wanted] = self.prices.find(model, engine, datetime.fromtimestamp(now, UTC).date())
        return self._priced[wanted]

    def _now(self) -> int:
        return self._clock() // SECOND_NS

    def _holder(
        self, certificates: Certificates, shown: bytes, source: Address | None, route: Scope, model: str | None
    ) -> Principal:
        """The key that a certificate stands for, as if it had been sent. Raises as `authenticate`."""
        fingerprint, key_ids = certificates.find(shown)
        if not key_ids:
            self._tell(Failure(source, "missing", None))
            raise _unauthenticated(f"the request has no API key, and its certificate `{fingerprint}` stands for none")
        if len(key_ids) > 1:
            message = f"the certificate `{fingerprint}` stands for several keys by its names"
            raise self._refusal(Failure(source, "certificate", None), message)
        (key_id,) = key_ids
        key = self._keys.get(key_id)
        if key is None:
            message = f"the certificate stands for the API key `{key_id}`, which is not known here"
            raise self._refusal(Failure(source, "certificate", None), message)
        return self._let_in(decide_access(key, self._now(), route, model, source), key_id, source)

    def _let_in(
        self, outcome: Principal | Denied, key_id: str | None, source: Address | None, hint: str | None = None
    ) -> Principal:
        """The principal. Raises Unauthenticated, PermissionDenied, RateLimited where it is none."""
        if isinstance(outcome, Principal):
            return outcome
        failure = Failure(source, outcome.reason, key_id)
        if outcome.http_status == 401:
            raise self._refusal(failure, outcome.message, hint)
        self._tell(failure)
        raise PermissionDenied(outcome.message, hint="ask whoever runs this server for a key that is")

    def _refusal(self, failure: Failure, message: str, hint: str | None = None) -> Unauthenticated | RateLimited:
        self._tell(failure)
        wait_s = self._attempts.failed(failure.source, time.monotonic())
        if wait_s is None:
            return _unauthenticated(message, hint)
        return RateLimited(
            "too many wrong API keys came from this address", retry_after_s=wait_s, hint="use a right one"
        )

    def _tell(self, failure: Failure) -> None:
        for callback in self._failed:
            callback(failure)

    def _about_to(self, act: Record) -> None:
        for callback in self._acts:
            callback(act)

    def _ended(self, key_id: str) -> None:
        for callback in self._revoked:
            callback(key_id)

    def _look_for_ends(self) -> None:
        """Say which keys have expired since the last time."""
        before, self._looked = self._looked, self._now()
        if before == self._looked:
            return
        for subject in self._issuer.ended(self._looked) if self._issuer is not None else ():
            self._ended(subject)
        for key in self._keys.values():
            if key.valid_until is not None and key.revoked is None and before < key.valid_until <= self._looked:
                self._ended(key.id)


def access_directory(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """Where keys and usage are, an absolute path; not made here."""
    if configured is None:
        home = environment.get("HOME") or Path.home()
        configured = Path(environment.get("XDG_STATE_HOME") or Path(home) / ".local" / "state") / "perimeter" / "access"
    return configured.expanduser().absolute()


def _private(directory: Path) -> None:
    """Make the directory, or see that it is this user's alone. Raises BadSettings."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = directory.lstat()
    except OSError as error:
        message = f"the access directory `{directory}` cannot be made: {error.strerror}"
        raise BadSettings(message, hint="set access.directory to one that this user may write to") from None
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        message = f"the access directory `{directory}` is not this user's alone (mode {stat.S_IMODE(facts.st_mode):o})"
        raise BadSettings(message, hint=f"chmod 700 {directory}, as the user that the server runs as")


def _hasher(database: Database, path: Path) -> Hasher:
    """The hasher of the keys that there are. Raises FileMissing where its pepper is gone, BadFile, Untrusted."""
    witness, pepper = database.meta(_WITNESS), load_pepper(path)
    if pepper is None:
        if witness is not None:
            raise lost(path)
        pepper = make_pepper(path)
    hasher = Hasher(pepper)
    if witness is None:
        database.set_meta(_WITNESS, hasher.witness())
    elif witness != hasher.witness():
        raise another(path)
    return hasher


def _mark(authorization: bytes) -> bytes:
    return hashlib.blake2b(authorization, key=_MARK, digest_size=32).digest()


def _presented(authorizations: list[bytes]) -> Presented | str:
    if len(authorizations) > 1:
        return "the request has several authorization headers"
    kind, _, text = authorizations[0].decode("latin-1").partition(" ")
    if kind.lower() != "bearer":
        return "the authorization header is not `Bearer` and a key"
    return parse_key(text.strip(" "))


def _token(authorizations: list[bytes]) -> str | None:
    """What may be a token of an identity provider: one bearer, that does not begin as a key does."""
    kind, _, text = authorizations[0].decode("latin-1").partition(" ")
    text = text.strip(" ")
    return None if len(authorizations) > 1 or kind.lower() != "bearer" or text[:3] in {"", "pk_"} else text


def _unauthenticated(message: str, hint: str | None = None) -> Unauthenticated:
    if hint is None:
        hint = "send `Authorization: Bearer pk_…`; the operator makes one: `serve keys create`"
    return Unauthenticated(message, hint=hint)


def _kept_nowhere(what: str, instead: str) -> BadSettings:
    hint = "set audit.enabled and audit.content.public_key; `serve audit content keygen` makes the auditor's keys"
    return BadSettings(
        f"{what}, and there is no place to keep it", hint=f"{hint}, or `serve keys {instead}`" if instead else hint
    )


def _limited(refused: Refused, limits: Limits, headers: dict[str, str]) -> RateLimited:
    limit, is_money = getattr(limits, refused.limit), refused.limit.startswith("cost")
    shown = f"{limit / 10**6:.6f}".rstrip("0").rstrip(".") if is_money else f"{limit:,}"
    kind = BudgetSpent if is_money else RateLimited
    if refused.retry_after_s is None:
        message = f"the request does not fit the key's limit of {_WORDS[refused.limit]}, {shown}, now or later"
        hint = "ask for a shorter answer with `max_tokens`, or the operator for another limit"
        return kind(message, retry_after_s=_NEVER_S, hint=hint, headers=headers | {"x-should-retry": "false"})
    message = f"the key's limit of {_WORDS[refused.limit]}, {shown}, is reached"
    wait = f"it may fit in {refused.retry_after_s} s"
    return kind(message, retry_after_s=refused.retry_after_s, hint=wait, headers=headers)
