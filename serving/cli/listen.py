"""What a person, or a log collector, sees while serving starts and runs. Everything goes to stderr."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import json
import logging
import shlex
import sys
from typing import TYPE_CHECKING, Final

from serving.pooling import Task
from serving.telemetry.logs import facts

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger("serving.cli")


_EXAMPLES: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "chat": ("chat/completions", {"messages": [{"role": "user", "content": "Who are you?"}]}),
    "generate": ("completions", {"prompt": "Once upon a time", "max_tokens": 32}),
    "embed": ("embeddings", {"input": ["a text", "another"]}),
    "rerank": ("rerank", {"query": "a question", "documents": ["a document", "another"]}),
}
"""A route and a request to try, by what the model is for."""


def base_of(url: str) -> str:
    """The address without the API's `/v1`, which is what clients are given as their base URL."""
    return url.rstrip("/").removesuffix("/v1")


class TerminalListener:
    """For people: a bar while weights load, then the address, a request to try, and how to stop."""

    def __init__(
        self, model: str, *, chats: bool, task: Task = "generate", dummy: bool = False, keyed: bool = False
    ) -> None:
        """`chats`: the model has a chat template, so that a chat request can be shown as an example.

        `dummy`: its weights are synthetic, which is said beside the address. `keyed`: a request needs a key.
        """
        self._keyed = keyed
        self._model = model
        self._dummy = dummy
        self._chats = chats
        self._task: Task = task
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        self._stages: dict[str, str] = {}

    def on_progress(self, model: str, fraction: float, stage: str) -> None:
        """`fraction` from 0 to 1 of what `stage` does."""
        if not sys.stderr.isatty():
            if stage != self._stages.get(model):
                self._say(f"loading   {model}: {stage}")
                self._stages[model] = stage
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            columns = (TextColumn("loading   {task.description}"), BarColumn(), TaskProgressColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar = self._progress.add_task(model, total=1.0)
            self._progress.start()
        if self._bar is not None:
            self._progress.update(self._bar, completed=fraction, description=f"{model}: {stage}")

    def on_ready(self, url: str) -> None:
        """The API answers at `url`."""
        self._end_progress()
        route, asked = _EXAMPLES["chat" if self._chats else self._task]
        body = json.dumps({"model": self._model, **asked})
        base = base_of(url)
        here = base.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        key = '-H "authorization: Bearer $KEY" ' if self._keyed else ""
        curl = f"curl {here}/v1/{route} {key}-H 'content-type: application/json' -d {shlex.quote(body)}"
        noise = [f"warning   {self._model} has synthetic weights: every answer is noise"] if self._dummy else []
        self._say(f"serving   {base}/v1", *noise, f"try       {curl}", "stop      Ctrl-C", "")

    def on_engine_event(self, text: str) -> None:
        """Something happened to an engine that a person should know."""
        self._end_progress()
        self._say(f"engine    {text}")

    def on_drain(self) -> None:
        """Stopping: nothing new is taken, what runs is finished."""
        self._end_progress()
        self._say("stopping  running requests are being finished; Ctrl-C again stops at once")

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @staticmethod
    def _say(*lines: str) -> None:
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()


class JsonListener:
    """For machines: the same as log lines."""

    def __init__(
        self, model: str, *, chats: bool, task: Task = "generate", dummy: bool = False, keyed: bool = False
    ) -> None:
        del model, chats, task, keyed
        self._dummy = dummy
        self._last = (0.0, "")

    def on_progress(self, model: str, fraction: float, stage: str) -> None:
        """`fraction` from 0 to 1 of what `stage` does."""
        if stage == self._last[1] and fraction < min(1.0, self._last[0] + 0.01):
            return  # a line for each percent is enough
        self._last = (fraction, stage)
        log.info("loading", extra=facts(model=model, fraction=round(fraction, 3), stage=stage))

    def on_ready(self, url: str) -> None:
        """The API answers at `url`."""
        log.info("ready", extra=facts(url=f"{base_of(url)}/v1", dummy_weights=self._dummy))

    def on_engine_event(self, text: str) -> None:
        """Something happened to an engine that a person should know."""
        log.warning("engine", extra=facts(what=text))

    def on_drain(self) -> None:
        """Stopping: nothing new is taken, what runs is finished."""
        log.info("drain")
