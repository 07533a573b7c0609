"""What the gateway counts. `docs/metrics.md` is the contract; a test proves that page and registry agree.

Label values are names from configuration, route names and error codes: a fixed, small set, never anything that a
client wrote.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS_FINE: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""Bucket bounds for gaps between tokens, in seconds."""
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""Bucket bounds for whole requests and first tokens, in seconds."""


class Tally:
    """Observations of one request, added to a `Histogram` in one go when it ends; costs one bisection each."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value` as seen `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


class Histogram(Collector):
    """A histogram that takes whole tallies. prometheus-client's own takes single values under a lock each."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.bounds = tuple(bounds)
        self._labels = tuple(labels)
        self._tallies: dict[tuple[str, ...], Tally] = {}
        self._lock = Lock()
        registry.register(self)

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        """Count one value, in seconds."""
        with self._lock:
            self._tally(labels).observe(value)

    def add(self, labels: tuple[str, ...], tally: Tally) -> None:
        """Count all that `tally` holds."""
        with self._lock:
            kept = self._tally(labels)
            kept.total += tally.total
            for place, count in enumerate(tally.counts):
                if count:
                    kept.counts[place] += count

    def _tally(self, labels: tuple[str, ...]) -> Tally:
        kept = self._tallies.get(labels)
        if kept is None:
            kept = self._tallies[labels] = Tally(self.bounds)
        return kept

    def describe(self) -> Iterable[Metric]:
        """The family without samples, so that the name is reserved before the first observation."""
        return [HistogramMetricFamily(self.name, self.documentation, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        """The family with its samples, cumulative as Prometheus wants them."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self._labels)
        with self._lock:
            for labels, tally in self._tallies.items():
                below = 0
                buckets: list[tuple[str, float]] = []
                for bound, count in zip((*self.bounds, float("inf")), tally.counts, strict=True):
                    below += count
                    buckets.append(("+Inf" if bound == float("inf") else str(bound), below))
                family.add_metric(labels, buckets, tally.total)
        yield family


class Following:
    """A counter of what is counted elsewhere: it grows by what each source has grown since it was last looked at."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self._last: dict[tuple[str, str], float] = {}

    def look(self, label: str, source: str, total: float) -> None:
        """`total` is what `source` says now; a smaller one than before is that of another source of the same name."""
        last = self._last.get((label, source), 0.0)
        self._last[label, source] = total
        self.counter.labels(label).inc(total - last if total >= last else total)


class Metrics:
    """Every metric of the gateway, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the time of the first request of each label says nothing here
        self.registry = CollectorRegistry(auto_describe=True)
        self.requests = Counter(
            "perimeter_requests",
            "Requests that ended, by outcome: completed, refused, failed, cancelled.",
            ["route", "model", "outcome", "code"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "perimeter_requests_in_flight", "Requests admitted and not ended yet.", ["model"], registry=self.registry
        )
        self.in_flight_most = Gauge(
            "perimeter_requests_in_flight_limit", "Requests admitted at most.", ["model"], registry=self.registry
        )
        self.tokens = Counter(
            "perimeter_tokens",
            "Tokens of requests that ended: prompt (cached ones included), cached, output.",
            ["model", "kind"],
            registry=self.registry,
        )
        self.estimated = Counter(
            "perimeter_usage_estimated",
            "Requests whose engine reported no usage, settled by counting what was relayed.",
            ["model"],
            registry=self.registry,
        )
        self.engine_up = Gauge(
            "perimeter_engine_ready", "1 while the engine takes requests.", ["model"], registry=self.registry
        )
        self.engine_scraped = Gauge(
            "perimeter_engine_scraped",
            "1 where an engine's own metrics are in this answer.",
            ["model"],
            registry=self.registry,
        )
        self.engine_restarts = Counter(
            "perimeter_engine_restarts", "Starts of an engine after its first.", ["model"], registry=self.registry
        )
        self.certificate_expires = Gauge(
            "perimeter_certificate_expires_timestamp_seconds",
            "Unix time at which the certificate of the API ends; 0 without TLS.",
            registry=self.registry,
        )
        self.certificate_renewals = Counter(
            "perimeter_certificate_renewals",
            "Times that changed files of the certificate were read again, by outcome: served, refused.",
            ["outcome"],
            registry=self.registry,
        )
        self.gpus_lost = Gauge(
            "perimeter_gpus_lost", "GPUs seen at the start that no longer answer.", registry=self.registry
        )
        self.egress = Following(
            Counter(
                "perimeter_egress_attempts",
                "Calls of a process that would leave the host and were not asked for.",
                ["process"],
                registry=self.registry,
            )
        )
        self.unrouted = Following(
            Counter(
                "perimeter_engine_unrouted",
                "Times that an engine in a network namespace of its own asked for a way out that is not there.",
                ["model"],
                registry=self.registry,
            )
        )
        self.routed = Counter(
            "perimeter_routed",
            "Requests that were looked at before they went anywhere, by who answered and the rule that decided.",
            ["zone", "destination", "rule"],
            registry=self.registry,
        )
        self.judged_seconds = Histogram(
            "perimeter_judged_seconds", "That such a request waited for the decision.", (), SECONDS_FINE, self.registry
        )
        self.untold = Counter(
            "perimeter_answers_untold",
            "Answers that `serve egress` did not hear, since too many waited to be told.",
            registry=self.registry,
        )
        labels = ("route", "model")
        self.request_seconds = Histogram(
            "perimeter_request_seconds", "From the request's head to its end.", labels, SECONDS, self.registry
        )
        self.ttft_seconds = Histogram(
            "perimeter_ttft_seconds",
            "From the request's head to the first event of a streamed answer.",
            labels,
            SECONDS,
            self.registry,
        )
        self.itl_seconds = Histogram(
            "perimeter_inter_token_latency_seconds",
            "Between two events of a streamed answer, the first one left out.",
            labels,
            SECONDS_FINE,
            self.registry,
        )

    def settle(self, model: str, prompt: int, cached: int, output: int, *, is_estimated: bool) -> None:
        """Count the tokens of a request that has ended."""
        self.tokens.labels(model, "prompt").inc(prompt)
        self.tokens.labels(model, "cached").inc(cached)
        self.tokens.labels(model, "output").inc(output)
        if is_estimated:
            self.estimated.labels(model).inc()

    def names(self) -> dict[str, str]:
        """Each family's name as it is scraped, and its type."""
        suffix = {"counter": "_total"}
        found: dict[str, str] = {}
        for family in self.registry.collect():
            found[family.name + suffix.get(family.type, "")] = family.type
        return found


_LABEL: Final = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
_SAMPLE: Final = re.compile(
    rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{((?:{_LABEL}(?:,{_LABEL})*,?)?)\}})? (\S+)(?: -?[0-9]+)?"
)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|Inf|inf)|NaN|nan")
_TYPES: Final = frozenset({"counter", "gauge", "histogram", "summary", "untyped"})
_COMMENT: Final = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) ?(.*)")
_SUFFIXES: Final = ("_bucket", "_sum", "_count", "_created", "_total")


