"""Where the inputs of `serve cost` come from: a case's file, flags, a benchmark, the ledger, a book of prices."""

# ruff: noqa: PLC0415 -- what only some commands need is imported by those

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.cli.days import beginning, day_of
from serving.economics.bills import Bill, Usage, bills, usage_of
from serving.economics.books import Market
from serving.economics.findings import Findings
from serving.economics.findings import work_out as worked_out
from serving.economics.flags import Flags, bill_alone, workload
from serving.economics.measured import measured_machine, measured_workload, other_machine
from serving.economics.reading import load_market, make_case, read_case
from serving.economics.report.words import Language, Speech
from serving.economics.uncertainty import DRAWS
from serving.errors import UsageError
from serving.registry.catalogue import PACKAGE

if TYPE_CHECKING:
    from serving.cli.cost import CostOptions

_TOKENS: Final = frozenset({"input_tokens_per_day", "output_tokens_per_day", "tokens_per_day", "input_share"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command was told."""

    case: Path | None
    given: CostOptions
    config: Path | None = None
    flags: Flags = field(default_factory=Flags)
    seed: int = 1
    draws: int = DRAWS


def example() -> str:
    """A whole case, to be changed."""
    return _shipped("case.toml").read_text(encoding="utf-8")


def _shipped(name: str) -> Path:
    """Beside the package's modules when installed, under configs/ in a checkout."""
    installed = PACKAGE / name
    return installed if installed.exists() else PACKAGE.parent / "configs" / name


def work_out(asked: Asked, language: Language) -> tuple[Findings, Speech]:
    """The findings of what was asked. Raises ServingError."""
    today = datetime.now(UTC).date()
    given = asked.given
    market = _market(given.market)
    notes: list[str] = []
    if asked.case is None:
        content, where = bill_alone(asked.flags, market, today), "the flags"
        if given.bench is not None or given.from_ledger:
            raise UsageError("`--bench` and `--from-ledger` are for a case", hint="name its file")
    else:
        if asked.flags.api is not None:
            raise UsageError("`--api` and a case's file were both given", hint="name the API in the case: `api.prices`")
        told = workload(asked.flags)
        if told and given.from_ledger:
            raise UsageError("`--from-ledger` and flags of the work were both given", hint="leave one of them out")
        content, where = _with_work(read_case(asked.case), told), f"the case `{asked.case}`"
    if not given.from_ledger and (given.since is not None or given.before is not None):
        raise UsageError("`--since` and `--before` are of the ledger", hint="add `--from-ledger`")
    if given.from_ledger:
        content, note = _from_ledger(content, *span(given.since, given.before, today), asked.config)
        notes.append(note)
    if given.bench is not None:
        content, more = _from_bench(content, given.bench)
        notes += more
    loaded = make_case(content, market, today, where)
    is_alone = asked.case is None
    try:
        found = worked_out(
            loaded, today, notes=tuple(notes), is_bill_alone=is_alone, draws=asked.draws, seed=asked.seed
        )
    except InvalidOperation:  # more digits than are kept, once there are cents
        raise UsageError(f"{where} comes to sums that nobody has", hint="look at `growth_per_month`") from None
    return found, Speech(language)


def _market(path: Path | None) -> Market:
    """The book that was named, or the one that ships."""
    return load_market(_shipped("market.toml") if path is None else path)


def _with_work(content: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    work = content.get("workload", {})
    if not told or not isinstance(work, dict):
        return content
    # tokens are told in one of two forms, and one of them takes the place of the other
    kept = {name: each for name, each in work.items() if name not in _TOKENS or not _TOKENS & told.keys()}
    return {**content, "workload": {**kept, **told}}


def _from_ledger(content: dict[str, Any], since: date, before: date, config: Path | None) -> tuple[dict[str, Any], str]:
    usage, hours = _used(since, before, config)
    note = (
        f"workload: the ledger of this host, {since} to {before - timedelta(days=1)}, {usage.days} days; what was sent "
        "again in a conversation counts as served"
    )
    return _with_work(content, measured_workload(usage, hours)), note


def span(since: str | None, before: str | None, today: date) -> tuple[date, date]:
    """The first day of a span and the first after it; the last whole month where none is said, else until now."""
    this_month = today.replace(day=1)
    last_month = (this_month - timedelta(days=1)).replace(day=1)
    first = last_month if since is None else day_of(since, "--since")
    until_now = this_month if since is None else today + timedelta(days=1)
    end = until_now if before is None else day_of(before, "--before")
    if end > today + timedelta(days=1):
        raise UsageError(f"the day before {end} is still to come", hint="the mean of a time is of days that were")
    if end <= first:
        raise UsageError(f"there is no day from {first} until before {end}", hint="`--before` is the later one")
    return first, end


def usage_bills(
    since: str | None, before: str | None, market: Path | None, config: Path | None
) -> tuple[Usage, tuple[Bill, ...]]:
    """The ledger's usage of a span, and what it would have cost elsewhere. Raises ServingError."""
    today = datetime.now(UTC).date()
    usage, _ = _used(*span(since, before, today), config)
    return usage, bills(usage, _market(market), today)


def _used(since: date, before: date, config: Path | None) -> tuple[Usage, list[dict[str, Any]]]:
    """What was used from one day until the day before another: in all, and by the hour. Raises ServingError."""
    from serving.access.administration import ask
    from serving.cli.options import settings_for

    body = {"since": beginning(since), "before": beginning(before), "by_hour": True}
    found = ask(settings_for(config).access, os.environ, "usage", body)
    kept_from = found["complete_from"]
    if kept_from is not None and kept_from > body["since"]:
        hint = (
            f"lines are kept from {datetime.fromtimestamp(kept_from, UTC):%Y-%m-%d} on: `access.usage_retention_days`"
        )
        raise UsageError("the ledger does not have all of that time any more", hint=hint)
    return usage_of(found["usage"], since, before, found["currency"]), found["hours"]


def _from_bench(content: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[str]]:
    from serving.bench.record import read_result

    own = content.get("own")
    if not isinstance(own, dict):
        raise UsageError("`--bench` measures a machine, and the case has no `own`", hint="docs/economics.md shows one")
    result = read_result(path)
    measured = measured_machine(result)
    filled, capacity, power = dict(own), own.get("capacity", {}), own.get("power")
    if isinstance(capacity, dict):  # what is no table is said later, with the rest
        filled["capacity"] = {**capacity, **measured.capacity}
    if isinstance(power, dict) and measured.busy_w is not None and "busy_w" not in power:
        filled["power"] = {**power, "busy_w": measured.busy_w, "source": measured.capacity["source"]}
    return {**content, "own": filled}, [*measured.notes, *other_machine(result, own.get("gpu"))]
