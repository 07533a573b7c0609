"""A stack's way through the phases: what is done in each, and what came of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from serving.doctor.egress.requests import Asked, mistakes_for, requests_for
from serving.doctor.egress.stack import Stack
from serving.doctor.egress.verdict import Phase
from serving.errors import EngineFailed

_ANSWER_S: Final = 300.0
_OPEN_S: Final = 10.0
_AGAIN_S: Final = 600.0
_EVERY_S: Final = 0.25


class Walk:
    """One run of a stack. What cannot be gone through is said in its phase; nothing is raised but an interrupt."""

    def __init__(
        self, stack: Stack, pid: int, runtime: Path, *, key: str | None, start_timeout_s: float, idle_s: float
    ) -> None:
        """`pid` is `serve`'s, `runtime` the directory in which it keeps its engines' records."""
        self._credentials = {} if key is None else {"authorization": f"Bearer {key}"}
        self._stack = stack
        self._pid = pid
        self._runtime = runtime
        self._start_timeout_s = start_timeout_s
        self._idle_s = idle_s
        self._url = ""
        self.phases: list[Phase] = []

    def go(self, began_s: float, on_phase: Callable[[str], None]) -> None:
        """All phases, the first of which began with the stack; those after one that failed are left out."""
        steps: tuple[tuple[str, Callable[[list[str]], None]], ...] = (
            ("import", self._import),
            ("load", self._load),
            ("requests", self._requests),
            ("error", self._error),
            ("idle", self._idle),
        )
        at_s, shortfall = began_s, None
        for name, step in steps:
            on_phase(name)
            did: list[str] = []
            try:
                step(did)
            except (EngineFailed, OSError, http.client.HTTPException) as failure:
                shortfall = _said(failure)
            now_s = time.time()
            self.phases.append(Phase(name, at_s, now_s, tuple(did), shortfall))
            at_s = now_s
            if shortfall is not None:
                break
        on_phase("shutdown")
        end = self._stack.end(self._pid)
        self.phases.append(Phase("shutdown", at_s, time.time(), ("SIGTERM",), end))

    def _import(self, did: list[str]) -> None:
        """Until it has looked at the machine and planned."""
        entry = self._stack.wait_for(frozenset({"plan", "elsewhere"}), self._start_timeout_s)
        did.append(f"planned `{entry.get('model')}`")

    def _load(self, did: list[str]) -> None:
        entry = self._stack.wait_for(frozenset({"ready"}), self._start_timeout_s)
        self._url = str(entry["url"]).removesuffix("/v1")
        did.append("ready")

    def _requests(self, did: list[str]) -> None:
        for model in self._models():
            asked = requests_for(model)
            answers = [self._ask(one, did, model) for one in asked]
            if not any(one.computes and status == 200 for one, status in zip(asked, answers, strict=True)):
                raise EngineFailed(f"nothing that `{model}` computes was answered")

    def _error(self, did: list[str]) -> None:
        models = self._models()
        for model in models:
            for one in mistakes_for(model):
                self._ask(one, did, model)
        records = sorted(self._runtime.glob("**/engine.json"))
        if not records:
            did.append("no engine of this host to kill")
        for record in records:
            pid = _engine_of(record)
            if pid is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._wait_for_another(record, pid)
            did.append("engine killed, and started again")
        for model in models:
            answers = [self._ask(one, did, model) for one in requests_for(model) if one.computes]
            if 200 not in answers:
                raise EngineFailed(f"`{model}` did not answer after its engine was killed")

    def _idle(self, did: list[str]) -> None:
        until = time.monotonic() + self._idle_s
        while (left_s := until - time.monotonic()) > 0:
            if not self._stack.is_running:
                raise EngineFailed("it ended while nothing was asked of it")
            time.sleep(min(left_s, 1.0))
        did.append(f"nothing, for {self._idle_s:g} s")

    def _wait_for_another(self, record: Path, before: int) -> None:
        deadline = time.monotonic() + _AGAIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if _engine_of(record) not in {None, before} and self._request("GET", "/ready", None)[0] == 200:
                    return
            if not self._stack.is_running:
                raise EngineFailed("it ended when its engine was killed")
            time.sleep(_EVERY_S)
        raise EngineFailed(f"no engine came back within {_AGAIN_S:g} s")

    def _models(self) -> list[str]:
        status, body = self._request("GET", "/v1/models", None)
        try:
            return [str(card["id"]) for card in json.loads(body)["data"]]
        except (ValueError, KeyError, TypeError):
            raise EngineFailed(f"its list of models is answered with {status}") from None

    def _ask(self, one: Asked, did: list[str], model: str) -> int:
        status, _ = self._request(one.method, one.path, one.body)
        did.append(f"{model}: {one.what}: {status}")
        return status

    def _request(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        parts = urlsplit(self._url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_OPEN_S)
        try:
            connection.connect()
            if connection.sock is not None:
                connection.sock.settimeout(_ANSWER_S)
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"content-type": "application/json", "connection": "close", **self._credentials}
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def phase_starts(phases: Sequence[Phase]) -> list[tuple[str, float]]:
    """Names and beginnings, for attributing what was seen."""
    return [(phase.name, phase.began_s) for phase in phases]


def _engine_of(record: Path) -> int | None:
    try:
        return int(json.loads(record.read_text(encoding="utf-8"))["engine"]["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _said(failure: Exception) -> str:
    if isinstance(failure, EngineFailed):
        return f"{failure.message}: {failure.hint}" if failure.hint else failure.message
    return f"{type(failure).__name__}: {failure}"
