"""The API over TLS: who is let in, what is refused, and a certificate that changes while streams run."""

import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from statistics import median

import openai
import pytest

from tests.support.certificates import Authority
from tests.support.harness import Client, Gateway, chat, gateway, wait_until


@pytest.fixture
def site(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "tls")
    authority.issue("server")
    return authority


def files_of(site: Authority, **more: Path) -> dict[str, str]:
    own = {"certificate": site.directory / "server.pem", "key": site.directory / "server.key"}
    return {name: str(path) for name, path in (own | more).items()}


def trusting(site: Authority, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client's context, which trusts that authority and shows a certificate."""
    context = ssl.create_default_context(cafile=site.ca)
    if shown is not None:
        context.load_cert_chain(*shown)
    return context


def serial_at(running: Gateway) -> int:
    with closing(Client(running.address, context=running.context)) as client:
        return int(client.socket.getpeercert()["serialNumber"], 16)


def test_the_real_client_streams_over_tls(directory: Path, site: Authority) -> None:
    """With the site's authority it is served; with the system's it refuses us; without TLS it gets no word of HTTP."""
    with gateway(directory, config={"tls": files_of(site)}) as running:
        url = f"https://localhost:{running.address[1]}/v1"
        with (
            openai.DefaultHttpxClient(verify=trusting(site)) as wire,
            openai.OpenAI(base_url=url, api_key="none", http_client=wire, max_retries=0) as client,
        ):
            asked = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "tokens=50"}], stream=True
            )
            said = [chunk.choices[0].delta.content for chunk in asked if chunk.choices]
            assert said[:2] == ["t0 ", "t1 "]
            assert len(said) >= 50
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            with pytest.raises(openai.APIConnectionError) as refused:
                client.models.list()
            assert "CERTIFICATE_VERIFY_FAILED" in repr(refused.value.__cause__)
        with closing(socket.create_connection(running.address, 5)) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            answered = b""
            with suppress(ConnectionResetError):
                answered = plain.recv(100)
            assert b"HTTP" not in answered


def test_only_clients_whose_certificate_holds_are_let_in(directory: Path, site: Authority) -> None:
    """None, another authority's, one out of its time, a server's, a withdrawn one: refused; the right one is served."""
    good = site.issue("good", client=True)
    refused: dict[str, tuple[Path, Path] | None] = {
        "none": None,
        "foreign": Authority(site.directory / "other", "site").issue("good", client=True),
        "expired": site.issue("expired", client=True, begins=-9, ends=-1),
        "not yet": site.issue("early", client=True, begins=1),
        "a server's": site.issue("machine"),
        "withdrawn": site.issue("withdrawn", client=True),
    }
    tls = files_of(site, client_ca=site.ca, client_crl=site.withdraw("withdrawn"))
    with gateway(directory, config={"tls": tls, "host": "0.0.0.0", "hosts": []}) as running:
        for why, shown in refused.items():
            running.context = trusting(site, shown)
            assert not answers(running), why
        running.context = trusting(site, good)
        assert running.chat("tokens=3").status == 200
        site.withdraw("good", "withdrawn")
        os.kill(running.process.pid, signal.SIGHUP)
        wait_until(lambda: not answers(running), "the withdrawn one is refused")
        site.withdraw()
        os.kill(running.process.pid, signal.SIGHUP)
        wait_until(lambda: answers(running), "it is let in again")
        site.withdraw(ends=-1)
        os.kill(running.process.pid, signal.SIGHUP)
        wait_until(lambda: not answers(running), "an old list lets nobody in")


def answers(running: Gateway) -> bool:
    try:
        return running.get("/health").status == 200
    except (ssl.SSLError, ConnectionError):
        return False


