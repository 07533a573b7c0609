"""An outage that an operator plays: a file that names a destination, and until when it is out of order.

Whoever may write in the directory of `serve egress` may do that, as with the kill switch; it keeps requests inside.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Final

from serving.store.files import write_whole

LONGEST_S: Final = 600.0
"""An outage that a drill did not end, because it was killed, ends by itself."""
_SLACK_S: Final = 60.0
"""That a clock may have been set back since."""


def begin_outage(path: Path, destination: str, now: float, lasts_s: float = LONGEST_S) -> None:
    """From now on, seconds since 1970, no connection to the destination is made. Raises BadSettings."""
    told = {"destination": destination, "until": now + min(lasts_s, LONGEST_S)}
    write_whole(path, json.dumps(told).encode(), 0o600)


def end_outage(path: Path) -> None:
    """It is over. Raises OSError."""
    path.unlink(missing_ok=True)


def out_of_order(path: Path, now: float) -> str | None:
    """The destination that is out of order; None: none is. What cannot be read is no outage, and lets nothing out."""
    if not os.path.lexists(path):
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(path.read_bytes())
        # the kernel's own word for when it was put there: the file may say anything
        since = now - path.stat(follow_symlinks=False).st_ctime
        if now < float(told["until"]) and -_SLACK_S <= since < LONGEST_S:
            return str(told["destination"])
    return None
