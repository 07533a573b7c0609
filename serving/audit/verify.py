"""Whether a log is what was written: checked without the server, with the public key alone.

`check` reads segments as lines and says of each break where it is, what was expected and what was found. It goes on
behind a break, so that one changed line is one break and not all that follow.

With an anchor (records or checkpoints that left the host) it also finds what a holder of the signing key did: a history
that was written anew, and an end that was cut off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from serving.audit.anchor import Anchor
from serving.audit.chain import (
    CHECKPOINT,
    HEAD,
    VERSION,
    ZERO,
    Entry,
    Link,
    NotAnEntry,
    hash_of,
    is_head,
    read_entry,
    signed_by,
)

MOST: Final = 100
"""Breaks that are told one by one."""
_SHOWN: Final = 16
Lines = tuple[int, Iterable[bytes]]
"""A segment's number and its lines, each with its newline."""
HasSigned = Callable[[str, bytes, bytes], bool | None]
"""Given a key's fingerprint, bytes and a signature: whether that key made it; None where the key is not known."""


@dataclass(frozen=True, slots=True)
class Break:
    """A place where the log is not what was written."""

    segment: int
    line: int
    """From 1; 0 stands for the segment as a whole."""
    what: str
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        told = f"segment {self.segment}, line {self.line}: {self.what}"
        if self.expected or self.found:
            told += f": expected {self.expected or 'nothing'}, found {self.found or 'nothing'}"
        return told


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a log after it was read."""

    breaks: tuple[Break, ...]
    further_breaks: int
    """Those beyond the ones told."""
    segments: int
    entries: int
    first_seq: int
    last_seq: int
    signed_through: int
    """Number of the last entry that a checkpoint stands for; 0 without one."""
    is_closed: bool
    """It ends with a stop and a checkpoint: nothing is missing at its end unless somebody with the key cut it."""
    torn_bytes: int
    """Of a last line that was not ended: a write in progress, a crash, or a cut."""
    open_intents: tuple[int, ...]
    """Intents without an outcome, by number; those that a running server has at work are among them."""
    kinds: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What cannot be excluded, and what is to be known besides."""

    @property
    def is_sound(self) -> bool:
        """No break was found."""
        return not self.breaks


def check(segments: Iterable[Lines], has_signed: HasSigned, anchor: Anchor | None = None) -> Report:
    """Read a log, whose segments come in the order of their numbers, and compare it with an anchor if there is one."""
    reader = _Reader(has_signed, anchor)
    for number, lines in segments:
        reader.segment(number, lines)
    return reader.report()


