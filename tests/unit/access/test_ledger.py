"""What the ledger keeps, whatever becomes of the process that has it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import mmap
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from serving.access import schema
from serving.access.database import _first_usage
from serving.access.journal import read_entry
from serving.access.ledger import Ledger, Reservation
from serving.access.prices import Price, Tokens
from serving.access.quota import SECOND_NS, UNLIMITED, Limits, Refused
from serving.access.retention import Retention, decide_cut
from serving.errors import BadFile, CapacityError, StartError

PRICE = Price(date(2026, 1, 1), "*", "*", 10**6, 10**6, 10**6, 10**6, "v1")  # a micro-unit a token
NOON_NS = int(datetime(2026, 3, 31, 12, tzinfo=UTC).timestamp()) * SECOND_NS


class Clock:
    def __init__(self, now_ns: int = NOON_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def reserve(ledger: Ledger, prompt=10, answer=20, limits=UNLIMITED, account="one") -> Reservation:
    made = ledger.reserve(
        "key", account, limits, model="demo", engine="llamacpp", prompt=prompt, answer=answer, price=PRICE
    )
    assert isinstance(made, Reservation), made
    return made


def rows(directory: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(directory / "access.sqlite", isolation_level=None)) as connection:
        return connection.execute(query).fetchall()


def test_what_is_settled_is_there_after_a_restart(tmp_path: Path) -> None:
    """Counters, usage and open reservations; the next process counts on from there."""
    ledger = Ledger(tmp_path, clock=Clock())
    assert reserve(ledger).settle(Tokens(7, 3, 5, 1))
    open_one = reserve(ledger)
    before = ledger.usage("one")
    ledger.close()
    assert rows(tmp_path, "SELECT fresh, cached, output, reasoning, cost, estimated, price_version FROM usage") == [
        (7, 3, 5, 1, 16, 0, "v1")
    ]
    assert rows(tmp_path, "SELECT id FROM reservations") == [(open_one.id,)]
    again = Ledger(tmp_path, clock=Clock())
    after = again.usage("one")
    assert (after.day_tokens, after.all_cost, after.tokens_full_ns) == (46, 46, before.tokens_full_ns)
    assert after.running == 0
    assert reserve(again).id > open_one.id
    again.close()


def test_a_reservation_is_closed_once(tmp_path: Path) -> None:
    """Whichever way comes first; what comes after changes nothing."""
    ledger = Ledger(tmp_path, clock=Clock())
    for close, tokens in (
        (lambda made: made.settle(Tokens(fresh=4)), 4),
        (lambda made: made.settle_relayed(None, 6), 16),
        (lambda made: made.settle_relayed(2, 6), 8),
        (lambda made: made.stand(), 30),
        (lambda made: made.cancel(), 0),
    ):
        before, made = ledger.usage("one").all_tokens, reserve(ledger)
        assert made.is_open
        assert close(made)
        assert not made.is_open
        assert not made.stand()
        assert not made.settle(Tokens(fresh=1000))
        assert ledger.usage("one").all_tokens == before + tokens
    assert ledger.usage("one").running == 0
    ledger.close()
    assert rows(tmp_path, "SELECT sum(estimated), count(*) FROM usage") == [(3, 5)]


def test_two_hundred_at_once_stay_within_the_budget(tmp_path: Path) -> None:
    """Of random cost, some cancelled, some counted, some unknown: settled is at least what was counted, and no more
    than the budget; and nothing is left reserved."""
    limits = Limits(cost_in_all=3000, concurrency=150)
    ledger = Ledger(tmp_path)
    counted: list[int] = []

    def one(number: int) -> bool:
        chance = random.Random(number)
        prompt, answer = chance.randrange(40), chance.randrange(60)
        made = ledger.reserve("key", "one", limits, model="demo", engine="e", prompt=prompt, answer=answer, price=PRICE)
        if isinstance(made, Refused):
            return False
        relayed = chance.randint(0, answer)
        counted.append(relayed + prompt)
        end = chance.randrange(3)
        if end == 0:
            made.settle(Tokens(prompt, 0, relayed, 0))
        elif end == 1:
            made.settle_relayed(prompt, relayed)
        else:
            made.stand()
        return True

    with ThreadPoolExecutor(200) as pool:
        granted = list(pool.map(one, range(200)))
    usage = ledger.usage("one")
    assert 0 < sum(granted) < 200
    assert sum(counted) <= usage.all_cost <= 3000
    assert usage.running == 0
    ledger.close()
    assert rows(tmp_path, "SELECT sum(cost), count(*) FROM usage") == [(usage.all_cost, sum(granted))]
    assert rows(tmp_path, "SELECT count(*) FROM reservations") == [(0,)]


def test_a_dead_process_reservations_stand_until_they_time_out(tmp_path: Path) -> None:
    """They count as spent, and then become usage at what was reserved, marked as estimated."""
    clock = Clock()
    ledger = Ledger(tmp_path, clock=clock)
    reserve(ledger)
    ledger.close()
    clock.now_ns += 50 * SECOND_NS
    again = Ledger(tmp_path, timeout_s=100, clock=clock)
    again._time_out()
    assert again.usage("one").all_cost == 30
    assert again._open
    clock.now_ns += 51 * SECOND_NS
    again._time_out()
    assert not again._open
    assert (again.usage("one").all_cost, again.usage("one").running) == (30, 0)
    again.close()
    assert rows(tmp_path, "SELECT fresh, output, cost, estimated FROM usage") == [(10, 20, 30, 1)]
    assert rows(tmp_path, "SELECT count(*) FROM reservations") == [(0,)]


def test_a_window_that_has_ended_is_mended(tmp_path: Path) -> None:
    """What is settled after midnight changes the row of the day before, by the difference."""
    clock = Clock()
    ledger = Ledger(tmp_path, clock=clock)
    made = reserve(ledger)
    clock.now_ns += 86_400 * SECOND_NS
    reserve(ledger, 1, 1).cancel()
    ledger.flush()
    made.settle(Tokens(fresh=3))
    ledger.close()
    days = rows(tmp_path, "SELECT requests, tokens, cost FROM counters WHERE span = 'day' ORDER BY start")
    months = rows(tmp_path, "SELECT cost FROM counters WHERE span = 'month' ORDER BY start")
    assert days == [(1, 3, 3), (1, 0, 0)]
    assert months == [(3,), (0,)]


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from("rrssdfo"), st.integers(0, 50), st.integers(0, 50)), max_size=40))
def test_the_days_counters_are_the_sums_of_what_was_made_in_them(steps: list) -> None:
    """Whenever it is settled, flushed, or the process is another one; and the account has the same in memory."""
    with tempfile.TemporaryDirectory() as name:
        directory, clock = Path(name), Clock()
        ledger = Ledger(directory, clock=clock)
        held: list[Reservation] = []
        for kind, one, other in steps:
            if kind == "r":
                held.append(reserve(ledger, one, other))
            elif kind == "s" and held:
                held.pop(one % len(held)).settle(Tokens(fresh=other))
            elif kind == "d":
                clock.now_ns += 86_400 * SECOND_NS
            elif kind == "f":
                ledger.flush()
            elif kind == "o":
                held.clear()
                ledger.close()
                ledger = Ledger(directory, clock=clock)
        usage = ledger.usage("one")
        ledger.close()
        made = rows(
            directory,
            "SELECT made_ns / 86400000000000, sum(tokens), sum(cost), count(*) FROM (SELECT made_ns, fresh + output AS"
            " tokens, cost FROM usage UNION ALL SELECT made_ns, prompt + answer, cost FROM reservations) GROUP BY 1",
        )
        kept = rows(directory, "SELECT start, tokens, cost, requests FROM counters WHERE span = 'day' ORDER BY start")
        months = rows(directory, "SELECT sum(cost) FROM counters WHERE span = 'month'")
    assert kept == made
    assert (months[0][0] or 0) == usage.all_cost == sum(row[2] for row in made)


def test_one_process_has_the_ledger(tmp_path: Path) -> None:
    """Another one is refused, and told which has it; when that has ended, it gets it."""
    ledger = Ledger(tmp_path)
    with pytest.raises(StartError, match=f"pid {os.getpid()}"):
        Ledger(tmp_path)
    code = "import sys, pathlib; from serving.access.ledger import Ledger; Ledger(pathlib.Path(sys.argv[1]))"
    other = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert f"pid {os.getpid()}" in other.stderr
    ledger.close()
    Ledger(tmp_path).close()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """With the way out; and its lock is given back."""
    Ledger(tmp_path).close()
    rows(tmp_path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(BadFile, match="9999") as raised:
        Ledger(tmp_path)
    assert "a later one" in (raised.value.hint or "")
    with (tmp_path / "ledger.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file of something else is not written over."""
    (tmp_path / "access.sqlite").write_bytes(b"something else " * 100)
    with pytest.raises(BadFile, match="cannot be used"):
        Ledger(tmp_path)
    assert (tmp_path / "access.sqlite").read_bytes().startswith(b"something else")


