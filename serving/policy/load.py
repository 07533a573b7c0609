"""`policy.toml`, checked: closed to unknown fields, errors that name file, table, field and value."""

from __future__ import annotations

import math
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from serving.errors import BadSettings
from serving.policy.model import (
    RESERVED_NAMES,
    VERSION,
    WHOLE,
    Attestation,
    Breaker,
    Destination,
    Endpoint,
    Hard,
    LeastRecall,
    OnUnknown,
    Policy,
    RemoteModel,
    Route,
    SiteWords,
    TaintRules,
    UnknownReason,
    Vendor,
    WorkloadClass,
    Zone,
)
from serving.policy.words import WordsName, site_words
from serving.settings.section import Section
from serving.settings.wording import explained

_MAX_BYTES: Final = 4 << 20
_HINT: Final = "docs/routing.md shows every table and field"
_PATH: Final = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,3}(\.\*)?$"


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("must be the address of a server, such as `https://api.example/v1`, without a name or query")
    return text


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
Short = Annotated[str, Field(min_length=1, max_length=400)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=1 << 40)]


class _Attestation(Section):
    training_opt_out: bool
    retention_days: int = Field(ge=0, le=36_500)
    dpa: Short
    expires: date

    def build(self) -> Attestation:
        return Attestation(self.training_opt_out, self.retention_days, self.dpa, self.expires)


class _Breaker(Section):
    failures: int = Field(default=Breaker().failures, ge=1, le=1000)
    window_s: Seconds = Breaker().window_s
    open_s: Seconds = Breaker().open_s

    def build(self) -> Breaker:
        return Breaker(self.failures, self.window_s, self.open_s)


class _Destination(Section):
    zone: Zone
    vendor: Vendor
    url: Annotated[str, AfterValidator(_url)]
    models: dict[Word, Short] = Field(min_length=1)
    region: Word | None = None
    attestation: _Attestation | None = None
    prices: Word | None = None
    api_version: Word | None = None
    connect_timeout_s: Seconds = 5.0
    timeout_s: Seconds = 120.0
    retries: int = Field(default=1, ge=0, le=10)
    breaker: _Breaker = _Breaker()

    @model_validator(mode="after")
    def _whole(self) -> _Destination:
        if self.zone == "cloud":
            if not self.url.startswith("https://"):
                raise ValueError("a destination of zone `cloud` has a `url` that begins with `https://`")
            missing = [name for name in ("region", "attestation", "prices") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"a destination of zone `cloud` has `{missing[0]}` too: without it nothing leaves")
        if (self.vendor == "azure-openai") != (self.api_version is not None):
            raise ValueError("`api_version` goes with the vendor `azure-openai`, and with no other")
        return self

    def build(self, name: str) -> Destination:
        return Destination(
            name=name,
            zone=self.zone,
            vendor=self.vendor,
            url=self.url,
            models=tuple(RemoteModel(*each) for each in sorted(self.models.items())),
            region=self.region or "",
            attestation=None if self.attestation is None else self.attestation.build(),
            prices=self.prices,
            api_version=self.api_version,
            connect_timeout_s=self.connect_timeout_s,
            timeout_s=self.timeout_s,
            retries=self.retries,
            breaker=self.breaker.build(),
        )


class _Hard(Section):
    always: bool = False
    chars: Count | None = None
    turns: Count | None = None
    tools: Count | None = None
    asked_tokens: Count | None = None
    code: bool = False
    schema_: bool = Field(default=False, alias="schema")

    @model_validator(mode="after")
    def _some(self) -> _Hard:
        if self.build() == Hard():
            raise ValueError("must have one bound at least; `always = true` makes every request hard")
        return self

    def build(self) -> Hard:
        return Hard(self.always, self.chars, self.turns, self.tools, self.asked_tokens, self.code, self.schema_)


class _Class(Section):
    destinations: list[Name] = Field(min_length=1)
    residency: list[Word] = Field(min_length=1)
    labels: list[Word] | None = Field(default=None, min_length=1)
    hard: _Hard

    def build(self, name: str) -> WorkloadClass:
        return WorkloadClass(
            name=name,
            destinations=tuple(self.destinations),
            residency=frozenset(self.residency),
            hard=self.hard.build(),
            labels=None if self.labels is None else frozenset(self.labels),
        )


class _Detection(Section):
    required: list[Word] = Field(default=[])
    least_recall: dict[Word, Annotated[float, Field(gt=0, le=1)]] = Field(default={})
    terms: dict[WordsName, object] = Field(default={})
    patterns: dict[WordsName, object] = Field(default={})


