"""One or several results as a page that a person reads: a single HTML file, which loads and runs nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from serving.bench.record import Distribution, Figure, Result, Stage
from serving.bench.report.compare import Cell, Comparison, Row, Verdict
from serving.bench.report.definitions import DEFINITIONS
from serving.bench.report.figures import (
    DURATIONS,
    NOT_ENOUGH,
    QUANTITIES,
    Quantity,
    doubts_of,
    interval,
    load_of,
    number,
    objective_text,
    ratio_text,
    read_figure,
    shown,
    shown_stage,
    title_of,
    unit_name,
)
from serving.bench.report.markup import Html, Picture, join, page, picture, table, tag

_TILES: Final = ("output_tokens_per_s", "requests_per_s", "ttft_p50", "ttft_p99", "tpot_p50", "goodput")
_RATES: Final = ("output_tokens_per_s", "prompt_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput")
_BY_LOAD: Final = ("output_tokens_per_s", "ttft_p50", "ttft_p99", "tpot_p50", "goodput", "joules_per_output_token")
_GIB: Final = 1 << 30


def report(
    results: Sequence[Result],
    pictures: Sequence[Picture],
    machines: Mapping[str, Sequence[tuple[str, str]]],
    comparison: Comparison | None = None,
) -> str:
    """The page. `machines` are the servers' machines in words, by result; `comparison` is of these results."""
    titles = list(dict.fromkeys(title_of(result) for result in results))
    first = results[0]
    if len(results) == 1:
        title, sub = f"{titles[0]}: {first.target.model}", f"{first.name}, measured {first.made} at {first.target.url}"
    else:
        title, sub = f"{' / '.join(titles)}: {len(results)} results", ", ".join(result.name for result in results)
    head = tag("header", tag("h1", title), tag("p", sub, class_="sub"))
    sections = [head, _notice(results, comparison), *(_tiles(result) for result in results if len(results) == 1)]
    if comparison is not None:
        sections.append(_best(comparison))
    if pictures:
        sections.append(tag("section", tag("h2", "Charts"), tag("div", *map(picture, pictures))))
    if comparison is not None:
        stage, loads = shown_stage(first), [matched.load for matched in comparison.matched]
        at = load_of(stage) if stage is not None else ""
        sections.append(_compared(comparison, at if at in loads else loads[-1] if loads else ""))
    sections += [_figures(result, is_alone=len(results) == 1) for result in results]
    sections += [_measured(results, machines), _definitions(), _footer(results)]
    return page(title, *sections)


def _notice(results: Sequence[Result], comparison: Comparison | None) -> Html:
    several = len(results) > 1
    if comparison is not None:
        doubts = list(comparison.warnings)
    else:
        doubts = [f"{result.name}: {doubt}" if several else doubt for result in results for doubt in doubts_of(result)]
    if not doubts:
        return tag("p", "The harness found nothing that speaks against these figures.", class_="sound")
    plain = [doubt.replace("`", "") for doubt in doubts]
    if not several:  # of several, each begins with a name, which is written as it is
        plain = [f"{doubt[:1].upper()}{doubt[1:]}" for doubt in plain]
    listed = tag("ul", *(tag("li", f"{doubt}.") for doubt in plain))
    return tag("section", tag("h2", "Read this before the figures"), listed, class_="notice")


def _tiles(result: Result) -> Html:
    stage = shown_stage(result)
    if stage is None:
        return Html()
    told = [(name, read_figure(stage, name)) for name in (*_TILES, "joules_per_output_token")]
    tiles = [
        tag(
            "div",
            tag("div", quantity.title, class_="what"),
            tag(
                "div", shown(figure.value, quantity.unit), tag("small", f" {unit_name(quantity.unit)}"), class_="value"
            ),
            tag("div", _sure(figure, quantity), class_="note"),
            class_="tile",
        )
        for name, figure in told
        if figure is not None and (quantity := QUANTITIES[name])
    ]
    return join([tag("div", *tiles, class_="tiles"), tag("p", f"At {load_of(stage)}.", class_="note")])


