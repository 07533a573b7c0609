"""Random policies, keys, headers and failures against the real process: what must not leave does not arrive.

`EGRESS_CASES` says how many requests (10,000 take some minutes), half of them sensitive by construction;
`EGRESS_LEAKS` names a file for what the detectors missed of those, by label.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.detection_quality import Share
from serving.policy.detect import Verdict
from tests.egress.cases import INSIDE, PASTED, Case, Cases, broken, random_policy, written
from tests.egress.run_of_cases import SETTINGS, Outcome, Run, judged, running, tell
from tests.support.harness import wait_until

COUNT = int(os.environ.get("EGRESS_CASES", "480"))
SEED = int(os.environ.get("EGRESS_SEED", "8"))
FAILURES = (
    "none", "vendors fail", "none", "workers are killed", "none", "a policy takes another's place",
    "workers hang", "none", "the kill switch is thrown", "the policy breaks and is mended", "none",
    "credentials are gone", "the policy is removed", "none", "no record can be written",
    "the store cannot be written", "none", "the process is killed", "vendors fail",
    "the process is killed during an answer", "none", "the store is lost",
)  # fmt: skip
"""What is broken in each part of the run, by turns."""
MOST_TRIES = 3
"""Of one request at one destination: a policy's `retries` are two at most, made where it did not take the request."""


@pytest.mark.timeout(3600)
def test_what_must_not_leave_does_not_arrive(directory: Path) -> None:
    """Verdict violations: none, by what was set, by the process's own verdict and by the detectors."""
    turns = max(len(FAILURES), COUNT // 60)
    with running(directory) as run:
        urls = {name: front.url for name, front in run.fronts.items()}
        cases = Cases(SEED)
        for turn in range(turns):
            size = COUNT * (turn + 1) // turns - COUNT * turn // turns
            _Turn(run, Random(f"{SEED}/{turn}"), urls, turn).go(FAILURES[turn % len(FAILURES)], cases, size)
        run.made.stop()
    arrived, by_number = run.arrived(), {each.case.number: each for each in run.outcomes}
    assert len(by_number) == COUNT
    wrong = [
        (_told(by_number[number]), at) for number, at in sorted(arrived.items()) if _is_wrong(by_number[number], at)
    ]
    assert not wrong, wrong
    assert run.posts() == sum(map(len, arrived.values())), "something without a mark arrived"
    assert {each.case.number for each in run.outcomes if each.status == 200} <= arrived.keys()
    _leaks(run.outcomes, arrived)


def _is_wrong(outcome: Outcome, at: list[str]) -> bool:
    """Whether a case that arrived must not have."""
    if INSIDE in at:
        return outcome.against_inside is not None or set(at) != {outcome.case.asked.destination}
    return (
        outcome.against is not None
        or set(at) != {outcome.case.asked.destination}
        or len(at) > MOST_TRIES
        or outcome.explained not in (None, "clean")
        or outcome.scanned is None
        or outcome.scanned.verdict is not Verdict.CLEAN
    )


def _told(outcome: Outcome) -> dict[str, object]:
    case = outcome.case
    return {
        "number": case.number,
        "against": (outcome.against, outcome.against_inside),
        "while": outcome.failure,
        "status": (outcome.status, outcome.code),
        "explained": outcome.explained,
        "scanned": outcome.scanned and outcome.scanned.verdict.value,
        "said": case.headers,
        "path": (case.path, case.asked.path),
    }


def _leaks(outcomes: list[Outcome], arrived: dict[int, list[str]]) -> None:
    """Count what left, see that enough did for the rest to mean something, and say what the detectors missed."""
    might = [
        each
        for each in outcomes
        if each.against is None
        and each.failure == "none"
        and each.case.asked.notes["own"]
        # what a vendor's API cannot say, or does not take, is kept by that and not by the detectors
        and each.code in (None, "stays_inside")
        and each.status in (200, 403)
    ]
    clean = [each for each in might if each.scanned is not None and each.scanned.verdict is Verdict.CLEAN]
    gone = Share(sum(each.case.number in arrived for each in clean), len(clean))
    labels = Counter(each.case.label for each in might if each.case.label)
    leaked = Counter(each.case.label for each in might if each.case.label and each.case.number in arrived)
    told: dict[str, Any] = {
        "what": "requests that were sensitive by construction and nothing but the detectors' verdict was against",
        "seed": SEED,
        "cases": len(outcomes),
        "sensitive": sum(each.case.label is not None for each in outcomes),
        "arrived": sum(INSIDE not in at for at in arrived.values()),
        "arrived_inside": sum(INSIDE in at for at in arrived.values()),
        "violations": 0,
        "against": dict(Counter(str(each.against) for each in outcomes).most_common()),
        "answers": dict(Counter(f"{each.status} {each.code or ''}".strip() for each in outcomes).most_common()),
        "clean_that_left": gone.as_json(),
        "leaked": Share(sum(leaked.values()), sum(labels.values())).as_json(),
        "by_label": {label: Share(leaked[label], labels[label]).as_json() for label in sorted(labels)},
    }
    file = os.environ.get("EGRESS_LEAKS")
    if file:
        Path(file).write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps({name: value for name, value in told.items() if name != "by_label"}))  # noqa: T201
    assert clean
    assert any(INSIDE in at for at in arrived.values()), "some were for the server inside"
    assert (gone.value or 0) > 0.8, told  # a busy machine may end some scans


