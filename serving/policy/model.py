"""The policy: what may leave, to whom, and on which conditions. Frozen, and the same policy has the same digest.

Nothing is let out by a default: a policy with all defaults keeps everything inside.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date
from typing import Any, Final, Literal

VERSION: Final = 1
"""Of the file's form."""
LOCAL: Final = "local"
"""The engines of this server, as a destination."""
REFUSE: Final = "refuse"
"""In place of a destination: the request goes nowhere."""
RESERVED_NAMES: Final = frozenset({LOCAL, REFUSE})
WHOLE: Final = 10_000
"""Recall is counted in ten-thousandths, so that facts and records hold whole numbers alone."""
Route = Literal["chat.completions", "completions", "embeddings", "rerank"]
"""Routes that a cloud destination can serve at all, by the names that metrics and records have for them."""
Zone = Literal["perimeter", "cloud"]
Vendor = Literal["openai", "azure-openai", "anthropic", "gemini", "openai-compatible"]
OnUnknown = Literal["inside", "refuse"]


@dataclass(frozen=True, slots=True)
class Attestation:
    """What the contract with a vendor says, as the operator read it."""

    training_opt_out: bool
    """What is sent trains no model."""
    retention_days: int
    """How long the vendor keeps it."""
    dpa: str
    """Where the data processing agreement is to be found."""
    expires: date
    """From this day on, in UTC, it is worth nothing."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a destination that fails is left alone."""

    failures: int = 5
    """So many within `window_s` open it."""
    window_s: float = 60.0
    open_s: float = 30.0
    """So long nothing is sent; then one request tries."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model under the name that callers use, and the vendor's."""

    name: str
    remote: str


@dataclass(frozen=True, slots=True)
class Destination:
    """A server that requests may be sent to."""

    name: str
    zone: Zone
    vendor: Vendor
    url: str
    models: tuple[RemoteModel, ...] = ()
    region: str = ""
    """Where it computes, in the words of `residency`."""
    attestation: Attestation | None = None
    prices: str | None = None
    """The `engine` of its entries in the price book; without prices no budget can be reserved, and nothing is sent."""
    api_version: str | None = None
    """Of Azure OpenAI."""
    connect_timeout_s: float = 5.0
    timeout_s: float = 120.0
    """From the last byte sent to the first of the answer, and between any two of it."""
    retries: int = 1
    """Before the first byte of an answer; each is decided anew."""
    breaker: Breaker = Breaker()

    def remote_name(self, model: str | None) -> str | None:
        """What it calls a model; None where it does not serve it."""
        return next((each.remote for each in self.models if each.name == model), None)


@dataclass(frozen=True, slots=True)
class Complexity:
    """How hard a request looks, from counts alone: no model is asked, and the same request is always as hard."""

    chars: int = 0
    turns: int = 0
    tools: int = 0
    asked_tokens: int = 0
    code: bool = False
    schema: bool = False


@dataclass(frozen=True, slots=True)
class Hard:
    """From where on a request is hard: any one of these is enough; with none of them no request is."""

    always: bool = False
    chars: int | None = None
    turns: int | None = None
    tools: int | None = None
    asked_tokens: int | None = None
    code: bool = False
    schema: bool = False

    def is_met_by(self, seen: Complexity) -> bool:
        """Whether a request that looks like this is hard."""
        counts = (
            (self.chars, seen.chars),
            (self.turns, seen.turns),
            (self.tools, seen.tools),
            (self.asked_tokens, seen.asked_tokens),
        )
        return (
            self.always
            or any(least is not None and count >= least for least, count in counts)
            or (self.code and seen.code)
            or (self.schema and seen.schema)
        )


@dataclass(frozen=True, slots=True)
class WorkloadClass:
    """A kind of work that keys are enrolled for by name."""

    name: str
    destinations: tuple[str, ...]
    """Of zone cloud, the first that may be taken is."""
    residency: frozenset[str]
    """Regions that this work may go to."""
    hard: Hard
    labels: frozenset[str] | None = None
    """What its data may hold, and the detectors must find; None: every label that the policy names."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route that may leave, with the fields that may."""

    route: str
    fields: tuple[str, ...]
    """Paths such as `messages.content`; `tools.*` is everything below `tools`."""

    def refuses(self, present: frozenset[str]) -> frozenset[str]:
        """Those paths that may not leave."""
        exact = {each for each in self.fields if not each.endswith(".*")}
        below = tuple(each[:-1] for each in self.fields if each.endswith(".*"))
        return frozenset(path for path in present - exact if not f"{path}.".startswith(below))


