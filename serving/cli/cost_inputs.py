"""Where the inputs of `serve cost` come from: a case's file, flags, a benchmark, the ledger, a book of prices."""

# ruff: noqa: PLC0415 -- what only some commands need is imported by those

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from serving.economics.bills import Bill, Usage, bills, usage_of
from serving.economics.findings import Findings
from serving.economics.findings import work_out as worked_out
from serving.economics.flags import Flags, bill_alone, workload
from serving.economics.measured import measured_machine, measured_workload, other_machine
from serving.economics.reading import load_market, make_case, read_case
from serving.economics.report.words import Language, Speech
from serving.economics.uncertainty import DRAWS
from serving.errors import UsageError
from serving.registry.catalogue import PACKAGE

_MONTH_DAYS: Final = 30
_TOKENS: Final = frozenset({"input_tokens_per_day", "output_tokens_per_day", "tokens_per_day", "input_share"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command was told."""

    case: Path | None
    flags: Flags
    bench: Path | None
    from_ledger: bool
    market: Path | None
    config: Path | None
    since: str | None = None
    before: str | None = None
    """Of the ledger: unset, the last whole month."""
    seed: int = 1
    draws: int = DRAWS


def market_path(given: Path | None) -> Path:
    """The book that was named, or the one that ships."""
    if given is not None:
        return given
    return _shipped("market.toml")


def example() -> str:
    """A whole case, to be changed."""
    return _shipped("case.toml").read_text(encoding="utf-8")


def _shipped(name: str) -> Path:
    """Beside the package's modules when installed, under configs/ in a checkout."""
    installed = PACKAGE / name
    return installed if installed.exists() else PACKAGE.parent / "configs" / name


def work_out(asked: Asked, language: Language) -> tuple[Findings, Speech]:
    """The findings of what was asked. Raises ServingError."""
    speech = Speech(language)
    today = datetime.now(UTC).date()
    market = load_market(market_path(asked.market))
    notes: list[str] = []
    if asked.case is None:
        content, where = bill_alone(asked.flags, market, today), "the flags"
        if asked.bench is not None or asked.from_ledger:
            raise UsageError("`--bench` and `--from-ledger` are for a case", hint="name its file")
    else:
        if asked.flags.api is not None:
            raise UsageError("`--api` and a case's file were both given", hint="name the API in the case: `api.prices`")
        content, where = read_case(asked.case), f"the case `{asked.case}`"
        content = _with_work(content, workload(asked.flags))
    if not asked.from_ledger and (asked.since is not None or asked.before is not None):
        raise UsageError("`--since` and `--before` are of the ledger", hint="add `--from-ledger`")
    if asked.from_ledger:
        if workload(asked.flags):
            raise UsageError("`--from-ledger` and flags of the work were both given", hint="leave one of them out")
        content, note = _from_ledger(content, span(asked.since, asked.before, today), asked.config)
        notes.append(note)
    if asked.bench is not None:
        content, more = _from_bench(content, asked.bench)
        notes += more
    loaded = make_case(content, market, today, where)
    is_alone = asked.case is None
    found = worked_out(loaded, today, notes=tuple(notes), is_bill_alone=is_alone, draws=asked.draws, seed=asked.seed)
    return found, speech


def _with_work(content: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    work = content.get("workload", {})
    if not told or not isinstance(work, dict):
        return content
    # tokens are told in one of two forms, and one of them takes the place of the other
    kept = {name: each for name, each in work.items() if name not in _TOKENS or not _TOKENS & told.keys()}
    return {**content, "workload": {**kept, **told}}


def _from_ledger(
    content: dict[str, Any], days_of: tuple[date, date], config: Path | None
) -> tuple[dict[str, Any], str]:
    since, before = days_of
    found = usage_between(since, before, config)
    days = (before - since).days
    told = measured_workload(usage_of(found["usage"], since, before, found["currency"]), found["hours"])
    if found["complete_from"] is not None and found["complete_from"] > _seconds(since):
        raise UsageError("the ledger does not have all of that time any more", hint="`access.usage_retention_days`")
    work = {"days_per_month": _MONTH_DAYS, **content.get("workload", {})}
    note = (
        f"workload: the ledger of this host, {since} to {before - timedelta(days=1)}, {days} days; what was sent again "
        "in a conversation counts as served"
    )
    return _with_work({**content, "workload": work}, told), note


def span(since: str | None, before: str | None, today: date) -> tuple[date, date]:
    """The first day of a span and the first after it; of the last whole month where they are not said."""
    this_month = today.replace(day=1)
    last_month = (this_month - timedelta(days=1)).replace(day=1)
    first = last_month if since is None else _day(since, "--since")
    end = this_month if before is None else _day(before, "--before")
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
    first, end = span(since, before, today)
    found = usage_between(first, end, config)
    usage = usage_of(found["usage"], first, end, found["currency"])
    return usage, bills(usage, load_market(market_path(market)), today)


def _day(text: str, flag: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"`{flag} {text}` is no day", hint="such as `2027-01-31`") from None


def usage_between(since: date, before: date, config: Path | None) -> dict[str, Any]:
    """What was used from one day until the day before another, as `serve keys usage --json` has it, and by the hour."""
    from serving.access.administration import ask
    from serving.cli.options import settings_for

    settings = settings_for(config)
    return ask(
        settings.access, os.environ, "usage", {"since": _seconds(since), "before": _seconds(before), "by_hour": True}
    )


def _seconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _from_bench(content: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[str]]:
    from serving.bench.record import read_result

    own = content.get("own")
    if not isinstance(own, dict):
        raise UsageError("`--bench` measures a machine, and the case has no `own`", hint="docs/economics.md shows one")
    result = read_result(path)
    measured = measured_machine(result)
    filled = {**own, "capacity": {**own.get("capacity", {}), **measured.capacity}}
    power = own.get("power")
    if isinstance(power, dict) and measured.busy_w is not None and "busy_w" not in power:
        filled["power"] = {**power, "busy_w": measured.busy_w, "source": measured.capacity["source"]}
    return {**content, "own": filled}, [*measured.notes, *other_machine(result, own.get("gpu"))]
