"""Publishers' keys: a pair is made, the public half is enrolled on a host by a person, and never taken from a bundle.

Keys are Ed25519 (RFC 8032) in PEM, as OpenSSL writes them. The signature is over the manifest's bytes and nothing else,
so that `openssl pkeyutl -verify -rawin` checks it too (docs/bundles.md).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from serving.errors import BadFile, BadSettings, FileMissing, Untrusted, UsageError
from serving.store.files import write_whole

_MAX_KEY: Final = 16 << 10
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Publisher:
    """Whose bundles are taken."""

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


def fingerprint_of(key: Ed25519PublicKey) -> str:
    """What a person compares and types: 160 bits of the SHA-256 of the key's 32 bytes, in base 32, by fours."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    letters = base64.b32encode(hashlib.sha256(raw).digest()[:20]).decode().lower()
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))


def is_same_fingerprint(typed: str, fingerprint: str) -> bool:
    """Whether a person typed it, in whatever case and with whatever between the letters."""
    return re.sub(r"[\s-]", "", typed).lower() == fingerprint.replace("-", "")


def make_pair(path: Path) -> Publisher:
    """Write a new private key to `path` (mode 0600) and its public half to `path`.pub. Raises UsageError."""
    key = Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    for each in (path, public):
        if os.path.lexists(each):
            raise UsageError(f"`{each}` is there already", hint="a key is never overwritten: name another file")
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_whole(path, private, 0o600)
    write_whole(public, _pem(key.public_key()), 0o644)
    return Publisher(path.name, fingerprint_of(key.public_key()), key.public_key())


def load_private(path: Path) -> Ed25519PrivateKey:
    """The key that signs, from a file that nobody else may read. Raises FileMissing, BadFile, Untrusted."""
    raw, status = read_key_file(path)
    if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
        message = f"others may read the private key `{path}` (mode {stat.S_IMODE(status.st_mode):o})"
        raise Untrusted(message, hint=f"chmod 600 {path}, and ask who may have read it; a new key is the safe way")
    try:
        key = serialization.load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadFile(f"`{path}` is no private Ed25519 key", hint="`serve bundle keygen FILE` makes one")
    return key


def load_public(path: Path, name: str) -> Publisher:
    """The key in a file. Raises FileMissing, BadFile."""
    raw, _ = read_key_file(path)
    try:
        key = serialization.load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        message = f"`{path}` is no public Ed25519 key"
        raise BadFile(message, hint="a publisher hands out FILE.pub, which `serve bundle keygen FILE` made")
    return Publisher(name, fingerprint_of(key), key)


@contextlib.contextmanager
def next_serial(key: Path, wanted: int | None) -> Iterator[int]:
    """The number of the bundle that is made now: the next one, or `wanted`, which must be beyond the last.

    It is kept beside the key and is spent from now on, whatever becomes of the bundle. Raises UsageError, BadFile.
    """
    path = key.with_name(f"{key.name}.serial")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        message = f"the serial number beside the key, `{path}`, cannot be kept: {error.strerror}"
        raise BadSettings(message, hint="keep the key where this user may write") from None
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        told = file.read(64).strip()
        if told and not re.fullmatch(rb"[0-9]{1,16}", told):
            raise BadFile(f"`{path}` holds no number", hint="write the last bundle's serial number into it")
        last = int(told or b"0")
        serial = last + 1 if wanted is None else wanted
        if serial <= last:
            raise UsageError(f"serial number {serial} is not beyond the last one, {last}", hint="leave --serial out")
        file.seek(0)
        file.truncate()
        file.write(b"%d\n" % serial)
        file.flush()
        os.fsync(file.fileno())
        yield serial


class Trust:
    """The directory of the keys that were enrolled on this host, one `NAME.pem` each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def publishers(self) -> tuple[Publisher, ...]:
        """Everyone enrolled, by name. Raises Untrusted where somebody else could have enrolled them, BadFile."""
        try:
            status = self.directory.stat()
        except FileNotFoundError:
            return ()
        _check_owner(self.directory, status)
        found = []
        for path in sorted(self.directory.glob("*.pem")):
            _check_owner(path, path.lstat())
            found.append(load_public(path, path.stem))
        return tuple(found)

    def add(self, publisher: Publisher, typed: str) -> Path:
        """Enrol a key whose fingerprint a person has typed. Raises Untrusted, UsageError."""
        if not is_same_fingerprint(typed, publisher.fingerprint):
            message = f"the fingerprint that was typed is not the key's, {publisher.fingerprint}"
            raise Untrusted(message, hint="compare it with the one the publisher gave you by another way than the file")
        if not _NAME.fullmatch(publisher.name):
            raise UsageError(f"`{publisher.name}` is no name of a publisher", hint="letters, digits and `._-`")
        path = self.directory / f"{publisher.name}.pem"
        for other in self.publishers():
            if other.fingerprint == publisher.fingerprint:
                raise UsageError(f"this key is enrolled already, as `{other.name}`")
        if path.exists():
            raise UsageError(f"`{publisher.name}` has another key already", hint="give this one a --name of its own")
        try:
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            message = f"`{self.directory}` cannot be made: {error.strerror}"
            raise BadSettings(message, hint="set paths.trust_dir to a directory that this user may write to") from None
        _check_owner(self.directory, self.directory.stat())
        write_whole(path, _pem(publisher.key), 0o644)
        return path

    def remove(self, name: str) -> Publisher:
        """Take away the key of that name or fingerprint. Raises FileMissing."""
        for publisher in self.publishers():
            if publisher.name == name or is_same_fingerprint(name, publisher.fingerprint):
                (self.directory / f"{publisher.name}.pem").unlink()
                return publisher
        raise FileMissing(f"no key of `{name}` is enrolled", hint="`serve trust list` shows those that are")


def _pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Raises Untrusted where anybody but this user and root could have put the file there."""
    if status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode):
        return
    message = f"`{path}` is a link, or others may write to it: who is enrolled there is not for sure"
    raise Untrusted(message, hint=f"look at it; it must be this user's or root's: chmod go-w {path}")


def read_key_file(path: Path) -> tuple[bytes, os.stat_result]:
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
