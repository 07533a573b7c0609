"""Sends cases to the real process by several connections, while things are changed and break, and says what arrived."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.egress.process import begin_taint
from serving.egress.rooms import Rooms
from serving.policy.detect import Finding, Scanner, Verdict, parts_of
from tests.egress.cases import INSIDE, MARK, VENDORS, Case, number_of
from tests.egress.conftest import SENSITIVE, Outside, body_of, outside
from tests.egress.rule import Site, why_not, why_not_inside
from tests.support.harness import wait_until
from tests.support.tls_front import TlsFront
from tests.support.vendors.openai_api import OpenAIServer
from tests.support.vendors.server import KEY, Fail, Received, Say

THREADS = 4
AGAIN = ("timeout", "detector_failed", "policy:changed")
"""Why a scan came to nothing that may come to something the next time."""


class Vendors(OpenAIServer):
    """Does with each request what its case says."""

    def __init__(self) -> None:
        super().__init__()
        self.acts: dict[int, Say | Fail] = {}

    def act(self, request: Received) -> Say | Fail:
        """By the mark in it."""
        found = MARK.search(request.body)
        return self.acts.get(number_of(found[1]), Say()) if found else super().act(request)


@dataclass
class Outcome:
    """What became of a case."""

    case: Case
    status: int | None
    """None: nobody answered."""
    code: str | None
    against: str | None
    """Why it must not have left, by how things stood meanwhile; None where it might."""
    against_inside: str | None
    """Why it must not have been sent to a server inside; None where it might."""
    failure: str
    """What was broken in its part of the run."""
    explained: str | None = None
    """The process's own verdict, asked behind it."""
    scanned: Finding | None = None
    """What the detectors say of the request, asked in this process; only of what may have left."""


@dataclass
class Run:
    """A process, its vendors, how everything stands, and what became of the cases."""

    made: Outside
    fronts: dict[str, TlsFront]
    site: Site
    outcomes: list[Outcome] = field(default_factory=list)
    _standing: list[tuple[float, float, Site]] = field(default_factory=list)
    """From when on a change was begun, when it was done, and how things stood then."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _scanner: Scanner = field(default_factory=Scanner)
    _done: int = 0

    # How things stand

    def change(self, site: Site, act: Callable[[], object] = lambda: None) -> None:
        """Do something by which things stand so."""
        began = time.monotonic()
        act()
        with self._lock:
            self.site = site
            self._standing.append((began, time.monotonic(), site))

    def sites(self, begin: float, end: float) -> list[Site]:
        """How things stood at some time between the two."""
        with self._lock:
            standing = list(self._standing)
        ends = [done for _, done, _ in standing[1:]] + [float("inf")]
        return [site for (began, _, site), until in zip(standing, ends, strict=True) if began <= end and until >= begin]

    # Sending

    def send(self, cases: list[Case], failure: str, halfway: Callable[[], object] | None = None) -> None:
        """All of them; `halfway` is done once half of them have been answered."""
        self._done = 0
        reached = threading.Event()

        def one(case: Case) -> None:
            outcome = self._one(case, failure)
            with self._lock:
                self.outcomes.append(outcome)
                self._done += 1
                if self._done >= len(cases) // 2:
                    reached.set()

        with ThreadPoolExecutor(THREADS) as pool:
            waiting = [pool.submit(one, case) for case in cases]
            if halfway is not None:
                assert reached.wait(120)
                halfway()
            for each in waiting:
                each.result()

    def _one(self, case: Case, failure: str) -> Outcome:
        assert isinstance(self.made.emulator, Vendors)
        self.made.emulator.acts[case.number] = case.act
        begin = time.monotonic()
        status, told = self._post(case.path, case)
        end = time.monotonic()
        with contextlib.suppress(ValueError, KeyError, TypeError):
            told = json.loads(told)["error"]["code"]
        code = told if isinstance(told, str) else None
        today = datetime.now(UTC).date()
        against = [why_not(case.asked, site, today) for site in self.sites(begin, end)]
        inside = [why_not_inside(case.asked, site) for site in self.sites(begin, end)]
        not_out, not_in = (None if None in each else each[0] for each in (against, inside))
        outcome = Outcome(case, status, code, not_out, not_in, failure)
        if status in (200, None) or code in (None, "destination_unavailable") or not outcome.against:
            outcome.scanned = self._scanner.scan(parts_of(case.asked.body))
        if status == 200:
            outcome.explained = self._explained(case)
        return outcome

    def _explained(self, case: Case) -> str | None:
        """The verdict on it now; None where none could be had, since something is broken."""
        headers = tuple(each for each in case.headers if each[0] != "x-egress-path")
        for _ in range(3):
            status, raw = self._post("/explain", case, (*headers, ("x-egress-path", case.asked.path)))
            if status != 200:
                return None
            told = json.loads(raw)["explained"]
            if (
                told["verdict"] != "unknown"
                or "not_installed" in raw.decode()
                or not any(each in raw.decode() for each in AGAIN)
            ):
                return str(told["verdict"]) if "not_installed" not in raw.decode() else None
        return None

    def _post(
        self, path: str, case: Case, headers: tuple[tuple[str, str], ...] | None = None
    ) -> tuple[int | None, Any]:
        connection = http.client.HTTPConnection("localhost", timeout=60)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.made.socket))
            given = {"content-type": "application/json", **dict(headers or case.headers)}
            connection.request("POST", path, case.raw, given)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None, b""
        finally:
            connection.close()

    # Breaking

    def restart(self, *, kill: bool = False, is_begun: bool = False) -> None:
        """End the process and start another; `is_begun`: the store of sensitive texts is begun again before."""
        self.made.stop(kill=kill)
        if is_begun:
            begin_taint(Rooms(self.made.directory, self.made.socket, self.made.directory / "credentials"))
        self.made.start(more=SETTINGS)

    def bound(self, pid: int, size: int) -> None:
        """Let a process write no file beyond `size` bytes, as if its disk were full; -1: as before."""
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def children(self, name: str) -> list[int]:
        """The process's children that run that module."""
        assert self.made.process is not None
        argv = ["ps", "--no-headers", "-o", "pid,args", "--ppid", str(self.made.process.pid)]
        lines = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()
        return [int(line.split()[0]) for line in lines if name in line]

    def kill_workers(self, until: threading.Event) -> None:
        """All of them, again and again: they are held until something waits for them, and killed in the midst."""
        while not until.wait(0.02):
            workers = self.children("serving.egress.worker")
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in workers:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                until.wait(0.05)

    # What arrived

    def arrived(self) -> dict[int, list[str]]:
        """Of each case, at which vendors' sockets its mark was seen, and how often."""
        found: dict[int, list[str]] = {}
        for name, front in self.fronts.items():
            for heard in front.heard:
                for mark in MARK.finditer(bytes(heard)):
                    found.setdefault(number_of(mark[1]), []).append(name)
        return found

    def posts(self) -> int:
        """Requests that arrived anywhere, whatever was in them."""
        return sum(bytes(heard).count(b"POST /") for front in self.fronts.values() for heard in front.heard)