def test_a_torn_last_line_was_never_acknowledged(tmp_path: Path) -> None:
    """It is left out; a damaged line before others is not."""
    ledger = Ledger(tmp_path)
    ledger._stopped.set()
    ledger._thread.join()
    reserve(ledger)
    reserve(ledger)
    journal = next(tmp_path.glob("journal-*"))
    whole = journal.read_bytes()
    os.close(ledger._locked)  # as a kill would
    journal.write_bytes(whole.rstrip(b"\0")[:-5])
    again = Ledger(tmp_path)
    assert again.usage("one").all_requests == 1
    again.close()
    (tmp_path / "journal-000000000001").write_bytes(b"00000000 []\n" + whole)
    with pytest.raises(BadFile, match="line 1"):
        Ledger(tmp_path)


def test_reading_the_journal_twice_changes_nothing(tmp_path: Path) -> None:
    """A kill between the database's commit and the removal of the file leaves both."""
    ledger = Ledger(tmp_path)
    ledger._stopped.set()
    ledger._thread.join()
    reserve(ledger).settle(Tokens(fresh=5))
    journal = next(tmp_path.glob("journal-*"))
    content = journal.read_bytes()
    ledger.close()
    journal.write_bytes(content)
    again = Ledger(tmp_path)
    assert again.usage("one").all_cost == 5
    again.close()
    assert rows(tmp_path, "SELECT sum(cost) FROM usage") == [(5,)]
    assert not list(tmp_path.glob("journal-*"))


