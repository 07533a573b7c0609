"""How many requests of one model are inside at a time. A place is taken before anything is spent on a request."""

from __future__ import annotations

from collections import Counter

from serving.errors import Overloaded
from serving.fairness import may_enter


class Reservation:
    """A place. Closing it twice is harmless, so that every way out may close it."""

    __slots__ = ("_admission", "_is_open", "account")

    def __init__(self, admission: Admission, account: str | None) -> None:
        self._admission = admission
        self.account = account
        self._is_open = True

    def close(self) -> None:
        """Give the place to the next request."""
        if self._is_open:
            self._is_open = False
            self._admission.free(self.account)


class Admission:
    """The places of one model."""

    def __init__(self, model: str, most: int) -> None:
        self.model = model
        self.most = most
        self.taken = 0
        """Places in use now."""
        self._of: Counter[str] = Counter()

    def reserve(self, account: str | None = None) -> Reservation:
        """Take a place. Raises Overloaded where there is none, or none for an account that has so many."""
        own = 0 if account is None else self._of[account]
        if not may_enter(account, own, self.taken, self.most):
            whose = f", {own} of them for this key" if own else ""
            raise Overloaded(
                f"`{self.model}` has {self.taken} requests running or waiting{whose}, which is all it takes"
            )
        self.taken += 1
        if account is not None:
            self._of[account] += 1
        return Reservation(self, account)

    def free(self, account: str | None) -> None:
        """Give a place back; for the reservation that has it."""
        self.taken -= 1
        if account is not None:
            self._of[account] -= 1
            if not self._of[account]:
                del self._of[account]
