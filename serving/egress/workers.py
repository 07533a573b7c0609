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
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

from serving.policy.detect import Finding, Part, Span, Verdict

log = logging.getLogger(__name__)
_HEAD: Final = 4
FAILURES: Final = ("detector_failed", "timeout")
"""Reasons of a verdict that another scan may not have."""
_CACHED: Final = 4096
_FEW: Final = 64
"""Places in a finding that is remembered."""
_START_S: Final = 60.0
"""For a worker to come up, models of names and all."""


def told(parts: Sequence[Part]) -> bytes:
    """Parts as a worker is sent them."""
    return _framed([[part.where, part.text, part.unread] for part in parts])


def written(finding: Finding) -> bytes:
    """A finding as a worker sends it."""
    spans = [[each.where, each.start, each.end, each.label, each.detector] for each in finding.spans]
    return _framed({"verdict": finding.verdict.value, "spans": spans, "reasons": list(finding.reasons)})


def read_parts(value: Any) -> tuple[Part, ...]:
    """What `told` was given."""
    return tuple(Part(where, text, unread) for where, text, unread in value)


def read_finding(value: Any) -> Finding:
    """What `written` was given. Raises ValueError, TypeError, KeyError for anything else."""
    spans = tuple(Span(*each) for each in value["spans"])
    return Finding(Verdict(value["verdict"]), spans, tuple(map(str, value["reasons"])))


def unknown(reason: str) -> Finding:
    """Nobody could say."""
    return Finding(Verdict.UNKNOWN, (), (reason,))


class Scanners:
    """A few workers, and what they have found before."""

    def __init__(self, argv: Sequence[str], count: int, timeout_s: float) -> None:
        """`argv` is a worker's command line; a scan that takes longer than `timeout_s` is UNKNOWN."""
        self._argv = tuple(argv)
        self._timeout_s = timeout_s
        self._free: asyncio.Queue[_Worker] = asyncio.Queue()
        self._all = [_Worker(self._argv) for _ in range(count)]
        self._key = secrets.token_bytes(32)
        self._found: OrderedDict[bytes, Finding] = OrderedDict()
        self.detectors: frozenset[str] = frozenset()
        """Those that every scan asks."""

    async def scan(self, parts: Sequence[Part]) -> Finding:
        """What is in the parts. Never raises: what goes wrong is UNKNOWN, and is not remembered."""
        message = told(parts)
        mark = hashlib.blake2b(message, key=self._key, digest_size=32).digest()
        known = self._found.get(mark)
        if known is not None:
            self._found.move_to_end(mark)
            return known
        try:
            async with asyncio.timeout(self._timeout_s), self._borrowed() as worker:
                finding = read_finding(await worker.ask(message))
        except TimeoutError:
            return unknown("timeout:scan")
        except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
            log.error("a scan failed", extra={"reason": type(error).__name__})  # noqa: TRY400 - traces hold texts
            return unknown("detector_failed:worker")
        if len(finding.spans) <= _FEW and not any(each.startswith(FAILURES) for each in finding.reasons):
            self._found[mark] = finding
            while len(self._found) > _CACHED:
                self._found.popitem(last=False)
        return finding

    async def start(self) -> None:
        """Begin all workers, and wait until they can scan. Raises TimeoutError, OSError, EOFError."""
        async with asyncio.timeout(_START_S):
            started = await asyncio.gather(*(worker.start() for worker in self._all))
        self.detectors = frozenset.intersection(*started)
        for worker in self._all:
            self._free.put_nowait(worker)

    async def close(self) -> None:
        """End them."""
        await asyncio.gather(*(worker.end() for worker in self._all))

    @contextlib.asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[_Worker]:
        """A worker for one scan; one that did not come to an answer is ended, and another begun in its place."""
        worker = await self._free.get()
        is_sound = False
        try:
            yield worker
            is_sound = True
        finally:
            if not is_sound:
                worker.kill()
            self._free.put_nowait(worker)


class _Worker:
    """One process."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        self._argv = argv
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> frozenset[str]:
        """Begin it, and wait for its first word: the detectors that it has."""
        environment = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2])}
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment, cwd="/"
        )
        return frozenset(read_finding(await self._read(self._process)).reasons)

    async def ask(self, message: bytes) -> Any:
        """Its answer. Raises OSError, EOFError, ValueError."""
        if self._process is None or self._process.returncode is not None:
            await self.start()
        process = self._process
        if process is None or process.stdin is None:
            raise EOFError
        process.stdin.write(message)
        await process.stdin.drain()
        return await self._read(process)

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

    async def _read(self, process: asyncio.subprocess.Process) -> Any:
        if process.stdout is None:
            raise EOFError
        length = int.from_bytes(await process.stdout.readexactly(_HEAD), "little")
        return json.loads(await process.stdout.readexactly(length))


def command(settings: str) -> list[str]:
    """The command line of a worker that scans as these settings say, which are JSON (`worker`)."""
    return [sys.executable, "-P", "-m", "serving.egress.worker", settings]


def _framed(value: object) -> bytes:
    raw = json.dumps(value, separators=(",", ":")).encode()
    return len(raw).to_bytes(_HEAD, "little") + raw
