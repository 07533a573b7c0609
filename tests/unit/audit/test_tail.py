"""Where a log ends: followed line by line, or from the last checkpoint where another writer had it until now."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.audit import Places
from serving.audit.chain import CHECKPOINT, read_entry
from serving.audit.keys import load_signer
from serving.audit.segments import list_segments
from serving.audit.tail import entries_after, find_tail
from serving.errors import Unverified
from tests.support.audit_logs import files_of, lines_of, places_in, written_log


def cut_log(directory: Path) -> Places:
    """A log whose last segment has several checkpoints, and some entries behind the last of them."""
    places = written_log(directory)
    *_, before, last = files_of(places)
    last.unlink()
    before.write_bytes(b"".join(before.read_bytes().splitlines(keepends=True)[:-4]))
    return places


def test_both_ways_find_the_same_end(tmp_path: Path) -> None:
    """Wherever in a segment the log ends, torn or not."""
    places = cut_log(tmp_path)
    signer = load_signer(places.signing_key)
    last = files_of(places)[-1]
    lines = last.read_bytes().splitlines(keepends=True)
    for count in range(1, len(lines) + 1):
        for torn in (b"", b'{"at":"20'):
            last.write_bytes(b"".join(lines[:count]) + torn)
            segments = list_segments(places.directory)
            tail = find_tail(segments, signer)
            assert tail == find_tail(segments, signer, from_checkpoint=True)
            assert tail is not None
            entry = read_entry(lines[count - 1][:-1])
            assert (tail.link.seq, tail.link.hash, tail.torn) == (entry.seq, entry.hash, torn)
            kinds = [read_entry(line[:-1]).kind for line in lines[:count]]
            assert tail.unsigned == (kinds[::-1].index(CHECKPOINT) if CHECKPOINT in kinds else count)


def test_each_changed_line_is_found(tmp_path: Path) -> None:
    """From the head on; from the last checkpoint on where that is where one begins; a checkpoint by its signature."""
    places = cut_log(tmp_path)
    signer = load_signer(places.signing_key)
    last = files_of(places)[-1]
    whole = last.read_bytes()
    lines = whole.splitlines(keepends=True)
    begin = max(at for at, line in enumerate(lines) if b'"kind":"checkpoint"' in line)
    assert 2 < begin < len(lines) - 1
    for at, line in enumerate(lines):
        seq = read_entry(line[:-1]).seq
        for changed in (line.replace(b"T00:", b"T01:", 1), line.replace(b'"seq":%d' % seq, b'"seq":%d' % (seq + 1))):
            assert changed != line
            last.write_bytes(b"".join([*lines[:at], changed, *lines[at + 1 :]]))
            with pytest.raises(Unverified, match=f"line {at + 1}"):
                find_tail(list_segments(places.directory), signer)
            if at >= begin:
                with pytest.raises(Unverified, match=f"line {at + 1}"):
                    find_tail(list_segments(places.directory), signer, from_checkpoint=True)


def test_another_keys_checkpoint_is_no_beginning(tmp_path: Path) -> None:
    """Then all of the segment is followed."""
    places = cut_log(tmp_path / "one")
    other = load_signer(places_in(tmp_path / "other").signing_key)
    last = files_of(places)[-1]
    lines = last.read_bytes().splitlines(keepends=True)
    last.write_bytes(b"".join([*lines[:2], lines[2].replace(b"T00:", b"T01:", 1), *lines[3:]]))
    with pytest.raises(Unverified, match="line 3"):
        find_tail(list_segments(places.directory), other, from_checkpoint=True)


def test_what_was_written_after_an_entry_is_found(tmp_path: Path) -> None:
    """Through as many segments as that takes, and nothing more."""
    places = written_log(tmp_path)
    entries = [read_entry(line[:-1]) for line in lines_of(places)]
    for seq in (0, 1, entries[-1].seq // 2, entries[-1].seq - 1, entries[-1].seq):
        wanted = [each.seq for each in entries if each.seq > seq and each.kind not in ("segment", CHECKPOINT)]
        assert [each[2] for each in entries_after(list_segments(places.directory), seq)] == wanted[::-1]
