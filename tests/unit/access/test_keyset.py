"""The provider's keys: how often they are looked at, what is kept, and what the one URL may do to us."""

from __future__ import annotations

import http.server
import itertools
import logging
import os
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import tripwire
from serving.access.jwts import Header
from serving.access.keyset import (
    KeySet,
    Looks,
    NoKeys,
    Pace,
    check_file,
    context_of,
    decide_wait,
    fetch_url,
    is_stale,
    read_file,
)
from serving.errors import BadFile, BadSettings, FileMissing
from tests.support.certificates import Authority
from tests.support.harness import wait_until
from tests.support.identity import KeyServer, Signer, ed, key_server, key_set, p256, rsa_key

ALGORITHMS = ("RS256", "ES256", "EdDSA")
PACE = Pace(every_s=300, least_s=60, stale_s=1000)
SECONDS = st.floats(0, 1e6)


class Ticks:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "tls")
    made.issue("server")
    return made


@pytest.fixture
def server(authority: Authority) -> Iterator[KeyServer]:
    with key_server(serving("server", authority)) as told:
        yield told


def serving(name: str, authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.directory / f"{name}.pem", authority.directory / f"{name}.key")
    return context


@given(SECONDS, SECONDS, st.booleans(), st.booleans())
def test_no_two_looks_are_nearer_than_a_minute(last: float, later: float, is_wanted: bool, has_failed: bool) -> None:
    """Whatever is wanted and however it ended; and none is later than the settings say."""
    looks = Looks(last, None if has_failed else last)
    wait = decide_wait(PACE, looks, is_wanted=is_wanted, now=last + later)
    assert wait + later >= PACE.least_s - 1e-6
    assert wait <= PACE.every_s + 1e-6
    assert is_stale(PACE, looks, last + later) == (has_failed or later > PACE.stale_s) or abs(later - 1000) < 1e-3
    assert decide_wait(PACE, Looks(), is_wanted=is_wanted, now=last) == 0


def test_a_flood_of_unknown_keys_brings_one_look_a_minute() -> None:
    """A thousand wishes each second for ten minutes: ten looks, and the set is the same object all the time."""
    ticks, looks, document = Ticks(), [], key_set(ed())
    keys = KeySet(lambda: (looks.append(ticks.now), document)[1], ALGORITHMS, PACE, ticks)
    keys.look_if_due()
    before = keys.ring
    for _ in range(600):
        ticks.now += 1
        for _ in range(1000):
            keys.want()
        keys.look_if_due()
    assert len(looks) == 11
    assert min(b - a for a, b in itertools.pairwise(looks)) >= 60
    assert keys.ring is before
    looks.clear()
    for _ in range(600):
        ticks.now += 1
        keys.look_if_due()
    assert 2 <= len(looks) <= 3


def test_the_last_good_set_is_used_until_it_is_too_old(caplog: pytest.LogCaptureFixture) -> None:
    """It is asked for again each minute meanwhile, told once, and used again when it is there."""
    ticks, documents = Ticks(), [key_set(ed("a"))]

    def fetch() -> bytes:
        if not documents:
            raise NoKeys("nobody is there")
        return documents[0]

    keys = KeySet(fetch, ALGORITHMS, PACE, ticks)
    keys.look_if_due()
    assert keys.ring is not None
    kept = documents.pop()
    for _ in range(16):
        ticks.now += 60
        keys.look_if_due()
        assert keys.ring is not None
    assert keys.problem == "nobody is there"
    for _ in range(10):
        ticks.now += 60
        keys.look_if_due()
    assert keys.ring is None
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "the identity provider's keys could not be had: nobody is there",
        "the identity provider's keys are too old: its tokens are refused",
    ]
    documents.append(kept)
    ticks.now += 60
    keys.look_if_due()
    assert keys.ring is not None
    assert keys.problem == ""


def test_a_set_that_is_none_changes_nothing() -> None:
    """A page of HTML, weak and secret keys only, an exception nobody thought of: the last good one is kept."""
    ticks = Ticks()
    documents: list[bytes | Exception] = [key_set(ed("a"))]

    def fetch() -> bytes:
        found = documents.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    keys = KeySet(fetch, ALGORITHMS, Pace(stale_s=86_400), ticks)
    keys.look_if_due()
    before = keys.ring
    for document in (
        b"<html>",
        b"",
        b'{"keys": []}',
        key_set(Signer(rsa_key(1024))),
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}',
        MemoryError("oh"),
    ):
        documents.append(document)
        ticks.now += 300
        keys.look_if_due()
        assert keys.ring is before
        assert keys.problem
    documents.append(key_set(p256("b")))
    ticks.now += 60
    keys.look_if_due()
    assert keys.ring is not before
    assert keys.ring.find(Header("EdDSA", "a")) is None


def test_keys_come_over_https_from_that_host_alone(server: KeyServer, authority: Authority) -> None:
    """Its certificate is checked against the file; no proxy of the environment is asked."""
    server.body = key_set(ed())
    context = context_of(authority.ca)
    before = dict(os.environ)
    os.environ.update(
        https_proxy="http://127.0.0.1:1", HTTPS_PROXY="http://127.0.0.1:1", all_proxy="http://127.0.0.1:1"
    )
    try:
        assert fetch_url(f"{server.url}?realm=site", context) == server.body
    finally:
        os.environ.clear()
        os.environ.update(before)
    path, headers = server.asked[0]
    assert path == "/certs?realm=site"
    assert headers["accept-encoding"] == "identity"
    assert headers["host"] == server.url.split("/")[2]
    with pytest.raises(NoKeys, match="CERTIFICATE_VERIFY_FAILED"):
        fetch_url(server.url, context_of(None))
    authority.issue("other", hosts=("other.example",))
    with key_server(serving("other", authority)) as other, pytest.raises(NoKeys, match="Hostname mismatch"):
        fetch_url(other.url, context)
    with pytest.raises(NoKeys, match="could not be read"):
        fetch_url(server.url.replace("https", "http"), context)


