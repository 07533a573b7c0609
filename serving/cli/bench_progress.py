"""What a person sees of a run while it goes on, on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, Self

from serving.bench.load import Closed, Open
from serving.bench.record import Stage
from serving.bench.samples import Sample
from serving.bench.scenario import Scenario

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHOWN_EVERY_S: Final = 0.25
_RECENT: Final = 64
"""First tokens whose median is shown while a run goes on."""


class RunProgress:
    """A bar on a terminal with the figures so far; a line for each stage where there is none."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._is_shown = sys.stderr.isatty()
        self._title = self._starting = ""
        self._total = self._done = self._tokens = 0
        self._began = self._shown = time.monotonic()
        self._first: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_start(self, stage: str) -> None:
        """The server is being started."""
        if stage != self._starting:
            self._starting = stage
            self._say(f"starting  {stage}")

    def on_prepare(self, done: int, of: int) -> None:
        """So many prompts are written."""
        self._total = of
        self._show("writing prompts", done, of)

    def on_stage(self, scenario: Scenario) -> None:
        """A stage begins."""
        load = scenario.load
        self._title = load.kind
        if isinstance(load, Closed):
            self._title = f"{load.clients} client{'' if load.clients == 1 else 's'}"
        elif isinstance(load, Open):
            self._title = f"{load.rate:.4g} requests/s"
        self._done = self._tokens = 0
        self._first.clear()
        self._began = time.monotonic()
        if not self._is_shown:
            self._say(f"measuring {self._title}, {self._total} requests")

    def on_first(self, ttft: float) -> None:
        """A first token came."""
        self._first.append(ttft)
        del self._first[:-_RECENT]

    def on_sample(self, _number: int, sample: Sample) -> None:
        """A request has ended."""
        self._done += 1
        self._tokens += sample.output_tokens or 0
        now = time.monotonic()
        if self._is_shown and now - self._shown >= _SHOWN_EVERY_S:
            self._shown = now
            rate = self._tokens / max(1e-9, now - self._began)
            ttft = sorted(self._first)[len(self._first) // 2] if self._first else 0.0
            self._show(f"{self._title}: {rate:,.0f} tokens/s, TTFT {1000 * ttft:,.0f} ms", self._done, self._total)

    def on_stage_end(self, stage: Stage) -> None:
        """A stage has ended."""
        speed = stage.rates.output_tokens_per_s
        if self._is_shown and speed is not None:
            self._say(f"measured  {self._title}: {speed.value:,.0f} tokens/s")

    def _show(self, text: str, done: int, total: int) -> None:
        if not self._is_shown:
            return
        if self._bar is None:
            from rich.console import Console  # noqa: PLC0415 - only where there is a terminal
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(text, total=total)
            self._bar.start()
        if self._task is not None:
            self._bar.update(self._task, description=text, completed=done, total=total)

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
