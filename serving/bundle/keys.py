"""Publishers' keys: the public half is enrolled on a host by a person, and never taken from a bundle.

The signature is over the manifest's bytes and nothing else, so that `openssl pkeyutl -verify -rawin` checks it too
(docs/bundles.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from serving.errors import BadFile, BadSettings, FileMissing, Untrusted, UsageError
from serving.keyfiles import Publisher, load_public, pem_of
from serving.store.files import write_whole

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_same_fingerprint(typed: str, fingerprint: str) -> bool:
    """Whether a person typed it, in whatever case and with whatever between the letters."""
    return re.sub(r"[\s-]", "", typed).lower() == fingerprint.replace("-", "")


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
        write_whole(path, pem_of(publisher.key), 0o644)
        return path

    def remove(self, name: str) -> Publisher:
        """Take away the key of that name or fingerprint. Raises FileMissing."""
        for publisher in self.publishers():
            if publisher.name == name or is_same_fingerprint(name, publisher.fingerprint):
                (self.directory / f"{publisher.name}.pem").unlink()
                return publisher
        raise FileMissing(f"no key of `{name}` is enrolled", hint="`serve trust list` shows those that are")


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Raises Untrusted where anybody but this user and root could have put the file there."""
    if status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode):
        return
    message = f"`{path}` is a link, or others may write to it: who is enrolled there is not for sure"
    raise Untrusted(message, hint=f"look at it; it must be this user's or root's: chmod go-w {path}")