def test_a_redirect_is_not_followed(server: KeyServer, authority: Authority) -> None:
    """To no place; other answers than 200 are none either, whatever their body is."""
    with key_server() as elsewhere:
        elsewhere.body = server.body = key_set(ed())
        for status in (301, 302, 303, 307, 308):
            server.status, server.headers = status, {"location": elsewhere.url}
            with pytest.raises(NoKeys, match="redirects are not followed"):
                fetch_url(server.url, context_of(authority.ca))
        assert elsewhere.asked == []
    server.headers = {}
    for status in (204, 401, 404, 500, 503):
        server.status = status
        with pytest.raises(NoKeys, match=str(status)):
            fetch_url(server.url, context_of(authority.ca))
    server.status, server.headers = 200, {"content-encoding": "gzip"}
    with pytest.raises(NoKeys, match="compressed"):
        fetch_url(server.url, context_of(authority.ca))


def _endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:  # until nobody reads it
        handler.wfile.write(b" " * 65_536)


def _headers(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10_000):
        handler.wfile.write(b"x-%d: y\r\n" % number)


def _short(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"keys": [')


def _silent(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.rfile.read(1)


def _dripping(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    ended = threading.Event()
    while not ended.wait(0.02):
        handler.wfile.write(b" ")


@pytest.mark.parametrize(
    ("act", "problem"), [(_endless, "more than"), (_headers, "more than 100 headers"), (_short, "no JSON Web Key Set")]
)
def test_an_answer_without_end_is_not_read(server: KeyServer, authority: Authority, act, problem: str) -> None:
    """Too long a body, too many headers, less than was promised."""
    server.act = act
    ticks = Ticks()
    context = context_of(authority.ca)
    keys = KeySet(lambda: fetch_url(server.url, context), ALGORITHMS, PACE, ticks)
    keys.look_if_due()
    assert keys.ring is None
    assert problem in keys.problem


@pytest.mark.parametrize("act", [_silent, _dripping])
def test_a_look_ends_in_time(server: KeyServer, authority: Authority, act) -> None:
    """Also where a byte comes now and then, which no timeout of a single read sees."""
    server.act = act
    began = time.monotonic()
    with pytest.raises(NoKeys, match=r"longer than 0\.3 s"):
        fetch_url(server.url, context_of(authority.ca), timeout_s=0.3)
    assert time.monotonic() - began < 5


def test_the_thread_looks_when_it_is_wanted(server: KeyServer, authority: Authority) -> None:
    """At the start in vain, which nobody waits for; then it comes, changes, and nobody who calls has waited."""
    server.status, server.body = 503, b""
    context = context_of(authority.ca)
    keys = KeySet(lambda: fetch_url(server.url, context), ALGORITHMS, Pace(every_s=3600, least_s=0.2))
    keys.start()
    try:
        wait_until(lambda: keys.problem != "", "it was looked in vain")
        assert keys.ring is None
        server.status, server.body = 200, key_set(ed("a"))
        wait_until(lambda: keys.ring is not None, "the set is there")
        server.body = key_set(ed("b"))
        keys.want()
        wait_until(lambda: keys.ring.find(Header("EdDSA", "b")) is not None, "the new set is there")
        assert keys.ring.find(Header("EdDSA", "a")) is None
    finally:
        keys.close()


def test_the_file(tmp_path: Path) -> None:
    """Read again as it changes; at the start it has to be there, and to be one."""
    path = tmp_path / "keys.json"
    with pytest.raises(FileMissing, match="not there"):
        check_file(path, ALGORITHMS)
    for content in (b"{}", key_set(Signer(rsa_key(1024))), b" " * (1 << 19)):
        path.write_bytes(content)
        with pytest.raises(BadFile):
            check_file(path, ALGORITHMS)
    path.write_bytes(key_set(ed("a")))
    path.chmod(0o666)
    with pytest.raises(BadFile, match="others may change"):
        check_file(path, ALGORITHMS)
    path.chmod(0o644)
    check_file(path, ALGORITHMS)
    ticks = Ticks()
    keys = KeySet(lambda: read_file(path), ALGORITHMS, PACE, ticks)
    keys.look_if_due()
    path.unlink()
    ticks.now += 301
    keys.look_if_due()
    assert "cannot be read" in keys.problem
    assert keys.ring is not None
    path.write_bytes(key_set(ed("b")))
    ticks.now += 60
    keys.look_if_due()
    assert keys.ring.find(Header("EdDSA", "b")) is not None


def test_certificates_that_cannot_be_used_are_said_at_the_start(tmp_path: Path) -> None:
    """With the setting to change."""
    with pytest.raises(BadSettings, match="cannot be used") as raised:
        context_of(tmp_path / "none.pem")
    assert "ca_file" in str(raised.value.hint)


def test_what_is_meant_does_not_trip() -> None:
    """Only in the thread and for the time that it is."""
    wire = tripwire.Tripwire()
    watch = wire.hook()
    with tripwire.meant():
        watch("socket.connect", (None, ("192.0.2.1", 443)))
        other = threading.Thread(target=watch, args=("socket.connect", (None, ("192.0.2.1", 443))))
        other.start()
        other.join()
    assert wire.attempts == 1
    watch("socket.connect", (None, ("192.0.2.1", 443)))
    assert wire.attempts == 2
