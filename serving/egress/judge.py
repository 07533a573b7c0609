"""What the egress process finds out about a request by itself, and what it decides from that."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from serving.egress.asking import Ask
from serving.egress.breaker import Circuit, begun, ended, left, lets_through
from serving.egress.classifier import MODEL, Classifier
from serving.egress.drill import out_of_order
from serving.egress.texts import every_text
from serving.egress.workers import FAILURES, Scanners, with_reasons
from serving.errors import InvalidRequest, ServingError
from serving.policy.body import complexity_of, fields_of, texts_of
from serving.policy.decide import NOT_SCANNED, Decision, decide
from serving.policy.detect import Finding, Part, Verdict, parts_of, together
from serving.policy.facts import Facts, Found, Published, Taint, taints
from serving.policy.load import load_policy
from serving.policy.model import Destination, Policy
from serving.policy.taint import NO_FINGERPRINTS, Fingerprints
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


_QUESTIONS: Final = 1 << 16
"""Of which it is known, for who has to say that it did not hear, which answer they began."""
_NOT_SCANNED: Final = Finding(Verdict.UNKNOWN, reasons=(NOT_SCANNED,))
_Stamp = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Doubt:
    """A request that nothing is known against, but that answers were being given to sensitive ones of its domain."""

    wanted: Fingerprints
    """What was looked for on its behalf."""
    kept: Fingerprints
    """What would be remembered of it."""
    under_way: frozenset[int]
    """The numbers of those answers."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One request, looked at."""

    facts: Facts
    decision: Decision
    finding: Finding
    doubt: Doubt | None = None
    """Why it is not known to be untainted, where that is all."""
    is_watched: bool = True
    """False: nobody of its cache domain may send work out, and it was not looked at."""


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
                # nor is it known which servers are inside still
                there = tuple(each for each in self._policy.destinations if each.zone == "cloud")
                policy = replace(self._policy, cloud=False, destinations=there)
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
        drill: Path,
        classifier: Classifier | None = None,
        answer_s: float = 7_200.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`switch` is the kill switch: nothing leaves while there is a file of that name. `drill`: see `drill.py`.

        An answer that nobody has told the end of in `answer_s` seconds by the `clock` is lost: nothing waits for it,
        and its cache domain is UNKNOWN until what was said in it would have expired.
        """
        self._classifier = classifier
        self._policy = policy
        self._scanners = scanners
        self._store = store
        self._published = published
        self._switch = switch
        self._drill = drill
        self._circuits: dict[str, Circuit] = {}
        self._answer_s = answer_s
        self._clock = clock
        self._answering: dict[str, dict[int, float]] = {}
        """Of each domain, the answers to sensitive requests that are being given, and since when."""
        self._asked: OrderedDict[tuple[str, str], int | None] = OrderedDict()
        """By domain and mark of a question: the answer that it began; None where who asked has left before."""
        self._doubts: dict[int, Doubt] = {}
        """Of such an answer, what its own request was only in doubt for."""
        self._heard: dict[int, tuple[str, Fingerprints | None]] = {}
        """Answers that have ended, of which it is not settled whether they are to be remembered: domain and texts."""

    @property
    def policy(self) -> Policy:
        """The one in force."""
        return self._policy.read()

    @property
    def is_open(self) -> bool:
        """Whether anything may leave now: neither the policy nor the kill switch keeps all of it."""
        return self.policy.cloud and not os.path.lexists(self._switch)

    @property
    def models_inside(self) -> tuple[str, ...]:
        """What callers call the models of servers inside, in order."""
        inside = (each for each in self.policy.destinations if each.zone == "perimeter")
        return tuple(sorted({model.name for each in inside for model in each.models}))

    def is_drilled(self, to: Destination) -> bool:
        """Whether somebody plays that the destination is out of order."""
        return out_of_order(self._drill, time.time()) == to.name

    async def judge(self, path: str, body: dict[str, object], ask: Ask, sent: object = None) -> Judged:
        """Look at a request, and decide; `sent` is the parsed body that would leave, where there is one already.

        A verdict is the worse of what the request holds and what would be sent. Raises InvalidRequest for what is
        nested too deeply to be read at all.
        """
        if texts_of(body) is None:
            raise InvalidRequest("the request is nested too deeply to be read")
        before = self.policy
        finding, taint, doubt = _NOT_SCANNED, Taint.UNKNOWN, None
        if ask.watched:
            finding = await self._scan(body, sent, before, ask.domain)
            taint, doubt = await self._look(body, ask.domain)
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
            healthy=self._healthy(policy) - ask.failed,
            local=ask.local,
            today=datetime.now(UTC).date(),
            only=ask.destination,
        )
        doubt = doubt if finding.verdict is Verdict.CLEAN else None
        return Judged(facts, decide(facts, policy), finding, doubt, ask.watched)

    async def _look(self, body: dict[str, object], domain: str) -> tuple[Taint, Doubt | None]:
        """Whether something of it was sensitive. While such a request is being answered nobody knows what is read."""
        texts = _all_texts(body)
        printer = self._store.fingerprinter(domain)

        def look() -> tuple[Taint, Fingerprints]:
            wanted = NO_FINGERPRINTS if texts is None else printer.seek(texts)
            return self._store.look(None if texts is None else wanted, domain), wanted

        await self._settle_all(domain)  # for what they wait for nobody may wait any longer
        before = self._under_way(domain)
        taint, wanted = await asyncio.to_thread(look)
        under_way = before | self._under_way(domain)
        if taint is Taint.NONE and self._has_lost(domain):
            return Taint.UNKNOWN, None
        if taint is not Taint.NONE or not under_way:
            return taint, None
        kept = await asyncio.to_thread(printer.keep, texts or ())
        return Taint.UNKNOWN, Doubt(wanted, kept, under_way)

    async def remember(self, body: dict[str, object], domain: str) -> None:
        """Remember the texts of a sensitive request."""
        texts = _all_texts(body)
        await asyncio.to_thread(
            lambda: self._add(None if texts is None else self._store.fingerprinter(domain).keep(texts), domain)
        )

    def _add(self, kept: Fingerprints | None, domain: str, closes: int | None = None) -> None:
        if not self._store.add(kept, closes=closes, domain=domain):
            why = "it could not be read" if kept is None else "there is no room for it"
            log.error("what is said in a cache domain stays inside: not all of it is known", extra=facts(reason=why))

    async def await_answer(self, domain: str, doubt: Doubt | None = None, asked: str = "") -> int:
        """The answer to a sensitive request begins, or to one in doubt: the number under which it is remembered.

        `asked` marks the question that began it, for who may have to say that it never heard the number.
        """
        number = await asyncio.to_thread(self._store.open_answer)
        self._answering.setdefault(domain, {})[number] = self._clock()
        if doubt is not None:
            self._doubts[number] = doubt
        if asked:
            has_left = (domain, asked) in self._asked
            self._note(domain, asked, number)
            if has_left:
                await self.never_began(domain, asked)
        return number

    async def never_began(self, domain: str, asked: str) -> None:
        """Who asked that question has not heard of an answer to it: none was given, before or after this is said."""
        number = self._asked.get((domain, asked))
        if number is None:
            self._note(domain, asked, None)
        else:
            await self.remember_answer((), domain, number)

    def _note(self, domain: str, asked: str, number: int | None) -> None:
        self._asked[domain, asked] = number
        while len(self._asked) > _QUESTIONS:
            self._asked.popitem(last=False)

    def _under_way(self, domain: str) -> frozenset[int]:
        """Answers of which it will be known what they held: they are being given, or wait for others that are."""
        now = self._clock()
        answering = self._answering.get(domain, {})
        return frozenset(
            number for number, began in answering.items() if number in self._heard or now - began <= self._answer_s
        )

    def _has_lost(self, domain: str, but: int | None = None) -> bool:
        """Whether another answer was given of which nobody has told the end, and which could taint something yet."""
        now = self._clock()
        lost = {
            number: now - began
            for number, began in self._answering.get(domain, {}).items()
            if number != but and number not in self._heard and now - began > self._answer_s
        }
        for number in [number for number, age in lost.items() if age > self._store.keep_s]:
            del self._answering[domain][number], lost[number]
        return bool(lost)

    async def remember_answer(self, texts: tuple[str, ...] | None, domain: str, number: int) -> None:
        """Remember the answer to a sensitive request, or to one in doubt; None is one that could not be read."""
        kept = None if texts is None else await asyncio.to_thread(self._store.fingerprinter(domain).keep, texts)
        if number not in self._answering.get(domain, ()):  # told after a restart: of its request nothing is known
            await asyncio.to_thread(self._add, kept, domain, number)
            return
        self._heard[number] = domain, kept
        await self._settle_all(domain)

    async def _settle_all(self, domain: str) -> None:
        while (settled := self._next_settled(domain)) is not None:
            await self._settle(settled)

    def _next_settled(self, domain: str) -> int | None:
        """An answer that has ended, and of whose request all is known that it was in doubt for."""
        under_way = self._under_way(domain)
        for number, (where, _) in self._heard.items():
            doubt = self._doubts.get(number)
            if where == domain and (doubt is None or doubt.under_way.isdisjoint(under_way)):
                return number
        return None

    async def _settle(self, number: int) -> None:
        """Remember it, and with it its request where that was tainted; or neither, where the doubt has turned out well.

        Else every conversation that runs beside a sensitive one would have to stay inside from then on.
        """
        domain, kept = self._heard.pop(number)
        doubt = self._doubts.pop(number, None)

        def keep() -> None:
            if doubt is None:
                self._add(kept, domain, number)
            elif not has_lost and self._store.look(doubt.wanted, domain) is Taint.NONE:
                self._add(NO_FINGERPRINTS, domain, number)
            else:
                self._add(None if kept is None else np.concatenate([kept, doubt.kept]), domain, number)

        def done(kept: asyncio.Task[None]) -> None:
            if not kept.cancelled() and kept.exception() is None:
                self._answering.get(domain, {}).pop(number, None)

        has_lost = self._has_lost(domain, number)
        keeping = asyncio.create_task(asyncio.to_thread(keep))
        keeping.add_done_callback(done)
        await asyncio.shield(keeping)  # whoever waits for it may leave

    def is_sensitive(self, judged: Judged) -> bool:
        """Whether its texts and its answer are to be remembered."""
        return judged.is_watched and taints(judged.facts)

    def keeps_texts(self, judged: Judged) -> bool:
        """Whether the texts of the request itself are.

        Not where a scan only failed, for they will be scanned again; nor where it is only not known whether they are
        tainted: what they could be tainted with is remembered itself, as soon as it is known.
        """
        if not judged.is_watched or judged.facts.taint is Taint.TAINTED:
            return judged.is_watched
        finding = judged.finding
        has_failed = bool(finding.reasons) and all(each.startswith(FAILURES) for each in finding.reasons)
        return finding.verdict is Verdict.SENSITIVE or (finding.verdict is Verdict.UNKNOWN and not has_failed)

    # How the destinations are

    def began(self, to: Destination) -> None:
        """A request is being sent there."""
        self._circuits[to.name] = begun(self._circuits.get(to.name, Circuit()))

    def answers(self, to: Destination) -> None:
        """It has begun to: where it was only tried, others need not wait for the end."""
        circuit = self._circuits.get(to.name, Circuit())
        if circuit.opened is not None:
            self._circuits[to.name] = ended(circuit, to.breaker, time.monotonic(), is_well=True)

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

    async def _scan(self, body: dict[str, object], sent: object, policy: Policy, owner: str) -> Finding:
        """What is in what came, and in what would be sent: two texts, each with its own context.

        What came was scanned when the gateway asked first, and that is remembered.
        """
        asked: tuple[Part, ...] = parts_of(body)
        leaving: tuple[Part, ...] = () if sent is None else every_text(sent)
        finding = await self._scanners.scan(asked, policy, owner)
        if sent is not None:
            finding = together((finding, await self._scanners.scan(leaving, policy, owner)), asked + leaving)
        if self._classifier is None:
            return finding
        return await self._classifier.add(finding, (asked, leaving), is_required=MODEL in policy.detectors)


def _all_texts(body: dict[str, object]) -> tuple[str, ...] | None:
    """What is compared with what was sensitive: texts as they follow each other, and every name and id by itself."""
    texts = texts_of(body)
    return None if texts is None else (*texts, *(part.text for part in every_text(body)))
