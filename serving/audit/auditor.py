"""The auditor's pair of keys (X25519, RFC 7748): who has the private one reads content, and no server needs it."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from serving.errors import BadFile
from serving.keyfiles import read_private, read_public, write_pair


def make_auditor(path: Path) -> X25519PublicKey:
    """Write a new private key to `path` (mode 0600) and its public half to `path`.pub. Raises UsageError."""
    key = X25519PrivateKey.generate()
    write_pair(path, key)
    return key.public_key()


def load_auditor(path: Path) -> X25519PublicKey:
    """The public key in a file. Raises FileMissing, BadFile."""
    key = read_public(path)
    if not isinstance(key, X25519PublicKey):
        message = f"`{path}` is no public X25519 key"
        raise BadFile(message, hint="the auditor hands out FILE.pub, which `serve audit content keygen FILE` made")
    return key


def load_private_auditor(path: Path) -> X25519PrivateKey:
    """The private key, from a file that nobody else may read. Raises FileMissing, BadFile, Untrusted."""
    key = read_private(path)
    if not isinstance(key, X25519PrivateKey):
        raise BadFile(f"`{path}` is no private X25519 key", hint="`serve audit content keygen FILE` makes one")
    return key
