"""The journal: what the ledger has granted and settled, before the database has it.

One line an entry, put behind the others in a file that is mapped into memory: what was acknowledged is the kernel's,
and outlives the process whatever kills it. No system call is made for it, since each lets go of the interpreter's lock,
and to have that back takes longer than all else. It is not synchronised, so the power may take the last second of it;
the database, into which the entries go at least once a second, is. A line is the CRC-32 of the rest, and JSON. Entries
have ascending numbers, and the database says up to which one it has them, so that reading some twice does no harm.

Files follow each other: a new one is begun, the entries of those before it go into the database, and they are removed.
"""

from __future__ import annotations

import functools
import json
import logging
import mmap
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from serving.access.prices import Tokens
from serving.access.quota import Hold, Usage
from serving.errors import BadFile, CapacityError

_BYTES: Final = 1 << 20
"""Of a file; what is behind the last line is zeros."""
_log: Final = logging.getLogger("serving.access")
_FILE: Final = re.compile(r"journal-(\d{12})")
_KEPT: Final = len(Usage._fields) - 1
"""Of an account's usage all is kept but what is running, which is the process's own."""
_STATE: Final = f"[{','.join(['%d'] * _KEPT)}]"
_RESERVED: Final = f'["r",%d,%b,%d,%d,%b,[%d,%d,%d,%d,%d],{_STATE}]'.encode()
_SETTLED: Final = f'["s",%d,%d,[%d,%d,%d,%d],%d,%b,%d,{_STATE}]'.encode()


class Reserved(NamedTuple):
    """A reservation was made; its number is its id."""

    number: int
    key_id: str
    account: str
    model: str
    engine: str
    prompt: int
    """Tokens, at most; so is the next."""
    answer: int
    price_version: str | None
    hold: Hold
    usage: Usage
    """What the account had then."""


class Settled(NamedTuple):
    """A reservation turned out to be this."""

    number: int
    reservation: int
    tokens: Tokens
    cost: int
    is_estimated: bool
    at_ns: int
    usage: Usage


Entry = Reserved | Settled


def write_entry(entry: Entry) -> bytes:
    """The line of an entry."""
    # formatted by one operator each, since it is done twice for each request: a third of the time of `json.dumps`
    if isinstance(entry, Reserved):
        number, key_id, account, model, engine, prompt, answer, version, hold, usage = entry
        names, named = _quoted(key_id, account, model, engine), _quoted(version)
        text = _RESERVED % (number, names, prompt, answer, named, *hold, *usage[:_KEPT])
    else:
        number, reservation, tokens, cost, is_estimated, at_ns, usage = entry
        estimated = b"true" if is_estimated else b"false"
        text = _SETTLED % (number, reservation, *tokens, cost, estimated, at_ns, *usage[:_KEPT])
    return b"%08x %b\n" % (zlib.crc32(text), text)


@functools.lru_cache(maxsize=4096)
def _quoted(*names: str | None) -> bytes:
    return b",".join(json.dumps(name).encode("ascii") for name in names)


def read_entry(line: bytes) -> Entry | None:
    """The entry that a line is, without its newline; None where it is none."""
    if len(line) < 10 or line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(line[9:]):
        return None
    kind, number, *rest = json.loads(line[9:])
    if kind == "r":
        key_id, account, model, engine, prompt, answer, version, hold, state = rest
        return Reserved(number, key_id, account, model, engine, prompt, answer, version, Hold(*hold), Usage(*state))
    reservation, tokens, cost, is_estimated, at_ns, state = rest
    return Settled(number, reservation, Tokens(*tokens), cost, is_estimated, at_ns, Usage(*state))


class Journal:
    """The file that is written to, and those before it."""

    def __init__(self, directory: Path) -> None:
        """`directory` is there, and locked by this process."""
        self._directory = directory
        self._earlier = self._files()
        last = self._earlier[-1] if self._earlier else None
        self._number = int(last.name.rpartition("-")[2]) if last else 0
        self._map, self._path = self.prepare(self.next_number())
        self._length = 0

    @property
    def is_fresh(self) -> bool:
        """Nothing has been written to it since it was begun."""
        return self._length == 0

    @property
    def earlier(self) -> list[Path]:
        """The files before it."""
        return list(self._earlier)

    def entries(self) -> Iterator[Entry]:
        """All that earlier processes wrote, in order. Raises BadFile where a line within it is damaged."""
        for path in self._earlier:
            raw, _, rest = path.read_bytes().partition(b"\0")
            if rest.strip(b"\0"):
                _log.warning("the journal `%s` has a hole: a power failure took what was behind it", path)
            lines = raw.split(b"\n")
            for at, line in enumerate(lines):
                entry = read_entry(line)
                if entry is not None:
                    yield entry
                elif at < len(lines) - 2:
                    message = f"line {at + 1} of the journal `{path}` is damaged"
                    hint = "the disk may be failing; move the file aside to go on without what only it has"
                    raise BadFile(message, hint=hint)
                # else the last line: a write that was never acknowledged, or the empty text after the last newline

    def write(self, line: bytes) -> None:
        """Add a line. Raises CapacityError where it cannot be written; then nothing of it is there."""
        end = self._length + len(line)
        if end > len(self._map):
            try:
                self.rotate(self.prepare(self.next_number()))
            except OSError as error:
                raise _unwritable(self._path, error) from None
            end = len(line)
        self._map[self._length : end] = line
        self._length = end

    def next_number(self) -> int:
        """Of a file that is to be prepared; like all but `prepare` it is for one thread at a time."""
        self._number += 1
        return self._number

    def prepare(self, number: int) -> tuple[mmap.mmap, Path]:
        """A file with that number, to be given to `rotate`; made apart from it because the disk takes its time.

        Its room is taken here: a disk that is full later cannot end the process that writes to it. Raises OSError.
        """
        path = self._directory / f"journal-{number:012}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _BYTES)
            return mmap.mmap(descriptor, _BYTES), path
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(descriptor)

    def rotate(self, following: tuple[mmap.mmap, Path]) -> None:
        """Write to another file from now on. Raises OSError, and then it is as it was."""
        if following[1].name < self._path.name:  # another one was begun meanwhile: files are read by their numbers
            following[0].close()
            following[1].unlink()
            following = self.prepare(self.next_number())
        self._map.close()
        self._earlier = [*self._earlier, self._path]
        self._map, self._path = following
        self._length = 0

    def forget(self, paths: list[Path]) -> None:
        """These files are no more."""
        self._earlier = [path for path in self._earlier if path not in paths]

    def close(self) -> None:
        """Write no more."""
        self._map.close()
        if self.is_fresh:
            self._path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(path for path in self._directory.iterdir() if _FILE.fullmatch(path.name))


def _unwritable(path: Path, error: OSError) -> CapacityError:
    return CapacityError(
        f"the ledger cannot be written: {error.strerror}", retry_after_s=10, hint=f"make room for `{path.parent}`"
    )
