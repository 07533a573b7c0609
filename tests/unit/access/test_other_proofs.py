"""Tokens and certificates at the door: what they let in, for how long, and what is counted where they do not."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from serving.access import Access, Failure, Key, Limits, Tokens, also_taken
from serving.access.administration import operations_on
from serving.access.certificates import Certificates, Mapped, decide_keys, names_of
from serving.access.jwts import Group, Rules, id_of
from serving.access.keys import write_key
from serving.access.keyset import KeySet, NoKeys, Pace
from serving.access.oidc import Issuer
from serving.access.quota import SECOND_NS
from serving.desk import perform
from serving.errors import (
    BadSettings,
    FileMissing,
    Overloaded,
    PermissionDenied,
    RateLimited,
    ServingError,
    Unauthenticated,
)
from serving.settings import Access as AccessSettings
from serving.settings.callers import ClientCertificate, Oidc, OidcGroup
from tests.support.harness import wait_until
from tests.support.identity import AUDIENCE, ISSUER, Signer, claims_at, ed, key_set

START = 1_800_000_000
ANN = id_of(ISSUER, "ann")
RULES = Rules(
    ISSUER,
    AUDIENCE,
    (
        Group("staff", limits=Limits(requests_per_minute=2), models=frozenset({"demo"})),
        Group("watchers", frozenset({"metrics"})),
    ),
)


class Clock:
    def __init__(self) -> None:
        self.now_s = START

    def __call__(self) -> int:
        return self.now_s * SECOND_NS


class Provider:
    """Its keys, and how often they were asked for."""

    def __init__(self) -> None:
        self.signer = ed()
        self.document: bytes | None = key_set(self.signer)
        self.asked = 0
        self.now = 0.0
        self.keys = KeySet(self.fetch, RULES.algorithms, Pace(), lambda: self.now)
        self.keys.look_if_due()

    def fetch(self) -> bytes:
        self.asked += 1
        if self.document is None:
            raise NoKeys("nobody is there")
        return self.document

    def later(self, seconds: float = 301) -> None:
        self.now += seconds
        self.keys.look_if_due()

    def token(self, clock: Clock, **more: object) -> str:
        return self.signer.token(claims_at(clock.now_s, **more))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def access(tmp_path: Path, clock: Clock, provider: Provider) -> Iterator[Access]:
    opened = Access.open(AccessSettings(directory=tmp_path / "access", failed_burst=3, failed_per_minute=1), {}, clock)
    opened.also_take(Issuer(RULES, provider.keys), None)
    yield opened
    opened.close()


def bearing(text: str, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"h"), (b"authorization", f"Bearer {text}".encode()), *more]


def refused(access: Access, headers, peer="192.0.2.1", route="inference", model=None, **more) -> ServingError:
    with pytest.raises(ServingError) as raised:
        access.authenticate(headers, peer, route, model, **more)
    return raised.value


def test_a_token_lets_in_what_its_group_may(access: Access, provider: Provider, clock: Clock) -> None:
    """Scope and model as of a key; its use is counted at the subject, whichever token of theirs it is."""
    first = access.authenticate(bearing(provider.token(clock)), "192.0.2.1", "inference", "demo")
    assert (first.key_id, first.account, first.owner, first.cache_domain) == (ANN, ANN, "ann", ANN)
    assert isinstance(refused(access, bearing(provider.token(clock)), route="metrics"), PermissionDenied)
    assert isinstance(refused(access, bearing(provider.token(clock)), model="other"), PermissionDenied)
    with pytest.raises(PermissionDenied):
        access.check_model(first, "other")
    watcher = provider.token(clock, groups=["watchers"])
    assert access.authenticate(bearing(watcher), None, "metrics").name == "watchers"
    assert refused(access, bearing(provider.token(clock, groups=["others"]))).http_status == 403
    second = access.authenticate(bearing(provider.token(clock, exp=START + 900)), "192.0.2.1", "inference")
    bob = access.authenticate(bearing(provider.token(clock, sub="bob")), "192.0.2.1", "inference")
    for principal in (first, second):
        access.reserve(principal, model="demo", engine="vllm", prompt=5, answer=5).settle(Tokens(fresh=3, output=2))
    with pytest.raises(RateLimited):
        access.reserve(first, model="demo", engine="vllm", prompt=5, answer=5)
    access.reserve(bob, model="demo", engine="vllm", prompt=5, answer=5).cancel()
    assert bob.cache_domain != first.cache_domain
    used = perform(operations_on(access), "usage", {"id": ANN, "since": START - 10, "before": START + 10})["usage"]
    assert [(each["key_id"], each["requests"], each["fresh"]) for each in used] == [(ANN, 2, 6)]


def test_a_key_is_a_key_beside_tokens(access: Access, provider: Provider, clock: Clock) -> None:
    """What begins as a key is never read as a token; two headers are two too many, whatever they are."""
    key, text = access.create(Key("", "ann", "reports", b"", 0))
    assert access.authenticate(bearing(text), None, "inference").key_id == key.id
    assert access.authenticate(bearing(text), None, "inference").cache_domain == "ann"
    assert "API key" in refused(access, bearing(write_key(key.id, bytes(32))), "192.0.2.9").message
    assert "cut or mistyped" in refused(access, bearing(text[:-1]), "192.0.2.9").message
    token = provider.token(clock)
    for pair in ((token, text), (text, token), (token, token)):
        headers = bearing(pair[0], (b"authorization", f"Bearer {pair[1]}".encode()))
        assert "several" in refused(access, headers, "192.0.2.8").message
    assert "Bearer" in refused(access, [(b"authorization", f"DPoP {token}".encode())], "192.0.2.7").message
    assert access.authenticate([(b"authorization", f"bearer  {token} ".encode())], None, "inference").owner == "ann"


def test_a_token_ends_at_its_second(access: Access, provider: Provider, clock: Clock) -> None:
    """No later for having been seen before; what runs with it is told of, and what runs with another one is valid."""
    ended: list[str] = []
    told = threading.Event()
    access.on_revoked(lambda key_id: (ended.append(key_id), told.set()))
    short, long = provider.token(clock, exp=START + 10), provider.token(clock, exp=START + 100)
    first = access.authenticate(bearing(short), None, "inference")
    second = access.authenticate(bearing(long), None, "inference")
    holds = [access.reserve(each, model="demo", engine="vllm", prompt=5, answer=5) for each in (first, second)]
    clock.now_s += 9
    assert access.authenticate(bearing(short), None, "inference") == first
    assert access.is_valid(first)
    clock.now_s += 1
    assert "expired" in refused(access, bearing(short)).message
    assert not access.is_valid(first)
    assert access.is_valid(second)
    with pytest.raises(Unauthenticated):
        access.reserve(first, model="demo", engine="vllm", prompt=5, answer=5)
    assert told.wait(10)
    assert set(ended) == {ANN}
    clock.now_s += 90
    wait_until(lambda: len(ended) >= 2, "the end of the second")
    for hold in holds:
        assert hold.cancel()


def test_a_token_is_checked_once(access: Access, provider: Provider, clock: Clock, monkeypatch) -> None:
    """Until the keys change: then each is checked anew, and one of a key that is gone is none any more."""
    checks = []
    from serving.access import oidc

    check = oidc.check_signature
    monkeypatch.setattr(oidc, "check_signature", lambda *given: (checks.append(1), check(*given))[1])
    token = provider.token(clock)
    for _ in range(5):
        access.authenticate(bearing(token), None, "inference")
    assert len(checks) == 1
    provider.later()
    access.authenticate(bearing(token), None, "inference")
    assert len(checks) == 1, "the same set is the same set"
    new = ed("new")
    provider.document = key_set(provider.signer, new)
    provider.later()
    access.authenticate(bearing(token), None, "inference")
    assert len(checks) == 2
    provider.document = key_set(new)
    provider.later()
    assert "not known" in refused(access, bearing(token)).message


def test_no_more_tokens_are_remembered_than_there_is_room_for(provider: Provider, clock: Clock, monkeypatch) -> None:
    """The oldest goes, and is checked again."""
    monkeypatch.setattr("serving.access.oidc._MOST_REMEMBERED", 3)
    issuer = Issuer(RULES, provider.keys)
    for number in range(10):
        issuer.decide(provider.token(clock, sub=f"s{number}"), START, "inference", None)
    assert len(issuer._remembered) == 3


def test_while_the_keys_are_not_there_tokens_wait(access: Access, provider: Provider, clock: Clock) -> None:
    """503 with a time, whoever it is; nonsense is nonsense at once, and keys are let in."""
    provider.document = None
    provider.later(100_000)
    error = refused(access, bearing(provider.token(clock)))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s
    assert refused(access, bearing("a.b.c")).http_status == 401
    _, text = access.create(Key("", "ann", "reports", b"", 0))
    assert access.authenticate(bearing(text), None, "inference")
    provider.document = key_set(provider.signer)
    provider.later(60)
    assert access.authenticate(bearing(provider.token(clock)), None, "inference")


def test_wrong_tokens_are_counted_as_wrong_keys(access: Access, provider: Provider, clock: Clock) -> None:
    """By source, told to the audit, in words without the token; a right one is let in all the same."""
    failures: list[Failure] = []
    access.on_failed(failures.append)
    stranger = ed("ed")
    forged = stranger.token(claims_at(START))
    assert [refused(access, bearing(forged)).http_status for _ in range(4)] == [401, 401, 401, 429]
    assert {(str(each.source), each.reason, each.key_id) for each in failures} == {("192.0.2.1", "token", None)}
    assert access.authenticate(bearing(provider.token(clock)), "192.0.2.1", "inference")
    assert refused(access, bearing(provider.token(clock, groups=["x"]))).http_status == 403
    assert failures[-1].reason == "group"
    error = refused(access, bearing(forged), "192.0.2.2")
    assert forged.split(".")[1] not in str(error.for_client())
    assert "identity provider" in str(error.hint)


def test_unknown_keys_bring_a_look_forward_once_a_minute(access: Access, provider: Provider, clock: Clock) -> None:
    """Ten thousand tokens of ten thousand keys: one look."""
    provider.later(100)
    assert provider.asked == 1
    signer = ed()
    for number in range(500):
        signer.kid = f"k{number}"
        refused(access, bearing(signer.token(claims_at(START))), f"192.0.2.{number % 200}")
        provider.later(0.1)
    assert provider.asked == 2


def test_without_an_issuer_a_token_is_no_key(tmp_path: Path, provider: Provider, clock: Clock) -> None:
    """As before there was any."""
    access = Access.open(AccessSettings(directory=tmp_path / "access"), {}, clock)
    try:
        assert "not the form of a key" in refused(access, bearing(provider.token(clock))).message
    finally:
        access.close()


def settings_with(path: Path, **more: object) -> AccessSettings:
    group = OidcGroup(group="staff", **more)
    return AccessSettings(oidc=Oidc(issuer=ISSUER, audience=AUDIENCE, jwks_file=path, groups=[group]))


def test_what_the_settings_name_is_opened(tmp_path: Path, provider: Provider) -> None:
    """A file that is not there, or is none, is an error at the start; with money there have to be prices."""
    path = tmp_path / "keys.json"
    with pytest.raises(FileMissing, match=r"keys\.json"):
        also_taken(settings_with(path))
    path.write_bytes(key_set(provider.signer))
    issuer, certificates = also_taken(settings_with(path, scopes=["metrics"], budget_per_day=0.25, concurrency=2))
    assert certificates is None
    assert issuer is not None
    issuer.close()
    assert issuer.has_budget
    (group,) = issuer._rules.groups
    assert (group.scopes, group.limits) == (frozenset({"metrics"}), Limits(cost_per_day=250_000, concurrency=2))
    token = provider.signer.token(claims_at(START))
    assert issuer.decide(token, START, "metrics", None).owner == "ann"
    with pytest.raises(BadSettings, match="six decimal places"):
        also_taken(settings_with(path, budget=0.0000001))
    access = Access.open(AccessSettings(directory=tmp_path / "access"), {})
    try:
        with pytest.raises(BadSettings, match="prices"):
            access.also_take(issuer, None)
    finally:
        access.close()
    assert also_taken(AccessSettings()) == (None, None)


def test_a_group_may_be_enrolled_for_work_that_leaves(tmp_path: Path, provider: Provider, clock: Clock) -> None:
    """Its members are; what is said by others in a cache domain that it shares has to be seen too, and no more."""
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(provider.signer))
    named = {"classes": ["drafting"], "residency": ["eu"]}
    groups = [
        OidcGroup(group="office", cache_domain="shared", **named),
        OidcGroup(group="editors", **named),
        OidcGroup(group="staff"),
    ]
    issuer, _ = also_taken(AccessSettings(oidc=Oidc(issuer=ISSUER, audience=AUDIENCE, jwks_file=path, groups=groups)))
    assert issuer is not None
    issuer.close()
    access = Access.open(AccessSettings(directory=tmp_path / "access"), {}, clock)
    try:
        access.also_take(issuer, None)
        by_key = {
            domain: access.authenticate(bearing(access.create(Key("", domain, "n", b"", 0))[1]), None, "inference")
            for domain in ("shared", "another")
        }
        office, editor, staff = (
            access.authenticate(bearing(provider.token(clock, groups=[name])), None, "inference")
            for name in ("office", "editors", "staff")
        )
        assert (office.classes, office.residency) == (frozenset({"drafting"}), frozenset({"eu"}))
        assert staff.classes == frozenset()
        seen = [access.is_watched(each) for each in (office, editor, staff, by_key["shared"], by_key["another"])]
        assert seen == [True, True, False, True, False]
    finally:
        access.close()


# Certificates


def certificate(*names: str, common: tuple[str, ...] = (), is_bare: bool = False) -> bytes:
    """In DER: `uri:…`, `dns:…`, `email:…` as alternative names."""
    key, now = ed25519.Ed25519PrivateKey.generate(), dt.datetime.now(dt.UTC)
    kinds = {"uri": x509.UniformResourceIdentifier, "dns": x509.DNSName, "email": x509.RFC822Name}
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in common])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
    )
    if not is_bare:
        alternative = [kinds[each.partition(":")[0]](each.partition(":")[2]) for each in names]
        made = made.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    return made.sign(key, None).public_bytes(serialization.Encoding.DER)


def test_names_of_a_certificate() -> None:
    """Each kind apart from the others; of two common names none; what is no certificate has none."""
    assert names_of(certificate("uri:spiffe://site/a", "dns:a.example", "email:a@b.example", common=("a",))) == [
        ("common_name", "a"),
        ("uri", "spiffe://site/a"),
        ("dns", "a.example"),
        ("email", "a@b.example"),
    ]
    assert names_of(certificate(common=("a",), is_bare=True)) == [("common_name", "a")]
    assert names_of(certificate("dns:x", common=("a", "b"))) == [("dns", "x")]
    assert names_of(b"") == []
    assert names_of(b"\x30\x03abc") == []


NAMES = st.tuples(st.sampled_from(["common_name", "uri", "dns", "email"]), st.sampled_from("abc"))


@given(st.lists(NAMES, max_size=4), st.dictionaries(NAMES, st.sampled_from(["k1", "k2"]), max_size=4), st.booleans())
def test_a_certificate_stands_for_what_it_was_mapped_to(names, mapped, has_print) -> None:
    """Field and value together, to the letter; the fingerprint alone where that is mapped."""
    own = [("sha256", "f" * 64), *names]
    found = decide_keys(own, mapped | ({("sha256", "f" * 64): "k3"} if has_print else {}))
    assert found == (frozenset({"k3"}) if has_print else {mapped[each] for each in names if each in mapped})


@pytest.fixture
def mapped(tmp_path: Path, clock: Clock) -> Iterator[tuple[Access, Key]]:
    access = Access.open(AccessSettings(directory=tmp_path / "access", failed_burst=3), {}, clock)
    key, _ = access.create(Key("", "ann", "reports", b"", 0, expires=START + 100, models=frozenset({"demo"})))
    other, _ = access.create(Key("", "bob", "reports", b"", 0))
    shown = [("common_name", "a"), ("dns", "a.example")]
    access.also_take(
        None,
        Certificates(
            [
                *[Mapped(key.id, each) for each in shown],
                Mapped(other.id, ("dns", "b.example")),
                Mapped("nosuchkey", ("common_name", "stray")),
            ]
        ),
    )
    yield access, key
    access.close()


def test_a_certificate_is_its_key(mapped: tuple[Access, Key], clock: Clock) -> None:
    """With all that the key is told: models, scopes, its end, and being revoked."""
    access, key = mapped
    shown = certificate("dns:a.example", common=("a",))
    principal = access.authenticate([], "192.0.2.1", "inference", certificate=lambda: shown)
    assert (principal.key_id, principal.owner) == (key.id, "ann")
    assert isinstance(refused(access, [], route="metrics", certificate=lambda: shown), PermissionDenied)
    assert isinstance(refused(access, [], model="other", certificate=lambda: shown), PermissionDenied)
    access.reserve(principal, model="demo", engine="vllm", prompt=5, answer=5).cancel()
    assert access.usage(access.find(key.id)).all_requests == 1
    clock.now_s += 100
    assert "expired" in refused(access, [], certificate=lambda: shown).message
    clock.now_s -= 100
    access.revoke(key.id)
    assert "revoked" in refused(access, [], certificate=lambda: shown).message


def test_a_header_stands_over_a_certificate(mapped: tuple[Access, Key]) -> None:
    """Right or wrong: who sends a wrong key is not let in by their certificate; nor is one taken from a header."""
    access, key = mapped
    shown = certificate(common=("a",))
    bob, text = access.create(Key("", "bob", "reports", b"", 0))
    assert access.authenticate(bearing(text), None, "inference", certificate=lambda: shown).key_id == bob.id
    for wrong in ("nonsense", write_key(key.id, bytes(32)), ""):
        assert refused(access, bearing(wrong), certificate=lambda: shown).http_status == 401
    forged = [(name, shown) for name in (b"x-client-cert", b"x-ssl-client-cert", b"x-forwarded-client-cert")]
    for certificate_of in (None, lambda: None):
        assert refused(access, forged, certificate=certificate_of).message == "the request has no API key"


def test_certificates_that_stand_for_no_key(mapped: tuple[Access, Key], caplog: pytest.LogCaptureFixture) -> None:
    """Not mapped, mapped to a key that is not known, to two by its names: 401, each said as what it is."""
    access, _ = mapped
    failures: list[Failure] = []
    access.on_failed(failures.append)
    unmapped = refused(access, [], certificate=lambda: certificate(common=("nobody",)))
    stray = refused(access, [], certificate=lambda: certificate(common=("stray",)))
    both = refused(access, [], certificate=lambda: certificate("dns:a.example", "dns:b.example"))
    assert [each.http_status for each in (unmapped, stray, both)] == [401, 401, 401]
    assert "stands for none" in unmapped.message
    assert "`nosuchkey`, which is not known" in stray.message
    assert "several" in both.message
    assert [each.reason for each in failures] == ["missing", "certificate", "certificate"]
    assert "`nosuchkey`" in caplog.get_records("setup")[0].getMessage()


def test_a_fingerprint_stands_over_names(tmp_path: Path) -> None:
    """However openssl writes it; and what is remembered of certificates is bounded."""
    shown = certificate(common=("a",))
    print_of = x509.load_der_x509_certificate(shown).fingerprint(hashes.SHA256()).hex(":").upper()
    entry = ClientCertificate(key="k1", sha256=print_of)
    found = Certificates([Mapped("k1", entry.shown), Mapped("k2", ("common_name", "a"))])
    assert found.find(shown)[1] == {"k1"}
    assert found.find(certificate(common=("a",)))[1] == {"k2"}
    for number in range(5000):
        found.find(b"%d" % number)
    assert len(found._remembered) <= 4096


def test_a_signer_signs() -> None:
    """What the tests above rely on: two of them are two."""
    assert Signer(ed().key).public != Signer(ed().key).public