@dataclass(frozen=True, slots=True)
class LeastRecall:
    """What must be published of a label before work that may hold it can leave."""

    label: str
    least: int
    """Ten-thousandths of what there is of it must be found."""


@dataclass(frozen=True, slots=True)
class SiteWords:
    """Words, or a pattern, that are confidential at this site; found as `site.<name>`."""

    name: str
    kind: Literal["terms", "pattern"]
    texts: tuple[str, ...] = field(repr=False)
    """Terms, or one regular expression."""
    sha256: str | None = None
    """Of the file that they are kept in; None: they stand in the policy."""


@dataclass(frozen=True, slots=True)
class UnknownReason:
    """What becomes of a request on which a detector could not say anything. It never leaves."""

    reason: str
    then: OnUnknown


@dataclass(frozen=True, slots=True)
class TaintRules:
    """How texts of sensitive requests are remembered."""

    keep_days: int = 30
    most: int = 1 << 21
    """Fingerprints at one time. What comes beyond makes the store's answers UNKNOWN for as long as it would be kept."""
    never: tuple[str, ...] = ()
    """Texts that taint nothing, such as a system prompt that everybody uses."""


@dataclass(frozen=True, slots=True)
class Policy:
    """All of it. Raises ValueError where two destinations or classes have one name, or one that is reserved."""

    cloud: bool = False
    """False is the kill switch: nothing leaves."""
    residency: frozenset[str] = frozenset()
    """Regions that data of this site may go to."""
    most_retention_days: int = 0
    detectors: tuple[str, ...] = ()
    """That must have read a request, or its verdict is UNKNOWN."""
    words: tuple[SiteWords, ...] = ()
    least_recall: tuple[LeastRecall, ...] = ()
    unknown: tuple[UnknownReason, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    classes: tuple[WorkloadClass, ...] = ()
    destinations: tuple[Destination, ...] = ()
    taint: TaintRules = TaintRules()
    version: int = VERSION
    digest: str = field(init=False, compare=False)
    """SHA-256 of the canonical form; 64 hexadecimal digits."""

    def __post_init__(self) -> None:
        for entries in (self.destinations, self.classes):
            names = [each.name for each in entries]
            if len(set(names)) < len(names) or not RESERVED_NAMES.isdisjoint(names):
                raise ValueError(f"a name stands twice, or is one of {', '.join(sorted(RESERVED_NAMES))}")
        object.__setattr__(self, "digest", hashlib.sha256(canonical(self)).hexdigest())

    @property
    def detection(self) -> tuple[tuple[str, ...], tuple[SiteWords, ...]]:
        """What a scan is made by: where it differs, a verdict of before is worth nothing."""
        return self.detectors, self.words

    def destination(self, name: str) -> Destination | None:
        """The destination of that name."""
        return next((each for each in self.destinations if each.name == name), None)

    def endpoint(self, route: str | None) -> Endpoint | None:
        """The entry of a route; None where it may not leave."""
        return next((each for each in self.endpoints if each.route == route), None)

    @property
    def field_names(self) -> frozenset[str]:
        """The names that paths of its endpoints are made of."""
        return frozenset(name for each in self.endpoints for path in each.fields for name in path.split("."))

    def is_refused(self, reason: str) -> bool:
        """Whether a request with that reason is refused, where others are served inside.

        A reason such as `timeout: names` is of the kind `timeout`.
        """
        kind = reason.partition(":")[0].strip()
        return any(each.reason == kind and each.then == "refuse" for each in self.unknown)


def canonical(policy: Policy) -> bytes:
    """The one way to write a policy: JSON in ASCII, keys in order, no spaces. The order of lists counts.

    Words that are kept in a file are not in it: the file's hash stands for them.
    """
    return json.dumps(_plain(policy), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        without = {"digest", "texts"} if isinstance(value, SiteWords) and value.sha256 is not None else {"digest"}
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value) if each.name not in without}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, date) else value