@pytest.mark.parametrize("asked", [True, False])
def test_a_certificate_changes_under_running_streams(directory: Path, site: Authority, asked: bool) -> None:
    """Sixteen streams run on to their end, nobody is turned away meanwhile; who comes after it sees the new one."""
    with gateway(directory, config={"tls": files_of(site)}) as running:
        running.context = trusting(site)
        clients = [running.client() for _ in range(16)]
        for client in clients:
            client.post("/v1/chat/completions", json.dumps(chat("tokens=400 gap=0.02", stream=True)).encode())
        streams = []
        for client in clients:
            assert client.head()[0] == 200
            streams.append(client.chunks())
            next(streams[-1])
        before = serial_at(running)
        site.issue("server")
        if asked:
            os.kill(running.process.pid, signal.SIGHUP)
        wait_until(lambda: serial_at(running) != before, "the new certificate is shown")
        assert serial_at(running) == site.serials["server"]
        for stream in streams:
            whole = b"".join(stream)
            assert whole.count(b"data: ") >= 400
            assert whole.rstrip().endswith(b"[DONE]")
        assert running.metric('perimeter_certificate_renewals_total{outcome="served"}') == 1
        expires = running.metric("perimeter_certificate_expires_timestamp_seconds")
        assert 29 < (expires - time.time()) / 86400 < 31


def test_files_that_cannot_be_served_with_change_nothing(directory: Path, site: Authority) -> None:
    """A key of another certificate: the old pair is served on, counted, and the reason stands in the log."""
    with gateway(directory, config={"tls": files_of(site)}) as running:
        running.context = trusting(site)
        before = site.serials["server"]
        _, other = site.issue("other")
        other.replace(site.directory / "server.key")
        os.kill(running.process.pid, signal.SIGHUP)
        wait_until(
            lambda: running.metric('perimeter_certificate_renewals_total{outcome="refused"}') == 1, "the refusal"
        )
        assert serial_at(running) == before
        assert any("is not the one of the certificate" in line.get("reason", "") for line in running.log)


def _mode(site: Authority) -> str:
    (site.directory / "server.key").chmod(0o644)
    return "chmod 600"


def _encrypted(site: Authority) -> str:
    site.issue("server", password=b"secret")
    return "is encrypted"


def _expired(site: Authority) -> str:
    site.issue("server", begins=-9, ends=-2)
    return "renew it"


def _mixed(site: Authority) -> str:
    site.issue("other")[1].replace(site.directory / "server.key")
    return "is not the one of the certificate"


def _gone(site: Authority) -> str:
    (site.directory / "server.pem").unlink()
    return "No such file"


def _words(site: Authority) -> str:
    (site.directory / "server.pem").write_text("certificate")
    return "holds no certificate"


def _key_words(site: Authority) -> str:
    (site.directory / "server.key").write_text("key")
    return "holds no private key"


@pytest.mark.parametrize("spoil", [_mode, _encrypted, _expired, _mixed, _gone, _words, _key_words])
def test_a_start_without_a_good_certificate_is_refused(
    directory: Path, site: Authority, spoil: Callable[[Authority], str]
) -> None:
    """In one sentence with a hint, before an engine is started; nothing waits for a password."""
    expected = spoil(site)
    with gateway(directory, wait=False, config={"tls": files_of(site)}) as running:
        assert running.process.wait(20) == 20
        assert expected in running.errors
        assert str(site.directory) in running.errors
        assert "hint: " in running.errors
        assert "Traceback" not in running.errors


def test_old_versions_and_ciphers_are_refused(directory: Path, site: Authority) -> None:
    """TLS 1.2 with forward secrecy and authenticated encryption is the least; a setting makes it 1.3."""
    with gateway(directory, config={"tls": files_of(site)}) as running:
        weak = trusting(site)
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("AES256-GCM-SHA384:ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
        old = trusting(site)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        for context in (weak, old):
            running.context = context
            with pytest.raises(ssl.SSLError, match=r"EOF|ALERT"):  # not for want of a way to offer
                running.get("/health")
        fair = trusting(site)
        fair.maximum_version = ssl.TLSVersion.TLSv1_2
        running.context = fair
        assert running.get("/health").status == 200


def test_half_handshakes_hold_nobody_up(directory: Path, site: Authority) -> None:
    """Five hundred that connected and stopped in the middle: a request is answered in a tenth of a second."""
    with gateway(directory, config={"tls": files_of(site)}) as running, ExitStack() as stack:
        running.context = trusting(site)
        hello = _client_hello()
        for at in range(500):
            half = stack.enter_context(closing(socket.create_connection(running.address, 5)))
            half.sendall(hello[: 5 + at % 40])
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert running.get("/health").status == 200
            took.append(time.monotonic() - began)
        assert median(took) < 0.1


def _client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    begun = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        begun.do_handshake()
    return outgoing.read()
