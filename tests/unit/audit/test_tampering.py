"""Whatever is changed in a log is found: without the signing key always, with it by what left the host."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.audit.canonical import canonical
from serving.audit.chain import CHECKPOINT, Link, write_entry
from serving.audit.reading import verify_log
from serving.audit.verify import Report
from tests.support.audit_logs import files_of, lines_of, places_in, public, rewritten, write_lines, written_log

TAMPERINGS = 1000


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("original")
    places = written_log(directory)
    assert len(files_of(places)) >= 5
    write_lines(directory / "anchor", lines_of(places))
    return directory


def verified(directory: Path, *, anchored: bool = False) -> Report:
    places = places_in(directory)
    return verify_log(places.directory, [public(places)], [directory / "anchor"] if anchored else [])


def as_lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def flip_bit(files: list[Path], chance: random.Random) -> str:
    path = chance.choice(files)
    raw = bytearray(path.read_bytes())
    at = chance.randrange(len(raw))
    raw[at] ^= 1 << chance.randrange(8)
    path.write_bytes(raw)
    return f"bit of byte {at} of {path.name}"


def change_lines(edit: Callable[[list[bytes], random.Random], str]) -> Callable[[list[Path], random.Random], str]:
    def tamper(files: list[Path], chance: random.Random) -> str:
        path = chance.choice(files)
        lines = as_lines(path)
        told = edit(lines, chance)
        path.write_bytes(b"".join(lines))
        return f"{told} of {path.name}"

    return tamper


def remove(lines: list[bytes], chance: random.Random) -> str:
    at = chance.randrange(len(lines))
    count = chance.randint(1, 3)
    del lines[at : at + count]
    return f"{count} lines removed from {at}"


def swap(lines: list[bytes], chance: random.Random) -> str:
    one, other = chance.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    return f"lines {one} and {other} swapped"


def duplicate(lines: list[bytes], chance: random.Random) -> str:
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines) + 1)
    lines.insert(other, lines[one])
    return f"line {one} again at {other}"


def rehash(lines: list[bytes], chance: random.Random) -> str:
    """One record exchanged, and everything after it in the segment chained again: all but the signatures."""
    at = chance.randrange(1, len(lines))
    before = json.loads(lines[at - 1])
    link = Link(before["seq"], bytes.fromhex(before["hash"]))
    for place in range(at, len(lines)):
        entry = json.loads(lines[place])
        record = entry["record"]
        if place == at:
            record = {**record, "note": "another"} if record["kind"] == CHECKPOINT else {**record, "principal": "else"}
        lines[place], link = write_entry(link, entry["at"], canonical(record))
    return f"line {at} exchanged and hashed again"


def remove_segment(files: list[Path], chance: random.Random) -> str:
    path = chance.choice(files)
    path.unlink()
    return f"{path.name} removed"


def swap_segments(files: list[Path], chance: random.Random) -> str:
    one, other = chance.sample(files, 2)
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    return f"{one.name} and {other.name} exchanged"


def move_checkpoint(files: list[Path], chance: random.Random) -> str:
    """A checkpoint in another's place, in another segment, with hash and number made to follow there."""
    one, other = chance.sample(files, 2)
    source, target = as_lines(one), as_lines(other)
    taken = chance.choice([line for line in source if b'"kind":"checkpoint"' in line])
    place = chance.choice([at for at, line in enumerate(target) if b'"kind":"checkpoint"' in line])
    before = json.loads(target[place - 1])
    entry = json.loads(taken)
    link = Link(before["seq"], bytes.fromhex(before["hash"]))
    target[place], _ = write_entry(link, entry["at"], canonical(entry["record"]))
    other.write_bytes(b"".join(target))
    return f"a checkpoint of {one.name} at {place} in {other.name}"


def cut_bytes(files: list[Path], chance: random.Random) -> str:
    path = chance.choice(files)
    raw = path.read_bytes()
    at = chance.randrange(len(raw))
    path.write_bytes(raw[:at])
    return f"{path.name} cut at {at}"


WAYS = [
    flip_bit,
    change_lines(remove),
    change_lines(swap),
    change_lines(duplicate),
    change_lines(rehash),
    remove_segment,
    swap_segments,
    move_checkpoint,
    cut_bytes,
]


