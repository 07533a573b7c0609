"""The store of tainted texts: what it was told it knows after any end, and what it cannot know it does not deny."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import BadSettings, ShuttingDown, StartError
from serving.policy.facts import Taint
from serving.policy.taint_index import Index
from serving.policy.taint_store import TaintStore, begin
from tests.support import taint_child

KEY = bytes(range(32))
DAY = 86_400
TEXT = "The patient of room twelve was moved to the isolation ward on Monday, after the second test came back."
OTHER = "Our opening hours are from eight to six on working days, and from ten to two on the first Saturday."


class Clock:
    def __init__(self) -> None:
        self.now = 1_780_000_000.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


def opened(directory: Path, clock: Callable[[], float] = CLOCK, **more: Any) -> TaintStore:
    return TaintStore(directory, KEY, **{"keep_s": DAY, "most": 1 << 16, "clock": clock, **more})


def look(store: TaintStore, text: str, domain: str = "here") -> Taint:
    return store.look(store.fingerprinter(domain).seek([text]))


def keep(store: TaintStore, text: str, closes: int | None = None) -> None:
    store.add(store.fingerprinter("here").keep([text]), closes=closes)


def file_of(directory: Path) -> Path:
    (path,) = directory.glob("fingerprints-*")
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A store with one text in it, closed."""
    begin(tmp_path / "taint", KEY)
    with closing(opened(tmp_path / "taint")) as store:
        keep(store, TEXT)
    return tmp_path / "taint"


def test_a_store_that_is_closed_says_so_and_is_not_lost_by_it(tmp_path: Path) -> None:
    """What somebody wanted to be remembered meanwhile, they are told that it was not."""
    begin(tmp_path, KEY)
    store = opened(tmp_path)
    keep(store, TEXT)
    store.close()
    with pytest.raises(ShuttingDown):
        keep(store, OTHER)
    with pytest.raises(ShuttingDown):
        store.open_answer()
    with closing(opened(tmp_path)) as again:
        assert again.problem is None
        assert look(again, TEXT) is Taint.TAINTED
        assert look(again, OTHER) is Taint.NONE


def test_what_was_kept_is_found_after_a_restart(directory: Path) -> None:
    """In a part, in other letters, in its domain; and what was not kept is not tainted."""
    with closing(opened(directory)) as store:
        assert store.problem is None
        assert look(store, f"Please translate: «{TEXT.upper()[10:90]}»") is Taint.TAINTED
        assert look(store, OTHER) is Taint.NONE
        assert look(store, TEXT, "elsewhere") is Taint.NONE


def test_nothing_of_a_text_is_on_the_disk(directory: Path) -> None:
    """Nor two blocks that are equal, though the text was kept twice; and nobody else may read what there is."""
    with closing(opened(directory)) as store:
        keep(store, OTHER)
        plain = [each.tobytes() for each in store.fingerprinter("here").keep([TEXT, OTHER])]
    raw = file_of(directory).read_bytes()
    assert not any(each in raw for each in plain)
    assert TEXT.encode()[:12] not in raw
    blocks = [raw[at : at + 16] for at in range(64, len(raw), 16)]
    assert len(blocks) == len(set(blocks)) == len(plain)
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700


def test_an_expired_text_is_forgotten(directory: Path) -> None:
    """And one that comes again is kept anew."""
    clock = Clock()
    with closing(opened(directory, clock)) as store:
        clock.now += DAY / 2
        keep(store, TEXT)
        clock.now += DAY * 0.75
        assert look(store, TEXT) is Taint.TAINTED
        clock.now += DAY
        assert look(store, TEXT) is Taint.NONE


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda directory: (directory / "marker").unlink(),
        lambda directory: (directory / "marker").write_bytes(b""),
        lambda directory: (directory / "marker").write_bytes(bytes(56)),
        lambda directory: file_of(directory).unlink(),
        lambda directory: os.truncate(file_of(directory), file_of(directory).stat().st_size - 16),
        lambda directory: os.truncate(file_of(directory), file_of(directory).stat().st_size - 1),
        lambda directory: os.truncate(file_of(directory), 0),
        lambda directory: file_of(directory).write_bytes(bytes(file_of(directory).stat().st_size)),
        lambda directory: directory.chmod(0o755),
    ],
    ids=["gone", "unmarked", "empty", "zeros", "no-file", "cut", "torn", "nothing", "zeroed", "open"],
)
def test_a_store_that_is_not_whole_is_lost(directory: Path, damage: Callable[[Path], object]) -> None:
    """Nothing is known not to be tainted then, until an operator begins it again."""
    damage(directory)
    for _ in range(2):
        with closing(opened(directory)) as store:
            assert store.problem is not None
            assert look(store, OTHER) is Taint.UNKNOWN
            assert look(store, TEXT) is not Taint.NONE
            keep(store, OTHER)
            assert look(store, OTHER) is not Taint.NONE
    begin(directory, KEY)
    with closing(opened(directory)) as store:
        assert store.problem is None
        assert look(store, "Something else, long enough to be looked for as a run of its own.") is Taint.NONE


