"""What the egress process finds out about a request by itself, and what it decides from that."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from serving.egress.asking import Ask
from serving.egress.breaker import Circuit, begun, ended, left, lets_through
from serving.egress.classifier import MODEL, Classifier
from serving.egress.texts import every_text
from serving.egress.workers import FAILURES, Scanners, with_reasons
from serving.errors import InvalidRequest, ServingError
from serving.policy.body import complexity_of, fields_of, texts_of
from serving.policy.decide import Decision, decide
from serving.policy.detect import Finding, Part, Verdict, parts_of
from serving.policy.facts import Facts, Found, Published, Taint, taints
from serving.policy.load import load_policy
from serving.policy.model import Destination, Policy
from serving.policy.taint_store import TaintStore
from serving.policy.words import named_files
from serving.telemetry.logs import facts

log = logging.getLogger(__name__)
ROUTES: Final[Mapping[str, str]] = {
    "/v1/chat/completions": "chat.completions",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}
"""What may leave at all, by path, as the policy calls it."""


_Stamp = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Judged:
    """One request, looked at."""

    facts: Facts
    decision: Decision
    finding: Finding


class PolicyFile:
    """The policy as the file has it now; one that cannot be read is one by which nothing leaves."""

    def __init__(self, path: Path, on_change: Callable[[Policy], None] = lambda _: None) -> None:
        """`on_change` is called with each policy before it is in force. Raises BadSettings, FileMissing."""
        self._path = path
        self._on_change = on_change
        self._own: _Stamp = None
        self._files: tuple[Path, ...] = ()
        self.is_usable = True
        """False: what the file says now cannot be used, and what it said before is not to be believed."""
        self._seen = self._stamp()
        self._policy = load_policy(path)
        on_change(self._policy)

    def read(self) -> Policy:
        """The policy in force; read again where the file has changed. Never raises."""
        stamp = self._stamp()
        if stamp != self._seen:
            try:
                policy = load_policy(self._path)
                self._on_change(policy)
                self.is_usable = True
            except ServingError as error:
                log.error("nothing leaves: the policy cannot be used", extra=facts(reason=error.message))  # noqa: TRY400
                policy = replace(self._policy, cloud=False)
                self.is_usable = False
            self._seen, self._policy = stamp, policy
        return self._policy

    def _stamp(self) -> tuple[_Stamp, ...]:
        """What tells whether the policy, or a file of words that it names, has changed."""
        own = _stamp_of(self._path)
        if own != self._own:
            self._own, self._files = own, named_files(self._path)
        return (own, *map(_stamp_of, self._files))


def _stamp_of(path: Path) -> _Stamp:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_mode


class Judge:
    """Looks at requests, remembers what was sensitive, and knows how the destinations are."""

    def __init__(
        self,
        policy: PolicyFile,
        scanners: Scanners,
        store: TaintStore,
        published: tuple[Published, ...],
        switch: Path,
        classifier: Classifier | None = None,
    ) -> None:
        """`switch` is the kill switch: nothing leaves while there is a file of that name."""
        self._classifier = classifier
        self._policy = policy
        self._scanners = scanners
        self._store = store
        self._published = published
        self._switch = switch
        self._circuits: dict[str, Circuit] = {}
        self._answering: dict[str, set[int]] = {}
        """Of each domain, the answers to sensitive requests that are being given."""

    @property
    def policy(self) -> Policy:
        """The one in force."""
        return self._policy.read()

    @property
    def is_open(self) -> bool:
        """Whether anything may leave now: neither the policy nor the kill switch keeps all of it."""
        return self.policy.cloud and not os.path.lexists(self._switch)

    async def judge(self, path: str, body: dict[str, object], ask: Ask, sent: object = None) -> Judged:
        """Look at a request, and decide; `sent` is the parsed body that would leave, where there is one already.

        A verdict is the worse of what the request holds and what would be sent. Raises InvalidRequest for what is
        nested too deeply to be read at all.
        """
        if texts_of(body) is None:
            raise InvalidRequest("the request is nested too deeply to be read")
        before = self.policy
        finding = await self._scan(body, sent, before)
        taint = await self._look(body, ask.domain)
        policy = self.policy  # as it is now: the scan took its time
        if policy.detection != before.detection or not self._policy.is_usable:
            finding = with_reasons(finding, ["policy:changed"])
        facts = Facts(
            decider="gateway" if sent is None else "egress",
            attempt=ask.attempt,
            route=ROUTES.get(path, path),
            fields=fields_of(body),
            model=str(body.get("model")),
            classes=ask.classes,
            residency=ask.residency,
            asked_local=ask.asked_local,
            found=Found(finding.verdict, finding.labels, finding.reasons),
            taint=taint,
            published=self._published,
            complexity=complexity_of(body),
            budget=ask.budget,
            cloud_open=self.is_open,
            healthy=self._healthy(policy),
            local=True,
            today=datetime.now(UTC).date(),
            only=ask.destination,
        )
        return Judged(facts, decide(facts, policy), finding)

    async def _look(self, body: dict[str, object], domain: str) -> Taint:
        """Whether something of it was sensitive. While such a request is being answered nobody knows what is read."""
        texts = _all_texts(body)
        seek = self._store.fingerprinter(domain).seek
        taint = await asyncio.to_thread(lambda: self._store.look(None if texts is None else seek(texts)))
        return Taint.UNKNOWN if taint is Taint.NONE and self._answering.get(domain) else taint

    async def remember(self, body: dict[str, object], domain: str) -> None:
        """Remember the texts of a sensitive request."""
        texts = _all_texts(body)
        await asyncio.to_thread(
            lambda: self._store.add(None if texts is None else self._store.fingerprinter(domain).keep(texts))
        )

    async def await_answer(self, domain: str) -> int:
        """An answer to a sensitive request begins: the number under which it is to be remembered."""
        number = await asyncio.to_thread(self._store.open_answer)
        self._answering.setdefault(domain, set()).add(number)
        return number

    async def remember_answer(self, texts: tuple[str, ...] | None, domain: str, number: int) -> None:
        """Remember the answer to a sensitive request; None is one that could not be read."""

        def keep() -> None:
            kept = None if texts is None else self._store.fingerprinter(domain).keep(texts)
            self._store.add(kept, closes=number)

        await asyncio.to_thread(keep)
        self._answering.get(domain, set()).discard(number)

    def is_sensitive(self, judged: Judged) -> bool:
        """Whether its texts and its answer are to be remembered."""
        return taints(judged.facts)

    def keeps_texts(self, judged: Judged) -> bool:
        """Whether the texts of the request itself are: not where a scan only failed, for they will be scanned again."""
        has_failed = all(each.startswith(FAILURES) for each in judged.finding.reasons)
        is_unread = judged.finding.verdict is Verdict.UNKNOWN and judged.finding.reasons and has_failed
        return self.is_sensitive(judged) and not (is_unread and judged.facts.taint is not Taint.TAINTED)

    # How the destinations are

    def began(self, to: Destination) -> None:
        """A request is being sent there."""
        self._circuits[to.name] = begun(self._circuits.get(to.name, Circuit()))

    def ended(self, to: Destination, *, is_well: bool | None) -> None:
        """It has ended; None: nobody knows how the destination is."""
        circuit = self._circuits.get(to.name, Circuit())
        if is_well is None:
            self._circuits[to.name] = left(circuit)
        else:
            self._circuits[to.name] = ended(circuit, to.breaker, time.monotonic(), is_well=is_well)

    def _healthy(self, policy: Policy) -> frozenset[str]:
        now = time.monotonic()
        return frozenset(
            each.name
            for each in policy.destinations
            if lets_through(self._circuits.get(each.name, Circuit()), each.breaker, now)
        )

    async def _scan(self, body: dict[str, object], sent: object, policy: Policy) -> Finding:
        asked: tuple[Part, ...] = parts_of(body)
        leaving: tuple[Part, ...] = () if sent is None else every_text(sent)
        finding = await self._scanners.scan(asked + leaving, policy)
        if self._classifier is None:
            return finding
        return await self._classifier.add(finding, (asked, leaving), is_required=MODEL in policy.detectors)


def _all_texts(body: dict[str, object]) -> tuple[str, ...] | None:
    """What is compared with what was sensitive: texts as they follow each other, and every name and id by itself."""
    texts = texts_of(body)
    return None if texts is None else (*texts, *(part.text for part in every_text(body)))
