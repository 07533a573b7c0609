"""`serve cost`: what inference costs through an API, on machines of one's own, or both; and how sure that is."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from serving.cli.options import takes_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving.economics.findings import Findings
    from serving.economics.report.tables import Table
    from serving.economics.report.words import Speech

cost_app = typer.Typer(help="What it costs, when owning beats renting, and how sure that is.", no_args_is_help=True)

Case = Annotated[Path | None, typer.Argument(help="A case's file; docs/economics.md shows one.")]
NeededCase = Annotated[Path, typer.Argument(help="A case's file; docs/economics.md shows one.")]
Api = Annotated[str | None, typer.Option("--api", help="Whose prices, such as seeds-2026/frontier.")]
TokensPerDay = Annotated[str | None, typer.Option("--tokens-per-day", help="Such as 5M, or a range: 3M..7M.")]
Mix = Annotated[str | None, typer.Option("--mix", help="Input/output in percent, such as 75/25.")]
RequestsPerDay = Annotated[str | None, typer.Option("--requests-per-day", help="For the cost of a request.")]
Turns = Annotated[str | None, typer.Option("--turns", help="Requests of a conversation, each with all before it.")]
Cached = Annotated[str | None, typer.Option("--cached", help="Share of the input that is found cached: 0 to 1.")]
Since = Annotated[
    str | None, typer.Option("--since", help="Of the ledger, from this day on; unset: the last whole month.")
]
Before = Annotated[
    str | None, typer.Option("--before", help="Of the ledger, until the day before this one; unset: with today.")
]
Market = Annotated[Path | None, typer.Option("--market", help="A book of prices in place of the one that ships.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the draws.")]
Draws = Annotated[int, typer.Option("--draws", min=100, max=100_000)]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file in place of /etc/perimeter/serving.toml.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: every figure with its unit.")]
Page = Annotated[Path | None, typer.Option("-o", "--output", help="Write a page for people who decide: one HTML file.")]
Language = Annotated[Literal["en", "ru"], typer.Option("--language", help="Of what is printed and written.")]


@dataclass(frozen=True, slots=True)
class CostOptions:
    """Where figures of a case are from, in place of its file."""

    bench: Annotated[
        Path | None,
        typer.Option("--bench", help="Capacity and power from a result of `serve bench run`, for the case."),
    ] = None
    from_ledger: Annotated[bool, typer.Option("--from-ledger", help="The work is that of this host's ledger.")] = False
    since: Since = None
    before: Before = None
    market: Market = None


@cost_app.command("estimate")
@takes_options
def estimate(
    case: Case = None,
    *,
    api: Api = None,
    tokens_per_day: TokensPerDay = None,
    mix: Mix = None,
    requests_per_day: RequestsPerDay = None,
    turns: Turns = None,
    cached: Cached = None,
    given: CostOptions,
    seed: Seed = 1,
    draws: Draws = 2000,
    config: Config = None,
    as_json: Json = False,
    output: Page = None,
    language: Language = "en",
) -> int:
    """A month's cost, line by line, as an interval, with the inputs that move it most."""
    from serving.cli.cost_inputs import Asked, work_out
    from serving.economics.flags import Flags
    from serving.economics.report.tables import TOP, sensitivity, statements, summary

    flags = Flags(api, tokens_per_day, mix, requests_per_day, turns, cached)
    found, speech = work_out(Asked(case, given, config, flags, seed=seed, draws=draws), language)
    tables = [summary(found, speech), *statements(found, speech), sensitivity(found, speech, TOP)]
    return _show(found, speech, tables, output, as_json=as_json)


@cost_app.command("example")
def example() -> int:
    """Print a whole case, to be changed: `serve cost example > case.toml`."""
    from serving.cli.cost_inputs import example as shipped

    sys.stdout.write(shipped())
    return 0


@cost_app.command("compare")
@takes_options
def compare(
    case: NeededCase,
    *,
    given: CostOptions,
    seed: Seed = 1,
    draws: Draws = 2000,
    config: Config = None,
    as_json: Json = False,
    output: Page = None,
    language: Language = "en",
) -> int:
    """API, own machines and both, side by side: a month, the horizon, and the verdict with its thresholds."""
    from serving.cli.cost_inputs import Asked, work_out
    from serving.economics.report.tables import parts

    found, speech = work_out(Asked(case, given, config, seed=seed, draws=draws), language)
    return _show(found, speech, parts(found, speech), output, as_json=as_json)


@cost_app.command("breakeven")
@takes_options
def breakeven(
    case: NeededCase,
    *,
    given: CostOptions,
    config: Config = None,
    as_json: Json = False,
    language: Language = "en",
) -> int:
    """From which volume and which month on own machines cost no more."""
    from serving.cli.cost_inputs import Asked, work_out
    from serving.economics.report.tables import break_even, cash
    from serving.errors import UsageError

    found, speech = work_out(Asked(case, given, config), language)
    table = break_even(found, speech)
    if table is None:
        raise UsageError("the case has no two ways to compare", hint="a break-even is of `api` and `own`")
    return _show(found, speech, [table, cash(found, speech)], None, as_json=as_json)


