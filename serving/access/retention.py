"""How long lines of usage are kept. Windows that are open are counted elsewhere, and need none of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from serving.access.quota import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.access.database import Database

_BATCH: Final = 500
"""Lines in one transaction: some milliseconds, for which nothing else is written."""
_ROUND_NS: Final = 3600 * SECOND_NS
"""Between two looks where nothing was left to remove."""


def decide_cut(now_ns: int, keep_days: int) -> int:
    """Lines of requests made before this moment may go: older than so many days, and of no month that is not over.

    What a month's budget has counted can so be explained by its lines as long as the budget is open.
    """
    now = datetime.fromtimestamp(now_ns // SECOND_NS, UTC)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(min(now - timedelta(days=keep_days), month).timestamp()) * SECOND_NS


class Retention:
    """Removes what is due, a batch with each tick of the ledger; for its thread."""

    def __init__(self, database: Database, keep_days: int, clock: Callable[[], int]) -> None:
        self._database = database
        self._keep_days = keep_days
        self._clock = clock
        self._next_ns = 0

    def tick(self) -> None:
        """Remove one batch, if it is time. Raises SQLAlchemyError, and is then to be called again."""
        now_ns = self._clock()
        if self._next_ns - _ROUND_NS <= now_ns < self._next_ns:  # else it is due, or the clock was set back
            return
        removed = self._database.remove_usage(decide_cut(now_ns, self._keep_days), _BATCH)
        self._next_ns = now_ns if removed == _BATCH else now_ns + _ROUND_NS
