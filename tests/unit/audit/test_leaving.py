"""Records leave the host: to a file, and to a real syslog server over TLS that takes only what the RFCs allow."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.audit import Audit
from serving.audit.chain import read_entry
from serving.audit.courier import FileReceiver, NotDelivered
from serving.audit.reading import read_lines, verify_log
from serving.audit.syslog import Address, SyslogReceiver, frame, header_name, parse_address
from serving.errors import BadSettings
from tests.support.audit_logs import intent, open_audit, places_in, public, rewritten
from tests.support.certificates import Authority
from tests.support.harness import SOURCE, wait_until

# RFC 5424, section 6; RFC 5425, section 4.3.
MESSAGE = re.compile(
    rb"<(?P<pri>0|[1-9]\d{0,2})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d))"
    rb" (?P<host>-|[!-~]{1,255}) (?P<app>-|[!-~]{1,48}) (?P<proc>-|[!-~]{1,128}) (?P<id>-|[!-~]{1,32})"
    rb" - (?P<text>.*)",
    re.DOTALL,
)
LENGTH = re.compile(rb"([1-9]\d{0,8}) ")


class SyslogServer:
    """Listens over TLS and keeps the text of every message; may break a connection after some messages."""

    def __init__(self, certificate: tuple[Path, Path], client_ca: Path | None = None, break_after: int = 0) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        if client_ca is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(client_ca)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.break_after = break_after
        self.texts: list[bytes] = []
        self.faults: list[str] = []
        self.connections = 0
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self.context.wrap_socket(plain, server_side=True) as connection:
                self.connections += 1
                connection.settimeout(20)
                self.take(connection)

    def take(self, connection: ssl.SSLSocket) -> None:
        buffer, count = b"", 0
        while chunk := connection.recv(65536):
            buffer += chunk
            while matched := LENGTH.match(buffer):
                end = matched.end() + int(matched[1])
                if len(buffer) < end:
                    break
                self.message(buffer[matched.end() : end])
                buffer = buffer[end:]
                count += 1
                if count == self.break_after:
                    self.break_after = 0
                    return  # what is still in the buffer is lost, as where a server crashes
            else:
                if buffer and not LENGTH.match(buffer + b" ") and not buffer.isdigit():
                    self.faults.append(f"no length: {buffer[:40]!r}")
        if buffer:
            self.faults.append(f"cut: {buffer[:40]!r}")

    def message(self, raw: bytes) -> None:
        matched = MESSAGE.fullmatch(raw)
        if matched is None or int(matched["pri"]) > 191:
            self.faults.append(f"no message: {raw[:80]!r}")
            return
        matched["text"].decode()
        self.texts.append(matched["text"])

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@contextlib.contextmanager
def running(server: SyslogServer) -> Iterator[SyslogServer]:
    try:
        yield server
    finally:
        server.close()


def filled(audit: Audit, count: int) -> None:
    for number in range(count):
        audit.event(intent(number))


def seqs(lines: list[bytes]) -> list[int]:
    return [read_entry(line.rstrip(b"\n")).seq for line in lines]


def test_a_file_elsewhere_has_every_line_and_is_the_anchor(tmp_path: Path) -> None:
    """Over several starts, in order; a rewritten log is found by it."""
    places, anchor = places_in(tmp_path), tmp_path / "elsewhere"
    for _ in range(3):
        audit = open_audit(places, receivers=[FileReceiver(anchor)])
        filled(audit, 50)
        audit.close()
    assert anchor.read_bytes() == b"".join(read_lines(places.directory))
    assert verify_log(places.directory, [public(places)], [anchor]).is_sound
    rewritten(places, lambda record: {**record, "principal": "else"} if "principal" in record else record)
    assert not verify_log(places.directory, [public(places)], [anchor]).is_sound


def test_what_could_not_leave_leaves_later(tmp_path: Path) -> None:
    """The receiver is away for a whole run: nothing is lost, and what is the matter can be seen."""
    places, anchor = places_in(tmp_path), tmp_path / "away" / "anchor"
    audit = open_audit(places, receivers=[FileReceiver(anchor)])
    filled(audit, 50)
    wait_until(lambda: audit.couriers[0].problem is not None, "the problem is seen")
    audit.close()
    anchor.parent.mkdir()
    audit = open_audit(places, receivers=[FileReceiver(anchor)])
    audit.close()
    assert anchor.read_bytes() == b"".join(read_lines(places.directory))


def test_a_lost_place_means_twice_and_never_not_at_all(tmp_path: Path) -> None:
    """The file that keeps it is damaged: everything is delivered again, and the anchor is as good as before."""
    places, anchor = places_in(tmp_path), tmp_path / "anchor"
    for damage in (b"{", b""):
        audit = open_audit(places, receivers=[FileReceiver(anchor)])
        filled(audit, 30)
        audit.close()
        (places.directory / "delivered-file.json").write_bytes(damage)
    open_audit(places, receivers=[FileReceiver(anchor)]).close()
    numbers = seqs(anchor.read_bytes().splitlines())
    assert set(numbers) == set(seqs(list(read_lines(places.directory))))
    assert len(numbers) > len(set(numbers))
    assert verify_log(places.directory, [public(places)], [anchor]).is_sound


def test_a_piece_of_a_line_does_no_harm(tmp_path: Path) -> None:
    """A write to the file elsewhere was broken off: nothing of it is taken away, and what follows stands by itself."""
    places, anchor = places_in(tmp_path), tmp_path / "anchor"
    open_audit(places, receivers=[FileReceiver(anchor)]).close()
    with anchor.open("ab") as file:
        file.write(b'{"at":"2026-01-')
    open_audit(places, receivers=[FileReceiver(anchor)]).close()
    report = verify_log(places.directory, [public(places)], [anchor])
    assert report.is_sound, report.breaks
    assert any("1 lines of the anchor have only a piece" in note for note in report.notes)
    assert set(seqs([line for line in anchor.read_bytes().splitlines() if line.endswith(b"}")])) == set(
        seqs(list(read_lines(places.directory)))
    )


def test_a_syslog_server_gets_every_record_in_form(tmp_path: Path, authority: Authority) -> None:
    """By the grammar of RFC 5424 in the frames of RFC 5425; with our certificate where it wants one."""
    places = places_in(tmp_path)
    certificate, key = authority.issue("client", client=True)
    with running(SyslogServer(authority.issue("server"), client_ca=authority.ca)) as server:
        receiver = SyslogReceiver(Address("localhost", server.port, authority.ca, certificate, key))
        audit = open_audit(places, receivers=[receiver])
        filled(audit, 300)
        audit.event(intent(principal="Grüße, 世界"))
        audit.close()
    assert not server.faults
    assert b"".join(text + b"\n" for text in server.texts) == b"".join(read_lines(places.directory))
    kept = tmp_path / "kept-by-syslog"
    kept.write_bytes(b"".join(b"Jan 31 12:34:56 host perimeter[1]: " + text + b"\n" for text in server.texts))
    report = verify_log(places.directory, [public(places)], [kept])
    assert report.is_sound, report.breaks
    assert not any("anchor" in note for note in report.notes)


def test_the_way_to_the_syslog_server_is_meant(tmp_path: Path, authority: Authority) -> None:
    """Whatever the tripwire of a server takes for an attempt to reach out, this is none."""
    script = f"""