class _Reader:
    """Goes through a log once."""

    def __init__(self, has_signed: HasSigned, anchor: Anchor | None) -> None:
        self._has_signed = has_signed
        self._anchor = anchor
        self._breaks: list[Break] = []
        self._further = 0
        self._segments = self._entries = self._first_seq = self._signed_through = 0
        self._log: str | None = None
        self._number = 0
        self._line = 0
        self._link = Link()
        self._last: Entry | None = None
        self._before_last: Entry | None = None
        self._torn = 0
        self._open: set[int] = set()
        self._kinds: Counter[str] = Counter()
        self._begins_after: tuple[int, str] | None = None
        """The segment that should stand before the first one here, and the hash that it should end with."""
        self._removed: dict[int, str] = {}
        self._heads: dict[int, str] = {}
        self._is_running = False
        self._unclean = 0
        self._gaps: list[str] = []
        self._recovered = 0
        self._unmatched = 0

    def segment(self, number: int, lines: Iterable[bytes]) -> None:
        """Read the next segment."""
        if self._segments and number != self._number + 1:
            missing = f"{self._number + 1}" if number == self._number + 2 else f"{self._number + 1} to {number - 1}"
            self._break("segments are missing before this one", missing, "nothing", segment=number, line=0)
        if self._segments and (self._torn or self._last is None or self._last.kind != CHECKPOINT):
            self._break("the segment before does not end with a checkpoint", segment=number, line=0)
        self._torn = 0
        self._segments += 1
        self._number, self._line = number, 0
        for raw in lines:
            self._line += 1
            if not raw.endswith(b"\n"):
                self._torn = len(raw)
                break
            self._entry(raw[:-1])
        if not self._line:
            self._break("the segment is empty", "its head", "nothing", line=0)

    def _entry(self, raw: bytes) -> None:
        try:
            entry = read_entry(raw)
        except NotAnEntry as error:
            self._break(f"the line {error}")
            return
        self._entries += 1
        self._kinds[entry.kind] += 1
        if self._line == 1:
            self._begin(entry)
        elif entry.kind == HEAD:
            self._break("a segment's head stands inside a segment")
        if self._line == 2 and entry.kind != CHECKPOINT:
            self._break("no checkpoint follows the head", CHECKPOINT, entry.kind)
        if entry.seq != self._link.seq + 1:
            self._break("the number does not follow", str(self._link.seq + 1), str(entry.seq))
        expected = hash_of(self._link.hash, entry)
        if expected != entry.hash:
            self._break("the hash does not follow from the line before", _short(expected), _short(entry.hash))
        if entry.kind == CHECKPOINT:
            self._checkpoint(entry)
        self._follow(entry)
        if self._anchor is not None:
            there = self._anchor.hashes.get(entry.seq)
            if there is not None and there != entry.hash:
                self._break(f"entry {entry.seq} is not the one that left the host", _short(there), _short(entry.hash))
        self._link = Link(entry.seq, entry.hash)
        self._before_last, self._last = self._last, entry

    def _begin(self, entry: Entry) -> None:
        """The first line of a segment."""
        if entry.kind != HEAD or not is_head(entry):
            self._break("the segment has no head", HEAD, entry.kind)
            return
        record = entry.record
        previous: str = record["previous"]
        self._heads[self._number] = previous
        if record["version"] != VERSION:
            self._break("the log is of another version", str(VERSION), str(record["version"]))
        if record["segment"] != self._number:
            self._break("the head is of another segment", str(self._number), str(record["segment"]))
        if self._log is None:
            self._log = record["log"]
            self._link = Link(entry.seq - 1, bytes.fromhex(previous))
            self._first_seq = entry.seq
            if self._number != 1:
                self._begins_after = (self._number - 1, previous)
            elif (entry.seq, previous) != (1, ZERO.hex()):
                self._break("the first segment does not begin the log", f"1 after {_short(ZERO)}", str(entry.seq))
            if self._anchor is not None and self._anchor.log not in (None, self._log):
                self._break("the log is another than the one that left the host", str(self._anchor.log), str(self._log))
            return
        if record["log"] != self._log:
            self._break("the segment is of another log", self._log, record["log"])
        if bytes.fromhex(previous) != self._link.hash:
            self._break("the head does not name the last hash before it", _short(self._link.hash), previous[:_SHOWN])

    def _checkpoint(self, entry: Entry) -> None:
        parts = signed_by(entry)
        if parts is None:
            self._break("the checkpoint has not the form of one")
            return
        signed, signature, key = parts
        record = entry.record
        outcome = self._has_signed(key, signed, signature)
        if outcome is None:
            self._break("the checkpoint is of a key that is not known", found=key)
        elif not outcome:
            self._break("the checkpoint's signature is not its key's")
        if record["segment"] != self._number:
            self._break("the checkpoint is of another segment", str(self._number), str(record["segment"]))
        if record["log"] != self._log:
            self._break("the checkpoint is of another log", str(self._log), record["log"])
        if record["chain"] != self._link.hash.hex():
            since = f"something between entry {self._signed_through} and here was changed"
            found = _short(self._link.hash)
            self._break(f"the checkpoint signs another chain; {since}", record["chain"][:_SHOWN], found)
        self._signed_through = entry.seq

    def _follow(self, entry: Entry) -> None:
        """What the records say about themselves."""
        record = entry.record
        match entry.kind:
            case "intent":
                self._open.add(entry.seq)
            case "outcome":
                intent = record.get("intent")
                if intent in self._open:
                    self._open.discard(intent)
                else:
                    self._unmatched += 1
            case "start":
                self._unclean += self._is_running
                self._is_running = True
            case "stop":
                self._is_running = False
            case "removed":
                self._removed[record.get("through_segment", 0)] = str(record.get("through_hash"))
            case "gap":
                self._gaps.append(_told_gap(record, entry.at))
            case "recovered":
                self._recovered += 1

    def report(self) -> Report:
        """What is known now."""
        self._check_beginning()
        if not self._segments:
            self._break("there is no segment", line=0)
        notes = self._notes()
        if self._anchor is not None:
            notes = [*notes, *self._check_anchor(self._anchor)]
        is_closed = (
            not self._torn
            and not self._is_running
            and self._last is not None
            and self._last.kind == CHECKPOINT
            and self._before_last is not None
            and self._before_last.kind == "stop"
        )
        return Report(
            breaks=tuple(self._breaks),
            further_breaks=self._further,
            segments=self._segments,
            entries=self._entries,
            first_seq=self._first_seq,
            last_seq=self._link.seq,
            signed_through=self._signed_through,
            is_closed=is_closed,
            torn_bytes=self._torn,
            open_intents=tuple(sorted(self._open)),
            kinds=dict(sorted(self._kinds.items())),
            notes=tuple(notes),
        )

    def _check_beginning(self) -> None:
        """A log that begins later needs the record that retention removed what was before."""
        if self._begins_after is not None:
            number = self._begins_after[0]
            through = max(self._removed, default=0)
            if through < number:
                what = f"segments 1 to {number} are missing, and no record says that retention removed them"
                self._break(what, segment=number + 1, line=0)
        for through, digest in self._removed.items():
            named = self._heads.get(through + 1)
            if named is not None and named != digest:
                what = "the record of what retention removed names another hash"
                self._break(what, named[:_SHOWN], digest[:_SHOWN], segment=through + 1, line=1)

    def _check_anchor(self, anchor: Anchor) -> list[str]:
        """Compare the ends, and say what the anchor is no witness of."""
        notes = []
        for number, problem in anchor.problems:
            self._break(f"line {number} of the anchor {problem}", segment=self._number, line=0)
        if not anchor.hashes:
            return ["the anchor holds no entry: it proves nothing of this log"]
        last = max(anchor.hashes)
        if last > self._link.seq:
            what = f"the log ends at entry {self._link.seq}, and entry {last} has left the host: its end was cut off"
            self._break(what, f"entry {last}", f"entry {self._link.seq}")
        elif last < self._link.seq:
            count = self._link.seq - last
            notes.append(f"the last {count} entries are not in the anchor: of them it is no witness")
        if all(seq < self._first_seq for seq in anchor.hashes):
            notes.append("the anchor ends before this log begins: nothing could be compared")
        if anchor.unreadable:
            notes.append(
                f"{anchor.unreadable} lines of the anchor have only a piece of an entry: of those it is no witness"
            )
        return notes

    def _notes(self) -> list[str]:
        notes = []
        if self._begins_after is not None:
            notes.append(f"retention has removed segments 1 to {self._begins_after[0]}; what was in them is not proven")
        if self._torn:
            notes.append(
                f"the last line is torn ({self._torn} bytes): a write in progress or a crash; a start cuts it off"
            )
        unsigned = self._link.seq - self._signed_through
        if unsigned:
            notes.append(
                f"the last {unsigned} entries stand behind the last checkpoint: whoever may write the file could have"
                " changed them or cut them off"
            )
        if self._unclean:
            notes.append(f"{self._unclean} starts had no stop before them: the server crashed, or was killed")
        if self._recovered:
            notes.append(f"{self._recovered} times a torn last line was cut off at a start")
        if self._unmatched:
            notes.append(
                f"{self._unmatched} outcomes name no open intent here: it was removed, or could not be written"
            )
        notes += [f"something could not be written: lost {gap}" for gap in self._gaps]
        if self._anchor is None:
            notes.append(
                "without an anchor it cannot be excluded that a holder of the signing key wrote the history anew, or"
                " that the log was cut off at a checkpoint: compare with what left the host (--anchor)"
            )
        return notes

    def _break(
        self, what: str, expected: str = "", found: str = "", *, segment: int | None = None, line: int | None = None
    ) -> None:
        if len(self._breaks) >= MOST:
            self._further += 1
            return
        at = self._number if segment is None else segment
        self._breaks.append(Break(at, self._line if line is None else line, what, expected, found))


def _told_gap(record: Mapping[str, Any], at: str) -> str:
    kind = f" ({record['lost_kind']})" if "lost_kind" in record else ""
    late = f"; {record['late']} more are late" if "late" in record else ""
    return f"{record.get('lost')} records{kind} from {record.get('since')} to {at}{late}"


def _short(digest: bytes) -> str:
    return f"{digest.hex()[:_SHOWN]}…"


def knows(keys: Sequence[tuple[str, Callable[[bytes, bytes], bool]]]) -> HasSigned:
    """What `check` asks about signatures, answered by these keys: fingerprints, and whether each made a signature."""
    known = dict(keys)

    def has_signed(fingerprint: str, signed: bytes, signature: bytes) -> bool | None:
        key = known.get(fingerprint)
        return None if key is None else key(signed, signature)

    return has_signed
