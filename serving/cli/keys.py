"""`serve keys`: who may call. A key is printed once, to stdout; everything else about it goes to stderr."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from serving.cli.days import beginning, day_of
from serving.errors import StartError, Unwritable, UsageError

if TYPE_CHECKING:
    from serving.audit.records import Record

keys_app = typer.Typer(help="Who may call, and how much.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file in place of /etc/perimeter/serving.toml.")]
Expires = Annotated[
    str | None, typer.Option("--expires", help="When it ends: a time such as `90d` or `12h`, or a day, in UTC.")
]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope", help="inference, metrics, admin or mirror; may be given again. A new key is for inference."
    ),
]
Models = Annotated[list[str] | None, typer.Option("--model", help="Only this model; may be given again.")]
Networks = Annotated[
    list[str] | None, typer.Option("--network", help="Only from there, such as 10.0.0.0/8; may be given again.")
]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", help="Of its work this class of the policy may leave; may be given again."),
]
Residency = Annotated[
    list[str] | None, typer.Option("--residency", help="Its data may go to this region; may be given again.")
]
RequestsPerMinute = Annotated[int | None, typer.Option("--requests-per-minute", min=0)]
RequestsPerDay = Annotated[int | None, typer.Option("--requests-per-day", min=0)]
TokensPerMinute = Annotated[
    int | None, typer.Option("--tokens-per-minute", min=0, help="Of prompts and answers together.")
]
TokensPerDay = Annotated[int | None, typer.Option("--tokens-per-day", min=0)]
Concurrency = Annotated[int | None, typer.Option("--concurrency", min=0, help="Requests at one time.")]
BudgetPerDay = Annotated[
    str | None, typer.Option("--budget-per-day", help="Money, in the price book's currency, such as 12.50.")
]
BudgetPerMonth = Annotated[str | None, typer.Option("--budget-per-month")]
Budget = Annotated[str | None, typer.Option("--budget", help="Money in all.")]
KeyId = Annotated[str, typer.Argument(help="The key's id: what stands between `pk_` and the next `_`.")]
_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_MICRO: Final = 10**6
_UNSET: Final = {
    "expires": "expires",
    "model": "models",
    "network": "networks",
    "class": "classes",
    "residency": "residency",
    "requests-per-minute": "requests_per_minute",
    "requests-per-day": "requests_per_day",
    "tokens-per-minute": "tokens_per_minute",
    "tokens-per-day": "tokens_per_day",
    "concurrency": "concurrency",
    "budget-per-day": "cost_per_day",
    "budget-per-month": "cost_per_month",
    "budget": "cost_in_all",
}
"""What `--unset` takes, and the field that it is. A key without a scope would be for nothing."""


@keys_app.command("create")
def create_key(
    owner: Annotated[str, typer.Option("--owner", help="Whose it is: a person, a team, a program.")],
    name: Annotated[str, typer.Option("--name", help="What it is for.")] = "key",
    expires: Expires = None,
    scope: Scopes = None,
    model: Models = None,
    network: Networks = None,
    workload: Classes = None,
    residency: Residency = None,
    cache_domain: Annotated[
        str | None, typer.Option("--cache-domain", help="Who shares computed prefixes with it; unset: the owner.")
    ] = None,
    requests_per_minute: RequestsPerMinute = None,
    requests_per_day: RequestsPerDay = None,
    tokens_per_minute: TokensPerMinute = None,
    tokens_per_day: TokensPerDay = None,
    concurrency: Concurrency = None,
    budget_per_day: BudgetPerDay = None,
    budget_per_month: BudgetPerMonth = None,
    budget: Budget = None,
    record_content: Annotated[
        bool, typer.Option("--record-content", help="Keep its prompts and answers, sealed for the auditor.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Make a key and print it, once: it is not kept, and cannot be shown again."""
    limits: dict[str, int | None] = {
        "requests_per_minute": requests_per_minute,
        "requests_per_day": requests_per_day,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
        "concurrency": concurrency,
        **_budgets(budget_per_day, budget_per_month, budget),
    }
    body: dict[str, object] = {"owner": owner, "name": name, "expires": _time(expires, "--expires"), "limits": limits}
    body["record_content"] = record_content
    told = {"scopes": scope, "models": model, "networks": network, "cache_domain": cache_domain}
    told |= {"classes": workload, "residency": residency}
    body |= {field: value for field, value in told.items() if value}
    made = _ask(config, "create", body)
    status = _print_key(made, f"the key `{made['id']}` of `{made['owner']}` is made", as_json=as_json)
    _warn_of_what_was_said(made)
    return status


