"""Run a coroutine at once, as far as it goes without waiting.

A streamed token passes two processes, and in each of them waking a task for it costs more than passing it on does
(decision 0006). So the callback that learns of it writes it, and a task is woken only for what has to wait.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any

Job = Coroutine[Any, Any, None]


def begin(job: Job) -> Job | None:
    """Run `job` until it ends or has to wait; what is left of it, None where nothing is.

    What it raises before it waits is raised here. What is left must be awaited by a task of the same loop, or closed.
    """
    try:
        waits_for = job.send(None)
    except StopIteration:
        return None
    return _rest(job, waits_for)


@types.coroutine
def _rest(job: Job, waits_for: object) -> Generator[object, Any, None]:
    try:
        while True:
            try:
                sent = yield waits_for
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - the job's to deal with, whatever it is
                waits_for = job.throw(error)
            else:
                waits_for = job.send(sent)
    except StopIteration:
        return
    finally:
        job.close()
