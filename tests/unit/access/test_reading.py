"""Keys that another process administers, as one sees them that has no part in its ledger."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from serving.access import Access, Failure, Key, KeyReader, reading
from serving.access.keys import write_key
from serving.errors import (
    BadFile,
    FileMissing,
    Overloaded,
    PermissionDenied,
    RateLimited,
    ServingError,
    Unauthenticated,
)
from serving.settings import Access as AccessSettings
from serving.settings.callers import Oidc, OidcGroup
from tests.support.identity import AUDIENCE, ISSUER, claims_at, ed, key_set

START = 1_800_000_000
WANTED = Key("", "radiology", "hosts", b"", 0, scopes=frozenset({"mirror"}))


class Clock:
    def __init__(self) -> None:
        self.now_s = START

    def __call__(self) -> float:
        return float(self.now_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> AccessSettings:
    return AccessSettings(
        directory=tmp_path / "access", failed_burst=3, failed_per_minute=1, trusted_proxies=["10.0.0.1"]
    )


@pytest.fixture
def access(settings: AccessSettings, clock: Clock) -> Iterator[Access]:
    opened = Access.open(settings, {}, lambda: clock.now_s * 10**9)
    yield opened
    opened.close()


@pytest.fixture
def reader(access: Access, settings: AccessSettings, clock: Clock) -> Iterator[KeyReader]:
    """Of the keys of a process that runs, and has the ledger."""
    with closing(KeyReader(settings, {}, clock)) as opened:
        yield opened


def bearing(text: str, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"h"), (b"authorization", f"Bearer {text}".encode()), *more]


def refused(reader: KeyReader, headers, peer="192.0.2.1") -> ServingError:
    with pytest.raises(ServingError) as raised:
        reader.admit(headers, peer, "mirror")
    return raised.value


def test_what_is_done_to_a_key_counts_with_the_next_look(reader: KeyReader, access: Access) -> None:
    """Made, changed, replaced, revoked, while another process has the ledger; what has not changed is kept as it is."""
    assert not reader.has_key_for("mirror")
    key, text = access.create(WANTED)
    assert isinstance(refused(reader, bearing(text)), Unauthenticated)
    reader.look()
    assert reader.has_key_for("mirror")
    principal = reader.admit(bearing(text), "192.0.2.1", "mirror")
    assert (principal.key_id, principal.owner) == (key.id, "radiology")
    before = reader._table.keys[key.id]
    other, _ = access.create(replace(WANTED, scopes=frozenset({"inference"})))
    reader.look()
    assert reader._table.keys[key.id] is before
    access.change(key.id, lambda now: replace(now, networks=(ip_network("10.0.0.0/8"),)))
    reader.look()
    assert isinstance(refused(reader, bearing(text)), PermissionDenied)
    assert reader.admit(bearing(text), "10.1.1.1", "mirror")
    assert reader.admit(bearing(text, (b"x-forwarded-for", b"10.2.2.2")), "10.0.0.1", "mirror")
    assert reader.source(bearing(text, (b"x-forwarded-for", b"10.2.2.2")), "10.0.0.1") == "10.2.2.2"
    _, new = access.rotate(key.id, 0)
    access.revoke(other.id)
    assert reader.is_valid(principal, "mirror")
    reader.look()
    assert not reader.is_valid(principal, "mirror")
    assert "replaced" in refused(reader, bearing(text), "10.1.1.1").message
    assert reader.admit(bearing(new), "10.1.1.1", "mirror")


def test_a_key_that_loses_the_scope_or_its_time_is_not_valid(reader: KeyReader, access: Access, clock: Clock) -> None:
    """For what runs with it, too."""
    key, text = access.create(replace(WANTED, expires=START + 10))
    other, wide = access.create(replace(WANTED, scopes=frozenset({"mirror", "inference"})))
    reader.look()
    first, second = (reader.admit(bearing(each), None, "mirror") for each in (text, wide))
    clock.now_s += 10
    assert not reader.is_valid(first, "mirror")
    assert "expired" in refused(reader, bearing(text)).message
    access.change(other.id, lambda now: replace(now, scopes=frozenset({"inference"})))
    reader.look()
    assert not reader.is_valid(second, "mirror")
    assert refused(reader, bearing(wide)).http_status == 403
    assert not reader.has_key_for("mirror")
    assert key.id != other.id


def test_wrong_keys_are_limited_and_told(reader: KeyReader, access: Access) -> None:
    """As at the server's door; and a right one from the same place gets in."""
    _, text = access.create(WANTED)
    reader.look()
    told: list[Failure] = []
    reader.on_failed(told.append)
    wrong = bearing(write_key("a" * 12, bytes(32)))
    answers = [refused(reader, wrong) for _ in range(5)]
    assert [answer.http_status for answer in answers] == [401, 401, 401, 429, 429]
    assert isinstance(answers[-1], RateLimited)
    assert reader.admit(bearing(text), "192.0.2.1", "mirror")
    assert refused(reader, []).http_status == 401
    assert refused(reader, bearing("pk_no"), "192.0.2.2").http_status == 401
    assert [failure.reason for failure in told] == ["unknown"] * 5 + ["missing", "malformed"]


def test_keys_may_be_made_later(settings: AccessSettings, clock: Clock) -> None:
    """Where there is no database yet nobody is let in, and nothing is made."""
    with closing(KeyReader(settings, {}, clock)) as reader:
        wrong = bearing(write_key("a" * 12, bytes(32)))
        assert refused(reader, wrong).http_status == 401
        assert settings.directory is not None
        assert not settings.directory.exists()
        with closing(Access.open(settings, {}, lambda: START * 10**9)) as access:
            _, text = access.create(WANTED)
        reader.look()
        assert reader.admit(bearing(text), None, "mirror")


def test_nothing_is_written(settings: AccessSettings, clock: Clock) -> None:
    """The database is the same to the byte, and takes no change from here."""
    with closing(Access.open(settings, {}, lambda: START * 10**9)) as access:
        _, text = access.create(WANTED)
    assert settings.directory is not None
    database = settings.directory / "access.sqlite"
    before = database.read_bytes()
    with closing(KeyReader(settings, {}, clock)) as reader:
        assert reader.admit(bearing(text), None, "mirror")
    assert database.read_bytes() == before
    with reading._open(database).connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM keys")


def test_another_database_is_seen(reader: KeyReader, access: Access, settings: AccessSettings, tmp_path: Path) -> None:
    """A backup that is put back has other keys, or none; without a database nobody is let in."""
    _, text = access.create(WANTED)
    reader.look()
    assert reader.admit(bearing(text), None, "mirror")
    access.close()
    assert settings.directory is not None
    database = settings.directory / "access.sqlite"
    with closing(sqlite3.connect(database)) as one, closing(sqlite3.connect(tmp_path / "copy")) as other:
        one.backup(other)
        other.execute("DELETE FROM keys")
        other.commit()
    (tmp_path / "copy").replace(database)
    reader.look()
    assert isinstance(refused(reader, bearing(text)), Unauthenticated)
    database.unlink()
    reader.look()
    assert isinstance(refused(reader, bearing(text)), Unauthenticated)


def test_keys_that_cannot_be_read_count_for_a_while_and_then_nobody_is_let_in(
    reader: KeyReader,
    access: Access,
    settings: AccessSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says why, once; when they can be read again all is as before."""
    _, text = access.create(WANTED)
    reader.look()
    principal = reader.admit(bearing(text), None, "mirror")
    access.close()
    assert settings.directory is not None
    database = settings.directory / "access.sqlite"
    whole = database.with_name("whole")
    with closing(sqlite3.connect(database)) as one, closing(sqlite3.connect(whole)) as other:
        one.backup(other)
    broken = database.with_name("broken")
    broken.write_bytes(b"no database at all " * 1000)
    broken.replace(database)
    for _ in range(2):
        reader.look()
    assert caplog.text.count("keys cannot be read") == 1
    assert reader.admit(bearing(text), None, "mirror")
    monkeypatch.setattr(reading, "_STALE_S", 0.0)
    error = refused(reader, bearing(text))
    assert isinstance(error, Overloaded)
    assert error.http_status == 503
    assert not reader.is_valid(principal, "mirror")
    whole.replace(database)
    reader.look()
    assert reader.admit(bearing(text), None, "mirror")
    assert reader.is_valid(principal, "mirror")


def test_what_cannot_be_used_is_told_at_the_start(settings: AccessSettings, clock: Clock) -> None:
    """A pepper that is gone or another's, a database of another version."""
    with closing(Access.open(settings, {}, lambda: START * 10**9)) as access:
        access.create(WANTED)
    assert settings.directory is not None
    pepper = settings.directory / "pepper"
    kept = pepper.read_bytes()
    pepper.unlink()
    with pytest.raises(FileMissing, match="is gone"):
        KeyReader(settings, {}, clock)
    pepper.touch(mode=0o600)
    pepper.write_bytes(b"A" * 43 + b"=")
    with pytest.raises(BadFile, match="not the one"):
        KeyReader(settings, {}, clock)
    pepper.write_bytes(kept)
    with closing(sqlite3.connect(settings.directory / "access.sqlite")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.commit()
    with pytest.raises(BadFile, match="revision `0001`"):
        KeyReader(settings, {}, clock)


def test_tokens_of_the_identity_provider_let_in_too(settings: AccessSettings, clock: Clock, tmp_path: Path) -> None:
    """By the group's scopes, until they end."""
    signer = ed()
    (tmp_path / "keys.json").write_bytes(key_set(signer))
    oidc = Oidc(
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks_file=tmp_path / "keys.json",
        groups=[OidcGroup(group="hosts", scopes=["mirror"]), OidcGroup(group="staff")],
    )
    with closing(KeyReader(settings.model_copy(update={"oidc": oidc}), {}, clock)) as reader:
        assert reader.has_key_for("mirror")
        token = signer.token(claims_at(START, groups=["hosts"], exp=START + 60))
        principal = reader.admit(bearing(token), None, "mirror")
        assert reader.is_valid(principal, "mirror")
        assert refused(reader, bearing(signer.token(claims_at(START, groups=["staff"])))).http_status == 403
        assert refused(reader, bearing(signer.token(claims_at(START, aud="other")))).http_status == 401
        clock.now_s += 60
        assert not reader.is_valid(principal, "mirror")
        assert refused(reader, bearing(token)).http_status == 401


def test_the_writer_ends_with_all_in_one_file(reader: KeyReader, access: Access, settings: AccessSettings) -> None:
    """However often it was looked at: what is copied then has every key."""
    key, _ = access.create(WANTED)
    reader.look()
    access.close()
    assert settings.directory is not None
    assert not (settings.directory / "access.sqlite-wal").exists()
    with closing(sqlite3.connect(f"file:{settings.directory}/access.sqlite?immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT id FROM keys").fetchall() == [(key.id,)]


def test_nothing_is_read_where_nothing_changed(
    reader: KeyReader, access: Access, settings: AccessSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at an idle host costs two looks at files."""
    access.create(WANTED)
    access.close()
    assert settings.directory is not None
    for _ in range(2):  # the first look makes files beside the database that others find again
        reader.look()
        for path in settings.directory.iterdir():
            os.utime(path, (START - 10**8, START - 10**8))
    reader.look()
    opened: list[Path] = []
    monkeypatch.setattr(reading, "_open", opened.append)
    reader.look()
    assert opened == []
