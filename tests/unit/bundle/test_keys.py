"""Publishers' keys: made, enrolled by a typed fingerprint, and kept where nobody else may write."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from serving.bundle.keys import Trust, is_same_fingerprint
from serving.bundle.keys import next_serial as numbered
from serving.bundle.manifest import FINGERPRINT
from serving.errors import BadFile, FileMissing, Untrusted, UsageError
from serving.keyfiles import fingerprint_of, load_private, load_public, make_pair
from tests.support.bundles import Draft, Site


@given(seed=st.binary(min_size=32, max_size=32), data=st.data())
def test_a_fingerprint_may_be_typed_as_one_likes(seed: bytes, data: st.DataObject) -> None:
    """In any case, with or without hyphens and blanks; one other letter is another fingerprint."""
    fingerprint = fingerprint_of(Ed25519PrivateKey.from_private_bytes(seed).public_key())
    assert FINGERPRINT.fullmatch(fingerprint)
    for typed in (fingerprint.upper(), fingerprint.replace("-", " "), f" {fingerprint.replace('-', '')}\n"):
        assert is_same_fingerprint(typed, fingerprint)
    at = data.draw(st.sampled_from([at for at, letter in enumerate(fingerprint) if letter != "-"]))
    other = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
    changed = fingerprint[:at] + other + fingerprint[at + 1 :]
    assert is_same_fingerprint(changed, fingerprint) == (other == fingerprint[at])
    assert not is_same_fingerprint(fingerprint[:-1], fingerprint)
    assert not is_same_fingerprint("", fingerprint)


def test_a_pair_is_made_once(tmp_path: Path) -> None:
    """The private half is the owner's alone, and neither is ever overwritten."""
    publisher = make_pair(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert load_public(tmp_path / "key.pub", "x").fingerprint == publisher.fingerprint
    assert fingerprint_of(load_private(tmp_path / "key").public_key()) == publisher.fingerprint
    with pytest.raises(UsageError, match="is there already"):
        make_pair(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(Untrusted, match="others may read"):
        load_private(tmp_path / "key")


def test_what_is_no_key(tmp_path: Path) -> None:
    """Words, another half, another kind, a directory, nothing."""
    make_pair(tmp_path / "key")
    (tmp_path / "words").write_text("hello")
    (tmp_path / "words").chmod(0o600)
    for path in (tmp_path / "words", tmp_path / "key", tmp_path):
        with pytest.raises(BadFile):
            load_public(path, "x")
    (tmp_path / "key.pub").chmod(0o600)
    for path in (tmp_path / "words", tmp_path / "key.pub"):
        with pytest.raises(BadFile):
            load_private(path)
    with pytest.raises(FileMissing):
        load_public(tmp_path / "nowhere", "x")


def test_enrolling_needs_the_fingerprint(tmp_path: Path) -> None:
    """Another one enrols nobody; the right one does, once, and it can be taken away by name or fingerprint."""
    publisher, other = make_pair(tmp_path / "one"), make_pair(tmp_path / "two")
    trust = Trust(tmp_path / "trust")
    assert trust.publishers() == ()
    with pytest.raises(Untrusted, match="fingerprint"):
        trust.add(publisher, other.fingerprint)
    with pytest.raises(Untrusted, match="fingerprint"):
        trust.add(publisher, "")
    trust.add(publisher, publisher.fingerprint)
    with pytest.raises(UsageError, match="enrolled already"):
        trust.add(publisher, publisher.fingerprint)
    assert [each.fingerprint for each in trust.publishers()] == [publisher.fingerprint]
    with pytest.raises(FileMissing):
        trust.remove("nobody")
    assert trust.remove(publisher.fingerprint).name == "one"
    assert trust.publishers() == ()


@pytest.mark.parametrize("what", ["trust", "trust/one.pem"])
def test_keys_that_others_could_have_put_there(tmp_path: Path, what: str) -> None:
    """A directory or a key that others may write to counts for nobody, and says so."""
    trust = Trust(tmp_path / "trust")
    publisher = make_pair(tmp_path / "one")
    trust.add(publisher, publisher.fingerprint)
    (tmp_path / what).chmod(0o777)
    with pytest.raises(Untrusted, match="others may write"):
        trust.publishers()


def test_a_key_that_is_a_link(tmp_path: Path) -> None:
    """What it stands for may change without anybody enrolling."""
    trust = Trust(tmp_path / "trust")
    publisher = make_pair(tmp_path / "one")
    trust.add(publisher, publisher.fingerprint)
    (tmp_path / "trust" / "two.pem").symlink_to(tmp_path / "one.pub")
    with pytest.raises(Untrusted, match="is a link"):
        trust.publishers()


def test_numbers_grow(tmp_path: Path) -> None:
    """Each is used once, also where the bundle came to nothing; one may skip ahead, and not go back."""
    key = tmp_path / "key"
    with numbered(key, None) as serial:
        assert serial == 1
    with contextlib.suppress(ZeroDivisionError), numbered(key, None) as serial:
        assert serial / 0 == 2
    with numbered(key, 10) as serial:
        assert serial == 10
    with pytest.raises(UsageError, match="not beyond"), numbered(key, 10):
        pass
    (tmp_path / "key.serial").write_text("ten")
    with pytest.raises(BadFile, match="no number"), numbered(key, None):
        pass


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_comes_to_the_same_verdict(tmp_path: Path) -> None:
    """The signature can be checked by a program that has nothing of ours."""
    make_pair(tmp_path / "key")
    key = load_private(tmp_path / "key")
    value = Site(tmp_path / "site")
    raw_path, sig_path = tmp_path / "MANIFEST.json", tmp_path / "MANIFEST.sig"
    (tmp_path / "bundle.tar").write_bytes(Draft().build(key))
    subprocess.run(["tar", "-xf", "bundle.tar", "MANIFEST.json", "MANIFEST.sig"], cwd=tmp_path, check=True)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", tmp_path / "key.pub", "-rawin", "-in", raw_path]
    command += ["-sigfile", sig_path]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    raw_path.write_bytes(raw_path.read_bytes().replace(b'"serial":1', b'"serial":2'))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert value.trust.publishers()
