"""The object that a server asks: who calls, how much they may, and when that ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from serving.access import Access, Failure, Key, Limits, Tokens, access_directory, book
from serving.access.keys import write_key
from serving.access.quota import SECOND_NS
from serving.audit.records import KeyChanged, KeyRevoked, PricesUsed, Record
from serving.errors import (
    BadFile,
    BadSettings,
    BudgetSpent,
    CapacityError,
    FileMissing,
    PermissionDenied,
    RateLimited,
    ServingError,
    StartError,
    Unauthenticated,
    Untrusted,
    Unwritable,
    UsageError,
)
from serving.settings import Access as AccessSettings
from tests.support.harness import wait_until

START = 1_800_000_000
WANTED = Key("", "radiology", "reports", b"", 0)
BOOK = 'version = 1\ncurrency = "EUR"\n[[prices]]\nfrom = 2026-01-01\nmodel = "demo"\ninput = 1\noutput = 1\n'


class Clock:
    def __init__(self) -> None:
        self.now_s = START

    def __call__(self) -> int:
        return self.now_s * SECOND_NS


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> AccessSettings:
    (tmp_path / "prices.toml").write_text(BOOK)
    return AccessSettings(
        directory=tmp_path / "access",
        price_book=tmp_path / "prices.toml",
        trusted_proxies=["10.0.0.0/8"],
        failed_burst=3,
        failed_per_minute=1,
    )


@pytest.fixture
def access(settings: AccessSettings, clock: Clock) -> Iterator[Access]:
    opened = Access.open(settings, {}, clock)
    yield opened
    opened.close()


def bearing(text: str, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"h"), (b"authorization", f"Bearer {text}".encode()), *more]


def refused(access: Access, headers, peer="192.0.2.1", route="inference", model=None) -> ServingError:
    with pytest.raises(ServingError) as raised:
        access.authenticate(headers, peer, route, model)
    return raised.value


def test_a_key_that_was_made_lets_in(access: Access, settings: AccessSettings, clock: Clock) -> None:
    """At once, and after a restart; what is kept of it has nothing of its secret."""
    key, text = access.create(WANTED)
    assert access.authenticate(bearing(text), "192.0.2.1", "inference").key_id == key.id
    access.close()
    secret = text.split("_")[2][:43].encode()
    for path in settings.directory.iterdir():
        assert secret not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
    again = Access.open(settings, {}, clock)
    assert again.authenticate(bearing(text), None, "inference").owner == "radiology"
    assert again.find(key.id) == key
    again.close()


def test_every_way_of_not_getting_in(access: Access, clock: Clock) -> None:
    """Each is told as what it is to who holds the key, and as unknown to who does not."""
    key, text = access.create(replace(WANTED, expires=START + 100))
    assert refused(access, []).code == "invalid_api_key"
    assert "several" in refused(access, bearing(text) + bearing(text)).message
    assert "Bearer" in refused(access, [(b"authorization", b"Basic abc")]).message
    unknown = refused(access, bearing(write_key("a" * 12, bytes(32))), "192.0.2.2")
    wrong = refused(access, bearing(write_key(key.id, bytes(32))), "192.0.2.2")
    assert unknown.for_client() == wrong.for_client()
    assert "mistyped" in refused(access, bearing(text[:-1] + ("0" if text[-1] != "0" else "1")), "192.0.2.3").message
    assert isinstance(refused(access, bearing(text), route="admin"), PermissionDenied)
    clock.now_s += 100
    assert "expired" in refused(access, bearing(text), "192.0.2.4").message
    for error in (unknown, wrong):
        assert isinstance(error, Unauthenticated)
        assert error.http_status == 401
        assert text.split("_")[2] not in str(error.for_client())


def test_a_key_is_for_its_models_and_networks(access: Access) -> None:
    """The source is what a trusted proxy says it is, and nobody else's word."""
    wanted = replace(WANTED, models=frozenset({"demo"}), networks=(ip_network("198.51.100.0/24"),))
    _, text = access.create(wanted)
    forwarded = (b"x-forwarded-for", b"198.51.100.7")
    principal = access.authenticate(bearing(text, forwarded), "10.0.0.1", "inference", "demo")
    access.check_model(principal, "demo")
    with pytest.raises(PermissionDenied, match="other"):
        access.check_model(principal, "other")
    assert refused(access, bearing(text, forwarded)).http_status == 403
    assert refused(access, bearing(text)).http_status == 403
    assert refused(access, bearing(text), None).http_status == 403


