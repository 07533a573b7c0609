"""The ledger: what every account has used and reserved. One process on a host has it, and holds the lock.

What is true stands in memory and changes under one lock. Each change is one line of the journal before it is answered;
a thread carries the lines into the database and forgets them. After a kill the journal is read over the database: what
was acknowledged is there. Reservations that a dead process left open count as spent; some time later they are settled
at what was reserved, since nobody can know what the engine did.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from serving.access.database import Database
from serving.access.journal import Entry, Journal, Reserved, Settled, write_entry
from serving.access.prices import Price, Tokens
from serving.access.quota import Ask, Limits, Refused, Usage, decide_reserve, rate_headers, settle
from serving.errors import BadSettings, CapacityError, Overloaded, StartError

_FLUSH_S: Final = 0.5
_MAX_PENDING: Final = 200_000
"""Entries that wait for a database that does not take them; beyond, nothing more is granted."""
_log: Final = logging.getLogger("serving.access")


class Reservation:
    """What one request may use. Closed once, by whichever of its methods comes first; the others do nothing then."""

    __slots__ = ("_ledger", "_limits", "_price", "_reserved")

    def __init__(self, ledger: Ledger, reserved: Reserved, limits: Limits, price: Price | None) -> None:
        self._ledger = ledger
        self._reserved = reserved
        self._limits = limits
        self._price = price

    @property
    def id(self) -> int:
        """Its number, which no other one ever has."""
        return self._reserved.number

    @property
    def is_open(self) -> bool:
        """Nothing has closed it yet."""
        return self._ledger.is_open(self.id)

    def settle(self, tokens: Tokens, *, is_estimated: bool = False) -> bool:
        """The engine has counted. True where this closed it; so with the others. None of them raises."""
        cost = 0 if self._price is None else self._price.cost(tokens)
        return self._ledger.settle(self._reserved, self._limits, tokens, cost, is_estimated=is_estimated)

    def settle_relayed(self, prompt: int | None, relayed: int) -> bool:
        """No count came: the prompt, at most what was reserved for it, and what was relayed; marked as estimated."""
        most = self._reserved.prompt
        return self.settle(Tokens(fresh=most if prompt is None else prompt, output=relayed), is_estimated=True)

    def stand(self) -> bool:
        """Nobody knows: all that was reserved counts as used; marked as estimated."""
        reserved = self._reserved
        tokens = Tokens(fresh=reserved.prompt, output=reserved.answer)
        return self._ledger.settle(reserved, self._limits, tokens, reserved.hold.cost, is_estimated=True)

    def cancel(self) -> bool:
        """No engine has seen the request: nothing was used; as a request it counts."""
        return self.settle(Tokens())

    def headers(self) -> dict[str, str]:
        """`x-ratelimit-*` as it is now."""
        return self._ledger.headers(self._reserved.account, self._limits)


class _Closing(NamedTuple):
    """What a reservation turned out to be."""

    reserved: Reserved
    limits: Limits
    tokens: Tokens
    cost: int
    is_estimated: bool


class Ledger:
    """Reserves and settles; safe to be called by any thread."""

    def __init__(
        self,
        directory: Path,
        *,
        timeout_s: float = 7200.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open the ledger in a directory that is this user's alone.

        `timeout_s`: after so long the reservations of a dead process are settled; `clock` gives nanoseconds since 1970.
        Raises StartError where another process has it, BadFile, BadSettings.
        """
        self._clock = clock
        self._timeout_ns = int(timeout_s * 1e9)
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._pending: list[Entry] = []
        self._dropped: dict[int, Reserved] = {}
        self._unwritten: dict[int, _Closing] = {}
        self._on_tick: list[Callable[[], None]] = []
        self._locked = _lock(directory / "ledger.lock")
        try:
            self.database = Database(directory / "access.sqlite")
            self._journal = Journal(directory)
            stored = self.database.load()
            self._accounts: dict[str, Usage] = dict(stored.accounts)
            self._open: dict[int, Reserved] = dict(stored.open)
            self._number = stored.applied
            self._replay()
        except BaseException:
            os.close(self._locked)
            raise
        self._inherited = dict(self._open)
        self._problem: str | None = None
        self._is_closed = False
        self.flush()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why the database does not take what is counted, or None; it stays in the journal as long as that is so."""
        return self._problem

    def usage(self, account: str) -> Usage:
        """What an account has used and reserved."""
        return self._accounts.get(account, Usage())

    def is_open(self, number: int) -> bool:
        """Whether that reservation has not been closed."""
        return number in self._open and number not in self._unwritten

    def headers(self, account: str, limits: Limits) -> dict[str, str]:
        """`x-ratelimit-*` of an account."""
        return rate_headers(limits, self.usage(account), self._clock())

    def on_tick(self, callback: Callable[[], None]) -> None:
        """Call this at least once a second, from the ledger's thread."""
        self._on_tick.append(callback)

    def reserve(
        self,
        key_id: str,
        account: str,
        limits: Limits,
        *,
        model: str,
        engine: str,
        prompt: int,
        answer: int,
        price: Price | None,
    ) -> Reservation | Refused:
        """Reserve what a request uses at most: `prompt` and `answer` tokens. Raises CapacityError."""
        cost = 0 if price is None else price.most(prompt, answer)
        with self._lock:
            if len(self._pending) > _MAX_PENDING:
                message = "the ledger's database does not take what is counted"
                raise Overloaded(message, retry_after_s=10, hint="the server's log says why")
            usage = self._accounts.get(account) or Usage()
            outcome = decide_reserve(limits, usage, Ask(prompt + answer, cost), self._clock())
            if isinstance(outcome, Refused):
                return outcome
            number = self._number + 1
            version = None if price is None else price.version
            reserved = Reserved(
                number, key_id, account, model, engine, prompt, answer, version, outcome.hold, outcome.usage
            )
            self._journal.write(write_entry(reserved))
            self._number = number
            self._accounts[account] = outcome.usage
            self._open[number] = reserved
            self._pending.append(reserved)
        return Reservation(self, reserved, limits, price)

    def room(self, account: str, limits: Limits) -> Refused | None:
        """Why not even the smallest request would be let in now; None: one would. Nothing is reserved."""
        with self._lock:
            outcome = decide_reserve(limits, self._accounts.get(account) or Usage(), Ask(0, 0), self._clock())
        return outcome if isinstance(outcome, Refused) else None

    def settle(self, reserved: Reserved, limits: Limits, tokens: Tokens, cost: int, *, is_estimated: bool) -> bool:
        """Close a reservation; False where it is closed already.

        Where it cannot be written down the reservation stands until it can: it is tried again every half second.
        """
        closing = _Closing(reserved, limits, tokens, cost, is_estimated)
        with self._lock:
            if not self.is_open(reserved.number):
                return False
            try:
                self._settle(closing)
            except CapacityError as error:
                self._unwritten[reserved.number] = closing
                self._say(error.message)
        return True

    def _settle(self, closing: _Closing) -> None:
        """Write it down, and let it be so. Under the lock. Raises CapacityError, and then it is as it was."""
        reserved, now_ns = closing.reserved, self._clock()
        before = self._accounts[reserved.account]
        usage = settle(closing.limits, before, reserved.hold, closing.tokens.total, closing.cost, now_ns)
        if reserved.number in self._inherited:
            usage = usage._replace(running=before.running)  # it ran in a process that is no more
        number = self._number + 1
        entry = Settled(number, reserved.number, closing.tokens, closing.cost, closing.is_estimated, now_ns, usage)
        self._journal.write(write_entry(entry))
        self._number = number
        self._accounts[reserved.account] = usage
        self._dropped[reserved.number] = self._open.pop(reserved.number)
        self._pending.append(entry)

    def flush(self) -> None:
        """Carry what is in the journal into the database, synchronised. What cannot be carried stays there."""
        with self._flushing:
            with self._lock:
                earlier = [] if self._pending else self._journal.earlier
                is_idle, is_fresh = not self._pending, self._journal.is_fresh
                number = 0 if is_idle or is_fresh else self._journal.next_number()
            if is_idle:
                self._forget(earlier)  # the database had them before this process began
                return
            try:
                following = None if is_fresh else self._journal.prepare(number)
                with self._lock:
                    if following is not None:
                        self._journal.rotate(following)
                    # whatever is in these is among the entries, or in the database already
                    earlier = self._journal.earlier
                    entries, self._pending = self._pending, []
                    dropped, self._dropped = self._dropped, {}
            except OSError as error:
                self._say(f"a new journal cannot be begun: {error.strerror}")
                return
            try:
                self.database.apply(entries, dropped)
            except Exception as error:  # noqa: BLE001 - whatever it is, what is in neither is lost with the journal
                with self._lock:
                    self._pending[:0] = entries
                    self._dropped = dropped | self._dropped
                self._say(f"the database does not take them: {str(getattr(error, 'orig', error)).splitlines()[0]}")
                return
            self._forget(earlier)
            self._say(None)

    def _forget(self, files: list[Path]) -> None:
        """The database has what is in them."""
        for path in files:
            path.unlink(missing_ok=True)
        with self._lock:
            self._journal.forget(files)

    def close(self) -> None:
        """Flush, and let another process have the ledger. Once is enough."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stopped.set()
        self._thread.join()
        with contextlib.suppress(CapacityError):  # what stays unwritten was reserved, and stands
            self._write_unwritten()
        self.flush()
        with self._lock:
            self._journal.close()
        self.database.close()
        os.close(self._locked)

    def _replay(self) -> None:
        """Read the journal over what the database has."""
        for entry in self._journal.entries():
            if entry.number <= self._number:
                continue
            self._number = entry.number
            if isinstance(entry, Reserved):
                self._open[entry.number] = entry
                self._accounts[entry.account] = entry.usage
            elif (reserved := self._open.pop(entry.reservation, None)) is not None:
                self._dropped[entry.reservation] = reserved
                self._accounts[reserved.account] = entry.usage
            else:
                _log.warning("the journal lacks the reservation %d: a power failure took it", entry.reservation)
                continue
            self._pending.append(entry)

    def _run(self) -> None:
        while not self._stopped.wait(_FLUSH_S):
            for step in (self._write_unwritten, self._time_out, self.flush, *self._on_tick):
                try:
                    step()
                except Exception as error:  # noqa: BLE001 - the others are done, and it is tried again
                    self._say(f"{type(error).__name__}: {error}")

    def _write_unwritten(self) -> None:
        """Close what could not be closed when it was to be."""
        for number, closing in list(self._unwritten.items()):
            with self._lock:
                self._settle(closing)
                del self._unwritten[number]

    def _time_out(self) -> None:
        """Settle what dead processes left open for too long, at what they had reserved."""
        now_ns = self._clock()
        for reserved in [each for each in self._inherited.values() if now_ns - each.hold.made_ns > self._timeout_ns]:
            Reservation(self, reserved, Limits(), None).stand()
            with self._lock:
                if reserved.number not in self._open:
                    self._inherited.pop(reserved.number)

    def _say(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            _log.error("what is counted stays in the journal: %s", problem)
        self._problem = problem


def _lock(path: Path) -> int:
    """Have the ledger to ourselves. Raises StartError, BadSettings."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BadSettings(f"`{path}` cannot be opened: {error.strerror}", hint="set access.directory") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        message = f"another process (pid {holder}) has the ledger in `{path.parent}`"
        raise StartError(
            message, hint="one process on a host keeps it; stop that one, or set access.directory"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor
