"""The tables, as SQLAlchemy has them; the migrations beside this file make them.

Nothing in them is peculiar to SQLite. Times are whole numbers, seconds or nanoseconds since 1970, as their names say.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

REVISIONS: Final = ("0001", "0002")
"""Every revision, the newest last; a test compares it with the scripts."""

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(column_0_label)s"})

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("name", String(128), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
    Column("rotated_to", String(32)),
    Column("grace_until", BigInteger),
    Column("account", String(32), nullable=False),
    Column("cache_domain", String(128), nullable=False),
    Column("told", Text, nullable=False),
    Column("record_content", Boolean, nullable=False, server_default=false()),
)
"""`told`: scopes, models, networks and limits, as JSON: they are read and written whole."""

usage = Table(
    "usage",
    metadata,
    Column("reservation", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", String(32), nullable=False),
    Column("account", String(32), nullable=False),
    Column("model", String(256), nullable=False),
    Column("engine", String(64), nullable=False),
    Column("made_ns", BigInteger, nullable=False),
    Column("settled_ns", BigInteger, nullable=False),
    Column("fresh", BigInteger, nullable=False),
    Column("cached", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("reasoning", BigInteger, nullable=False),
    Column("price_version", String(64)),
    Column("cost", BigInteger, nullable=False),
    Column("estimated", Boolean(create_constraint=False), nullable=False),
    Index("ix_usage_key_id_made_ns", "key_id", "made_ns"),
)

counters = Table(
    "counters",
    metadata,
    Column("account", String(32), primary_key=True),
    Column("span", String(8), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
)
"""Spans: `day` and `month` with their number, `all`, and `minute`, whose requests and tokens are when they are full."""

reservations = Table(
    "reservations",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", String(32), nullable=False),
    Column("account", String(32), nullable=False),
    Column("model", String(256), nullable=False),
    Column("engine", String(64), nullable=False),
    Column("prompt", BigInteger, nullable=False),
    Column("answer", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("price_version", String(64)),
    Column("made_ns", BigInteger, nullable=False),
    Column("day", Integer, nullable=False),
    Column("month", Integer, nullable=False),
)
"""Those that are open."""

meta = Table(
    "meta",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)
