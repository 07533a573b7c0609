"""A log's files, read for those who look at it: nothing here needs a private key or changes anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from serving.audit.anchor import Anchor, read_anchor
from serving.audit.keys import load_verifier
from serving.audit.segments import list_segments
from serving.audit.verify import Lines, Report, check, knows
from serving.errors import BadFile, FileMissing


def verify_log(directory: Path, keys: Sequence[Path], anchors: Sequence[Path] = ()) -> Report:
    """Check the log in a directory with public keys, and with what left the host. Raises FileMissing, BadFile."""
    verifiers = [load_verifier(path) for path in keys]
    has_signed = knows([(each.fingerprint, each.has_signed) for each in verifiers])
    anchor = _anchor(anchors) if anchors else None
    return check(_segments(directory), has_signed, anchor)


def read_lines(directory: Path) -> Iterator[bytes]:
    """Every whole line of a log in order, with its newline. Raises FileMissing, BadFile."""
    for _, lines in _segments(directory):
        yield from (line for line in lines if line.endswith(b"\n"))


def _segments(directory: Path) -> Iterator[Lines]:
    if not directory.is_dir():
        message = f"no audit log is in `{directory}`"
        raise FileMissing(message, hint="name its directory with --directory, or in audit.directory")
    for segment in list_segments(directory):
        yield segment.number, _lines(segment.path)


def _anchor(paths: Sequence[Path]) -> Anchor:
    def lines() -> Iterator[bytes]:
        for path in paths:
            yield from _lines(path)

    return read_anchor(lines())


def _lines(path: Path) -> Iterable[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        raise FileMissing(f"`{path}` does not exist") from None
    except OSError as error:
        raise BadFile(f"`{path}` cannot be read: {error.strerror}") from None
