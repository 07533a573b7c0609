"""Commands and flags of `serve audit`."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

audit_app = typer.Typer(help="The record of who asked for what, and its proof.", no_args_is_help=True)
content_app = typer.Typer(help="Prompts and answers of keys with --record-content.", no_args_is_help=True)
audit_app.add_typer(content_app, name="content")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file in place of /etc/perimeter/serving.toml.")]
Directory = Annotated[Path | None, typer.Option("--directory", help="The log; audit.directory if left out.")]
Kind = Annotated[list[str] | None, typer.Option("--kind", help="Only this kind, such as `intent`; or several.")]
Key = Annotated[str | None, typer.Option("--key", help="Only what names the key of this id.")]
Request = Annotated[str | None, typer.Option("--request", help="Only what names the request of this id.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is recorded.")]
OfKey = Annotated[str | None, typer.Option("--key-id", help="Of the API key of this id.")]
Since = Annotated[str | None, typer.Option("--since", help="Only from this time (UTC) on: `2026-01-31T12:00`.")]
Until = Annotated[str | None, typer.Option("--until", help="Only before this time.")]


@audit_app.command("show")
def audit_show(
    *,
    directory: Directory = None,
    kind: Kind = None,
    key: Key = None,
    request: Request = None,
    since: Since = None,
    until: Until = None,
    last: Annotated[int, typer.Option("--last", min=0, help="The last N that match; 0 for all.")] = 50,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Print records, the latest last. Proves nothing: `verify` does."""
    from serving.cli.audit import Wanted, show_records

    return show_records(directory, Wanted(tuple(kind or ()), key, request, since, until), last, config, as_json=as_json)


@audit_app.command("verify")
def audit_verify(
    *,
    directory: Directory = None,
    key: Annotated[
        list[Path] | None,
        typer.Option("--key", help="Public key of checkpoints, or several; audit.signing_key's .pub if left out."),
    ] = None,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchor", help="File with what left the host: audit.anchor_file, or a syslog server's; several."
        ),
    ] = None,
    content: Annotated[
        Path | None, typer.Option("--content", help="Content store: whether what the log names in it is there.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Check the log: with its public key alone, offline; with --anchor also against who has the private one."""
    from serving.cli.audit import verify_records

    return verify_records(directory, key or [], anchor or [], content, config, as_json=as_json)


@audit_app.command("export")
def audit_export(
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="New file; stdout if left out.")] = None,
    directory: Directory = None,
    kind: Kind = None,
    key: Key = None,
    request: Request = None,
    since: Since = None,
    until: Until = None,
    config: Config = None,
) -> int:
    """Write entries as they stand in the log, a line of JSON each: for a search index, or as an anchor."""
    from serving.cli.audit import Wanted, export_records

    return export_records(directory, output, Wanted(tuple(kind or ()), key, request, since, until), config)


@audit_app.command("keygen")
def audit_keygen(config: Config = None, *, as_json: Json = False) -> int:
    """Make the keys of the log, where the settings have them; the public one is for those who verify."""
    from serving.cli.audit import make_audit_keys

    return make_audit_keys(config, as_json=as_json)


@content_app.command("keygen")
def content_keygen(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="New file for the private key; FILE.pub has the other.")],
    *,
    as_json: Json = False,
) -> int:
    """Make the auditor's keys: the server is given the public one, and what it keeps opens with the private one."""
    from serving.cli.content import make_auditor_keys

    return make_auditor_keys(path, as_json=as_json)


@content_app.command("list")
def content_list(*, key: OfKey = None, as_json: Json = False, config: Config = None) -> int:
    """Print which prompts and answers are kept, and nothing of their text."""
    from serving.cli.content import list_content

    return list_content(key, config, as_json=as_json)


@content_app.command("show")
def content_show(
    content: Annotated[str, typer.Argument(metavar="ID", help="The record's id, from `list` or the log.")],
    key: Annotated[Path, typer.Option("--key", help="The auditor's private key.")],
    reason: Reason,
    config: Config = None,
) -> int:
    """Print a prompt or an answer as it went over the wire; the reading is recorded first."""
    from serving.cli.content import show_content

    return show_content(content, key, reason, config)


@content_app.command("erase")
def content_erase(
    reason: Reason,
    content: Annotated[str | None, typer.Argument(metavar="[ID]", help="This record alone.")] = None,
    *,
    key: OfKey = None,
    before: Annotated[str | None, typer.Option("--before", help="Of before this day, in UTC: `2026-01-31`.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Make prompts and answers unreadable for ever, by destroying their keys; that is recorded first."""
    from serving.cli.content import erase_content

    return erase_content(content, key, before, reason, config, as_json=as_json)
