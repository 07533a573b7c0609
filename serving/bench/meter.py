"""What the serving machine draws and how busy it is, while a stage runs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final, Self

from serving.hardware.power import Meters, Reading

_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Metered:
    """Readings in the order of their time, on the clock of `time.perf_counter`."""

    meters: tuple[str, ...] = ()
    readings: tuple[tuple[float, Reading], ...] = ()


class Meter:
    """Reads the meters on a thread of its own while a block runs: a call into a driver may take its time."""

    def __init__(self, meters: Meters | None) -> None:
        self._meters = meters
        self._readings: list[tuple[float, Reading]] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bench-meter", daemon=True)

    def __enter__(self) -> Self:
        if self._meters is not None and self._meters.names:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    def _run(self) -> None:
        assert self._meters is not None  # noqa: S101 - the thread is not started without
        while not self._ends.is_set():
            self._readings.append((time.perf_counter(), self._meters.read()))
            self._ends.wait(_EVERY_S)

    @property
    def metered(self) -> Metered:
        """What was read so far."""
        names = () if self._meters is None else self._meters.names
        return Metered(names, tuple(self._readings))
