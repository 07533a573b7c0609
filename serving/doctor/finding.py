"""What a check comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["good", "warning", "problem", "unknown"]
"""`problem`: models are not served here, or not rightly; `warning`: they are served worse than they could be, or
something is at risk; `unknown`: it could not be looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the page."""

    name: str
    status: Status
    found: str
    """What is the case, with the values."""
    advice: str | None = None
    """What to do about it; None where nothing needs doing."""
