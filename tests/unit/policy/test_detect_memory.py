"""What is remembered of texts is where something was in them, for whoever's they are, and nothing of them."""

from __future__ import annotations

import gc

import pytest

from serving.policy.detect.memory import Memory
from serving.policy.detect.names import RussianNames

PLACES = ((0, 3, 9), (1, 0, 4))


def test_what_was_kept_is_known_until_it_is_forgotten() -> None:
    """By the same texts, in the same order, cut at the same places."""
    memory = Memory()
    memory.keep(memory.mark(["Анна", "Соколова"]), PLACES)
    assert memory.recall(memory.mark(["Анна", "Соколова"])) == PLACES
    assert memory.recall(memory.mark(["АннаСоколова"])) is None
    assert memory.recall(memory.mark(["Соколова", "Анна"])) is None
    memory.forget()
    assert memory.recall(memory.mark(["Анна", "Соколова"])) is None
    assert memory.size == 0


def test_nobody_learns_what_another_has_sent() -> None:
    """What one owner's text left is not found for the next one, nor by a name that goes on in the text."""
    memory = Memory()
    memory.enter("team")
    memory.keep(memory.mark(["Анна"]), PLACES)
    for owner in ("others", "tea", "teamА", ""):
        memory.enter(owner)
        assert memory.recall(memory.mark(["Анна"])) is None
    memory.enter("team")
    assert memory.recall(memory.mark(["Анна"])) == PLACES


def test_no_text_is_in_a_memory() -> None:
    """Neither is a hash that another process, or somebody with a list of names, could make."""
    memory, other = Memory(), Memory()
    text = "Анна Соколова, паспорт 4510 123456"
    memory.keep(memory.mark([text]), PLACES)
    gc.collect()
    held = b"".join(each for each in gc.get_referents(memory._known) if isinstance(each, bytes))
    assert held
    assert text.encode() not in held
    assert memory.mark([text]) != other.mark([text])


@pytest.mark.parametrize("places", [0, 1, 500])
def test_it_grows_to_its_bound_and_no_further(places: int) -> None:
    """What was asked for longest ago goes first; what is asked for stays."""
    memory = Memory(most_bytes=20_000)
    first = memory.mark(["0"])
    memory.keep(first, ((0, 1, 2),) * places)
    for number in range(1, 400):
        memory.recall(first)
        memory.keep(memory.mark([str(number)]), ((0, 1, 2),) * places)
        memory.keep(memory.mark([str(number)]), ())  # a second time it changes nothing
        assert memory.size <= 20_000
    assert memory.recall(memory.mark(["1"])) is None
    assert memory.recall(first) == ((0, 1, 2),) * places


def test_what_failed_is_asked_again() -> None:
    """An error is not remembered as nothing found."""

    class Failing:
        asked = 0

        def map(self, _: list[str]) -> list[object]:
            self.asked += 1
            raise MemoryError

    model = Failing()
    names = RussianNames(model, Memory())
    for _ in range(2):
        with pytest.raises(MemoryError):
            list(names.find("Анна"))
    assert model.asked == 2
