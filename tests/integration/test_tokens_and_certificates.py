"""A gateway that takes client certificates and tokens of an identity provider, each over a real wire."""

import hashlib
import json
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from serving.access import Access, Key, Limits
from serving.access.jwts import id_of
from serving.access.keys import write_key
from serving.settings import Access as AccessSettings
from tests.support.certificates import Authority
from tests.support.harness import Answer, Client, Gateway, chat, gateway, wait_until
from tests.support.identity import AUDIENCE, ISSUER, claims_at, ed, key_server, key_set, p256


@pytest.fixture
def site(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "tls")
    authority.issue("server")
    return authority


def files_of(site: Authority, **more: Path) -> dict[str, str]:
    own = {"certificate": site.directory / "server.pem", "key": site.directory / "server.key"}
    return {name: str(path) for name, path in (own | more).items()}


def fingerprint_of(certificate: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


def keys_in(directory: Path, *wanted: Key) -> list[tuple[str, str]]:
    """Made before a server runs: id and text of each."""
    access = Access.open(AccessSettings(directory=directory), {})
    try:
        return [(key.id, text) for key, text in map(access.create, wanted)]
    finally:
        access.close()


def trusting(site: Authority, shown: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=site.ca)
    context.load_cert_chain(*shown)
    return context


def asked(running: Gateway, key: str | None = None, **headers: str) -> Answer:
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return running.chat("tokens=3", headers)


def test_a_client_certificate_is_its_key(directory: Path, site: Authority) -> None:
    """By fingerprint and by name, over connections that stay open; a header stands over it, and no header is one."""
    radiology, reports, stranger = (site.issue(name, client=True) for name in ("radiology", "reports", "stranger"))
    limited = Key("", "reports", "limited", b"", 0, limits=Limits(requests_per_minute=2))
    (first, text), (second, _) = keys_in(directory / "access", Key("", "radiology", "pacs", b"", 0), limited)
    settings = directory / "site.toml"
    settings.write_text(
        f'[access]\nopen = false\ndirectory = "{directory / "access"}"\n'
        f'[[access.certificates]]\nkey = "{first}"\nsha256 = "{fingerprint_of(radiology[0])}"\n'
        f'[[access.certificates]]\nkey = "{second}"\ncommon_name = "reports"\n'
        '[[access.certificates]]\nkey = "nosuchkey"\ndns = "stray.example"\n'
        "[server.tls]\n" + "".join(f'{name} = "{path}"\n' for name, path in files_of(site, client_ca=site.ca).items())
    )
    config = {"tls": files_of(site, client_ca=site.ca)}
    with gateway(directory, config=config, settings=str(settings)) as running:
        running.context = trusting(site, radiology)
        assert asked(running).status == 200
        assert running.get("/v1/models").status == 200
        assert running.get("/metrics").status == 403
        with closing(Client(running.address, context=running.context)) as client:
            for _ in range(3):
                client.post("/v1/chat/completions", json.dumps(chat("tokens=3")).encode())
                assert client.answer().status == 200
        assert asked(running, write_key(first, bytes(32))).status == 401
        running.context = trusting(site, reports)
        assert [asked(running).status for _ in range(3)] == [200, 200, 429]
        assert asked(running, text).status == 200
        running.context = trusting(site, stranger)
        answer = asked(running)
        assert answer.status == 401
        assert fingerprint_of(stranger[0]) in answer.error["message"]
        shown = radiology[0].read_text().replace("\n", "")
        for name in ("x-client-cert", "x-ssl-client-cert", "x-forwarded-client-cert", "client-cert"):
            assert asked(running, **{name: shown}).status == 401
        running.context = trusting(site, site.issue("stray", client=True, hosts=("stray.example",)))
        answer = asked(running)
        assert answer.status == 401
        assert "`nosuchkey`, which is not known here" in answer.error["message"]
        assert any("nosuchkey" in line.get("event", "") for line in running.log)


def test_without_asking_for_certificates_none_is_seen(directory: Path, site: Authority) -> None:
    """A client that would show one is as one that has none, where nobody verified it."""
    shown = site.issue("radiology", client=True)
    ((first, text),) = keys_in(directory / "access", Key("", "radiology", "pacs", b"", 0))
    settings = directory / "site.toml"
    settings.write_text(
        f'[access]\nopen = false\ndirectory = "{directory / "access"}"\n'
        f'[[access.certificates]]\nkey = "{first}"\nsha256 = "{fingerprint_of(shown[0])}"\n'
        "[server.tls]\n" + "".join(f'{name} = "{path}"\n' for name, path in files_of(site, client_ca=site.ca).items())
    )
    with gateway(directory, config={"tls": files_of(site)}, settings=str(settings)) as running:
        running.context = trusting(site, shown)
        answer = asked(running)
        assert answer.status == 401
        assert answer.error["message"].startswith("the request has no API key. ")
        assert asked(running, text).status == 200


def with_issuer(directory: Path, keys: str, more: str = "") -> str:
    settings = directory / "site.toml"
    settings.write_text(
        f'[access]\nopen = false\ndirectory = "{directory / "access"}"\n'
        f'[access.oidc]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n{keys}\n'
        f'[[access.oidc.groups]]\ngroup = "watchers"\nscopes = ["metrics"]\n'
        f'[[access.oidc.groups]]\ngroup = "staff"\n{more}'
    )
    return str(settings)


def until(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, what, 20)


def test_tokens_let_in_and_end(directory: Path, site: Authority) -> None:
    """From the provider's HTTPS, which comes up after us; a stream is cut at its token's end, and no other one is."""
    signer, serving_tls = ed(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving_tls.load_cert_chain(site.directory / "server.pem", site.directory / "server.key")
    with key_server(serving_tls) as provider:
        provider.body = key_set(signer, p256())
        settings = with_issuer(directory, f'jwks_url = "{provider.url}"\nca_file = "{site.ca}"', "concurrency = 2\n")
        with gateway(directory, settings=settings) as running:
            now = int(time.time())
            good = signer.token(claims_at(now))
            until(lambda: asked(running, good).status == 200, "the keys are there")
            assert running.get("/metrics").status == 401
            assert asked(running, signer.token(claims_at(now, groups=["x"]))).error["code"] == "permission_denied"
            assert asked(running, signer.token(claims_at(now, aud="x"))).error["code"] == "invalid_api_key"
            assert asked(running, good + "A").status == 401
            assert asked(running).status == 401
            streams = []
            for seconds in (3, 300):
                token = signer.token(claims_at(int(time.time()), exp=int(time.time()) + seconds))
                client = running.client()
                body = json.dumps(chat("tokens=150 gap=0.03", stream=True)).encode()
                client.post("/v1/chat/completions", body, {"authorization": f"Bearer {token}"})
                assert client.head()[0] == 200
                streams.append(client)
            assert asked(running, good).status == 429
            cut, whole = (b"".join(each.chunks()) for each in streams)
            assert b"invalid_api_key" in cut
            assert cut.count(b"data: ") < 150
            assert whole.count(b"data: ") >= 150
            assert b"invalid_api_key" not in whole
            until(lambda: asked(running, good).status == 200, "both are given back")
            assert len(provider.asked) == 1
            # nobody's word in the log: neither a token nor its subject's claims
            assert good.split(".")[1] not in running.errors


def test_while_the_provider_is_away_tokens_wait(directory: Path) -> None:
    """The server starts, says so in its log, answers 503 to tokens and serves keys."""
    ((_, text),) = keys_in(directory / "access", Key("", "radiology", "pacs", b"", 0))
    settings = with_issuer(directory, 'jwks_url = "http://127.0.0.1:1/certs"')
    with gateway(directory, settings=settings) as running:
        answer = asked(running, ed().token(claims_at(int(time.time()))))
        assert (answer.status, answer.headers["retry-after"]) == (503, "10")
        assert asked(running, text).status == 200
        until(lambda: any("keys could not be had" in line.get("event", "") for line in running.log), "it says so")


def test_a_file_that_is_not_there_is_an_error_at_the_start(directory: Path) -> None:
    """In a sentence with a hint, before an engine is started."""
    settings = with_issuer(directory, f'jwks_file = "{directory / "keys.json"}"')
    with gateway(directory, wait=False, settings=settings) as running:
        assert running.process.wait(20) != 0
        assert "keys.json" in running.errors
        assert "hint: " in running.errors
        assert "Traceback" not in running.errors


def test_subjects_share_no_prefixes(directory: Path) -> None:
    """The domain that reaches the engine is the subject's own; a key's owner of the same name has another."""
    wanted = [Key("", owner, "pacs", b"", 0) for owner in ("ann", "Ärzte", "%c3%84rzte")]
    texts = [text for _, text in keys_in(directory / "access", *wanted)]
    signer = ed()
    (directory / "keys.json").write_bytes(key_set(signer))
    settings = with_issuer(directory, f'jwks_file = "{directory / "keys.json"}"')
    with gateway(directory, settings=settings) as running:
        now = int(time.time())
        for shown in (*texts, signer.token(claims_at(now)), signer.token(claims_at(now, sub="bob"))):
            assert asked(running, shown).status == 200
        domains = [each["headers"]["x-cache-domain"] for each in running.received]
        assert domains[:1] + domains[3:] == ["ann", id_of(ISSUER, "ann"), id_of(ISSUER, "bob")]
        assert len(set(domains)) == 5
