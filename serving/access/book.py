"""The keys of a host, and what is done to them: made, replaced, ended, and what was used with them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from serving.access.database import Hour, Total
from serving.access.keys import Hasher, Key, differences, new_key, parse_key
from serving.access.ledger import Ledger
from serving.access.prices import NO_PRICES, PriceBook, PriceFile
from serving.access.quota import SECOND_NS, Usage
from serving.audit.records import KeyChanged, KeyCreated, KeyRevoked, KeyRotated, PricesUsed, Record
from serving.errors import (
    BadFile,
    BadSettings,
    CapacityError,
    FileMissing,
    StartError,
    Unwritable,
    UsageError,
)

_log: Final = logging.getLogger("serving.access")
_LOOK_S: Final = 5.0
"""Between two looks at the price book's file; as often as at the certificate's."""
_ITSELF: Final = "this process"
"""Who does what nobody else asked for."""


class KeyBook:
    """The keys in memory, and the database behind them; one process has them, and one thread at a time changes them.

    Each act is put on record before it is done.
    """

    def __init__(self, ledger: Ledger, hasher: Hasher, prices: PriceBook, clock: Callable[[], int]) -> None:
        self.ledger = ledger
        self.prices = prices
        self.keeps_content = False
        """There is a place for what keys with `record_content` say and hear; where not, there can be no such keys."""
        self._hasher = hasher
        self._clock = clock
        self._changing = threading.Lock()
        self._keys: dict[str, Key] = {key.id: key for key in ledger.database.all_keys()}
        self._watched: tuple[dict[str, Key], set[str]] | None = None
        self._revoked: list[Callable[[str], None]] = []
        self._acts: list[Callable[[Record], None]] = []
        self._unkept: dict[str, Key] = {}
        """Keys that were revoked, which the database does not say yet."""
        self._price_file: PriceFile | None = None
        self._next_look_s = 0.0
        self._wants_record = False
        """A change of prices could not be recorded, and was not made."""
        ledger.on_tick(self._keep_ends)
        ledger.on_tick(self._look_at_prices)

    def on_revoked(self, callback: Callable[[str], None]) -> None:
        """Call this with a key's id within a second of its end, from whichever thread: its streams are to be cut."""
        self._revoked.append(callback)

    def on_act(self, callback: Callable[[Record], None]) -> None:
        """Call this with the record of each act before it is done, in the thread that does it.

        Nothing is done where it raises.
        """
        self._acts.append(callback)

    def all_keys(self) -> list[Key]:
        """All keys, in the order they were made."""
        return sorted(self._keys.values(), key=lambda key: (key.created, key.id))

    def enrols(self, domain: str) -> bool:
        """Whether some key of that cache domain is enrolled for work that may leave."""
        if self._watched is None or self._watched[0] is not self._keys:
            enrolled = {key.cache_domain or key.owner for key in self._keys.values() if key.classes}
            self._watched = self._keys, enrolled
        return domain in self._watched[1]

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
        self._check_budget(wanted)
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

    def change(self, key_id: str, change: Callable[[Key], Key], by: str = _ITSELF) -> Key:
        """Make a key what `change` says: other limits, scopes, models, networks or another end. Counts from now on.

        What runs with it goes on, to an end that may be earlier now. Raises FileMissing, UsageError, CapacityError.
        """
        with self._changing:
            before, now = self.find(key_id), self._now()
            if before.valid_until is not None and before.valid_until <= now:
                message = f"the key `{key_id}` is not valid any more"
                raise UsageError(message, hint="`serve keys create` makes a new one")
            after = change(before)
            self._check_budget(after)
            if after.expires is not None and after.expires <= now:
                raise UsageError("that time has passed already", hint=f"`serve keys revoke {key_id}` ends it now")
            changes = differences(before, after)
            if not changes:
                raise UsageError(f"nothing of the key `{key_id}` would change")
            self._about_to(KeyChanged(key=key_id, changes=changes, by=by))
            try:
                self.ledger.database.change_key(after)
            except SQLAlchemyError:
                message = f"the database does not take the change of the key `{key_id}`, which is as it was"
                raise CapacityError(message, retry_after_s=10, hint="see that there is room on its disk") from None
            self._keys = self._keys | {key_id: after}
        return after

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

    def follow_prices(self, file: PriceFile) -> None:
        """Read the price book again as its file changes; what `prices` says was read from it."""
        self._price_file = file

    def use_prices(self, book: PriceBook) -> None:
        """Count in these prices from now on. What is reserved is settled at those that it was reserved at."""
        self.prices = book

    def _look_at_prices(self) -> None:
        """Take a new book that is whole; else keep the one there is, and say why. For the ledger's thread."""
        file, now_s = self._price_file, time.monotonic()
        if file is None or now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _LOOK_S
        if not (self._wants_record or file.has_changed()):
            return
        self._wants_record = False
        try:
            book = file.read()
            if book.currency != self.prices.currency:
                message = (
                    f"the price book `{file.path}` is in `{book.currency}`, and budgets in `{self.prices.currency}`"
                )
                raise BadFile(message, hint="a change of currency needs other budgets, and a restart")
            if book.version != self.prices.version:
                self._about_to(PricesUsed(version=book.version, currency=book.currency))
        except Unwritable as error:
            self._wants_record = True
            _log.error("the prices stay as they were, and are tried again: %s", error)
        except StartError as error:
            _log.error("the prices stay as they were: %s", error)
        else:
            if book.version != self.prices.version:
                self.use_prices(book)
                _log.info("the prices were read anew: version %s", book.version)

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

    def hours(self, since: int, before: int) -> list[Hour]:
        """What was settled of requests made in that span of seconds since 1970, by the hour."""
        self.ledger.flush()
        return self.ledger.database.hours(since * SECOND_NS, before * SECOND_NS)

    @property
    def usage_from(self) -> int | None:
        """The second from which on every line of usage is there; None: all that ever was."""
        from_ns = self.ledger.database.usage_from_ns()
        return -(-from_ns // SECOND_NS) if from_ns else None

    def _check_budget(self, wanted: Key) -> None:
        if wanted.limits.has_budget and self.prices is NO_PRICES:
            message = "a budget is counted in prices, and there are none"
            raise UsageError(message, hint="set access.price_book; configs/prices.toml is an example")

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

    def _now(self) -> int:
        return self._clock() // SECOND_NS

    def _about_to(self, act: Record) -> None:
        for callback in self._acts:
            callback(act)

    def _ended(self, key_id: str) -> None:
        for callback in self._revoked:
            callback(key_id)


def _kept_nowhere(what: str, instead: str) -> BadSettings:
    hint = "set audit.enabled and audit.content.public_key; `serve audit content keygen` makes the auditor's keys"
    return BadSettings(
        f"{what}, and there is no place to keep it", hint=f"{hint}, or `serve keys {instead}`" if instead else hint
    )