def _sure(figure: Figure, quantity: Quantity) -> str:
    told = interval(figure, quantity.unit)
    return "" if told is None else f"95%: {told}"


def _best(comparison: Comparison) -> Html:
    verdicts = table(
        ["Question", "Best", "By what was measured"],
        [
            (
                join([verdict.question, tag("div", verdict.condition, class_="note")]),
                verdict.said,
                _entries(verdict, comparison.currency),
            )
            for verdict in comparison.verdicts
        ],
        class_="said",
    )
    return tag("section", tag("h2", "Which is best"), verdicts)


def _compared(comparison: Comparison, shown_load: str) -> Html:
    first, *others = comparison.names
    head = ["", first, *others]
    note = f"Ratios are to {first}. A difference counts as one where the 95% interval of the ratio excludes 1."
    tables: list[Html] = [tag("p", note, class_="note")]
    for matched in comparison.matched:
        rows = [_compared_row(row, comparison.currency) for row in matched.rows]
        tables.append(_folded(f"At {matched.load}", [table(head, rows)], is_open=matched.load == shown_load))
    if comparison.saturation:
        rows = [_compared_row(row, comparison.currency) for row in comparison.saturation]
        tables += [tag("h3", "Where the sweeps ended"), table(head, rows)]
    if comparison.unmatched:
        tables.append(
            tag("p", f"Not compared, for want of the same load: {', '.join(comparison.unmatched)}.", class_="note")
        )
    return tag("section", tag("h2", "Side by side"), *tables)


def _entries(verdict: Verdict, currency: str) -> Html:
    lines = []
    for entry in verdict.entries:
        told = interval(entry.figure, verdict.quantity.unit)
        sure = f" (95%: {told})" if told else ""
        value = _value(entry.figure, verdict.quantity, currency)
        lines.append(tag("div", f"{entry.name}: {value}", tag("span", f"{sure} at {entry.load}", class_="note")))
    return join(lines)


def _compared_row(row: Row, currency: str) -> list[object]:
    return [_titled(row.quantity, currency), *(_compared_cell(cell, row.quantity) for cell in row.cells)]


def _titled(quantity: Quantity, currency: str = "") -> str:
    unit = unit_name(quantity.unit, currency)
    return quantity.title if unit in quantity.title else f"{quantity.title}, {unit}"


def _compared_cell(cell: Cell, quantity: Quantity) -> Html:
    if cell.figure is None:
        return tag("span", NOT_ENOUGH, class_="same")
    lines = [tag("span", told, class_="of")] if (told := interval(cell.figure, quantity.unit)) else []
    if cell.ratio is not None:
        found = cell.judged(quantity)
        kind = found if found in ("better", "worse") else "same"
        lines.append(tag("span", ratio_text(cell.ratio), " ", tag("span", found, class_=kind), class_="of"))
    return join([shown(cell.figure.value, quantity.unit), *lines])


def _value(figure: Figure, quantity: Quantity, currency: str = "") -> str:
    return f"{shown(figure.value, quantity.unit)} {unit_name(quantity.unit, currency)}"


def _figures(result: Result, *, is_alone: bool) -> Html:
    parts = [tag("h2", "Figures" if is_alone else f"Figures of {result.name}")]
    if len(result.stages) > 1:
        parts += _by_load(result)
    for stage in result.stages:
        found = _stage(stage)
        several = len(result.stages) > 1
        parts += [_folded(f"At {load_of(stage)}", found, is_open=stage is shown_stage(result))] if several else found
    return tag("section", *parts)


