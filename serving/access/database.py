"""The database of keys and usage. SQLite is what works now; the schema has nothing that PostgreSQL does not take."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from serving.access import schema
from serving.access.journal import Entry, Reserved, Settled
from serving.access.keys import Key
from serving.access.quota import Hold, Limits, Usage
from serving.errors import BadFile, BadSettings

_APPLIED: Final = "applied"
_USAGE_FROM: Final = "usage_from_ns"
_BUSY_S: Final = 10
_HOUR_S: Final = 3600
_HOUR_NS: Final = _HOUR_S * 10**9

_ROWS: Final = 100
"""Of usage in one statement. The driver takes the interpreter's lock again after each statement, in the midst of
requests; and SQLAlchemy would take each row apart in Python."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database holds of the ledger."""

    applied: int
    """The number of the last entry that is in it."""
    accounts: Mapping[str, Usage]
    open: Mapping[int, Reserved]


@dataclass(frozen=True, slots=True)
class Total:
    """What a key used of a model in a span of time."""

    key_id: str
    owner: str
    model: str
    requests: int
    fresh: int
    cached: int
    output: int
    reasoning: int
    cost: int
    """Micro-units."""
    estimated: int
    """Requests of which the engine gave no count."""


@dataclass(frozen=True, slots=True)
class Hour:
    """What was used in an hour of the clock, in UTC."""

    begin: int
    """In seconds since 1970."""
    requests: int
    input: int
    """Tokens of prompts, computed or found computed."""
    output: int
    """Tokens of answers, with their reasoning."""


