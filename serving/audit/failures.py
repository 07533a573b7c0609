"""Failed authentication, counted: one record per source and minute, however many attempts there are."""

from __future__ import annotations

import threading
from typing import Final

from serving.audit.records import AuthenticationFailed

SOURCES: Final = 1000
"""Sources that are told apart in a minute; those beyond are counted together."""
OTHERS: Final = "others"
"""Stands for the sources beyond."""


class FailureTally:
    """Counts from any thread. `minute` is a time's text up to the minute: `2026-01-31T12:34`."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def add(self, source: str, minute: str) -> None:
        """One more failed attempt."""
        with self._lock:
            place = (minute, source)
            if place not in self._counts and len(self._counts) >= SOURCES:
                place = (minute, OTHERS)
            self._counts[place] = self._counts.get(place, 0) + 1

    def take(self, before: str | None = None) -> tuple[AuthenticationFailed, ...]:
        """The counts of the minutes before `before`, each once; None takes all."""
        with self._lock:
            done = sorted(place for place in self._counts if before is None or place[0] < before)
            return tuple(
                AuthenticationFailed(source=place[1], minute=f"{place[0]}Z", count=self._counts.pop(place))
                for place in done
            )
