"""Commands and flags. Each command imports what it needs when it runs, so that none pays for another."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from serving.cli.audit_commands import audit_app
from serving.cli.bundle_commands import bundle_app, trust_app
from serving.cli.cost import cost_app
from serving.cli.keys import keys_app
from serving.cli.options import PlanOptions, StartOptions, takes_options
from serving.cli.route_commands import route_app
from serving.errors import UsageError

app = typer.Typer(
    name="serve",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Serve open-weight language models on this machine through an OpenAI-compatible API.",
)
models_app = typer.Typer(help="Which models can be served.", no_args_is_help=True)
app.add_typer(models_app, name="models")
bench_app = typer.Typer(help="Measure a server under a load.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
app.add_typer(audit_app, name="audit")
app.add_typer(bundle_app, name="bundle")
app.add_typer(trust_app, name="trust")
app.add_typer(keys_app, name="keys")
app.add_typer(route_app, name="route")
app.add_typer(cost_app, name="cost")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Measure = Annotated[bool, typer.Option("--measure", help="Measure how fast memory and disk read; some seconds.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file in place of /etc/perimeter/serving.toml.")]


def invoke(arguments: list[str]) -> int:
    """Run the command that the arguments name; returns the exit status. Raises ServingError."""
    command = typer.main.get_command(app)
    try:
        status = command.main(args=arguments, prog_name="serve", standalone_mode=False)
    except Exception as failure:
        # click's own errors know how to say what is wrong; which module they come from depends on typer's version.
        if hasattr(failure, "format_message") and hasattr(failure, "exit_code"):
            context = getattr(failure, "ctx", None)
            if type(failure).__name__ == "NoArgsIsHelpError":
                sys.stdout.write(failure.format_message() + "\n")
                return UsageError.exit_status
            path = getattr(context, "command_path", None) or "serve"
            hint = f"see `{path} --help`"
            if arguments and "no such command" in failure.format_message().lower():
                hint = f"to serve a model: `serve --model {arguments[0]}`; `serve --help` lists the commands"
            raise UsageError(_mistake(failure), hint=hint) from failure
        if type(failure).__name__ == "Abort":
            raise KeyboardInterrupt from failure
        raise
    return status if isinstance(status, int) else 0


def _mistake(failure: Any) -> str:
    """What is wrong with the command line: the flag, its value, and what it must be, where the flag's value it is."""
    wrong = getattr(failure.__cause__, "errors", None)
    flag = getattr(getattr(failure, "param", None), "opts", None)
    if wrong is not None and flag:
        from serving.settings.wording import mistake

        first = wrong(include_url=False)[0]
        return f"`{flag[0]} {first['input']}`: {mistake(first)}"
    message = " ".join(failure.format_message().rstrip(".").split())
    return message[:1].lower() + message[1:]


