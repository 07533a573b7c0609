"""How many requests of one model are inside at a time. A place is taken before anything is spent on a request."""

from __future__ import annotations

from collections import Counter

from serving.errors import Overloaded
from serving.fairness import may_enter, turn_after


class Reservation:
    """A place. Closing it twice is harmless, so that every way out may close it."""

    __slots__ = ("_admission", "_is_open", "account", "turn")

    def __init__(self, admission: Admission, account: str | None, turn: int) -> None:
        self._admission = admission
        self.account = account
        self.turn = turn
        """For engines that sort who waits by a number."""
        self._is_open = True

    def close(self) -> None:
        """Give the place to the next request."""
        if self._is_open:
            self._is_open = False
            self._admission.free(self)


class Admission:
    """The places of one model."""

    def __init__(self, model: str, most: int) -> None:
        self.model = model
        self.most = most
        self.taken = 0
        """Places in use now."""
        self._of: Counter[str] = Counter()
        self._clock = 0
        self._turns: dict[str, int] = {}
        """The last turn of each account that has requests inside, or is ahead of the clock."""

    def reserve(self, account: str | None = None) -> Reservation:
        """Take a place. Raises Overloaded where there is none, or none for an account that has so many."""
        own = 0 if account is None else self._of[account]
        if not may_enter(account, own, self.taken, self.most):
            whose = f", {own} of them for this key" if own else ""
            raise Overloaded(
                f"`{self.model}` has {self.taken} requests running or waiting{whose}, which is all it takes"
            )
        self.taken += 1
        if account is None:
            return Reservation(self, None, 0)
        self._of[account] += 1
        turn = self._turns[account] = turn_after(self._clock, self._turns.get(account))
        return Reservation(self, account, turn)

    def free(self, place: Reservation) -> None:
        """Take a place back; for the reservation that has it."""
        self.taken -= 1
        if place.account is None:
            return
        self._clock = max(self._clock, place.turn)
        self._of[place.account] -= 1
        if not self._of[place.account]:
            del self._of[place.account]
            if self._turns[place.account] < self._clock:
                del self._turns[place.account]
