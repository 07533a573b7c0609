"""Who comes next and who may wait: by hand, and over whole histories of arrivals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from serving.fairness import may_enter, order_fairly, turn_after


def test_a_free_place_goes_to_whoever_has_least() -> None:
    """The newcomer before the eight of one that already runs two; its own line keeps its order."""
    assert order_fairly(["a"] * 3 + ["b"], {"a": 2}, {"a": 9}) == [3, 0, 1, 2]


def test_lines_take_turns() -> None:
    """Two that have nothing yet: one of each, in order of arrival, and so on."""
    assert order_fairly(["a", "a", "a", "b", "b"], {}, {}) == [0, 3, 1, 4, 2]


def test_with_one_place_who_was_served_last_waits() -> None:
    """Neither runs anything when the only place is free: it is the turn of whoever had it longest ago."""
    assert order_fairly(["a", "b"], {}, {"a": 5, "b": 2}) == [1, 0]
    assert order_fairly(["a", "b"], {}, {"a": 5}) == [1, 0]


def test_without_accounts_all_is_in_order_of_arrival() -> None:
    """Nobody is told from anybody."""
    assert order_fairly([None] * 5, {None: 3}, {None: 7}) == [0, 1, 2, 3, 4]


ACCOUNTS = st.sampled_from(["a", "b", "c", None])


@given(
    st.lists(ACCOUNTS, max_size=12),
    st.dictionaries(ACCOUNTS, st.integers(0, 9)),
    st.dictionaries(ACCOUNTS, st.integers(0, 99)),
)
def test_everybody_is_in_line_once_and_behind_those_of_its_own(waiting, running, turns) -> None:
    """A permutation, so that no place stays free while somebody waits; of one account by arrival."""
    order = order_fairly(waiting, running, turns)
    assert sorted(order) == list(range(len(waiting)))
    for account in set(waiting):
        own = [place for place in order if waiting[place] == account]
        assert own == sorted(own)


@dataclass
class Desk:
    """A queue and some places, as an engine has them: a start is one place taken by who is first in the order."""

    places: int
    waiting: list[tuple[int, str]] = field(default_factory=list)
    running: list[tuple[int, str]] = field(default_factory=list)
    turns: dict[str | None, int] = field(default_factory=dict)
    started: list[tuple[int, str]] = field(default_factory=list)

    def start(self) -> None:
        while self.waiting and len(self.running) < self.places:
            counts: Counter[str | None] = Counter(account for _, account in self.running)
            order = order_fairly([account for _, account in self.waiting], counts, self.turns)
            one = self.waiting.pop(order[0])
            self.running.append(one)
            self.started.append(one)
            self.turns[one[1]] = len(self.started)
            if not self.waiting:
                holds = {account for _, account in self.running}
                self.turns = {account: turn for account, turn in self.turns.items() if account in holds}


EVENTS = st.lists(st.one_of(st.sampled_from("abcd"), st.integers(0, 7)), max_size=80)


@given(EVENTS, st.integers(1, 4))
def test_nobody_waits_for_ever(events, places: int) -> None:
    """However requests come and end: between the end of an account's last running one and its next start, every other
    account starts at most one; and a place is never left free."""
    desk = Desk(places)
    passed: dict[str, Counter[str]] = {}
    for number, event in enumerate(events):
        if isinstance(event, str):
            desk.waiting.append((number, event))
        elif desk.running:
            desk.running.pop(event % len(desk.running))
        before = len(desk.started)
        desk.start()
        assert not desk.waiting or len(desk.running) == places
        for _, account in desk.started[before:]:
            passed.pop(account, None)
            for other in passed.values():
                other[account] += 1
        holds = {account for _, account in desk.running}
        lines = {account for _, account in desk.waiting}
        for account in lines - holds:
            counts = passed.setdefault(account, Counter())
            assert all(count <= 1 for count in counts.values()), (account, counts)
        for account in holds | (set(passed) - lines):
            passed.pop(account, None)


@given(st.integers(1, 4), st.integers(1, 60), st.lists(st.integers(0, 7), min_size=1, max_size=30))
def test_a_full_queue_holds_another_up_by_one_place_at_most(places: int, queued: int, ends) -> None:
    """While one account keeps the queue full, each single request of another has the next place that becomes free."""
    desk = Desk(places)
    number = 0
    for which in ends:
        while sum(account == "a" for _, account in desk.waiting) < queued:
            number += 1
            desk.waiting.append((number, "a"))
            desk.start()
        if not any(account == "b" for _, account in desk.waiting + desk.running):
            number += 1
            desk.waiting.append((number, "b"))
        waits = any(account == "b" for _, account in desk.waiting)
        desk.running.pop(which % len(desk.running))
        desk.start()
        assert not waits or desk.started[-1][1] == "b"


@given(st.integers(1, 300), st.lists(st.sampled_from("abc"), max_size=400))
def test_one_account_leaves_places_to_others(most: int, arrivals) -> None:
    """Never more than there are; and unless most others came too, there is one for who has none."""
    held: Counter[str] = Counter()
    for account in arrivals:
        if may_enter(account, held[account], held.total(), most):
            held[account] += 1
        assert held.total() <= most
        assert len(held) > 2 or most < 8 or may_enter("z", 0, held.total(), most)


def test_without_accounts_every_place_is_for_everybody() -> None:
    """The last one too, and no more."""
    assert may_enter(None, 0, 15, 16)
    assert not may_enter(None, 0, 16, 16)
    assert not may_enter("a", 14, 14, 16)
    assert may_enter("b", 0, 14, 16, 2)
    assert not may_enter("b", 0, 14, 16, 3)


@given(EVENTS, st.integers(1, 4))
def test_turns_give_each_account_its_own_in_a_queue_that_sorts_by_them(events, places: int) -> None:
    """Of one account in order of arrival; and before a request starts, another account can start no more requests than
    are before it in its own line, and one more for each place that was taken when it came."""
    clock, last = 0, {}
    waiting: list[tuple[int, int, str]] = []
    running: list[tuple[int, int, str]] = []
    passed: dict[int, Counter[str]] = {}
    line: dict[int, int] = {}
    for number, event in enumerate(events):
        if isinstance(event, str):
            line[number] = sum(account == event for _, _, account in waiting)
            turn = last[event] = turn_after(clock, last.get(event))
            waiting.append((turn, number, event))
            passed[number] = Counter()
        elif running:
            clock = max(clock, running.pop(event % len(running))[0])
        while waiting and len(running) < places:
            one = min(waiting)
            waiting.remove(one)
            running.append(one)
            assert one[1] == min([one[1], *(other[1] for other in waiting if other[2] == one[2])])
            counts = passed.pop(one[1])
            for other in waiting:
                passed[other[1]][one[2]] += other[2] != one[2]
            behind = line.pop(one[1])
            assert all(count <= behind + 2 * places + 1 for count in counts.values()), (behind, counts)


def test_a_single_request_is_before_the_line_of_another() -> None:
    """Sixty-four were sent at once, two have ended and four run: the newcomer's turn is lower than any that waits."""
    turns = [0]
    for _ in range(63):
        turns.append(turn_after(0, turns[-1]))
    assert turn_after(turns[1], None) < min(turns[6:])