def test_an_untouched_log_is_sound(original: Path) -> None:
    """No break, with and without the anchor; closed, signed to its end, nothing open."""
    for anchored in (False, True):
        report = verified(original, anchored=anchored)
        assert report.is_sound, report.breaks
        assert report.is_closed
        assert not report.open_intents
        assert report.signed_through == report.last_seq == report.entries


def test_every_tampering_is_found(original: Path, tmp_path: Path) -> None:
    """1,000 of them at random. Those that only take the end away look like a crash: the anchor finds them all."""
    chance = random.Random(7)
    whole = b"".join(lines_of(places_in(original)))
    ends = 0
    for number in range(TAMPERINGS):
        directory = tmp_path / "tampered"
        shutil.copytree(original, directory)
        places = places_in(directory)
        told = WAYS[number % len(WAYS)](files_of(places), chance)
        left = b"".join(lines_of(places))
        if left == whole:
            shutil.rmtree(directory)  # two equal lines were swapped
            continue
        assert not verified(directory, anchored=True).is_sound, told
        report = verified(directory)
        if whole.startswith(left) or (left.count(b"\n") < whole.count(b"\n") and whole[:-1] == left[:-1]):
            ends += 1
            assert not report.is_closed, told
        else:
            assert not report.is_sound, told
        shutil.rmtree(directory)
    assert 0 < ends < TAMPERINGS / 10


def test_a_history_written_anew_with_the_stolen_key_is_found_by_the_anchor(original: Path, tmp_path: Path) -> None:
    """Numbered, chained and signed again it is sound by itself, which the report says cannot be excluded."""
    directory = tmp_path / "tampered"
    shutil.copytree(original, directory)
    rewritten(places_in(directory), lambda record: {**record, "principal": "else"} if "principal" in record else record)
    alone = verified(directory)
    assert alone.is_sound, alone.breaks
    assert any("wrote the history anew" in note for note in alone.notes)
    report = verified(directory, anchored=True)
    assert "left the host" in report.breaks[0].what
    first = next(at for at, line in enumerate(as_lines(files_of(places_in(original))[0]), 1) if b'"intent"' in line)
    assert (report.breaks[0].segment, report.breaks[0].line) == (1, first)


def test_a_tail_cut_at_a_checkpoint_with_the_stolen_key_is_found_by_the_anchor(original: Path, tmp_path: Path) -> None:
    """Also where only the checkpoints left the host."""
    directory = tmp_path / "tampered"
    shutil.copytree(original, directory)
    files = files_of(places_in(directory))
    for path in files[2:]:
        path.unlink()
    alone = verified(directory)
    assert alone.is_sound, alone.breaks
    assert alone.signed_through == alone.last_seq
    write_lines(directory / "anchor", [line for line in as_lines(directory / "anchor") if b'"checkpoint"' in line])
    report = verified(directory, anchored=True)
    assert ["its end was cut off" in each.what for each in report.breaks] == [True]


def test_a_log_begun_anew_is_found_by_the_anchor(original: Path, tmp_path: Path) -> None:
    """The whole log deleted, and another in its place by the same key."""
    directory = tmp_path / "tampered"
    shutil.copytree(original, directory)
    shutil.rmtree(directory / "log")
    written_log(directory, pairs=200)
    assert verified(directory).is_sound
    assert "another than the one that left" in verified(directory, anchored=True).breaks[0].what


def test_a_break_is_told_with_its_place(original: Path, tmp_path: Path) -> None:
    """Segment, line, what was expected and what was found; one changed record is one break."""
    directory = tmp_path / "tampered"
    shutil.copytree(original, directory)
    path = files_of(places_in(directory))[2]
    lines = as_lines(path)
    lines[4] = lines[4].replace(b"team-a", b"team-b").replace(b'"status":200', b'"status":500')
    path.write_bytes(b"".join(lines))
    (only,) = verified(directory).breaks
    assert (only.segment, only.line) == (3, 5)
    assert only.expected != only.found
    assert str(only).startswith("segment 3, line 5: the hash does not follow from the line before: expected ")