def test_a_full_disk_grants_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written down is refused, and nothing of it is counted."""
    monkeypatch.setattr("serving.access.journal._BYTES", 4096)
    ledger = Ledger(tmp_path)
    ledger._stopped.set()
    ledger._thread.join()
    made = [reserve(ledger)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(CapacityError, match="cannot be written"):
            made.extend(reserve(ledger) for _ in range(100))
        assert 4 < len(made) < 40
        for each in made:
            assert each.settle(Tokens(fresh=1))
        assert not made[-1].settle(Tokens(fresh=2))
        assert ledger.problem
        assert ledger.usage("one").all_requests == len(made)
        with pytest.raises(CapacityError):
            ledger._write_unwritten()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    ledger._write_unwritten()
    usage = ledger.usage("one")
    assert (usage.all_cost, usage.running) == (len(made), 0)
    ledger.close()
    assert rows(tmp_path, "SELECT sum(cost) FROM usage") == [(len(made),)]
    assert not list(tmp_path.glob("journal-*"))


def test_what_a_database_cannot_hold_loses_nothing_of_others(tmp_path: Path) -> None:
    """Whatever error it answers with, nothing leaves the journal that is not in the database."""
    ledger = Ledger(tmp_path)
    ledger._stopped.set()
    ledger._thread.join()
    reserve(ledger).settle(Tokens(fresh=5))
    reserve(ledger).settle(Tokens(fresh=1 << 70))
    for _ in range(3):
        ledger.flush()
    assert ledger.problem
    assert len(ledger._pending) == 4
    ledger._journal.close()
    ledger.database.close()
    os.close(ledger._locked)  # as a kill would
    again = Ledger(tmp_path)
    again._stopped.set()
    assert again.usage("one").all_tokens >= 5 + (1 << 70)


def test_files_that_are_begun_at_the_same_time_are_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests fill the journal while the thread that carries it away has prepared a file: lines stay in order."""
    monkeypatch.setattr("serving.access.journal._BYTES", 4096)
    ledger = Ledger(tmp_path)
    ledger._stopped.set()
    ledger._thread.join()
    prepare, made = ledger._journal.prepare, []

    def slow(number: int) -> tuple[mmap.mmap, Path]:
        following = prepare(number)
        if not made:
            made.append(number)
            made.extend(reserve(ledger).id for _ in range(40))
        return following

    def fail(*_: object) -> None:
        raise RuntimeError("killed here")

    for _ in range(4):
        reserve(ledger)
    monkeypatch.setattr(ledger._journal, "prepare", slow)
    monkeypatch.setattr(ledger.database, "apply", fail)
    ledger.flush()
    assert len(made) == 41
    for each in list(ledger._open.values())[:30]:
        Reservation(ledger, each, UNLIMITED, None).settle(Tokens(fresh=1))
    usage = ledger.usage("one")
    ledger._journal.close()
    ledger.database.close()
    os.close(ledger._locked)
    again = Ledger(tmp_path)
    assert again.usage("one")._replace(running=0) == usage._replace(running=0)
    again.close()