class Database:
    """Reads and writes whole things, each in one transaction."""

    def __init__(self, path: Path) -> None:
        """Open it, made or brought up to date if need be. Raises BadFile, BadSettings."""
        self._where = f"`{path}`"
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise BadSettings(f"the database `{path}` cannot be opened: {error.strerror}") from None
        self._engine = _sqlite(path)
        try:
            with self._engine.begin() as connection:
                _bring_up_to_date(connection, self._where)
        except SQLAlchemyError as error:
            self._engine.dispose()
            raise _unusable(self._where, error) from None
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Give its files back."""
        self._engine.dispose()

    def all_keys(self) -> list[Key]:
        """All keys, in the order they were made."""
        with self._engine.connect() as connection:
            query = sa.select(schema.keys).order_by(schema.keys.c.created, schema.keys.c.id)
            rows = connection.execute(query).mappings().all()
        return [key_of(row) for row in rows]

    def add_key(self, key: Key, instead_of: Key | None = None) -> None:
        """Keep a new key, and in the same transaction what becomes of the one that it replaces."""
        with self._engine.begin() as connection:
            connection.execute(schema.keys.insert().values(**_row(key)))
            if instead_of is not None:
                _change(connection, instead_of)

    def change_key(self, key: Key) -> None:
        """Keep what has changed of a key."""
        with self._engine.begin() as connection:
            _change(connection, key)

    def meta(self, name: str) -> str | None:
        """A word that is kept, or None."""
        with self._engine.connect() as connection:
            return connection.execute(sa.select(schema.meta.c.value).where(schema.meta.c.name == name)).scalar()

    def set_meta(self, name: str, value: str) -> None:
        """Keep a word."""
        with self._engine.begin() as connection:
            _set_meta(connection, name, value)

    def load(self) -> Stored:
        """What the ledger begins with."""
        with self._engine.connect() as connection:
            applied = connection.execute(sa.select(schema.meta.c.value).where(schema.meta.c.name == _APPLIED)).scalar()
            return Stored(int(applied or 0), _accounts(connection), _open(connection))

    def apply(self, entries: Iterable[Entry], reserved: Mapping[int, Reserved]) -> None:
        """Put entries in, in order, and remember their last number, all at once. Raises SQLAlchemyError.

        `reserved` has the reservation of each settlement among them.
        """
        made: dict[int, Reserved] = {}
        settled: dict[int, Settled] = {}
        last: dict[tuple[str, int, int], Usage] = {}
        number = 0
        for entry in entries:
            number = entry.number
            if isinstance(entry, Reserved):
                made[number] = entry
                account, usage = entry.account, entry.usage
            else:
                settled[entry.reservation] = entry
                account, usage = reserved[entry.reservation].account, entry.usage
            last[account, usage.day, usage.month] = usage
        if not number:
            return
        closed = {each: reserved[each] for each in settled}
        with self._engine.begin() as connection:
            _write_counters(connection, _counted(last))
            _write_late(connection, closed, settled)
            still = [_reservation_row(each) for each in made.values() if each.number not in settled]
            if still:
                connection.execute(schema.reservations.insert(), still)
            before = [{"gone": each} for each in settled if each not in made]
            if before:
                by_id = schema.reservations.c.id == sa.bindparam("gone")
                connection.execute(schema.reservations.delete().where(by_id), before)
            if settled:
                _write_usage(connection, [_usage_row(closed[each], end) for each, end in settled.items()])
            _set_meta(connection, _APPLIED, str(number))

    def remove_usage(self, before_ns: int, most: int) -> int:
        """Remove lines of usage of requests made before that, the earliest ones; how many, and at most so many.

        Lines are looked at by their numbers, which ascend in time, so that no other index has to be kept for it.
        """
        with self._engine.begin() as connection:
            found = connection.execute(_first_usage(most)).all()
            old = [{"gone": row.reservation} for row in found if row.made_ns < before_ns]
            if old:
                last_ns = max(row.made_ns for row in found if row.made_ns < before_ns)
                connection.execute(schema.usage.delete().where(schema.usage.c.reservation == sa.bindparam("gone")), old)
                _set_meta(connection, _USAGE_FROM, str(max(last_ns + 1, _usage_from_ns(connection))))
        return len(old)

    def usage_from_ns(self) -> int:
        """Lines of usage of requests made before that may have been removed; 0: none was."""
        with self._engine.connect() as connection:
            return _usage_from_ns(connection)

    def hours(self, since_ns: int, before_ns: int) -> list[Hour]:
        """What was settled of requests made in that span, by the hour; hours without any are not in it."""
        with self._engine.connect() as connection:
            found = connection.execute(_hours_used(since_ns, before_ns))
            return [Hour(int(row[0]) * _HOUR_S, *map(int, row[1:])) for row in found]

    def totals(self, key_id: str | None, since_ns: int, before_ns: int) -> list[Total]:
        """What was settled of requests made in that span, by key and model."""
        table = schema.usage
        sums = [sa.func.sum(table.c[name]) for name in ("fresh", "cached", "output", "reasoning", "cost")]
        estimated = sa.func.sum(sa.case((table.c.estimated, 1), else_=0))
        query = (
            sa.select(table.c.key_id, schema.keys.c.owner, table.c.model, sa.func.count(), *sums, estimated)
            .outerjoin(schema.keys, schema.keys.c.id == table.c.key_id)
            .where(table.c.made_ns >= since_ns, table.c.made_ns < before_ns)
            .group_by(table.c.key_id, schema.keys.c.owner, table.c.model)
            .order_by(schema.keys.c.owner, table.c.key_id, table.c.model)
        )
        if key_id is not None:
            query = query.where(table.c.key_id == key_id)
        with self._engine.connect() as connection:
            return [Total(row[0], row[1] or "", row[2], *map(int, row[3:])) for row in connection.execute(query)]


def _hours_used(since_ns: int, before_ns: int) -> sa.Select[Any]:
    table = schema.usage
    hour = (table.c.made_ns // _HOUR_NS).label("hour")
    sums = (sa.func.sum(table.c.fresh + table.c.cached), sa.func.sum(table.c.output + table.c.reasoning))
    of_span = sa.select(hour, sa.func.count(), *sums).where(table.c.made_ns >= since_ns, table.c.made_ns < before_ns)
    return of_span.group_by(hour).order_by(hour)


def _first_usage(most: int) -> sa.Select[Any]:
    """The lines of usage that were reserved first."""
    table = schema.usage
    return sa.select(table.c.reservation, table.c.made_ns).order_by(table.c.reservation).limit(most)


def _sqlite(path: Path) -> Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_S, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        # the driver begins transactions by itself, and not before DDL: here every one is begun below
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _bring_up_to_date(connection: Connection, where: str) -> None:
    """Run the migrations that it lacks. Raises BadFile where it is of a newer version."""
    revision = None
    if sa.inspect(connection).has_table("alembic_version"):
        revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    if revision == schema.REVISIONS[-1]:
        return
    if revision is not None and revision not in schema.REVISIONS:
        message = (
            f"the database {where} is of revision `{revision}`, newer than this program's `{schema.REVISIONS[-1]}`"
        )
        raise BadFile(
            message, hint="run the version of Perimeter that wrote it, or a later one; it is not changed back"
        )
    logging.getLogger("alembic").setLevel(logging.WARNING)  # what it does is of no interest unless it fails
    from alembic import command  # noqa: PLC0415 - takes its time, and is needed once in a database's life
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "serving.access:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _accounts(connection: Connection) -> dict[str, Usage]:
    table = schema.counters
    last = (
        sa.select(table.c.account, table.c.span, sa.func.max(table.c.start).label("start"))
        .group_by(table.c.account, table.c.span)
        .subquery()
    )
    same = sa.and_(*(table.c[name] == last.c[name] for name in ("account", "span", "start")))
    found: dict[str, dict[str, int]] = {}
    for row in connection.execute(sa.select(table).join(last, same)):
        told = found.setdefault(row.account, {})
        if row.span == "minute":
            told |= {"requests_full_ns": row.requests, "tokens_full_ns": row.tokens}
        elif row.span == "day":
            told |= {
                "day": row.start,
                "day_requests": row.requests,
                "day_tokens": row.tokens,
                "day_cost": row.cost,
            }
        elif row.span == "month":
            told |= {"month": row.start, "month_cost": row.cost}
        else:
            told |= {"all_requests": row.requests, "all_tokens": row.tokens, "all_cost": row.cost}
    return {account: Usage(**told) for account, told in found.items()}


def _open(connection: Connection) -> dict[int, Reserved]:
    rows = connection.execute(sa.select(schema.reservations).order_by(schema.reservations.c.id))
    return {
        row.id: Reserved(
            number=row.id,
            key_id=row.key_id,
            account=row.account,
            model=row.model,
            engine=row.engine,
            prompt=row.prompt,
            answer=row.answer,
            price_version=row.price_version,
            hold=Hold(row.prompt + row.answer, row.cost, row.made_ns, row.day, row.month),
            usage=Usage(),
        )
        for row in rows
    }


def _counted(last: Mapping[tuple[str, int, int], Usage]) -> dict[tuple[str, str, int], tuple[int, int, int]]:
    """The rows that say what accounts have: requests, tokens and cost by span and its start, the last word of each."""
    counted = {}
    for (account, _, _), usage in last.items():
        counted[account, "minute", 0] = (usage.requests_full_ns, usage.tokens_full_ns, 0)
        counted[account, "day", usage.day] = (usage.day_requests, usage.day_tokens, usage.day_cost)
        counted[account, "month", usage.month] = (0, 0, usage.month_cost)
        counted[account, "all", 0] = (usage.all_requests, usage.all_tokens, usage.all_cost)
    return counted


def _write_counters(connection: Connection, counted: Mapping[tuple[str, str, int], tuple[int, int, int]]) -> None:
    table = schema.counters
    same = sa.and_(*(table.c[name] == sa.bindparam(f"the_{name}") for name in ("account", "span", "start")))
    named = [{"the_account": account, "the_span": span, "the_start": start} for account, span, start in counted]
    names = ("account", "span", "start", "requests", "tokens", "cost")
    connection.execute(table.delete().where(same), named)
    connection.execute(
        table.insert(), [dict(zip(names, (*at, *counts), strict=True)) for at, counts in counted.items()]
    )


def _write_late(connection: Connection, closed: Mapping[int, Reserved], settled: Mapping[int, Settled]) -> None:
    """What was settled after its day or month had ended: the rows of those are mended by the difference."""
    table = schema.counters
    for number, reserved in closed.items():
        hold, end = reserved.hold, settled[number]
        tokens, cost = end.tokens.total - hold.tokens, end.cost - hold.cost
        for span, start, current in (("day", hold.day, end.usage.day), ("month", hold.month, end.usage.month)):
            if start != current:
                connection.execute(
                    table.update()
                    .where(table.c.account == reserved.account, table.c.span == span, table.c.start == start)
                    .values(tokens=table.c.tokens + (tokens if span == "day" else 0), cost=table.c.cost + cost)
                )


def _reservation_row(reserved: Reserved) -> dict[str, object]:
    return {
        "id": reserved.number,
        "key_id": reserved.key_id,
        "account": reserved.account,
        "model": reserved.model,
        "engine": reserved.engine,
        "prompt": reserved.prompt,
        "answer": reserved.answer,
        "cost": reserved.hold.cost,
        "price_version": reserved.price_version,
        "made_ns": reserved.hold.made_ns,
        "day": reserved.hold.day,
        "month": reserved.hold.month,
    }


def _write_usage(connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
    columns = schema.usage.columns.keys()
    row = f"({', '.join('?' * len(columns))})"
    for first in range(0, len(rows), _ROWS):
        some = rows[first : first + _ROWS]
        statement = f"INSERT INTO usage ({', '.join(columns)}) VALUES {', '.join([row] * len(some))}"  # noqa: S608 - names
        connection.exec_driver_sql(statement, tuple(value for one in some for value in one))


def _usage_row(reserved: Reserved, settled: Settled) -> tuple[object, ...]:
    """In the order of the table's columns."""
    return (
        *(reserved.number, reserved.key_id, reserved.account, reserved.model, reserved.engine),
        *(reserved.hold.made_ns, settled.at_ns),
        *settled.tokens,
        *(reserved.price_version, settled.cost, settled.is_estimated),
    )