@cost_app.command("sensitivity")
@takes_options
def sensitivity_(
    case: NeededCase,
    *,
    given: CostOptions,
    config: Config = None,
    as_json: Json = False,
    language: Language = "en",
) -> int:
    """What each range does alone, the widest first."""
    from serving.cli.cost_inputs import Asked, work_out
    from serving.economics.report.tables import sensitivity

    found, speech = work_out(Asked(case, given, config), language)
    return _show(found, speech, [sensitivity(found, speech)], None, as_json=as_json)


@cost_app.command("bill")
def bill(
    since: Since = None,
    before: Before = None,
    market: Market = None,
    config: Config = None,
    as_json: Json = False,
    language: Language = "en",
) -> int:
    """What the last month's ledger cost here, and what its tokens would have cost at each provider."""
    from serving.cli.cost_inputs import usage_bills
    from serving.cli.show import print_json, print_table
    from serving.economics.report.of_bills import bills_as_json, bills_table
    from serving.economics.report.words import Speech

    usage, found = usage_bills(since, before, market, config)
    if as_json:
        print_json(bills_as_json(usage, found))
        return 0
    table = bills_table(usage, found, Speech(language))
    sys.stdout.writelines(f"{sentence}\n" for sentence in (table.title, *table.says))
    print_table(table.head, table.rows)
    return 0


@cost_app.command("advise")
def advise(
    data: Annotated[
        Literal["public", "internal", "personal", "secret"],
        typer.Option("--data", help="The most delicate of the work."),
    ],
    may_leave: Annotated[float, typer.Option("--may-leave", min=0, max=1, help="Share of the work that may leave.")],
    api_per_month: Annotated[
        float, typer.Option("--api-per-month", min=0, help="What an API costs, or would, in US dollars.")
    ],
    peak: Annotated[float, typer.Option("--peak", min=1, help="The busiest hour's load over the mean hour's.")],
    team: Annotated[float, typer.Option("--team", min=0, help="Full-time posts for running it, there already.")],
    horizon: Annotated[int, typer.Option("--horizon-months", min=1)],
    nights: Annotated[bool, typer.Option("--nights", help="The work goes on at night.")] = False,
    on_call: Annotated[bool, typer.Option("--on-call", help="Somebody comes at night.")] = False,
    tuning: Annotated[bool, typer.Option("--tuning", help="An open model does not do the work as it is.")] = False,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Labelled ones, for tuning.")] = 0,
    case: Annotated[Path | None, typer.Option("--case", help="Its interval of what owning saves counts.")] = None,
    market: Market = None,
    as_json: Json = False,
    language: Language = "en",
) -> int:
    """API, own machines, both, or none of them: the conditions that are not met. No score."""
    from decimal import Decimal

    from serving.cli.cost_inputs import Asked, work_out
    from serving.cli.show import print_json
    from serving.economics.advise import Situation
    from serving.economics.advise import advise as advised
    from serving.economics.report.of_advice import advice_as_json, advice_lines
    from serving.economics.report.words import Speech
    from serving.errors import UsageError

    saved: dict[str, Decimal] = {}
    if case is not None:
        found, _ = work_out(Asked(case, CostOptions(market=market)), language)
        if found.case.own is None:
            raise UsageError(f"the case `{case}` does not say what owning costs", hint="it needs `own`")
        saved = {name: spread.low for name, spread in found.drawn.savings.items()}
        if found.drawn.saved_by_both is not None:
            saved["both"] = found.drawn.saved_by_both.low
    situation = Situation(
        peak=Decimal(str(peak)),
        api_per_month=Decimal(str(api_per_month)),
        team=Decimal(str(team)),
        is_on_call=on_call,
        needs_nights=nights,
        data=data,
        may_leave=Decimal(str(may_leave)),
        horizon_months=horizon,
        examples=examples,
        needs_tuning=tuning,
        own_saves=saved.get("own"),
        both_save=saved.get("hybrid"),
        both_save_of_own=saved.get("both"),
    )
    advice = advised(situation)
    if as_json:
        print_json(advice_as_json(advice))
    else:
        sys.stdout.writelines(f"{line}\n" for line in advice_lines(advice, Speech(language)))
    return 0


def _show(found: Findings, speech: Speech, tables: Sequence[Table], page: Path | None, *, as_json: bool) -> int:
    """As a page, as JSON, or printed; warnings go to stderr in every case."""
    from serving.cli.show import print_json, print_table
    from serving.economics.report.as_json import as_json as plain
    from serving.economics.report.tables import warnings

    if page is not None:
        from serving.cli.cost_page import write_page

        write_page(found, speech, page)
        sys.stderr.write(f"wrote {page}\n")
    if as_json:
        print_json(plain(found))
    elif page is None:
        for place, table in enumerate(tables):
            sys.stdout.write(("\n" if place else "") + f"{table.title}\n")
            sys.stdout.writelines(f"{sentence}\n" for sentence in table.says)
            print_table(table.head, table.rows)
    for warning in warnings(found, speech):
        sys.stderr.write(f"warning: {warning}\n")
    return 0
