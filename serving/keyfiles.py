"""Keys in files of their own, PEM as OpenSSL writes it: made once, and private halves read from nobody else's reach.

Ed25519 (RFC 8032) for whoever signs: a publisher of bundles, an audit log. Others (X25519) are read by the same way.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from serving.errors import BadFile, FileMissing, Untrusted, UsageError
from serving.store.files import write_whole

_MAX_KEY: Final = 16 << 10


class PublicKey(Protocol):
    """The public half of a pair on a curve."""

    def public_bytes_raw(self) -> bytes:
        """Its 32 bytes."""

    def public_bytes(self, encoding: serialization.Encoding, format: serialization.PublicFormat) -> bytes:  # noqa: A002
        """The same, encoded."""


class PrivateKey(Protocol):
    """The private half."""

    def public_key(self) -> Any:
        """Its other half."""

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - the library's name
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:
        """Its bytes, encoded."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Whose signatures are taken."""

    name: str
    fingerprint: str
    key: Ed25519PublicKey

    def has_signed(self, raw: bytes, signature: bytes) -> bool:
        """Whether this key made the signature."""
        try:
            self.key.verify(signature, raw)
        except InvalidSignature:
            return False
        return True


def fingerprint_of(key: PublicKey) -> str:
    """What a person compares and types: 160 bits of the SHA-256 of the key's 32 bytes, in base 32, by fours."""
    letters = base64.b32encode(hashlib.sha256(key.public_bytes_raw()).digest()[:20]).decode().lower()
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))


def pem_of(key: PublicKey) -> bytes:
    """A public key as a file has it."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def make_pair(path: Path) -> Publisher:
    """Write a new key that signs to `path` (mode 0600) and its public half to `path`.pub. Raises UsageError."""
    key = Ed25519PrivateKey.generate()
    write_pair(path, key)
    return Publisher(path.name, fingerprint_of(key.public_key()), key.public_key())


def write_pair(path: Path, key: PrivateKey) -> None:
    """Write a private key to `path` (mode 0600) and its public half to `path`.pub. Raises UsageError."""
    public = path.with_name(f"{path.name}.pub")
    for each in (path, public):
        if os.path.lexists(each):
            raise UsageError(f"`{each}` is there already", hint="a key is never overwritten: name another file")
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_whole(path, private, 0o600)
    write_whole(public, pem_of(key.public_key()), 0o644)


def load_private(path: Path) -> Ed25519PrivateKey:
    """The key that signs, from a file that nobody else may read. Raises FileMissing, BadFile, Untrusted."""
    key = read_private(path, "; a new key is the safe way")
    if not isinstance(key, Ed25519PrivateKey):
        raise BadFile(f"`{path}` is no private Ed25519 key", hint="`serve bundle keygen FILE` makes one")
    return key


def load_public(path: Path, name: str) -> Publisher:
    """The key in a file, whose signatures are to be checked. Raises FileMissing, BadFile."""
    key = read_public(path)
    if not isinstance(key, Ed25519PublicKey):
        message = f"`{path}` is no public Ed25519 key"
        raise BadFile(message, hint="a publisher hands out FILE.pub, which `serve bundle keygen FILE` made")
    return Publisher(name, fingerprint_of(key), key)


def read_private(path: Path, advice: str = "") -> object:
    """A private key of whatever kind, from a file that nobody else may read; None where there is none in it.

    Raises FileMissing, BadFile, Untrusted.
    """
    raw, status = _read(path)
    if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
        message = f"others may read the private key `{path}` (mode {stat.S_IMODE(status.st_mode):o})"
        raise Untrusted(message, hint=f"chmod 600 {path}, and ask who may have read it{advice}")
    try:
        return serialization.load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def read_public(path: Path) -> object:
    """A public key of whatever kind; None where there is none in the file. Raises FileMissing, BadFile."""
    raw, _ = _read(path)
    try:
        return serialization.load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """A small file with a key, and whose it is. Raises FileMissing, BadFile."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FileMissing(f"`{path}` does not exist", hint="name the file that has the key") from None
    except OSError as error:
        raise BadFile(f"`{path}` cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_KEY:
            raise BadFile(f"`{path}` is no key", hint="a key is a small file in PEM")
        return os.read(descriptor, _MAX_KEY), status
    finally:
        os.close(descriptor)
