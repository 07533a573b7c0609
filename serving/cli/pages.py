"""What every command sees to that draws charts and writes them into a page."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.errors import UsageError


def prepare_drawing() -> None:
    """To be called before what draws is imported."""
    # What matplotlib thinks of a home that it cannot write to is nobody's concern, nor is a window system.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    os.environ.pop("MPLBACKEND", None)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within, files are written: `path`, unless a failure names another. Raises UsageError where one cannot be."""
    try:
        yield
    except OSError as error:
        message = f"`{error.filename or path}` cannot be written: {error.strerror}"
        raise UsageError(message, hint="its directory must be there, with room and the right to write in it") from None