class _Turn:
    """One part of the run: a policy, a cache domain with texts in it that were sensitive, and something that breaks."""

    def __init__(self, run: Run, dice: Random, urls: dict[str, str], number: int) -> None:
        self._run = run
        self._dice = dice
        self._urls = urls
        self._number = number
        self._policy = random_policy(dice, urls)
        self._shared, self._waiting = f"shared-{number}", f"waiting-{number}"

    def go(self, failure: str, cases: Cases, size: int) -> None:
        """Send so many cases."""
        run, dice = self._run, self._dice
        if failure != "none":  # one by which something may leave, or nothing would be shown
            while not _is_open(self._policy):
                self._policy = random_policy(dice, self._urls)
        texts = tuple(PASTED.format(f"{self._number}-{at}") for at in range(2))
        for text, is_answer in zip(texts, (False, True), strict=True):
            seen = judged(run, "" if is_answer else text, self._shared)
            tell(run, seen, text if is_answer else "Done.", self._shared)
        waiting = judged(run, "", self._waiting)
        run.change(run.site.but(policy=self._policy), lambda: run.made.write_policy(written(self._policy)))
        drawn = [
            cases.draw(
                dice,
                self._policy,
                shared=self._shared,
                tainted=texts,
                fails=failure == "vendors fail",
                waiting=self._waiting,
                fair=dice.random() < (0.4 if failure == "none" else 0.7),
            )
            for _ in range(size)
        ]
        acts: dict[str, Callable[[list[Case]], None]] = {
            "workers are killed": self._killing_workers,
            "workers hang": self._hanging_workers,
            "a policy takes another's place": self._another_policy,
            "the kill switch is thrown": self._switch,
            "the policy breaks and is mended": self._broken_policy,
            "the policy is removed": self._no_policy,
            "credentials are gone": self._no_credentials,
            "no record can be written": self._no_record,
            "the store cannot be written": self._no_store,
        }
        if failure in ("the process is killed during an answer", "the process is killed", "the store is lost"):
            if failure != "the process is killed during an answer":
                tell(run, waiting, "Done.", self._waiting)
            self._killed(drawn, failure)
            return
        if failure in acts:
            acts[failure](drawn)
        else:
            run.send(drawn, failure)
        if failure != "the store cannot be written":
            tell(run, waiting, "Done.", self._waiting)

    def _killing_workers(self, drawn: list[Case]) -> None:
        enough = threading.Event()
        thread = threading.Thread(target=self._run.kill_workers, args=(enough,))
        thread.start()
        try:
            self._run.send(drawn, "workers are killed")
        finally:
            enough.set()
            thread.join()

    def _hanging_workers(self, drawn: list[Case]) -> None:
        """Both, until they are ended for it."""
        for pid in self._run.children("serving.egress.worker"):
            os.kill(pid, signal.SIGSTOP)
        self._run.send(drawn, "workers hang")

    def _another_policy(self, drawn: list[Case]) -> None:
        run = self._run
        another = random_policy(self._dice, self._urls)
        run.send(
            drawn,
            "a policy takes another's place",
            lambda: run.change(run.site.but(policy=another), lambda: run.made.write_policy(written(another))),
        )

    def _switch(self, drawn: list[Case]) -> None:
        run = self._run

        def throw() -> None:
            run.change(run.site.but(is_thrown=True), run.made.switch.touch)

        run.send(drawn, "the kill switch is thrown", throw)
        run.change(run.site.but(is_thrown=False), run.made.switch.unlink)

    def _broken_policy(self, drawn: list[Case]) -> None:
        run = self._run
        half = len(drawn) // 2
        text = broken(self._dice, self._policy)
        run.change(run.site.but(policy=None), lambda: run.made.write_policy(text))

        def mend() -> None:
            run.change(run.site.but(policy=self._policy), lambda: run.made.write_policy(written(self._policy)))

        run.send(drawn[:half], "the policy breaks and is mended")
        run.send(drawn[half:], "the policy breaks and is mended", mend)

    def _no_policy(self, drawn: list[Case]) -> None:
        """Removed, or a directory in its place."""
        run = self._run

        def remove() -> None:
            run.made.policy.unlink()
            if self._dice.random() < 0.5:
                run.made.policy.mkdir()

        run.send(drawn, "the policy is removed", lambda: run.change(run.site.but(policy=None), remove))
        if run.made.policy.is_dir():
            run.made.policy.rmdir()

    def _no_credentials(self, drawn: list[Case]) -> None:
        """One is gone or a link, the other may be read by others; from the middle on."""
        run, places = self._run, self._run.made.directory / "credentials"
        kept = (places / "alpha").read_bytes()

        def spoil() -> None:
            (places / "alpha").unlink()
            if self._dice.random() < 0.5:
                (places / "alpha").symlink_to(places / "vendor")
            (places / "beta").chmod(0o640)

        run.send(drawn, "credentials are gone", lambda: run.change(run.site.but(credentials=frozenset()), spoil))
        (places / "alpha").unlink(missing_ok=True)
        (places / "alpha").write_bytes(kept)
        (places / "alpha").chmod(0o600)
        (places / "beta").chmod(0o600)
        run.change(run.site.but(credentials=frozenset({"alpha", "beta"})))

    def _no_record(self, drawn: list[Case]) -> None:
        """The audit's writer cannot write a byte, from the middle on."""
        run = self._run

        def fill() -> None:
            for pid in run.children("serving.audit"):
                run.bound(pid, 1)

        run.send(drawn, "no record can be written", lambda: run.change(run.site.but(is_on_record=False), fill))
        run.restart()
        run.change(run.site.but(is_on_record=True))

    def _no_store(self, drawn: list[Case]) -> None:
        """A sensitive text could not be kept; what comes then stays."""
        run = self._run
        half = len(drawn) // 2
        run.send(drawn[:half], "the store cannot be written")
        assert run.made.process is not None
        run.bound(run.made.process.pid, 1)
        judged(run, "", f"lost-{self._number}")
        run.change(run.site.but(is_store_well=False))
        run.send(drawn[half:], "the store cannot be written")
        self._begin_anew()

    def _killed(self, drawn: list[Case], failure: str) -> None:
        """In the middle of it, and started again: with a hole, without one, or with the store's marker gone."""
        run = self._run
        is_well = failure == "the process is killed"

        def kill() -> None:
            run.made.stop(kill=True)
            if failure == "the store is lost":
                self._spoil(run.made.directory / "taint")
            run.change(run.site.but(is_store_well=is_well), lambda: run.made.start(more=SETTINGS))

        half = len(drawn) // 2
        run.send(drawn[:half], failure, kill)
        run.send(drawn[half:], failure)
        if not is_well:
            self._begin_anew()

    def _spoil(self, store: Path) -> None:
        kind = self._dice.randrange(3)
        largest = max(store.iterdir(), key=lambda each: each.stat().st_size)
        if kind == 0:
            (store / "marker").unlink()
        elif kind == 1:
            os.truncate(largest, largest.stat().st_size // 2)
        else:
            store.rename(store.with_name(f"away-{self._number}"))

    def _begin_anew(self) -> None:
        run = self._run
        run.restart(is_begun=True)
        run.change(run.site.but(is_store_well=True))
        wait_until(lambda: run.made.ask("/explain", b"{}").status != 0, "it answers")


def _is_open(policy: dict[str, Any]) -> bool:
    """Whether it has nothing against everything."""
    return (
        policy["cloud"] == "on"
        and policy["detection"]["required"] == ["numbers"]
        and "chat.completions" in policy["endpoints"]
    )