def _version(value: bool) -> None:
    if value:
        from serving import __version__

        typer.echo(f"perimeter {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
@takes_options
def serve(
    context: typer.Context,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Name of a model, or path of its weights; several for several models."),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", min=0, max=65535, help="TCP port; 0 for any.")] = None,
    config: Config = None,
    allow_insecure_bind: Annotated[
        bool, typer.Option("--allow-insecure-bind", help="Listen beyond loopback without TLS.")
    ] = False,
    is_open: Annotated[
        bool, typer.Option("--open", help="Ask for no key, on loopback; unset: only for the demo model.")
    ] = False,
    sealed: Annotated[
        Literal["off", "best-effort", "require"] | None,
        typer.Option("--sealed", help="Shut engines in: not, as far as this host can, or wholly or not at all."),
    ] = None,
    paranoid: Annotated[bool, typer.Option("--paranoid", help="Hash all weights, whatever was hashed before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write progress and logs as JSON lines.")] = False,
    dummy_weights: Annotated[
        bool, typer.Option("--dummy-weights", help="Serve synthetic weights of its shape: its speed, and noise.")
    ] = False,
    engine_url: Annotated[
        str | None, typer.Option("--engine-url", help="A server elsewhere that serves the model; none is started.")
    ] = None,
    engine_key_file: Annotated[
        Path | None, typer.Option("--engine-key-file", help="File with the key that this server wants.")
    ] = None,
    no_profile: Annotated[
        bool, typer.Option("--no-profile", help="Leave out what `serve bench autotune` found best.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an unexpected error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    wishes: PlanOptions,
) -> int:
    """Serve a model: `serve --model demo`."""
    del debug, version  # acted on by serving.cli.run and the callback
    if context.invoked_subcommand is not None:
        if model:
            message = f"`--model` goes with no command; `{context.invoked_subcommand}` is one"
            raise UsageError(message, hint=f"use `serve --model {model[0]}`, or `serve plan {model[0]}`")
        _refuse_flags_before(context, context.invoked_subcommand)
        return 0
    from serving.cli.start import start

    return start(
        StartOptions(
            models=tuple(model or ()),
            host=host,
            port=port,
            config=config,
            allow_insecure_bind=allow_insecure_bind or None,
            open=is_open or None,
            sealed=sealed,
            paranoid=paranoid,
            json=as_json,
            dummy_weights=dummy_weights,
            engine_url=engine_url,
            engine_key_file=engine_key_file,
            profiles=not no_profile,
            plan=wishes,
        )
    )


def _refuse_flags_before(context: typer.Context, command: str) -> None:
    """Refuse flags in front of a command, which would not reach it. Raises UsageError."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            flag = parameter.opts[0]
            message = f"`{flag}` stands before the command `{command}`, which does not see it there"
            raise UsageError(message, hint=f"put it after the command, if `serve {command} --help` has it")


@app.command()
def hardware(
    as_json: Json = False,
    measure: Measure = False,
    directory: Annotated[
        Path | None, typer.Option("--directory", help="Whose disk is looked at and measured; the current one if unset.")
    ] = None,
) -> int:
    """What this machine has, as far as serving is concerned."""
    from serving.cli.hardware import show_hardware

    return show_hardware(as_json=as_json, measured=measure, directory=directory)


@app.command()
def doctor(
    as_json: Json = False,
    measure: Measure = False,
    config: Config = None,
    egress: Annotated[
        bool, typer.Option("--egress", help="Start the stack under observation, and see whether it reaches out.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="With --egress, what is served; else the settings' models, or the demo."),
    ] = None,
    engine: Annotated[
        Literal["llamacpp", "vllm", "transformers"] | None,
        typer.Option("--backend", "--engine", help="With --egress, the engine that serves it."),
    ] = None,
    idle: Annotated[
        str | None, typer.Option("--idle", help="With --egress, how long nothing is asked, such as 15m; 30s if unset.")
    ] = None,
    watch: Annotated[
        Literal["auto", "strace", "nftables"] | None,
        typer.Option("--watch", help="With --egress, who watches; strace where it may, if unset."),
    ] = None,
) -> int:
    """What is right and wrong with this host, and what to do about it; ends with 12 where there is a problem.

    Nothing is changed by it. In JSON, a limit is a number, `unlimited`, or null where it could not be read. With
    --egress it ends with 15 where something tried to reach out, with 16 where not everything could be watched.
    """
    if egress:
        from serving.cli.egress import EgressOptions, show_egress

        if measure:
            raise UsageError("`--measure` does not go with `--egress`")
        asked = EgressOptions(tuple(model or ()), engine, config, idle or "30s", watch or "auto", as_json)
        return show_egress(asked)
    if model or engine or idle or watch:
        raise UsageError("`--model`, `--engine`, `--idle` and `--watch` go with `--egress`")
    from serving.cli.doctor import show_health

    return show_health(config, as_json=as_json, measured=measure)


@app.command()
@takes_options
def plan(
    *,
    model: Annotated[str | None, typer.Argument(help="Name of a model, or path of its weights.")] = None,
    last: Annotated[
        bool, typer.Option("--last", help="The last start: what was planned, and what came of it.")
    ] = False,
    machine: Annotated[
        str | None,
        typer.Option("--machine", help="Plan for another one: `4xH100`, or a file of `serve hardware --json`."),
    ] = None,
    as_json: Json = False,
    config: Config = None,
    wishes: PlanOptions,
) -> int:
    """How a model would be served on this machine, or another, with every number; without one, the `[[models]]` set."""
    if last:
        from serving.cli.last import show_last

        if machine is not None:
            raise UsageError("`--machine` goes with a new plan, `--last` with one that was followed here")
        return show_last(config, wishes, as_json=as_json, model=model)
    if model is None:
        from serving.cli.plan import show_set

        return show_set(config, wishes, as_json=as_json, other=machine)
    from serving.cli.plan import show_plan

    return show_plan(model, config, wishes, as_json=as_json, other=machine)


@app.command()
def mirror(
    *,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", min=0, max=65535, help="TCP port; 0 for any.")] = None,
    allow_insecure_bind: Annotated[
        bool, typer.Option("--allow-insecure-bind", help="Listen beyond loopback without TLS.")
    ] = False,
    is_open: Annotated[bool, typer.Option("--open", help="Ask nobody on this host for a key.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write logs as JSON lines.")] = False,
    config: Config = None,
) -> int:
    """Hand on the store's publishable models as a Hugging Face hub does: clients set HF_ENDPOINT to it."""
    from serving.cli.mirror import MirrorOptions, run_mirror

    return run_mirror(MirrorOptions(host, port, allow_insecure_bind or None, is_open or None, config, json=as_json))


@app.command()
def egress(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write logs as JSON lines.")] = False,
    config: Config = None,
) -> int:
    """Send out what the policy lets out, and nothing else: the one process that has the providers' credentials."""
    from serving.cli.route import run_egress

    return run_egress(config, as_json=as_json)


@models_app.command("publish")
def models_publish(
    name: Annotated[str, typer.Argument(help="Name of a model in the store.")],
    *,
    variant: Annotated[str | None, typer.Option("--variant", help="One form of it; all of them if left out.")] = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="No longer hand it on.")] = False,
    config: Config = None,
) -> int:
    """Let `serve mirror` hand a model on, or no more."""
    from serving.cli.mirror import publish

    return publish(name, variant, config, withdraw=withdraw)