def test_wrong_keys_are_limited_and_right_ones_are_not(access: Access) -> None:
    """After the burst a wrong key is a 429 with the time to wait; a right one from the same place still gets in."""
    _, text = access.create(WANTED)
    wrong = bearing(write_key("a" * 12, bytes(32)))
    told: list[Failure] = []
    access.on_failed(told.append)
    answers = [refused(access, wrong) for _ in range(5)]
    assert [answer.http_status for answer in answers] == [401, 401, 401, 429, 429]
    assert isinstance(answers[-1], RateLimited)
    assert 50 <= answers[-1].retry_after_s <= 61
    assert refused(access, wrong, "192.0.2.9").http_status == 401
    assert access.authenticate(bearing(text), "192.0.2.1", "inference")
    assert told[0] == Failure(ip_address("192.0.2.1"), "unknown", None)
    assert len(told) == 6


def test_rotation_has_a_time_for_both(access: Access, clock: Clock) -> None:
    """Both are valid within the grace, and share limits and what was used of them; after it the old one is not."""
    key, old = access.create(replace(WANTED, limits=Limits(requests_per_day=2)))
    new_key, new = access.rotate(key.id, 60)
    for text in (old, new):
        principal = access.authenticate(bearing(text), None, "inference")
        assert access.reserve(principal, model="demo", engine="e", prompt=1, answer=1).cancel()
    with pytest.raises(RateLimited):
        access.reserve(principal, model="demo", engine="e", prompt=1, answer=1)
    with pytest.raises(UsageError, match=new_key.id):
        access.rotate(key.id, 60)
    clock.now_s += 60
    assert "replaced" in refused(access, bearing(old)).message
    assert access.authenticate(bearing(new), None, "inference").account == key.id


def test_the_end_of_a_key_is_told(access: Access, clock: Clock) -> None:
    """A revoked one at once; an expired one, and one whose grace is over, by the next tick: its streams are cut."""
    ended: list[str] = []
    access.on_revoked(ended.append)
    revoked, text = access.create(WANTED)
    expiring, _ = access.create(replace(WANTED, expires=START + 50))
    rotated, _ = access.create(WANTED)
    access.rotate(rotated.id, 50)
    at_once, _ = access.create(WANTED)
    access.rotate(at_once.id, 0)
    principal = access.authenticate(bearing(text), None, "inference")
    acts: list[Record] = []
    access.on_act(acts.append)
    access.revoke(revoked.id, "uid 7")
    assert acts == [KeyRevoked(key=revoked.id, by="uid 7")]
    assert not access.is_valid(principal)
    with pytest.raises(Unauthenticated, match="has ended"):
        access.reserve(principal, model="demo", engine="e", prompt=1, answer=1)
    assert ended == [at_once.id, revoked.id]
    assert "revoked" in refused(access, bearing(text)).message
    with pytest.raises(UsageError):
        access.revoke(revoked.id)
    with pytest.raises(UsageError):
        access.rotate(revoked.id, 60)
    clock.now_s += 50
    wait_until(lambda: len(ended) == 4, "the ends are told", 5)
    assert set(ended[2:]) == {expiring.id, rotated.id}


def test_what_cannot_be_recorded_is_not_done(access: Access) -> None:
    """Each act is told before it is done; where that fails nothing has changed, but that a key is taken back."""
    before, text = access.create(WANTED)

    def fail(_: Record) -> None:
        raise Unwritable("no room")

    access.on_act(fail)
    for act in (lambda: access.create(WANTED), lambda: access.rotate(before.id, 0)):
        with pytest.raises(Unwritable):
            act()
    assert access.all_keys() == [before]
    assert access.authenticate(bearing(text), None, "inference").key_id == before.id
    with pytest.raises(Unwritable):
        access.revoke(before.id)
    assert "revoked" in refused(access, bearing(text)).message