def test_a_hole_in_the_journal_is_no_reason_not_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a power failure leaves one: what was in it is lost, and what came after is not."""
    monkeypatch.setattr("serving.access.journal._BYTES", 4096)
    ledger = Ledger(tmp_path)
    ledger._stopped.set()
    ledger._thread.join()
    made = [reserve(ledger) for _ in range(30)]
    for each in made:
        each.settle(Tokens(fresh=1))
    first = min(tmp_path.glob("journal-*"))
    content = first.read_bytes()
    ledger._journal.close()
    ledger.database.close()
    os.close(ledger._locked)
    first.write_bytes(content[:400] + bytes(600) + content[1000:])
    again = Ledger(tmp_path)
    assert again.usage("one").all_cost == 30
    again.close()


def test_a_database_that_takes_nothing_loses_nothing(tmp_path: Path) -> None:
    """What is counted waits in the journal, the ledger says so, and later it goes in."""
    ledger = Ledger(tmp_path)
    ledger._stopped.set()
    ledger._thread.join()
    rows(tmp_path, "ALTER TABLE usage RENAME TO elsewhere")
    reserve(ledger).settle(Tokens(fresh=5))
    ledger.flush()
    assert ledger.problem
    assert list(tmp_path.glob("journal-*"))
    rows(tmp_path, "ALTER TABLE elsewhere RENAME TO usage")
    reserve(ledger).settle(Tokens(fresh=6))
    ledger.flush()
    assert ledger.problem is None
    ledger.close()
    assert rows(tmp_path, "SELECT sum(cost) FROM usage") == [(11,)]


def test_lines_of_anything_else_are_no_entries() -> None:
    """Whatever a damaged disk gives back."""
    for line in (b"", b"0" * 8, b"00000000 []", os.urandom(100), b"zzzzzzzz [1]"):
        assert read_entry(line) is None


def test_the_migrations_make_the_schema(tmp_path: Path) -> None:
    """What the scripts make is what the tables say, and the list of revisions is that of the scripts."""
    Ledger(tmp_path).close()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'access.sqlite'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", "serving.access:migrations")
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == schema.REVISIONS


def test_an_older_database_is_brought_up_to_date(tmp_path: Path) -> None:
    """A key of revision 0001 is found again, and its content is not recorded."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'access.sqlite'}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "serving.access:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO keys (id, owner, name, digest, created, account, cache_domain, told) VALUES"
            """ ('old', 'me', 'n', x'00', 5, 'old', '', '{"scopes":["inference"],"models":null,"networks":[],"""
            """"limits":{}}')"""
        )
    engine.dispose()
    ledger = Ledger(tmp_path)
    (key,) = ledger.database.all_keys()
    assert (key.id, key.record_content) == ("old", False)
    ledger.database.add_key(replace(key, id="new", record_content=True))
    assert [each.record_content for each in ledger.database.all_keys()] == [True, False]
    ledger.close()
    assert rows(tmp_path, "SELECT version_num FROM alembic_version") == [(schema.REVISIONS[-1],)]