def _by_load(result: Result) -> list[Html]:
    quantities = [QUANTITIES[name] for name in _BY_LOAD]
    known = [each for each in quantities if any(read_figure(stage, each.name) for stage in result.stages)]
    head = ["load", "completed", "failed", *map(_titled, known)]
    rows = [
        [load_of(stage), stage.requests.completed, stage.requests.failed,
         *(_cell(read_figure(stage, each.name), each) for each in known)]
        for stage in result.stages
    ]  # fmt: skip
    end = result.saturation
    if end is None:
        return [table(head, rows)]
    over = "clients" if end.over == "clients" else "requests/s"
    held = "No load held" if end.held is None else f"The highest load that held: {end.held:g} {over}"
    failed = "none that was tried did not" if end.failed is None else f"{end.failed:g} did not"
    return [tag("p", f"{held}; {failed}. Held means: {end.why}."), table(head, rows)]


def _folded(title: str, parts: Sequence[Html], *, is_open: bool) -> Html:
    """What can be opened by a click; closed, it is not printed either."""
    opened = {"open": ""} if is_open else {}
    return tag("details", tag("summary", title), *parts, **opened)


def _stage(stage: Stage) -> list[Html]:
    parts = []
    rows = [_duration(name, found) for name, found in stage.figures.items() if found.count]
    if rows:
        parts.append(table(["milliseconds", "mean", "p50", "p90", "p99", "longest"], rows))
    rates = [
        [QUANTITIES[name].title, _cell(read_figure(stage, name), QUANTITIES[name], has_unit=True)]
        for name in _RATES
        if name != "goodput" or stage.goodput is not None
    ]
    parts.append(table(["in a second of the window", ""], [*rates, *_energy(stage)]))
    requests = stage.requests
    counted = ", ".join(f"{getattr(requests, name):,} {name}" for name in ("completed", "short", "truncated", "failed"))
    took = f"{number(stage.seconds)} s"
    if stage.window is not None:
        took += f", rates from {number(stage.window.begin)} s to {number(stage.window.end)} s"
    parts.append(tag("p", f"Requests: {counted}. Time: {took}. {_tokens(stage)} {_client(stage)}"))
    if stage.errors:
        errors = sorted(stage.errors.items(), key=lambda error: -error[1])
        parts.append(table(["error", "requests"], [(text, f"{count:,}") for text, count in errors]))
    return parts


def _tokens(stage: Stage) -> str:
    tokens = stage.tokens
    cached = "" if tokens.cached is None else f" ({tokens.cached:,} of them cached)"
    told = f"Tokens: {tokens.prompt:,} in prompts{cached}, {tokens.output:,} written."
    if tokens.prompt_off is not None:
        told += f" The server's count of prompts differs from ours by {100 * tokens.prompt_off:.1f}%."
    if tokens.output_off is not None:
        told += f" Its count of {tokens.recounted:,} answers counted again differs by {100 * tokens.output_off:.1f}%."
    return told


def _client(stage: Stage) -> str:
    trust = stage.trust
    told = [
        f"took {trust.cpu_share:.0%} of a core",
        "" if trust.loop_lag_p99_s is None else f"woke up {1000 * trust.loop_lag_p99_s:.1f} ms late (p99)",
        "" if trust.late_p99_s is None else f"sent requests {1000 * trust.late_p99_s:.1f} ms late (p99)",
        "" if trust.delivered_ratio is None else f"sent {trust.delivered_ratio:.1%} of the rate intended",
        "" if trust.waited_share is None else f"waited for a processor {trust.waited_share:.1%} of the time",
    ]
    return f"The client {', '.join(part for part in told if part)}."


def _duration(name: str, found: Distribution) -> list[object]:
    parts = [_cell(part, QUANTITIES["ttft_mean"]) for part in (found.mean, found.p50, found.p90, found.p99)]
    return [DURATIONS.get(name, name), *parts, "–" if found.most is None else shown(found.most, "s")]


