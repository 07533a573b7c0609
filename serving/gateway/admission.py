"""How many requests of one model are inside at a time. A place is taken before anything is spent on a request."""

from __future__ import annotations

from serving.errors import Overloaded


class Reservation:
    """A place. Closing it twice is harmless, so that every way out may close it."""

    __slots__ = ("_admission", "_is_open")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._is_open = True

    def close(self) -> None:
        """Give the place to the next request."""
        if self._is_open:
            self._is_open = False
            self._admission.taken -= 1


class Admission:
    """The places of one model."""

    def __init__(self, model: str, most: int) -> None:
        self.model = model
        self.most = most
        self.taken = 0
        """Places in use now."""

    def reserve(self) -> Reservation:
        """Take a place. Raises Overloaded where there is none."""
        if self.taken >= self.most:
            raise Overloaded(f"`{self.model}` has {self.taken} requests running or waiting, which is all it takes")
        self.taken += 1
        return Reservation(self)
