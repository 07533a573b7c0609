"""The keys of a host as another process sees them that has no part in the ledger: read, never written, never counted.

The database is opened for reading alone and looked at once a second, so that a key that is made, changed or revoked by
the process that has the ledger counts here about a second later.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from serving.access import schema
from serving.access.database import key_of
from serving.access.directory import access_directory
from serving.access.entrance import Entrance, Failure, attempts_of, presented, token, unauthenticated
from serving.access.keys import Address, Key, Principal, Scope, decide_access
from serving.access.others import also_taken
from serving.access.pepper import WITNESS, read_hasher
from serving.access.sources import source_of
from serving.errors import BadFile, Overloaded, StartError
from serving.settings import Access as AccessSettings

if TYPE_CHECKING:
    from serving.access.oidc import Issuer

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""
_log: Final = logging.getLogger("serving.access")
_Marks = tuple[tuple[int, int, int] | None, ...]
_BUSY_S: Final = 2
_GRAIN_NS: Final = 2_000_000_000
_STALE_S: Final = 10.0
"""For so long the keys of the last look count where another cannot be made; then nobody is let in."""
_RENEW: Final = "ask the identity provider for a new token"


class KeyReader(Entrance):
    """Lets in by the keys of this host, and by its identity provider's tokens. `look` is for one thread at a time."""

    def __init__(
        self, settings: AccessSettings, environment: Mapping[str, str], clock: Callable[[], float] = time.time
    ) -> None:
        """Read what there is; keys that are not made yet are no error.

        Raises BadFile, FileMissing, Untrusted for what is there and cannot be used.
        """
        super().__init__(attempts_of(settings))
        directory = access_directory(settings.directory, environment)
        self._proxies = tuple(ip_network(each) for each in settings.trusted_proxies)
        self._clock = clock
        self._table = _Table(directory / "access.sqlite")
        self._pepper = settings.pepper_file or directory / "pepper"
        self._issuer: Issuer | None = None
        self._problem: str | None = None
        self._looked_s = time.monotonic()
        self._table.read()
        self._witness = self._table.witness
        self._hasher = None if self._witness is None else read_hasher(self._witness, self._pepper)
        self._issuer, _ = also_taken(settings)

    def close(self) -> None:
        """Read no more."""
        if self._issuer is not None:
            self._issuer.close()

    def has_key_for(self, route: Scope) -> bool:
        """Whether any valid key, or token, is for it."""
        now = self._clock()
        ends = [key.valid_until for key in self._table.keys.values() if route in key.scopes]
        return self._issuer is not None or any(end is None or now < end for end in ends)

    def look(self) -> None:
        """Read the keys again if anything was written since. Where that fails, it is told, and tried the next time."""
        try:
            self._table.read()
            if self._table.witness != self._witness:
                witness = self._table.witness
                self._hasher = None if witness is None else read_hasher(witness, self._pepper)
                self._witness = witness
        except StartError as error:
            if error.message != self._problem:
                _log.error("keys cannot be read: %s", error)
            self._problem = error.message
        else:
            self._problem, self._looked_s = None, time.monotonic()

    def admit(self, headers: Headers, peer: str | None, route: Scope) -> Principal:
        """Who calls. `peer` is the address of the connection's other end, if any.

        Raises Unauthenticated (401), PermissionDenied (403), RateLimited (429) where a source sent too many wrong keys,
        Overloaded (503) where the keys cannot be read.
        """
        source = self._source(headers, peer)
        authorizations = [value for name, value in headers if name == b"authorization"]
        if not authorizations:
            self._tell(Failure(source, "missing", None))
            raise unauthenticated("the request has no API key")
        if self._is_blind:
            message = "the keys cannot be read: nobody is let in"
            raise Overloaded(message, retry_after_s=10, hint="the server's log says why")
        shown = presented(authorizations)
        if isinstance(shown, str):
            if self._issuer is not None and (text := token(authorizations)) is not None:
                outcome = self._issuer.decide(text, int(self._clock()), route, None)
                return self._let_in(outcome, None, source, _RENEW)
            raise self._refusal(Failure(source, "malformed", None), f"the API key is not one of this server: {shown}")
        key = self._table.keys.get(shown.id)
        if self._hasher is None or not self._hasher.matches(shown, key):
            failure = Failure(source, "unknown" if key is None else "wrong", None if key is None else key.id)
            raise self._refusal(failure, "the API key is not known here")
        return self._let_in(decide_access(key, self._clock(), route, None, source), shown.id, source)

    def source(self, headers: Headers, peer: str | None) -> str | None:
        """The address that a call came from: the connection's other end, or who a trusted proxy says that it was."""
        found = self._source(headers, peer)
        return None if found is None else str(found)

    def _source(self, headers: Headers, peer: str | None) -> Address | None:
        forwarded = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        return source_of(peer, forwarded, self._proxies)

    def is_valid(self, principal: Principal, route: Scope) -> bool:
        """Whether what let them in would let them in still, from wherever they come; for what runs meanwhile."""
        key, now = self._table.keys.get(principal.key_id), self._clock()
        if self._is_blind:
            return False
        if key is None:
            return ":" in principal.key_id and now < (principal.valid_until or 0)  # else of a key that is gone
        return route in key.scopes and (key.valid_until is None or now < key.valid_until)

    @property
    def _is_blind(self) -> bool:
        return self._problem is not None and time.monotonic() - self._looked_s > _STALE_S


