"""Commands and flags of `serve route`."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

route_app = typer.Typer(help="What may leave this host, and why (docs/routing.md).", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file in place of /etc/perimeter/serving.toml.")]


@route_app.command("explain")
def route_explain(
    file: Annotated[
        Path | None, typer.Argument(help="A text, or a request's body in JSON; else standard input.")
    ] = None,
    *,
    model: Annotated[str, typer.Option("--model", help="The model that a text is asked of.")] = "",
    workload: Annotated[list[str] | None, typer.Option("--class", help="As a key enrolled for this; several.")] = None,
    residency: Annotated[list[str] | None, typer.Option("--residency", help="Its data may go there; several.")] = None,
    domain: Annotated[
        str, typer.Option("--domain", help="Whose texts it is compared with: a key's owner.")
    ] = "explain",
    is_here: Annotated[
        bool, typer.Option("--engine/--no-engine", help="Whether an engine here can take it; else a server inside may.")
    ] = True,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Where a request would go, and why: what was found by place and kind, the rule that decided. Sends nothing."""
    from serving.cli.route import Question, explain_request

    question = Question(model, tuple(workload or ()), tuple(residency or ()), domain, is_here)
    return explain_request(file, question, config, as_json=as_json)


@route_app.command("replay")
def route_replay(
    policy: Annotated[Path, typer.Option("--policy", help="The policy to try.")],
    directory: Annotated[
        Path | None, typer.Argument(help="The audit log of `serve egress`; else the one that the settings name.")
    ] = None,
    *,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """What another policy would have done with the requests of the record: which would go elsewhere, and why."""
    from serving.cli.route_replay import replay_log

    return replay_log(directory, policy, config, as_json=as_json)


@route_app.command("drill")
def route_drill(
    *,
    model: Annotated[str, typer.Option("--model", "-m", help="A model that a destination serves.")],
    key_file: Annotated[Path, typer.Option("--key-file", help="File with a key that is enrolled for a class.")],
    url: Annotated[str | None, typer.Option("--url", help="The server; else this host's, at the port it has.")] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", help="PEM file that the server's certificate is verified by.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="It is meant: others are served inside meanwhile.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Try an outage of the provider, and the kill switch, on the running site: what is asked is served all the same."""
    from serving.cli.route_drill import drill

    return drill(url, model, key_file, config, ca=ca, is_meant=yes, as_json=as_json)


@route_app.command("begin")
def route_begin(config: Config = None) -> int:
    """Begin the store of sensitive texts, or begin it again where it is lost: from then on what it had may leave."""
    from serving.cli.route import begin_store

    return begin_store(config)


@route_app.command("close")
def route_close(config: Config = None) -> int:
    """Throw the kill switch: nothing leaves from now on, and what streams is cut within a second."""
    from serving.cli.route import throw

    return throw(config, is_open=False)


@route_app.command("open")
def route_open(config: Config = None) -> int:
    """Put the kill switch back."""
    from serving.cli.route import throw

    return throw(config, is_open=True)
