"""Days as they are typed, which are days of UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime

from serving.errors import UsageError


def day_of(text: str, flag: str, *, what: str = "day", hint: str = "such as `2027-01-31`") -> date:
    """The day that a flag names; `what` and `hint` say what else it takes. Raises UsageError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"`{flag} {text}` is no {what}", hint=hint) from None


def beginning(day: date) -> int:
    """Seconds since 1970 until the day begins."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