def _usage_from_ns(connection: Connection) -> int:
    value = connection.execute(sa.select(schema.meta.c.value).where(schema.meta.c.name == _USAGE_FROM)).scalar()
    return int(value or 0)


def _set_meta(connection: Connection, name: str, value: str) -> None:
    table = schema.meta
    if not connection.execute(table.update().where(table.c.name == name).values(value=value)).rowcount:
        connection.execute(table.insert().values(name=name, value=value))


def _change(connection: Connection, key: Key) -> None:
    row = _row(key)
    values = {name: row[name] for name in ("expires", "revoked", "rotated_to", "grace_until", "told")}
    connection.execute(schema.keys.update().where(schema.keys.c.id == key.id).values(**values))


def _row(key: Key) -> dict[str, object]:
    told = {
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "networks": [str(network) for network in key.networks],
        "limits": {name: value for name, value in asdict(key.limits).items() if value is not None},
        "classes": sorted(key.classes),
        "residency": sorted(key.residency),
    }
    plain = ("id", "owner", "name", "digest", "created", "expires", "revoked", "rotated_to", "grace_until")
    return {name: getattr(key, name) for name in plain} | {
        "account": key.counted_at,
        "cache_domain": key.cache_domain,
        "record_content": key.record_content,
        "told": json.dumps(told, sort_keys=True),
    }


def key_of(row: Mapping[Any, Any]) -> Key:
    """The key that a row of the table is."""
    told = json.loads(row["told"])
    plain = {name: value for name, value in row.items() if name != "told"}
    return Key(
        **plain,
        scopes=frozenset(told["scopes"]),
        models=None if told["models"] is None else frozenset(told["models"]),
        networks=tuple(ip_network(network) for network in told["networks"]),
        limits=Limits(**told["limits"]),
        classes=frozenset(told.get("classes", ())),  # keys of before there were any have none
        residency=frozenset(told.get("residency", ())),
    )


def _unusable(where: str, error: SQLAlchemyError) -> BadFile:
    why = str(getattr(error, "orig", None) or error).splitlines()[0]
    hint = "restore it from a backup; what was counted since is then missing"
    with suppress(AttributeError):
        if "locked" in why:
            hint = "another program has it open; close that one"
    return BadFile(f"the database {where} cannot be used: {why}", hint=hint)
