"""What follows from the figures, and from which thresholds; never from a point alone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from serving.economics.statement import Option
from serving.economics.uncertainty import Drawn

SURE: Final = Decimal("0.9")
"""Of the draws, those in which an option has to be the cheapest to be called so."""
WORTH_IT: Final = Decimal("0.1")
"""Of the API's cost: what an option must save in the middle of the draws to be worth a change."""
Word = Literal["cheapest", "cheapest, by too little", "not certain", "no ranges", "nothing to compare"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which option costs least, and how sure that is."""

    word: Word
    option: Option
    """That which is cheapest most often."""
    share: Decimal
    """Of the draws in which it is."""
    saved: Decimal | None
    """By it, of the API's cost, in the middle of the draws; None without an API to compare with."""
    sure: Decimal = SURE
    worth_it: Decimal = WORTH_IT


def verdict_of(drawn: Drawn) -> Verdict:
    """What the draws say."""
    option = max(drawn.cheapest, key=lambda each: drawn.cheapest[each])
    share = drawn.cheapest[option]
    saving = drawn.savings.get(option)
    saved = None if saving is None else saving.middle
    if len(drawn.cheapest) == 1:
        return Verdict("nothing to compare", option, share, saved)
    if drawn.draws == 1:
        return Verdict("no ranges", option, share, saved)
    if share < SURE:
        return Verdict("not certain", option, share, saved)
    if saved is not None and saved < WORTH_IT:
        return Verdict("cheapest, by too little", option, share, saved)
    return Verdict("cheapest", option, share, saved)
