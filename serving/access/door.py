"""Who may call: the one object that a server asks. Admission is here; what is done to keys is in `book`."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from serving.access.book import KeyBook
from serving.access.directory import access_directory
from serving.access.entrance import Entrance, Failure, attempts_of
from serving.access.entrance import presented as _presented
from serving.access.entrance import token as _token
from serving.access.entrance import unauthenticated as _unauthenticated
from serving.access.keys import (
    Address,
    Hasher,
    Key,
    Network,
    Principal,
    Scope,
    decide_access,
)
from serving.access.ledger import Ledger, Reservation
from serving.access.pepper import load_hasher
from serving.access.prices import NO_PRICES, Price, PriceBook, PriceFile
from serving.access.quota import Limits, Refused
from serving.access.retention import Retention
from serving.access.sources import FailedAttempts, source_of
from serving.errors import (
    BadSettings,
    BudgetSpent,
    PermissionDenied,
    RateLimited,
    ServingError,
)
from serving.settings import Access as AccessSettings
from serving.store.files import make_private

if TYPE_CHECKING:
    from serving.access.certificates import Certificates, Shown
    from serving.access.oidc import Issuer

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""
_log: Final = logging.getLogger("serving.access")
_RENEW: Final = "ask the identity provider for a new token"
_NEVER_S: Final = 86_400
"""Retry-After where waiting does not help, for clients that retry whatever they are told."""
_MOST_PRICED: Final = 4096
_MOST_KNOWN: Final = 4096
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


class Access(KeyBook, Entrance):
    """Keys and quotas of a host, and who may come in by them; one process has them."""

    def __init__(
        self,
        ledger: Ledger,
        hasher: Hasher,
        prices: PriceBook,
        proxies: tuple[Network, ...],
        attempts: FailedAttempts,
        clock: Callable[[], int],
    ) -> None:
        KeyBook.__init__(self, ledger, hasher, prices, clock)
        Entrance.__init__(self, attempts)
        self._proxies = proxies
        self._known: dict[bytes, tuple[Key, Principal]] = {}
        self._priced: dict[tuple[str, str, int], Price | None] = {}
        self._looked = self._now()
        self._issuer: Issuer | None = None
        self._certificates: Certificates | None = None
        ledger.on_tick(self._look_for_ends)

    @classmethod
    def open(
        cls, settings: AccessSettings, environment: Mapping[str, str], clock: Callable[[], int] = time.time_ns
    ) -> Access:
        """Open the keys and the ledger, made if there are none.

        Raises StartError where another process has them, BadSettings, BadFile, FileMissing, Untrusted.
        """
        directory = access_directory(settings.directory, environment)
        make_private(directory, "access.directory")
        file = None if settings.price_book is None else PriceFile(settings.price_book)
        prices = NO_PRICES if file is None else file.read()
        ledger = Ledger(directory, timeout_s=settings.reservation_timeout_s, clock=clock)
        try:
            hasher = load_hasher(ledger.database, settings.pepper_file or directory / "pepper")
        except BaseException:
            ledger.close()
            raise
        proxies = tuple(ip_network(each) for each in settings.trusted_proxies)
        access = cls(ledger, hasher, prices, proxies, attempts_of(settings), clock)
        if file is not None:
            access.follow_prices(file)
        if settings.usage_retention_days is not None:
            ledger.on_tick(Retention(ledger.database, settings.usage_retention_days, clock).tick)
        return access

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
            raise self._refusal(
                Failure(source, "malformed", None), f"the API key is not one of this server: {presented}"
            )
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

    def turn_away(
        self, headers: Headers, peer: str | None, route: Scope, certificate: Shown | None = None
    ) -> ServingError | None:
        """What `authenticate` says against a call whose source has failed too often; None where it says nothing.

        For whoever would answer such calls before anything else is done for them; with None they go the usual way.
        """
        if not self._attempts.is_over(self._source(headers, peer), time.monotonic()):
            return None
        try:
            self.authenticate(headers, peer, route, certificate=certificate)
        except ServingError as error:
            return error
        return None

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

    def is_watched(self, principal: Principal) -> bool:
        """Whether somebody of its cache domain may send work out: what is said there has to be seen then."""
        domain = principal.cache_domain
        by_token = self._issuer is not None and self._issuer.enrols(domain)
        return bool(principal.classes) or by_token or self.enrols(domain)

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

    def check_room(self, principal: Principal) -> None:
        """See that no limit is used up, before anything is done for a request. Raises RateLimited, BudgetSpent."""
        refused = self.ledger.room(principal.account, principal.limits)
        if refused is not None:
            raise _limited(refused, principal.limits, self.headers(principal))

    def count_request(self, principal: Principal, model: str) -> None:
        """Count a request that costs nothing but itself. Raises RateLimited, BudgetSpent, CapacityError."""
        made = self.ledger.reserve(
            principal.key_id,
            principal.account,
            principal.limits,
            model=model,
            engine="route",
            prompt=0,
            answer=0,
            price=None,
        )
        if isinstance(made, Refused):
            raise _limited(made, principal.limits, self.headers(principal))
        made.cancel()

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

    def _price(self, model: str, engine: str) -> Price | None:
        """The price of today, found once a day and book."""
        now, priced = self._now(), self._priced
        wanted = (model, engine, now // 86_400)
        if wanted not in priced:
            if len(priced) >= _MOST_PRICED:
                priced.clear()
            priced[wanted] = self.prices.find(model, engine, datetime.fromtimestamp(now, UTC).date())
        return priced[wanted]

    def use_prices(self, book: PriceBook) -> None:
        """Count in these prices from now on; called by another thread than `reserve` is."""
        super().use_prices(book)
        self._priced = {}  # after the book: what is put there meanwhile is of the new one

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


def _mark(authorization: bytes) -> bytes:
    return hashlib.blake2b(authorization, key=_MARK, digest_size=32).digest()


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