def relabel(texts: Iterable[tuple[Mapping[str, str], str]], reserved: Iterable[str] = ()) -> str:
    """Prometheus texts of several engines as one, each sample with the labels of its source added.

    Lines that are not of the format are dropped, and families whose name is `reserved`: an engine can neither break the
    page for the others nor speak for the gateway. A label of its own that bears the name of an added one becomes
    `exported_NAME`, as in Prometheus. The samples of one family are brought together, as the format wants.
    """
    families: dict[str, list[str]] = {}
    taken = {_bare(name) for name in reserved}
    seen: set[str] = set()
    for labels, text in texts:
        added = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
        declared: set[str] = set()
        for line in text.splitlines():
            comment = _COMMENT.fullmatch(line)
            if comment is not None:
                if comment[1] == "TYPE" and comment[3] not in _TYPES:
                    continue
                declared.add(comment[2])
                kept = families.setdefault(comment[2], [])
                if not any(known.startswith(f"# {comment[1]} ") for known in kept):
                    kept.append(line)
                continue
            sample = _SAMPLE.fullmatch(line)
            if sample is None or _NUMBER.fullmatch(sample[3]) is None:
                continue
            own = [label.partition("=") for label in re.findall(_LABEL, sample[2] or "")]
            names = [f"exported_{name}" if name in labels else name for name, _, _ in own]
            if len(set(names)) < len(names):
                continue
            told = [f"{name}={value}" for name, (_, _, value) in zip(names, own, strict=True)]
            series = f"{sample[1]}{{{','.join([*told, added] if added else told)}}}"
            if series not in seen:
                seen.add(series)
                families.setdefault(_family(sample[1], declared), []).append(f"{series} {sample[3]}")
    return "".join(f"{line}\n" for family, lines in families.items() if _bare(family) not in taken for line in lines)


def _bare(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _family(name: str, declared: set[str]) -> str:
    if name in declared:
        return name
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and name.removesuffix(suffix) in declared:
            return name.removesuffix(suffix)
    return name


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