@models_app.command("list")
def models_list(as_json: Json = False, config: Config = None) -> int:
    """All models of the catalogue."""
    from serving.cli.models import list_models

    return list_models(config, as_json=as_json)


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="Name of a model, or path of a GGUF file.")],
    *,
    template: Annotated[bool, typer.Option("--template", help="Print its chat template, and nothing else.")] = False,
    variant: Annotated[str | None, typer.Option("--variant", help="With --template: of which variant.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Everything known of one model."""
    if template:
        from serving.cli.store import show_template

        return show_template(name, variant, config)
    from serving.cli.models import show_model

    return show_model(name, config, as_json=as_json)


AcceptTemplate = Annotated[
    bool, typer.Option("--accept-template", help="Take a chat template other than the one that is known.")
]
AcceptChange = Annotated[bool, typer.Option("--accept-change", help="Take files other than those that are locked.")]


@models_app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="Name of a model of the catalogue, or with --source of your own.")],
    *,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Form of the weights; what fits this machine if left out.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Repository in place of the catalogue's: org/repo[/file][@revision].")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit, tag or branch; the locked or known one if left out.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Files at the same time.")] = 8,
    accept_template: AcceptTemplate = False,
    accept_change: AcceptChange = False,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Bring a model from the hub, or a mirror, into the store; goes on where it was interrupted."""
    from serving.cli.store import BringOptions, pull_model

    return pull_model(
        BringOptions(
            name=name,
            variant=variant,
            source=source,
            revision=revision,
            workers=workers,
            accept_template=accept_template,
            accept_change=accept_change,
            config=config,
            json=as_json,
        )
    )


@models_app.command("import")
def models_import(
    path: Annotated[Path, typer.Argument(help="Directory of a model, or one GGUF file.")],
    *,
    name: Annotated[str, typer.Option("--name", help="What requests call it; a name of the catalogue, or your own.")],
    variant: Annotated[
        str | None, typer.Option("--variant", help="Form of the weights; as the files say if left out.")
    ] = None,
    licence: Annotated[Path | None, typer.Option("--licence", help="File with its licence's text.")] = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Pass over files that are not taken, and refuse none.")
    ] = False,
    accept_template: AcceptTemplate = False,
    accept_change: AcceptChange = False,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Bring a model from a disk into the store."""
    from serving.cli.store import BringOptions, import_model

    return import_model(
        path,
        BringOptions(
            name=name,
            variant=variant,
            licence=licence,
            leave_out=leave_out,
            accept_template=accept_template,
            accept_change=accept_change,
            config=config,
            json=as_json,
        ),
    )


