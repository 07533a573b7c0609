"""Scanning in processes of its own: whatever a detector does, nobody's stream waits for it, and it can be ended."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import signal
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from serving.policy.detect import Finding, Part, Span, Verdict
from serving.policy.model import Policy
from serving.telemetry.logs import facts

log = logging.getLogger(__name__)
_HEAD: Final = 4
FAILURES: Final = ("detector_failed", "timeout", "policy")
"""Reasons of a verdict that another scan may not have."""
_CACHED: Final = 4096
_FEW: Final = 64
"""Places in a finding that is remembered."""
_START_S: Final = 60.0
"""For a worker to come up, models of names and all."""
_PAUSE_S: Final = 1.0
"""Until one that did not is begun again."""
COMMAND: Final = (sys.executable, "-P", "-m", "serving.egress.worker")
"""Of a worker. Command lines can be read by everybody: what it is to look for comes another way."""


def told(parts: Sequence[Part], owner: str) -> bytes:
    """Parts as a worker is sent them, and whose they are."""
    return _framed([owner, [[part.where, part.text, part.unread] for part in parts]])


def written(finding: Finding) -> bytes:
    """A finding as a worker sends it."""
    spans = [[each.where, each.start, each.end, each.label, each.detector] for each in finding.spans]
    return _framed({"verdict": finding.verdict.value, "spans": spans, "reasons": list(finding.reasons)})


def read_parts(value: Any) -> tuple[tuple[Part, ...], str]:
    """What `told` was given. Raises ValueError, TypeError for anything else."""
    owner, parts = value
    return tuple(Part(where, text, unread) for where, text, unread in parts), str(owner)


def read_finding(value: Any) -> Finding:
    """What `written` was given. Raises ValueError, TypeError, KeyError for anything else."""
    spans = tuple(Span(*each) for each in value["spans"])
    return Finding(Verdict(value["verdict"]), spans, tuple(map(str, value["reasons"])))


def unknown(reason: str) -> Finding:
    """Nobody could say."""
    return Finding(Verdict.UNKNOWN, (), (reason,))


def with_reasons(finding: Finding, reasons: Iterable[str]) -> Finding:
    """The finding, where something else could not be read or asked: no longer CLEAN."""
    whole = (*finding.reasons, *sorted(set(reasons) - set(finding.reasons)))
    verdict = Verdict.UNKNOWN if whole and finding.verdict is Verdict.CLEAN else finding.verdict
    return Finding(verdict, finding.spans, whole)


def settings_of(policy: Policy, most_chars: int) -> bytes:
    """What a policy wants of a scan, as a worker is sent it: on its standard input, where nobody else reads."""
    return _framed(
        {
            "most_chars": most_chars,
            "names": "names" in policy.detectors,
            "terms": {each.name: each.texts for each in policy.words if each.kind == "terms"},
            "patterns": {each.name: each.texts[0] for each in policy.words if each.kind == "pattern"},
        }
    )


class Scanners:
    """A few workers, and what they have found before under the policy that is in force."""

    def __init__(self, count: int, timeout_s: float, most_chars: int, elsewhere: frozenset[str] = frozenset()) -> None:
        """A scan that takes longer than `timeout_s` is UNKNOWN; detectors that are `elsewhere` are not missing here."""
        self._timeout_s = timeout_s
        self._most_chars = most_chars
        self._elsewhere = elsewhere
        self._free: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        """The one that scanned last is asked next: it remembers most of what is asked about again."""
        self._all = [_Worker() for _ in range(count)]
        self._key = secrets.token_bytes(32)
        self._found: OrderedDict[bytes, tuple[Finding, frozenset[str]]] = OrderedDict()
        """With the detectors that were asked."""
        self._beginning: set[asyncio.Task[None]] = set()
        self._detection: object = None
        self._settings = b""

    async def scan(self, parts: Sequence[Part], policy: Policy, owner: str) -> Finding:
        """What is in the parts, by this policy. Never raises: what goes wrong is UNKNOWN, and is not remembered.

        What is remembered of the texts of one `owner`, a cache domain, is not used for another: who measures how long
        a scan takes would learn what others have sent.
        """
        settings = self._settings_for(policy)
        message = told(parts, owner)
        mark = hashlib.blake2b(settings + message, key=self._key, digest_size=32).digest()
        finding, asked = self._found.get(mark) or (None, frozenset[str]())
        if finding is None:
            try:
                async with asyncio.timeout(self._timeout_s), self._borrowed() as worker:
                    finding = read_finding(await worker.ask(message, settings))
                    asked = worker.detectors
            except TimeoutError:
                return unknown("timeout:scan")
            except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
                log.error("a scan failed", extra=facts(reason=type(error).__name__))  # noqa: TRY400 - traces hold texts
                return unknown("detector_failed:worker")
            if len(finding.spans) <= _FEW and not any(each.startswith(FAILURES) for each in finding.reasons):
                self._found[mark] = finding, asked
                while len(self._found) > _CACHED:
                    self._found.popitem(last=False)
        else:
            self._found.move_to_end(mark)
        missing = frozenset(policy.detectors) - asked - self._elsewhere
        return with_reasons(finding, (f"not_installed:{name}" for name in missing))

    def _settings_for(self, policy: Policy) -> bytes:
        """What the workers are told; what was found by other words or detectors is forgotten."""
        if policy.detection != self._detection:
            self._found.clear()
            self._detection, self._settings = policy.detection, settings_of(policy, self._most_chars)
        return self._settings

    async def start(self, policy: Policy) -> None:
        """Begin all workers, and wait until they can scan. Raises TimeoutError, OSError, EOFError, ValueError."""
        settings = self._settings_for(policy)
        async with asyncio.timeout(_START_S):
            await asyncio.gather(*(worker.start(settings) for worker in self._all))
        for worker in self._all:
            self._free.put_nowait(worker)

    async def close(self) -> None:
        """End them."""
        for each in self._beginning:
            each.cancel()
        await asyncio.gather(*(worker.end() for worker in self._all))

    @contextlib.asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[_Worker]:
        """A worker for one scan; one that did not come to an answer is ended, and another begun in its place.

        No scan waits for that, since models of names may take longer to read than a scan may.
        """
        worker = await self._free.get()
        is_sound = False
        try:
            yield worker
            is_sound = True
        finally:
            if is_sound:
                self._free.put_nowait(worker)
            else:
                worker.kill()
                task = asyncio.create_task(self._begin_again(worker))
                self._beginning.add(task)
                task.add_done_callback(self._beginning.discard)

    async def _begin_again(self, worker: _Worker) -> None:
        while True:
            try:
                async with asyncio.timeout(_START_S):
                    await worker.start(self._settings)
                break
            except (TimeoutError, OSError, EOFError, ValueError) as error:
                log.error("no scanner comes up", extra=facts(reason=type(error).__name__))  # noqa: TRY400 - no texts
                worker.kill()
                await asyncio.sleep(_PAUSE_S)
        self._free.put_nowait(worker)


class _Worker:
    """One process."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._settings = b""
        """What it scans by."""
        self.detectors: frozenset[str] = frozenset()
        """Those that each of its scans asks."""

    async def start(self, settings: bytes) -> None:
        """Begin it where it does not run, and have it scan by these settings.

        Raises OSError, EOFError, ValueError.
        """
        if self._process is None or self._process.returncode is not None:
            environment = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2])}
            self._process = await asyncio.create_subprocess_exec(
                *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment, cwd="/"
            )
        self._settings = b""
        self.detectors = frozenset(read_finding(await self._told(self._process, settings)).reasons)
        self._settings = settings

    async def ask(self, message: bytes, settings: bytes) -> Any:
        """Its answer by these settings. Raises OSError, EOFError, ValueError."""
        if self._process is None or self._process.returncode is not None or self._settings != settings:
            await self.start(settings)
        if self._process is None:
            raise EOFError
        return await self._told(self._process, message)

    def kill(self) -> None:
        """End it at once; the next one that asks begins another."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)

    async def end(self) -> None:
        """End it, and wait for that."""
        process = self._process
        self.kill()
        if process is not None:
            await process.wait()

    async def _told(self, process: asyncio.subprocess.Process, message: bytes) -> Any:
        if process.stdin is None or process.stdout is None:
            raise EOFError
        process.stdin.write(message)
        await process.stdin.drain()
        length = int.from_bytes(await process.stdout.readexactly(_HEAD), "little")
        return json.loads(await process.stdout.readexactly(length))


def _framed(value: object) -> bytes:
    raw = json.dumps(value, separators=(",", ":")).encode()
    return len(raw).to_bytes(_HEAD, "little") + raw
