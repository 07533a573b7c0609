"""Models are signed with the real library, and checked by the site's key."""

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import signing as signer

from serving.errors import BadSettings, Unverified
from serving.store.accepted import SIGNATURE
from serving.store.bring import Origin, bring_in, look_through
from serving.store.cas import Store
from serving.store.manifest import StoredFile
from serving.store.signature import Signing, check_signature
from tests.support.stored import DEMO


def _key(path: Path) -> tuple[Path, Path]:
    private = ec.generate_private_key(ec.SECP256R1())
    secret, public = path.with_suffix(".key"), path.with_suffix(".pub")
    form = serialization.Encoding.PEM
    no_password = serialization.NoEncryption()
    secret.write_bytes(private.private_bytes(form, serialization.PrivateFormat.PKCS8, no_password))
    public.write_bytes(private.public_key().public_bytes(form, serialization.PublicFormat.SubjectPublicKeyInfo))
    return secret, public


def _sign(directory: Path, secret: Path) -> None:
    signature = directory / SIGNATURE
    signature.unlink(missing_ok=True)
    signer.Config().use_elliptic_key_signer(private_key=secret).sign(directory, signature)


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A directory, the site's public key, and its private one."""
    directory = tmp_path / "model"
    shutil.copytree(DEMO / "hf", directory)
    secret, public = _key(tmp_path / "site")
    _sign(directory, secret)
    return directory, public, secret


def _import(root: Path, directory: Path, signing: Signing):
    return bring_in(Store(root / "store"), look_through(directory)[0], Origin("own", "bf16"), signing=signing)


def test_a_signed_model_is_taken_and_checked_at_every_load(tmp_path, signed):
    """The signature is one of its files; the digests that it is over are those of the manifest."""
    directory, public, _ = signed
    manifest = _import(tmp_path, directory, Signing(public, is_required=True))
    signature = manifest.file(SIGNATURE)
    blob = Store(tmp_path / "store").blob(signature.sha256)
    check_signature("it", manifest.files, blob, Signing(public, is_required=True))
    for at, file in enumerate(manifest.files):
        if file.name == SIGNATURE:
            continue
        changed = [*manifest.files]
        changed[at] = StoredFile(file.name, "0" * 64, file.size)
        with pytest.raises(Unverified, match="is not right"):
            check_signature("it", changed, blob, Signing(public))
    with pytest.raises(Unverified, match="is not right"):
        check_signature("it", manifest.files[1:], blob, Signing(public))
    with pytest.raises(Unverified, match="is not right"):
        check_signature("it", [*manifest.files, StoredFile("more.json", "0" * 64, 1)], blob, Signing(public))


def test_what_is_not_signed_is_refused_where_that_is_required(tmp_path, signed):
    """Without a signature, and with one by a stranger, also where none is required but a key is set."""
    directory, public, _ = signed
    strange, _ = _key(tmp_path / "stranger")
    _sign(directory, strange)
    for required in (True, False):
        with pytest.raises(Unverified, match="is not right"):
            _import(tmp_path, directory, Signing(public, is_required=required))
    (directory / SIGNATURE).unlink()
    with pytest.raises(Unverified, match="has no signature"):
        _import(tmp_path, directory, Signing(public, is_required=True))
    assert Store(tmp_path / "store").manifests() == ()
    assert _import(tmp_path, directory, Signing(public)).file(SIGNATURE) is None


def test_a_signature_over_other_files_is_refused(tmp_path, signed):
    """A file that was changed, added or taken away after the signing."""
    directory, public, secret = signed
    signing = Signing(public, is_required=True)
    (directory / "extra.json").write_text("{}")
    with pytest.raises(Unverified, match="is not right"):
        _import(tmp_path, directory, signing)
    (directory / "extra.json").unlink()
    (directory / "generation_config.json").unlink()
    with pytest.raises(Unverified, match="is not right"):
        _import(tmp_path, directory, signing)
    _sign(directory, secret)
    _import(tmp_path, directory, signing)


def test_a_changed_signature_is_refused(tmp_path, signed):
    """Its payload names other digests, or its bytes are others."""
    directory, public, _ = signed
    path = directory / SIGNATURE
    told = json.loads(path.read_text())
    told["dsseEnvelope"]["payload"] = told["dsseEnvelope"]["payload"][:-8] + "AAAAAAA="
    path.write_text(json.dumps(told))
    with pytest.raises(Unverified, match="is not right"):
        _import(tmp_path, directory, Signing(public))
    path.write_text("{}")
    with pytest.raises(Unverified, match="is not right"):
        _import(tmp_path, directory, Signing(public))


def test_settings_that_cannot_work_are_said(tmp_path, signed):
    """A demand without a key, and a key that is none."""
    directory, public, _ = signed
    with pytest.raises(BadSettings, match="names no key"):
        _import(tmp_path, directory, Signing(None, is_required=True))
    public.write_text("no key")
    with pytest.raises(BadSettings, match="no public key"):
        _import(tmp_path, directory, Signing(public))