class _Residency(Section):
    allowed: list[Word] = Field(default=[])


class _Attestations(Section):
    most_retention_days: int = Field(default=0, ge=0, le=36_500)


class _Taint(Section):
    keep_days: int = Field(default=TaintRules().keep_days, ge=1, le=3660)
    most: int = Field(default=TaintRules().most, ge=1 << 16, le=1 << 26)
    never: list[Short] = Field(default=[])


class PolicyFile(Section):
    """The file as it stands."""

    version: Literal[1]
    cloud: Literal["on", "off"] = "off"
    residency: _Residency = _Residency()
    attestation: _Attestations = _Attestations()
    detection: _Detection = _Detection()
    unknown: dict[Word, OnUnknown] = Field(default={})
    endpoints: dict[Route, list[Annotated[str, Field(pattern=_PATH)]]] = Field(default={})
    classes: dict[Name, _Class] = Field(default={})
    destinations: dict[Name, _Destination] = Field(default={})
    taint: _Taint = _Taint()

    @model_validator(mode="after")
    def _whole(self) -> PolicyFile:
        for name in sorted(RESERVED_NAMES & {*self.destinations, *self.classes}):
            raise ValueError(f"`{name}` has a meaning of its own, and names no destination or class")
        for name, each in self.classes.items():
            for destination in each.destinations:
                found = self.destinations.get(destination)
                if found is None or found.zone != "cloud":
                    raise ValueError(f"class `{name}` names `{destination}`, which is no destination of zone `cloud`")
            for region in each.residency:
                if region not in self.residency.allowed:
                    raise ValueError(f"class `{name}` names the region `{region}`, which `residency.allowed` has not")
            for label in each.labels or ():
                if label not in self.detection.least_recall:
                    raise ValueError(f"class `{name}` names `{label}`, which `detection.least_recall` has not")
        if self.cloud == "on" and not (self.detection.required and self.detection.least_recall):
            raise ValueError('`cloud = "on"` goes with `detection.required` and `detection.least_recall`')
        return self

    def build(self, words: tuple[SiteWords, ...]) -> Policy:
        """The policy that it is, with these words of the site."""
        least = self.detection.least_recall
        return Policy(
            cloud=self.cloud == "on",
            residency=frozenset(self.residency.allowed),
            most_retention_days=self.attestation.most_retention_days,
            detectors=tuple(sorted(set(self.detection.required))),
            words=words,
            least_recall=tuple(LeastRecall(label, _ten_thousandths(least[label])) for label in sorted(least)),
            unknown=tuple(UnknownReason(reason, self.unknown[reason]) for reason in sorted(self.unknown)),
            endpoints=tuple(Endpoint(route, tuple(sorted(set(names)))) for route, names in self.endpoints.items()),
            classes=tuple(each.build(name) for name, each in self.classes.items()),
            destinations=tuple(each.build(name) for name, each in self.destinations.items()),
            taint=TaintRules(self.taint.keep_days, self.taint.most, tuple(self.taint.never)),
            version=VERSION,
        )


def load_policy(path: Path) -> Policy:
    """The policy in a file. Raises BadSettings."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise BadSettings(f"the policy `{path}` does not exist", hint="configs/policy.toml is one") from None
    except OSError as error:
        raise BadSettings(f"the policy `{path}` cannot be read: {error.strerror}") from None
    return parse_policy(raw, f"the policy `{path}`", path.parent)


def parse_policy(raw: bytes, where: str, directory: Path = Path()) -> Policy:
    """The policy that `raw` is; `where` names it in errors. Files that it names are looked for from `directory` on.

    Raises BadSettings.
    """
    if len(raw) > _MAX_BYTES:
        raise BadSettings(f"{where} has more than {_MAX_BYTES:,} bytes")
    try:
        content = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise BadSettings(f"{where} is not TOML: {error}", hint=_HINT) from None
    try:
        checked = PolicyFile.model_validate(content)
    except ValidationError as failure:
        message, hint = explained(failure, PolicyFile, where, _HINT)
        raise BadSettings(message, hint=hint) from None
    return checked.build(site_words(checked.detection.terms, checked.detection.patterns, where, directory))


def _ten_thousandths(share: float) -> int:
    """Upwards, so that a bound is never less than it says; what is less than a millionth of it is no share's own."""
    return math.ceil(round(share * WHOLE, 6))