def test_postgresql_would_take_the_schema() -> None:
    """Its dialect compiles every table and index, with integers that hold nanoseconds."""
    said = io.StringIO()
    for table in schema.metadata.sorted_tables:
        said.write(str(sa.schema.CreateTable(table).compile(dialect=postgresql.dialect())))
        for index in table.indexes:
            said.write(str(sa.schema.CreateIndex(index).compile(dialect=postgresql.dialect())))
    assert "made_ns BIGINT NOT NULL" in said.getvalue()
    assert "SERIAL" not in said.getvalue()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """Every file of it is this user's alone."""
    ledger = Ledger(tmp_path)
    reserve(ledger)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    ledger.close()


MONTH_NS = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * SECOND_NS


@given(st.integers(0, 4 * 10**9), st.integers(1, 36_500))
def test_lines_of_a_month_that_is_not_over_are_kept(now_s: int, days: int) -> None:
    """And all that are younger than was asked for; nothing that is older than both."""
    cut_ns = decide_cut(now_s * SECOND_NS, days)
    now, cut = (datetime.fromtimestamp(at_s, UTC) for at_s in (now_s, cut_ns // SECOND_NS))
    assert now_s * SECOND_NS - cut_ns >= days * 86_400 * SECOND_NS
    assert (cut.year, cut.month) < (now.year, now.month) or cut == datetime(now.year, now.month, 1, tzinfo=UTC)
    assert now - cut <= timedelta(days=max(days, 31))


def test_old_usage_goes_in_batches_and_counters_stay(tmp_path: Path) -> None:
    """The earliest first, a batch at a time; what is left is whole from the moment that is said."""
    clock = Clock(NOON_NS - 100 * 86_400 * SECOND_NS)
    ledger = Ledger(tmp_path, clock=clock)
    for _ in range(1200):
        reserve(ledger).settle(Tokens(1))
    clock.now_ns = MONTH_NS
    for _ in range(3):
        reserve(ledger).settle(Tokens(1))
    open_one = reserve(ledger)
    ledger.flush()
    clock.now_ns = NOON_NS
    before, database = ledger.usage("one"), ledger.database
    assert database.usage_from_ns() == 0
    keeping = Retention(database, 7, clock)
    left = []
    for _ in range(4):
        keeping.tick()
        left.append(rows(tmp_path, "SELECT count(*) FROM usage")[0][0])
    assert left == [703, 203, 3, 3]
    assert NOON_NS - 101 * 86_400 * SECOND_NS < database.usage_from_ns() < MONTH_NS
    assert sum(total.requests for total in database.totals(None, 0, NOON_NS)) == 3
    assert open_one.is_open
    assert rows(tmp_path, "SELECT count(*) FROM reservations") == [(1,)]
    ledger.close()
    again = Ledger(tmp_path, clock=clock)
    assert again.usage("one")._replace(running=0) == before._replace(running=0)
    again.close()


def test_retention_rests_for_an_hour_and_goes_on(tmp_path: Path) -> None:
    """Also where the clock was set back meanwhile."""
    clock = Clock()
    ledger = Ledger(tmp_path, clock=clock)
    keeping, hour_ns = Retention(ledger.database, 1, clock), 3600 * SECOND_NS
    keeping.tick()
    clock.now_ns -= 100 * 86_400 * SECOND_NS
    reserve(ledger).settle(Tokens(1))
    ledger.flush()
    clock.now_ns = NOON_NS + hour_ns // 2
    keeping.tick()
    assert rows(tmp_path, "SELECT count(*) FROM usage") == [(1,)]
    clock.now_ns = NOON_NS + hour_ns
    keeping.tick()
    assert rows(tmp_path, "SELECT count(*) FROM usage") == [(0,)]
    clock.now_ns -= 200 * 86_400 * SECOND_NS
    reserve(ledger).settle(Tokens(1))
    ledger.flush()
    clock.now_ns += 100 * 86_400 * SECOND_NS
    keeping.tick()
    assert rows(tmp_path, "SELECT count(*) FROM usage") == [(0,)]
    ledger.close()


def test_postgresql_would_take_what_retention_asks() -> None:
    """By SQLAlchemy's compiler for it."""
    said = str(_first_usage(5).compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
    asked = "SELECT usage.reservation, usage.made_ns FROM usage ORDER BY usage.reservation LIMIT 5"
    assert " ".join(said.split()) == asked
