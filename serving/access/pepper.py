"""The pepper: a secret in a file of its own, without which what is kept of keys is worth nothing to anybody."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.access.keys import Hasher
from serving.errors import BadFile, BadSettings, FileMissing, Untrusted

if TYPE_CHECKING:
    from serving.access.database import Database

_BYTES: Final = 32
_MAX_FILE: Final = 4096
WITNESS: Final = "pepper"
"""What the witness is kept under."""


def load_pepper(path: Path) -> bytes | None:
    """The 32 bytes in a file that nobody else may read; None where there is no such file. Raises Untrusted, BadFile."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadFile(f"the pepper `{path}` cannot be read: {error.strerror}") from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MAX_FILE:
            raise _bad(path)
        if facts.st_mode & 0o077 or facts.st_uid not in (0, os.geteuid()):
            message = f"others may read the pepper `{path}` (mode {stat.S_IMODE(facts.st_mode):o})"
            raise Untrusted(message, hint=f"chmod 600 {path}, and ask who may have read it")
        raw = os.read(descriptor, _MAX_FILE)
    finally:
        os.close(descriptor)
    try:
        pepper = base64.b64decode(raw.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise _bad(path) from None
    if len(pepper) != _BYTES:
        raise _bad(path)
    return pepper


def make_pepper(path: Path) -> bytes:
    """A new one, on the disk, in a file that was not there. Raises BadSettings."""
    pepper = secrets.token_bytes(_BYTES)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(pepper) + b"\n")
            file.flush()
            os.fsync(descriptor)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        message = f"the pepper `{path}` cannot be made: {error.strerror}"
        raise BadSettings(message, hint="let this user write there, or set access.pepper_file") from None
    return pepper


def lost(path: Path) -> FileMissing:
    """There are keys, and what they were hashed with is gone."""
    return FileMissing(
        f"the pepper `{path}` is gone, and no key that was made with it can be checked",
        hint="restore it from its backup; if there is none, move the access directory aside and make all keys anew",
    )


def another(path: Path) -> BadFile:
    """There are keys, and this is not what they were hashed with."""
    return BadFile(
        f"the pepper `{path}` is not the one that the keys were made with",
        hint="restore that one from its backup; without one, move the access directory aside and make all keys anew",
    )


def load_hasher(database: Database, path: Path) -> Hasher:
    """The hasher of the keys that there are. Raises FileMissing where its pepper is gone, BadFile, Untrusted."""
    witness = database.meta(WITNESS)
    if witness is not None:
        return read_hasher(witness, path)
    hasher = Hasher(load_pepper(path) or make_pepper(path))
    database.set_meta(WITNESS, hasher.witness())
    return hasher


def read_hasher(witness: str, path: Path) -> Hasher:
    """The hasher of keys that `witness` is kept of. Raises FileMissing where its pepper is gone, BadFile, Untrusted."""
    pepper = load_pepper(path)
    if pepper is None:
        raise lost(path)
    hasher = Hasher(pepper)
    if hasher.witness() != witness:
        raise another(path)
    return hasher


def _bad(path: Path) -> BadFile:
    return BadFile(f"`{path}` is no pepper", hint="restore it from its backup; it is one line of base64 of 32 bytes")