@models_app.command("verify")
def models_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Models; all that is in the store if left out.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Read every file in the store again, and compare it with what it should be; 17 where something is wrong."""
    from serving.cli.store import verify_models

    return verify_models(names or (), config, as_json=as_json)


@models_app.command("remove")
def models_remove(
    name: Annotated[str, typer.Argument(help="Name of a model in the store.")],
    *,
    variant: Annotated[str | None, typer.Option("--variant", help="Which, where there are several.")] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Out of the lock as well.")] = False,
    config: Config = None,
) -> int:
    """Take a model out of the store."""
    from serving.cli.store import remove_model

    return remove_model(name, variant, config, forget=forget)


@models_app.command("clean")
def models_clean(config: Config = None) -> int:
    """Remove files that no model in the store uses, and downloads that were never finished."""
    from serving.cli.store import clean_store

    return clean_store(config)


@models_app.command("du")
def models_du(as_json: Json = False, config: Config = None) -> int:
    """What each model in the store takes on the disk."""
    from serving.cli.store import show_usage

    return show_usage(config, as_json=as_json)


@bench_app.command("run")
@takes_options
def bench_run(
    scenario: Annotated[str, typer.Argument(help="Name of a scenario that ships, or path of a .toml file.")],
    *,
    url: Annotated[
        str | None, typer.Option("--url", help="Any server that speaks OpenAI's protocol; one is started if left out.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="With --url its name there, the first listed if left out; else to serve."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the result, as JSON.")] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", help="File for every request's times and counts, as JSON lines.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What comparisons call it; the file's if left out.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="File with the key that the server wants.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="GGUF file or tokenizer.json, where the server counts no tokens.")
    ] = None,
    machine: Annotated[
        str | None, typer.Option("--machine", help="The server's, where it is elsewhere: a file of `serve hardware`.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option("--requests", min=1, help="In place of the scenario's number of requests.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, max=256, help="Of the client; by the load if left out.")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, max=86400, help="Seconds that a request may take.")
    ] = 600.0,
    dummy_weights: Annotated[
        bool,
        typer.Option("--dummy-weights", help="Serve synthetic weights of the model's shape: its speed, and noise."),
    ] = False,
    config: Config = None,
    as_json: Json = False,
    wishes: PlanOptions,
) -> int:
    """Send a scenario's load to a server, and say how it did; without --url to one that is started for it."""
    from serving.cli.bench import RunOptions, run

    return run(
        RunOptions(
            scenario=scenario,
            url=url,
            model=model,
            output=output,
            samples=samples,
            name=name,
            key_file=key_file,
            tokenizer=tokenizer,
            machine=machine,
            processes=processes,
            requests=requests,
            timeout_s=timeout_s,
            dummy_weights=dummy_weights,
            config=config,
            json=as_json,
            plan=wishes,
        )
    )


@bench_app.command("autotune")
@takes_options
def bench_autotune(
    model: Annotated[str, typer.Argument(help="Name of a model, or path of its weights.")],
    *,
    scenario: Annotated[
        str, typer.Option("--scenario", help="The load to be fast under: one that ships, or a .toml file.")
    ] = "chat",
    budget_s: Annotated[float, typer.Option("--budget", min=10, max=1e6, help="Seconds that it may take.")] = 900.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for all trials, as JSON.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is best; keep no profile.")] = False,
    config: Config = None,
    as_json: Json = False,
    wishes: PlanOptions,
) -> int:
    """Try the settings that matter on this machine, and keep the fastest for `serve` to use."""
    from serving.cli.autotune import TuneOptions, autotune

    return autotune(
        TuneOptions(
            model=model,
            scenario=scenario,
            budget_s=budget_s,
            output=output,
            dry_run=dry_run,
            config=config,
            json=as_json,
            plan=wishes,
        )
    )


@bench_app.command("report")
def bench_report(
    results: Annotated[list[Path], typer.Argument(help="Files that `serve bench run -o` wrote.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the page.")] = Path("report.html"),
    png: Annotated[Path | None, typer.Option("--png", help="Directory for the charts as PNG files.")] = None,
) -> int:
    """One HTML page about one or several results; it needs no network."""
    from serving.cli.bench_results import show_report

    return show_report(results, output, png)


@bench_app.command("compare")
def bench_compare(
    results: Annotated[list[Path], typer.Argument(help="Files of results; the others are measured by the first.")],
    *,
    price: Annotated[
        list[str] | None, typer.Option("--price", help="NAME=PRICE: what an hour of this result's machine costs.")
    ] = None,
    currency: Annotated[str, typer.Option("--currency", help="Of the prices.")] = "EUR",
    fail_if: Annotated[
        list[str] | None, typer.Option("--fail-if", help="What must not be: `ttft_p99 > 1.05x`; ends with 13.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for a page about them.")] = None,
    as_json: Json = False,
) -> int:
    """Results side by side: ratios with intervals, and which is best."""
    from serving.cli.bench_results import show_comparison

    return show_comparison(results, price or (), currency, fail_if or (), output, as_json=as_json)