import sys
from pathlib import Path
from serving import tripwire
from serving.audit.syslog import Address, SyslogReceiver
tripwire.install()
tripwire.beyond = lambda host: "elsewhere"  # loopback is not looked at otherwise
receiver = SyslogReceiver(Address("localhost", int(sys.argv[1]), Path({str(authority.ca)!r})))
receiver.deliver(b"one\\n")
receiver.close()
print(tripwire.attempts())
import socket
socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5).close()
print(tripwire.attempts() > 0)
"""
    with running(SyslogServer(authority.issue("server"))) as server:
        done = subprocess.run(
            [sys.executable, "-c", script, str(server.port)], cwd=SOURCE, capture_output=True, text=True, check=False
        )
    assert done.stdout.split() == ["0", "True"], done.stderr


def test_a_broken_connection_loses_nothing(tmp_path: Path, authority: Authority) -> None:
    """The server ends in the midst of a batch and comes back: every record arrives at least once."""
    places = places_in(tmp_path)
    with running(SyslogServer(authority.issue("server"), break_after=40)) as server:
        receiver = SyslogReceiver(Address("localhost", server.port, authority.ca))
        audit = open_audit(places, receivers=[receiver])
        filled(audit, 200)
        last = audit.record(intent())
        wait_until(lambda: last in set(seqs(server.texts)), "everything is there")
        audit.close()
    assert server.connections >= 2
    assert not [fault for fault in server.faults if not fault.startswith("cut")]
    assert set(seqs(server.texts)) == set(seqs(list(read_lines(places.directory))))


def test_nothing_is_sent_to_a_server_that_is_not_the_sites(tmp_path: Path, authority: Authority) -> None:
    """A certificate of another authority, or for another name: no message goes there."""
    other = Authority(tmp_path / "other")
    line = b'{"at":"2026-01-31T12:34:56.000000Z"}\n'
    for certificate in (other.issue("server"), authority.issue("server", hosts=("elsewhere.example",))):
        with running(SyslogServer(certificate)) as server:
            receiver = SyslogReceiver(Address("localhost", server.port, authority.ca))
            with pytest.raises(ssl.SSLCertVerificationError):
                receiver.deliver(line)
        assert not server.texts
    with pytest.raises(BadSettings, match="cannot be used"):
        SyslogReceiver(Address("localhost", 6514, tmp_path / "missing.pem"))


def test_a_server_that_closes_is_no_delivery(authority: Authority) -> None:
    """The next try makes a new connection."""
    line = b'{"at":"2026-01-31T12:34:56.000000Z"}\n'
    with running(SyslogServer(authority.issue("server"), break_after=1)) as server:
        receiver = SyslogReceiver(Address("localhost", server.port, authority.ca))
        with contextlib.suppress(NotDelivered, OSError):
            receiver.deliver(line)
        wait_until(lambda: len(server.texts) == 1, "the first")
        wait_until(lambda: _delivered(receiver, line), "the second")
        receiver.close()
    assert len(server.texts) >= 2


def _delivered(receiver: SyslogReceiver, line: bytes) -> bool:
    try:
        receiver.deliver(line)
    except (NotDelivered, OSError):
        return False
    return True


def test_a_header_is_ascii() -> None:
    """Whatever the host is called; the message is counted in octets and not in letters."""
    assert header_name("gäste 1") == b"gste1"
    assert header_name("世界") == b"-"
    line = '{"at":"2026-01-31T12:34:56.000000Z","é":1}'.encode()
    length, _, message = frame(line, b"h", 7).partition(b" ")
    assert int(length) == len(message)
    assert message == b"<109>1 2026-01-31T12:34:56.000000Z h perimeter 7 audit - " + line


def test_addresses() -> None:
    """With a port or without, IPv6 in brackets."""
    assert parse_address("audit.example") == ("audit.example", 6514)
    assert parse_address("audit.example:1514") == ("audit.example", 1514)
    assert parse_address("[2001:db8::1]:1514") == ("2001:db8::1", 1514)
    assert parse_address("2001:db8::1") == ("2001:db8::1", 6514)
    for text in ("", ":1", "a:b", "a:0", "a:70000", "[::1"):
        with pytest.raises(BadSettings):
            parse_address(text)