def test_a_store_of_another_key_is_lost(directory: Path) -> None:
    """Its fingerprints mean nothing here."""
    with closing(TaintStore(directory, bytes(32), keep_s=DAY, most=1 << 16)) as store:
        assert store.problem is not None
        assert look(store, TEXT) is Taint.UNKNOWN


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=100)
def test_any_bit_that_changes_is_found(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    """In either file."""
    directory = tmp_path_factory.mktemp("bits") / "taint"
    begin(directory, KEY)
    with closing(opened(directory)) as store:
        keep(store, TEXT)
    files = sorted(directory.iterdir())
    path = files[at % len(files)]
    raw = bytearray(path.read_bytes())
    raw[at // 2 % len(raw)] ^= 1 << bit
    path.write_bytes(raw)
    with closing(opened(directory)) as store:
        assert store.problem is not None
        assert look(store, OTHER) is Taint.UNKNOWN


def test_what_can_be_read_of_a_lost_store_is_kept(directory: Path) -> None:
    """Beginning it again forgets nothing that is still there."""
    with closing(opened(directory)) as store:
        keep(store, OTHER)
    size = file_of(directory).stat().st_size
    os.truncate(file_of(directory), size - 16)
    assert begin(directory, KEY) == (size - 64) // 16 - 1
    with closing(opened(directory)) as store:
        assert look(store, TEXT) is Taint.TAINTED


def test_a_disk_that_takes_nothing_loses_the_store(directory: Path) -> None:
    """At once, and at the next start too; what it was told meanwhile it knows as long as it runs."""
    store = opened(directory)
    assert store._file is not None
    read_only = os.open(file_of(directory), os.O_RDONLY)
    os.dup2(read_only, store._file._file)
    os.close(read_only)
    keep(store, OTHER)
    assert store.problem is not None
    assert look(store, OTHER) is Taint.TAINTED
    assert look(store, "Nothing that anybody ever said before, in so many words.") is Taint.UNKNOWN
    store.close()
    with closing(opened(directory)) as again:
        assert again.problem is not None


def test_what_a_store_could_not_be_told_is_missed_later(directory: Path) -> None:
    """A directory that others could write to is not this store's; what came meanwhile is not there when it is again."""
    directory.chmod(0o755)
    with closing(opened(directory)) as store:
        keep(store, OTHER)
        assert look(store, OTHER) is Taint.TAINTED
    directory.chmod(0o700)
    with closing(opened(directory)) as store:
        assert store.problem is not None
        assert look(store, OTHER) is Taint.UNKNOWN


def test_a_store_that_was_only_closed_is_whole(directory: Path) -> None:
    """A request that comes too late is not tainted by nothing."""
    store = opened(directory)
    store.close()
    assert look(store, OTHER) is Taint.UNKNOWN
    with closing(opened(directory)) as again:
        assert again.problem is None


def test_one_process_has_it(directory: Path) -> None:
    """A second one is refused; so is beginning it meanwhile."""
    with closing(opened(directory)):
        with pytest.raises(StartError):
            opened(directory)
        with pytest.raises(StartError):
            begin(directory, KEY)
    opened(directory).close()


def test_a_store_is_never_made_by_opening_it(tmp_path: Path) -> None:
    """Else one that was deleted would begin anew by itself."""
    with closing(opened(tmp_path / "none")) as store:
        assert store.problem is not None
    assert not (tmp_path / "none").exists()
    with pytest.raises(BadSettings):
        begin(Path("/proc/none/taint"), KEY)


def test_a_full_store_says_unknown(tmp_path: Path) -> None:
    """For as long as what it had no room for would have been kept; then there is room again."""
    clock, directory = Clock(), tmp_path / "taint"
    begin(directory, KEY)
    with closing(opened(directory, clock, most=1000)) as store:
        numbers = np.random.default_rng(1).integers(0, 1 << 63, 2000).astype(np.uint64)
        store.add(numbers[:900])
        assert look(store, OTHER) is Taint.NONE
        store.add(numbers[900:])
        assert look(store, OTHER) is Taint.UNKNOWN
        assert store.look(numbers[:1]) is Taint.TAINTED
        for _ in range(3):
            keep(store, TEXT * 40)
        clock.now += DAY + 120
        keep(store, TEXT)
        assert store.problem is None
        assert look(store, OTHER) is Taint.NONE
        assert look(store, TEXT) is Taint.TAINTED
    assert file_of(directory).stat().st_size < 1000 * 16


def test_who_has_filled_a_store_has_filled_it_for_nobody_else(tmp_path: Path) -> None:
    """One cache domain takes what it can get: what has no room makes its own answers UNKNOWN, after a restart too."""
    clock, directory = Clock(), tmp_path / "taint"
    begin(directory, KEY)
    numbers = np.random.default_rng(1).integers(0, 1 << 63, 4000).astype(np.uint64)
    with closing(opened(directory, clock, most=1000)) as store:
        kept = [store.add(numbers[at : at + 10], domain="greedy") for at in range(0, 2000, 10)]
        assert 700 < 10 * sum(kept) <= 750
        assert store.look(numbers[:1], "greedy") is Taint.TAINTED
        assert store.look(numbers[-1:], "greedy") is Taint.UNKNOWN
        assert store.look(numbers[-1:], "other") is Taint.NONE
        assert store.add(numbers[3000:3100], domain="other")
        assert store.look(numbers[3000:3001], "other") is Taint.TAINTED
        assert store.problem is None
    with closing(opened(directory, clock, most=1000)) as store:
        assert store.look(numbers[-1:], "greedy") is Taint.UNKNOWN
        assert store.look(numbers[-1:], "other") is Taint.NONE
        clock.now += DAY + 120
        assert store.look(numbers[-1:], "greedy") is Taint.NONE
        assert store.add(numbers[-100:], domain="greedy")  # what has expired makes room


def test_what_comes_again_takes_no_room_again(tmp_path: Path) -> None:
    """A conversation is remembered with every turn: it fills no share by that."""
    begin(tmp_path, KEY)
    numbers = np.arange(1, 401, dtype=np.uint64) << np.uint64(40)
    with closing(opened(tmp_path, most=1000)) as store:
        assert all(store.add(numbers, domain="here") for _ in range(20))


def test_a_hole_of_one_domain_outlives_a_new_file(tmp_path: Path) -> None:
    """A file that is written anew, because much in it is worth nothing any more, has the holes of the old one."""
    begin(tmp_path, KEY)
    clock = Clock()
    with closing(opened(tmp_path, clock, most=100)) as store:
        assert not store.add(None, domain="here")
        clock.now += 3600
        before = file_of(tmp_path)
        store.add(np.arange(1, 200, dtype=np.uint64), domain="there")  # too many: it looks for what has expired
        assert file_of(tmp_path) != before
    with closing(opened(tmp_path, clock)) as store:
        assert store.look(np.zeros(1, np.uint64), "here") is Taint.UNKNOWN
        assert store.look(np.zeros(1, np.uint64), "elsewhere") is Taint.NONE


def test_a_text_that_could_not_be_read_leaves_a_hole(directory: Path) -> None:
    """What it was is not known, and so nothing is known not to be part of it; after a restart too."""
    for expected in (Taint.UNKNOWN, Taint.UNKNOWN):
        with closing(opened(directory)) as store:
            store.add(None)
            assert look(store, OTHER) is expected
            assert look(store, TEXT) is Taint.TAINTED
            assert store.look(None) is Taint.UNKNOWN


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"add {OTHER}"], None),
        (["open", f"close {OTHER}"], None),
        (["open"], Taint.UNKNOWN),
        (["open", "open", f"close {OTHER}"], Taint.UNKNOWN),
    ],
    ids=["added", "ended", "cut-off", "one-of-two"],
)
def test_a_process_that_is_killed_has_said_all_that_it_was_told(
    directory: Path, lines: list[str], expected: Taint | None
) -> None:
    """What it answered for is found; an answer that it had begun leaves a hole until a store is begun again."""
    command = [sys.executable, "-m", taint_child.__name__, str(directory)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        command, cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for line in lines:
            child.stdin.write(f"{line}\n")
            assert child.stdout.readline() == "done\n"
        child.kill()
        child.wait()
    with closing(opened(directory, time.time)) as store:
        unseen = "A text that nobody has ever sent to this server, of a length that is looked for."
        assert look(store, unseen) is (expected or Taint.NONE)
        assert (look(store, OTHER) is Taint.TAINTED) == (OTHER in lines[-1])
    begin(directory, KEY)
    with closing(opened(directory, time.time)) as store:
        assert look(store, unseen) is Taint.NONE
        assert (look(store, OTHER) is Taint.TAINTED) == (OTHER in lines[-1])


def test_what_was_not_acknowledged_is_cut_off(directory: Path) -> None:
    """Bytes behind the marker's end are of a process that died in between."""
    with file_of(directory).open("ab") as file:
        file.write(b"torn half way through a block and more")
    with closing(opened(directory)) as store:
        assert store.problem is None
        keep(store, OTHER)
    with closing(opened(directory)) as store:
        assert store.problem is None
        assert look(store, OTHER) is Taint.TAINTED


def test_a_file_does_not_grow_with_what_comes_again(directory: Path) -> None:
    """A conversation that is sent whole with each of its turns."""
    with closing(opened(directory)) as store:
        keep(store, OTHER)
        size = file_of(directory).stat().st_size
        for _ in range(100):
            keep(store, OTHER)
        assert file_of(directory).stat().st_size == size


def test_a_file_is_written_anew_without_what_has_expired(directory: Path) -> None:
    """Open answers and what is still worth something go along."""
    clock = Clock()
    with closing(opened(directory, clock, most=1 << 18)) as store:
        draw, name = np.random.default_rng(2), file_of(directory).name
        answer = store.open_answer()
        for _ in range(4):
            clock.now += DAY * 2
            store.add(draw.integers(0, 1 << 63, 70_000).astype(np.uint64))
        keep(store, TEXT)
        assert file_of(directory).name != name
        assert file_of(directory).stat().st_size < 2 * 70_000 * 16
        assert look(store, TEXT) is Taint.TAINTED
        assert look(store, OTHER) is Taint.NONE
        keep(store, OTHER, closes=answer)
    with closing(opened(directory, clock)) as store:
        assert store.problem is None
        assert look(store, OTHER) is Taint.TAINTED


def test_threads_may_keep_and_look_at_once(directory: Path) -> None:
    """What a thread has kept it finds, whatever the others do."""
    with closing(opened(directory)) as store:
        found: list[Taint] = []

        def work(number: int) -> None:
            for turn in range(20):
                text = f"{OTHER} This is number {number}, turn {turn}. " * 3
                keep(store, text)
                found.append(look(store, text))

        threads = [Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [Taint.TAINTED] * 80


NUMBERS = st.lists(st.integers(0, 2**64 - 1), max_size=50) | st.lists(st.integers(0, 60), max_size=50)


@given(st.lists(st.tuples(NUMBERS, st.integers(1, 1000), st.booleans()), max_size=12), NUMBERS)
def test_an_index_is_a_dictionary(steps: list[tuple[list[int], int, bool]], asked: list[int]) -> None:
    """Whatever is put into it, in whatever order, and whenever it is sorted."""
    index, expected = Index(64), dict[int, int]()
    for numbers, expires, is_sorted in steps:
        index.put(np.array(numbers, np.uint64), np.full(len(numbers), expires, np.uint32))
        expected |= dict.fromkeys(numbers, expires)
        if is_sorted:
            live, until = index.live(500)
            assert dict(zip(live.tolist(), until.tolist(), strict=True)) == {
                number: each for number, each in expected.items() if each > 500
            }
            assert len(index) == len(expected)
    wanted = [*asked, *expected]
    assert index.expires(np.array(wanted, np.uint64)).tolist() == [expected.get(each, 0) for each in wanted]