SETTINGS = "workers = 2\nscan_timeout_s = 3\n"


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Run]:
    """Everything runs, and nothing has been sent."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(outside(directory, Vendors()))
        pki = directory / "pki"
        fronts = {
            name: stack.enter_context(TlsFront(made.emulator.origin, pki / "vendor.pem", pki / "vendor.key", keep=True))
            for name in (*VENDORS, INSIDE)
        }
        for name in (*VENDORS, INSIDE):
            credential = directory / "credentials" / name
            credential.write_text(KEY)
            credential.chmod(0o600)
        made.start(more=SETTINGS)
        site = Site(None, detectors=frozenset({"numbers", *Scanner().detectors}), credentials=frozenset(VENDORS))
        run = Run(made, fronts, site)
        run.change(site)
        yield run


def judged(run: Run, text: str, domain: str) -> dict[str, Any]:
    """A sensitive request of that domain, seen by the process; its answer is awaited from then on."""
    ask = run.made.own.__class__(request="seed", principal="team", key="k1", domain=domain, asked_local=True)
    told: dict[str, Any] = {}

    def is_heard() -> bool:
        nonlocal told
        answer = run.made.ask("/judge", body_of(f"{SENSITIVE} {text}"), ask, {"x-egress-path": "/v1/chat/completions"})
        told = answer.json if answer.status == 200 else {}
        return bool(told.get("answer")) and told["verdict"] == Verdict.SENSITIVE.value

    wait_until(is_heard, "a sensitive request is seen", 20)
    return told


def tell(run: Run, told: dict[str, Any], text: str, domain: str) -> None:
    """Its answer."""
    ask = run.made.own.__class__(request="seed", principal="team", key="k1", domain=domain, asked_local=True)
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
    assert run.made.ask("/remember", answer, ask, {"x-egress-answer": told["answer"]}).status == 200