@keys_app.command("list")
def list_keys(config: Config = None, as_json: Json = False) -> int:
    """Which keys there are, what they are for, and what was used of them."""
    from serving.cli.show import print_json, print_rows

    found = _ask(config, "list", {})
    if as_json:
        print_json(found)
        return 0
    rows = [("ID", "OWNER", "NAME", "STATE", "REQUESTS", "TOKENS", "SPENT", "FOR")]
    for key in found["keys"]:
        used = key["used"]
        about = [", ".join(key["scopes"]), *(key["models"] or []), *key["networks"]]
        about += [f"{name} ≤ {_limit(name, value)}" for name, value in key["limits"].items() if value is not None]
        about += [f"may leave as {name}" for name in key["classes"]] + [f"to {name}" for name in key["residency"]]
        about += ["content is recorded"] if key["record_content"] else []
        told = (str(used["requests"]), str(used["tokens"]), _shown(used["cost"], found["currency"]))
        rows.append((key["id"], key["owner"], key["name"], _state(key), *told, "; ".join(about)))
    print_rows(rows)
    return 0


@keys_app.command("rotate")
def rotate_key(
    key_id: KeyId,
    grace: Annotated[str, typer.Option("--grace", help="How long the old key is still valid.")] = "24h",
    expires: Expires = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Make a key in place of another one, with the same rights and what is left of its limits, and print it once."""
    seconds = _duration(grace)
    if seconds is None:
        raise UsageError(f"`--grace {grace}` is no length of time", hint="such as `30m`, `24h`, `7d`, or `0m`")
    body = {"id": key_id, "grace_s": seconds, "expires": _time(expires, "--expires")}
    made = _ask(config, "rotate", body)
    until = _moment(made["instead_of"]["grace_until"])
    return _print_key(made, f"the key `{made['id']}` is made; `{key_id}` is valid until {until}", as_json=as_json)


@keys_app.command("change")
def change_key(
    key_id: KeyId,
    expires: Expires = None,
    scope: Scopes = None,
    model: Models = None,
    network: Networks = None,
    workload: Classes = None,
    residency: Residency = None,
    requests_per_minute: RequestsPerMinute = None,
    requests_per_day: RequestsPerDay = None,
    tokens_per_minute: TokensPerMinute = None,
    tokens_per_day: TokensPerDay = None,
    concurrency: Concurrency = None,
    budget_per_day: BudgetPerDay = None,
    budget_per_month: BudgetPerMonth = None,
    budget: Budget = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(
            "--unset", help="Without this from now on, such as `model` or `tokens-per-day`; may be given again."
        ),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Give a key other limits, models, networks, scopes or another end, at once; what is not named stays."""
    from serving.cli.show import print_json

    limits: dict[str, int | None] = {
        "requests_per_minute": requests_per_minute,
        "requests_per_day": requests_per_day,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
        "concurrency": concurrency,
        **_budgets(budget_per_day, budget_per_month, budget),
    }
    told = {"expires": _time(expires, "--expires"), "scopes": scope, "models": model, "networks": network}
    told |= {"classes": workload, "residency": residency}
    body: dict[str, object] = {field: value for field, value in told.items() if value}
    changed: dict[str, int | None] = {field: value for field, value in limits.items() if value is not None}
    for name in unset or ():
        field = _UNSET.get(name.removeprefix("--"))
        if field is None:
            raise UsageError(f"`--unset {name}` is none of {', '.join(_UNSET)}")
        if field in body or field in changed:
            raise UsageError(f"`--{name.removeprefix('--')}` is both set and unset")
        if field in limits:
            changed[field] = None
        else:
            body[field] = [] if field in ("networks", "classes", "residency") else None
    if changed:
        body["limits"] = changed
    made = _ask(config, "change", {"id": key_id, **body})
    if as_json:
        print_json(made)
    sys.stderr.write(f"the key `{made['id']}` of `{made['owner']}` is changed\n")
    if "classes" in body:
        _warn_of_what_was_said(made)
    return 0


@keys_app.command("revoke")
def revoke_key(key_id: KeyId, config: Config = None) -> int:
    """End a key at once; streams that run with it are cut within a second."""
    gone = _ask(config, "revoke", {"id": key_id})
    sys.stderr.write(f"the key `{gone['id']}` of `{gone['owner']}` is revoked\n")
    return 0


@keys_app.command("usage")
def show_usage(
    key_id: Annotated[str | None, typer.Argument(help="Of this key alone.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="From this day on, in UTC; unset: of this month.")
    ] = None,
    before: Annotated[str | None, typer.Option("--before", help="Until the day before this one.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """What was used, by key and model."""
    from serving.cli.show import print_json, print_rows

    body = {"id": key_id, "since": _day(since, "--since"), "before": _day(before, "--before")}
    found = _ask(config, "usage", {name: value for name, value in body.items() if value is not None})
    if as_json:
        print_json(found)
        return 0
    counts = ("requests", "fresh", "cached", "output", "reasoning")
    rows = [("KEY", "OWNER", "MODEL", *(name.upper() for name in counts), "ESTIMATED", "COST")]
    for each in found["usage"]:
        cost = _shown(each["cost"], found["currency"])
        numbers = [str(each[name]) for name in (*counts, "estimated")]
        rows.append((each["key_id"], each["owner"], each["model"], *numbers, cost))
    print_rows(rows)
    sys.stderr.write(f"from {_moment(found['since'])} to {_moment(found['before'])}\n")
    if found["complete_from"] is not None:
        sys.stderr.write(f"kept from {_moment(found['complete_from'])} on (access.usage_retention_days)\n")
    return 0


def _ask(config: Path | None, operation: str, body: Mapping[str, object]) -> dict[str, Any]:
    import serving
    from serving.access.administration import ask
    from serving.audit import Audit
    from serving.audit.log import places_of
    from serving.audit.records import KeyRevoked
    from serving.cli.options import settings_for

    settings = settings_for(config)
    keeps_content = settings.audit.enabled is not False and settings.audit.content.public_key is not None

    def record(act: Record) -> None:
        if settings.audit.enabled is False:
            return
        try:
            audit = Audit.of_site(places_of(settings.audit, os.environ), settings.audit, version=serving.__version__)
            try:
                audit.record(act)
            finally:
                audit.close("a command that worked without a server")
        except (StartError, Unwritable) as error:
            if not isinstance(act, KeyRevoked):
                raise
            sys.stderr.write(f"warning: the key is revoked, and that is not on record: {error.message}\n")

    return ask(settings.access, os.environ, operation, body, keeps_content=keeps_content, on_act=record)


def _print_key(made: Mapping[str, Any], sentence: str, *, as_json: bool) -> int:
    from serving.cli.show import print_json

    if as_json:
        print_json(made)
    else:
        sys.stdout.write(f"{made['key']}\n")
    sys.stdout.flush()
    sys.stderr.write(f"{sentence}\nit is shown this once: keep it where secrets are kept\n")
    return 0


def _warn_of_what_was_said(key: Mapping[str, Any]) -> None:
    """What is said where nobody is enrolled is not remembered, and so not recognised when it comes again."""
    if key["classes"]:
        sys.stderr.write(
            f"what was said in `{key['cache_domain']}` before its first key was enrolled is not "
            "remembered: the detectors alone keep it inside\n"
        )


def _state(key: Mapping[str, Any]) -> str:
    now = datetime.now(UTC).timestamp()
    if key["revoked"] is not None:
        return "revoked"
    if key["grace_until"] is not None:
        return "replaced" if now >= key["grace_until"] else f"replaced, valid to {_moment(key['grace_until'])}"
    if key["expires"] is not None:
        return "expired" if now >= key["expires"] else f"valid to {_moment(key['expires'])}"
    return "valid"


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _limit(name: str, value: int) -> str:
    return _shown(value, "") if name.startswith("cost") else str(value)


def _shown(micro: int, currency: str) -> str:
    whole, rest = divmod(micro, _MICRO)
    digits = f"{rest:06}".rstrip("0")
    return f"{whole}.{digits:0<2} {currency}".strip()


def _money(text: str | None, flag: str) -> int | None:
    from serving.access.prices import micro_of

    if text is None:
        return None
    try:
        micro = micro_of(Decimal(text))
    except InvalidOperation:
        micro = None
    if micro is None:
        raise UsageError(f"`{flag} {text}` is no amount of money", hint="such as `12.50`, with at most six places")
    return micro


def _budgets(per_day: str | None, per_month: str | None, in_all: str | None) -> dict[str, int | None]:
    return {
        "cost_per_day": _money(per_day, "--budget-per-day"),
        "cost_per_month": _money(per_month, "--budget-per-month"),
        "cost_in_all": _money(in_all, "--budget"),
    }


def _duration(text: str) -> int | None:
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def _time(text: str | None, flag: str) -> int | None:
    """Seconds since 1970 of a length of time from now, or of the beginning of a day."""
    if text is None:
        return None
    seconds = _duration(text)
    return _day(text, flag) if seconds is None else int(datetime.now(UTC).timestamp()) + seconds


def _day(text: str | None, flag: str) -> int | None:
    if text is None:
        return None
    return beginning(day_of(text, flag, what="time", hint="a day, such as `2027-01-31`; or `90d` for --expires"))