def _energy(stage: Stage) -> list[list[object]]:
    energy = stage.energy
    if energy is None:
        return [["energy", tag("span", "not metered", class_="same")]]
    told: list[tuple[str, float | None, str]] = [
        (f"mean power ({', '.join(energy.meters)})", energy.mean_w, "W"),
        ("energy per output token", energy.joules_per_output_token, "J"),
        ("energy per request", energy.joules_per_request, "J"),
        ("output tokens/s per W", energy.output_tokens_per_s_per_w, ""),
        ("utilisation of GPUs", None if energy.utilisation is None else 100 * energy.utilisation, "%"),
        ("most memory of GPUs", None if energy.memory_peak_bytes is None else energy.memory_peak_bytes / _GIB, "GiB"),
        ("clock of GPUs", energy.clock_mhz, "MHz"),
    ]
    return [[title, f"{number(value)} {unit}".rstrip()] for title, value, unit in told if value is not None]


def _cell(figure: Figure | None, quantity: Quantity, *, has_unit: bool = False) -> Html:
    if figure is None:
        return tag("span", NOT_ENOUGH, class_="same")
    value = _value(figure, quantity) if has_unit else shown(figure.value, quantity.unit)
    told = interval(figure, quantity.unit)
    return join([value, *([tag("span", told, class_="of")] if told else [])])


def _measured(results: Sequence[Result], machines: Mapping[str, Sequence[tuple[str, str]]]) -> Html:
    facts = [dict(_facts(result, machines.get(result.name, ()))) for result in results]
    names = dict.fromkeys(name for told in facts for name in told)
    rows = [[name, *(told.get(name, "–") for told in facts)] for name in names]
    head = ["", *(result.name for result in results)]
    return tag("section", tag("h2", "What was measured"), table(head, rows, class_="facts"))


def _facts(result: Result, machine: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    server, started, client = result.target.server, result.target.started, result.client
    facts = [("model", result.target.model), ("at", result.target.url)]
    if server is not None:
        facts.append(("server", " ".join(part for part in (server.name, server.version) if part) or "–"))
        facts += [(f"server: {name}", _plain(value)) for name, value in server.facts.items()]
    if started is not None:
        facts.append(("started as", " ".join(started.command)))
        if started.engine is not None:
            facts.append(("engine", " ".join(part for part in (started.engine.name, started.engine.version) if part)))
        facts += [(f"plan: {name}", _plain(value)) for name, value in started.plan.items() if not _is_large(value)]
        facts.append(("weights", f"{started.weights or '–'}{' (synthetic)' if started.dummy_weights else ''}"))
        facts.append(("weights' SHA-256", started.weights_sha256 or "–"))
        if started.ready_s is not None:
            facts.append(("ready after", f"{number(started.ready_s)} s"))
    facts += [(f"machine: {name}", value) for name, value in machine] or [("machine", "elsewhere, not described")]
    exact = "of exact length" if result.prompts.exact else "not of exact length"
    place = {True: ", on the server's machine", False: ", elsewhere", None: ""}[client.is_on_the_servers_machine]
    facts += [
        ("scenario", title_of(result)),
        ("scenario's SHA-256", result.scenario_sha256),
        ("objective", objective_text(result) or "none"),
        ("prompts", f"{exact}, counted by: {result.prompts.counted_by}"),
        ("client", f"{client.processes} process{'' if client.processes == 1 else 'es'}, {client.cores} cores{place}"),
        ("measured", f"{result.made}, by version {result.version}"),
    ]
    return facts


def _is_large(value: Any) -> bool:
    return isinstance(value, dict | list | tuple) and len(str(value)) > 200


def _plain(value: Any) -> str:
    return "–" if value is None else str(value)


def _definitions() -> Html:
    terms = [part for term, meaning in DEFINITIONS for part in (tag("dt", term), tag("dd", meaning))]
    return tag("section", tag("h2", "What the figures mean"), tag("dl", *terms))


def _footer(results: Sequence[Result]) -> Html:
    versions = ", ".join(sorted({result.version for result in results}))
    return tag(
        "footer", tag("p", f"Made by Perimeter (serve bench) from results of version {versions}.", class_="note")
    )