class _Table:
    """The table of keys in a database that another process writes.

    It is opened for each reading, and not kept open: the process that has it can then end in order, with all of it in
    its one file, which somebody may want to copy, or to put a backup in the place of.
    """

    def __init__(self, path: Path) -> None:
        self.keys: Mapping[str, Key] = {}
        self.witness: str | None = None
        """Of the pepper; None where no key was made yet."""
        self._path = path
        self._seen: _Marks | None = None
        self._rows: Mapping[str, sa.Row[Any]] = {}

    def read(self) -> None:
        """Make `keys` and `witness` what they are now. Raises BadFile."""
        marks = _marks(self._path)
        if marks[0] is None:
            self.keys, self.witness, self._rows = {}, None, {}
        elif marks != self._seen or _is_fresh(marks):
            self._seen = None
            engine = _open(self._path)
            try:
                with engine.connect() as connection:
                    self._take(connection)
            except (SQLAlchemyError, KeyError, TypeError, ValueError) as error:
                why = str(getattr(error, "orig", None) or error).splitlines()[0]
                raise BadFile(f"the database `{self._path}` cannot be read: {why}") from None
            finally:
                engine.dispose()
        self._seen = marks

    def _take(self, connection: sa.Connection) -> None:
        if not sa.inspect(connection).has_table("alembic_version"):
            return  # it is being made
        revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        if revision != schema.REVISIONS[-1]:
            message = f"the database `{self._path}` is of revision `{revision}`, not `{schema.REVISIONS[-1]}`"
            raise BadFile(
                message, hint="run the server and this of one version; the server's start brings it up to date"
            )
        where = schema.meta.c.name == WITNESS
        witness = connection.execute(sa.select(schema.meta.c.value).where(where)).scalar()
        rows = {row.id: row for row in connection.execute(sa.select(schema.keys))}
        self.keys = {
            key_id: self.keys[key_id] if self._rows.get(key_id) == row else key_of(row._mapping)  # noqa: SLF001 - its name
            for key_id, row in rows.items()
        }
        self._rows, self.witness = rows, witness


def _marks(path: Path) -> _Marks:
    """How the database's file and the log of what is not in it yet look: inode, size, time."""
    return tuple(_look(each) for each in (path, path.with_name(f"{path.name}-wal")))


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadFile(f"`{path}` cannot be read: {error.strerror}") from None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _is_fresh(marks: _Marks) -> bool:
    """Whether it changed so short a time ago that it may have changed again since without looking so."""
    return time.time_ns() - max(mark[2] for mark in marks if mark is not None) < _GRAIN_NS


def _open(path: Path) -> sa.Engine:
    """For reading. Each statement is by itself, so that the writer's log can be emptied behind it."""

    def connect() -> sqlite3.Connection:
        address = f"file:{quote(os.fspath(path))}?mode=ro"
        return sqlite3.connect(address, uri=True, timeout=_BUSY_S, check_same_thread=False, isolation_level=None)

    return sa.create_engine("sqlite://", creator=connect, poolclass=NullPool)