def test_a_key_is_taken_back_whatever_the_database_does(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once and with its streams; it is said that it is not written down, and it is as soon as that can be."""
    key, text = access.create(WANTED)
    ended: list[str] = []
    access.on_revoked(ended.append)
    database = access.ledger.database
    kept = database.change_key

    def fail(_: Key) -> None:
        raise OperationalError("UPDATE", {}, Exception("database or disk is full"))

    monkeypatch.setattr(database, "change_key", fail)
    with pytest.raises(CapacityError, match="is revoked"):
        access.revoke(key.id)
    assert ended == [key.id]
    assert "revoked" in refused(access, bearing(text)).message
    assert database.all_keys()[0].revoked is None
    monkeypatch.setattr(database, "change_key", kept)
    wait_until(lambda: database.all_keys()[0].revoked is not None, "it is written down", 5)


def test_limits_are_told_as_openai_does(access: Access) -> None:
    """429 with x-ratelimit headers and Retry-After; no retry where waiting does not help."""
    _, text = access.create(
        replace(WANTED, limits=Limits(requests_per_minute=1, tokens_per_minute=100, cost_in_all=50))
    )
    principal = access.authenticate(bearing(text), None, "inference")
    with pytest.raises(RateLimited) as raised:
        access.reserve(principal, model="demo", engine="e", prompt=101, answer=0)
    assert raised.value.headers["x-should-retry"] == "false"
    with pytest.raises(BudgetSpent) as spent:
        access.reserve(principal, model="demo", engine="e", prompt=60, answer=0)
    assert spent.value.for_client()["error"]["code"] == "insufficient_quota"
    made = access.reserve(principal, model="demo", engine="e", prompt=10, answer=20)
    assert made.headers()["x-ratelimit-remaining-tokens"] == "70"
    assert made.settle(Tokens(fresh=10, output=5))
    assert access.headers(principal)["x-ratelimit-remaining-tokens"] == "85"
    with pytest.raises(RateLimited) as raised:
        access.reserve(principal, model="demo", engine="e", prompt=1, answer=1)
    assert raised.value.http_status == 429
    assert raised.value.retry_after_s == 60
    assert raised.value.headers["x-ratelimit-remaining-requests"] == "0"
    assert access.find(principal.key_id).limits.cost_in_all == 50
    assert access.ledger.usage(principal.account).all_cost == 15


def test_a_budget_needs_prices(access: Access, tmp_path: Path, clock: Clock) -> None:
    """A model without a price is not for a key with a budget, and without a book there are no budgets."""
    _, text = access.create(replace(WANTED, limits=Limits(cost_per_day=50)))
    principal = access.authenticate(bearing(text), None, "inference")
    with pytest.raises(PermissionDenied, match="no price"):
        access.reserve(principal, model="unpriced", engine="e", prompt=1, answer=1)
    bare = Access.open(AccessSettings(directory=tmp_path / "bare"), {}, clock)
    with pytest.raises(UsageError, match="prices"):
        bare.create(replace(WANTED, limits=Limits(cost_per_day=50)))
    with pytest.raises(UsageError, match="expired"):
        bare.create(replace(WANTED, expires=START))
    bare.close()


def test_the_sums_are_those_of_the_ledger(access: Access) -> None:
    """By key and model, of the span that is asked for."""
    key, text = access.create(WANTED)
    principal = access.authenticate(bearing(text), None, "inference")
    for _ in range(3):
        access.reserve(principal, model="demo", engine="e", prompt=10, answer=20).settle(Tokens(4, 3, 2, 1))
    access.reserve(principal, model="other", engine="e", prompt=10, answer=20).stand()
    demo, other = access.totals(key.id, START, START + 1)
    assert (demo.requests, demo.fresh, demo.cached, demo.output, demo.reasoning, demo.cost) == (3, 12, 9, 6, 3, 30)
    assert (other.cost, other.estimated, other.owner) == (0, 1, "radiology")
    assert access.totals(key.id, START + 1, START + 9) == []
    with pytest.raises(FileMissing):
        access.totals("nobody", START, START + 1)
    (hour,) = access.hours(START, START + 1)
    assert hour.begin == START - START % 3600
    assert (hour.requests, hour.input, hour.output) == (
        4,
        demo.fresh + demo.cached + other.fresh + other.cached,
        demo.output + demo.reasoning + other.output + other.reasoning,
    )
    assert access.hours(START + 1, START + 9) == []


def test_a_lost_pepper_is_told_at_the_start(settings: AccessSettings, clock: Clock) -> None:
    """And so are another one, one that others may read, and what is none; with the old one back all is well."""
    access = Access.open(settings, {}, clock)
    _, text = access.create(WANTED)
    access.close()
    pepper = settings.directory / "pepper"
    content = pepper.read_bytes()
    pepper.unlink()
    with pytest.raises(FileMissing, match="pepper") as lost:
        Access.open(settings, {}, clock)
    assert "backup" in (lost.value.hint or "")
    assert not pepper.exists()
    for wrong, error in ((b"x" * 44, BadFile), (b"QUFB\n", BadFile), (content[:8] + b"AAAA" + content[12:], BadFile)):
        pepper.write_bytes(wrong)
        pepper.chmod(0o600)
        with pytest.raises(error, match="pepper"):
            Access.open(settings, {}, clock)
    pepper.write_bytes(content)
    pepper.chmod(0o640)
    with pytest.raises(Untrusted, match="640"):
        Access.open(settings, {}, clock)
    pepper.chmod(0o600)
    access = Access.open(settings, {}, clock)
    assert access.authenticate(bearing(text), None, "inference")
    access.close()


def test_an_open_directory_is_refused(settings: AccessSettings, clock: Clock) -> None:
    """Others could put keys there; and two processes cannot have one."""
    settings.directory.mkdir(mode=0o755)
    with pytest.raises(BadSettings, match="755"):
        Access.open(settings, {}, clock)
    settings.directory.chmod(0o700)
    access = Access.open(settings, {}, clock)
    with pytest.raises(StartError, match="another process"):
        Access.open(settings, {}, clock)
    access.close()


def test_where_it_is_without_a_setting() -> None:
    """In the user's state, as the XDG base directories have it."""
    assert access_directory(None, {"XDG_STATE_HOME": "/state"}) == Path("/state/perimeter/access")
    assert access_directory(None, {"HOME": "/home/me"}) == Path("/home/me/.local/state/perimeter/access")


def test_a_proxy_that_is_none_is_refused() -> None:
    """By the settings, before anything is trusted."""
    with pytest.raises(ValueError, match="must be addresses or networks"):
        AccessSettings(trusted_proxies=["10.0.0.0/33"])


def test_a_change_counts_at_once_and_leaves_what_runs(access: Access, settings: AccessSettings, clock: Clock) -> None:
    """The next request of the same text has the new limits; one that runs is settled by those that it began with."""
    key, text = access.create(replace(WANTED, limits=Limits(tokens_per_minute=100)))
    principal = access.authenticate(bearing(text), None, "inference")
    running = access.reserve(principal, model="demo", engine="e", prompt=50, answer=50)
    access.change(key.id, lambda before: replace(before, limits=Limits(tokens_per_minute=1000, concurrency=2)))
    assert running.is_open
    assert access.is_valid(principal)
    now = access.authenticate(bearing(text), None, "inference")
    assert now.limits == Limits(tokens_per_minute=1000, concurrency=2)
    second = access.reserve(now, model="demo", engine="e", prompt=0, answer=0)
    with pytest.raises(RateLimited, match="one time"):
        access.reserve(now, model="demo", engine="e", prompt=0, answer=0)
    assert running.settle(Tokens(fresh=100))
    assert second.cancel()
    access.change(key.id, lambda before: replace(before, scopes=frozenset({"metrics"}), models=frozenset({"other"})))
    assert refused(access, bearing(text)).http_status == 403
    access.close()
    again = Access.open(settings, {}, clock)
    assert again.find(key.id) == access.find(key.id)
    again.close()


def test_an_earlier_end_cuts_what_runs(access: Access, clock: Clock) -> None:
    """As any end does; and what has ended is not changed any more."""
    key, text = access.create(WANTED)
    principal = access.authenticate(bearing(text), None, "inference")
    ended: list[str] = []
    access.on_revoked(ended.append)
    access.change(key.id, lambda before: replace(before, expires=START + 5))
    assert access.is_valid(principal)
    assert ended == []
    clock.now_s += 5
    wait_until(lambda: ended == [key.id], "the end was told")
    assert not access.is_valid(principal)
    with pytest.raises(UsageError, match="not valid any more"):
        access.change(key.id, lambda before: replace(before, expires=None))


def test_a_change_that_cannot_be_recorded_is_none(access: Access) -> None:
    """The record comes first, with what was and what will be; where it raises, the key is as it was."""
    key, text = access.create(WANTED)
    acts: list[Record] = []

    def refuse(act: Record) -> None:
        acts.append(act)
        raise Unwritable("the disk is full")

    access.on_act(refuse)
    with pytest.raises(Unwritable):
        access.change(key.id, lambda before: replace(before, limits=Limits(concurrency=1)), "uid 7")
    assert acts == [KeyChanged(key=key.id, changes=("concurrency: none -> 1",), by="uid 7")]
    assert access.authenticate(bearing(text), None, "inference").limits == Limits()


def test_a_change_that_the_database_does_not_take_is_none(access: Access, settings: AccessSettings) -> None:
    """The operator is told, and the key is as it was."""
    key, _ = access.create(WANTED)
    with sqlite3.connect(settings.directory / "access.sqlite") as connection:
        connection.execute("CREATE TRIGGER no BEFORE UPDATE ON keys BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(CapacityError, match="as it was"):
        access.change(key.id, lambda before: replace(before, limits=Limits(concurrency=1)))
    assert access.find(key.id) == key


def write_book(path: Path, text: str) -> None:
    """In one rename, as an editor or a deployment does it."""
    new = path.with_name("new.toml")
    new.write_text(text)
    new.replace(path)


def test_prices_are_read_again(
    access: Access, settings: AccessSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A new book counts from then on, on record before; one that is broken, gone or in other money changes nothing."""
    monkeypatch.setattr(book, "_LOOK_S", 0.1)
    access._next_look_s = 0.0
    path = settings.price_book
    assert path is not None
    _, text = access.create(WANTED)
    principal = access.authenticate(bearing(text), None, "inference")
    acts: list[Record] = []
    access.on_act(acts.append)

    def spent(before: int) -> int:
        access.reserve(principal, model="demo", engine="e", prompt=10**6, answer=0).stand()
        return access.ledger.usage(principal.account).all_cost - before

    assert spent(0) == 10**6
    running = access.reserve(principal, model="demo", engine="e", prompt=10**6, answer=0)
    first = access.prices
    for broken in ("version = 1\n", BOOK.replace("EUR", "USD"), None):
        caplog.clear()
        path.unlink() if broken is None else write_book(path, broken)
        wait_until(lambda: "stay as they were" in caplog.text, "the problem was told")
        assert access.prices is first
        assert acts == []
    write_book(path, BOOK.replace("input = 1", "input = 3"))
    wait_until(lambda: access.prices.version != first.version, "the new book was read")
    assert acts == [PricesUsed(version=access.prices.version, currency="EUR")]
    assert running.stand()
    assert spent(2 * 10**6) == 3 * 10**6


def test_prices_that_cannot_be_recorded_are_not_counted_in(
    access: Access, settings: AccessSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until they can: the change is tried again."""
    monkeypatch.setattr(book, "_LOOK_S", 0.1)
    access._next_look_s = 0.0
    first, is_full, asked = access.prices, True, []

    def record(act: Record) -> None:
        asked.append(act)
        if is_full:
            raise Unwritable("the disk is full")

    access.on_act(record)
    assert settings.price_book is not None
    write_book(settings.price_book, BOOK.replace("input = 1", "input = 3"))
    wait_until(lambda: len(asked) > 1, "it was tried again")
    assert access.prices is first
    is_full = False
    wait_until(lambda: access.prices is not first, "the new book was read")
