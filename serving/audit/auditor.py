"""The auditor's pair of keys (X25519, RFC 7748): who has the private one reads content, and no server needs it."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from serving.bundle.keys import read_key_file
from serving.errors import BadFile, Untrusted, UsageError
from serving.store.files import write_whole


def fingerprint_of(key: X25519PublicKey) -> str:
    """What tells keys apart: 160 bits of the SHA-256 of the key's 32 bytes, in base 32, by fours."""
    letters = base64.b32encode(hashlib.sha256(key.public_bytes_raw()).digest()[:20]).decode().lower()
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))


def make_auditor(path: Path) -> X25519PublicKey:
    """Write a new private key to `path` (mode 0600) and its public half to `path`.pub. Raises UsageError."""
    public = path.with_name(f"{path.name}.pub")
    for each in (path, public):
        if os.path.lexists(each):
            raise UsageError(f"`{each}` is there already", hint="a key is never overwritten: name another file")
    key = X25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_whole(path, private, 0o600)
    write_whole(public, key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo), 0o644)
    return key.public_key()


def load_auditor(path: Path) -> X25519PublicKey:
    """The public key in a file. Raises FileMissing, BadFile."""
    raw, _ = read_key_file(path)
    try:
        key = serialization.load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, X25519PublicKey):
        message = f"`{path}` is no public X25519 key"
        raise BadFile(message, hint="the auditor hands out FILE.pub, which `serve audit content keygen FILE` made")
    return key


def load_private_auditor(path: Path) -> X25519PrivateKey:
    """The private key, from a file that nobody else may read. Raises FileMissing, BadFile, Untrusted."""
    raw, status = read_key_file(path)
    if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
        message = f"others may read the private key `{path}` (mode {stat.S_IMODE(status.st_mode):o})"
        raise Untrusted(message, hint=f"chmod 600 {path}, and ask who may have read it")
    try:
        key = serialization.load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, X25519PrivateKey):
        raise BadFile(f"`{path}` is no private X25519 key", hint="`serve audit content keygen FILE` makes one")
    return key
