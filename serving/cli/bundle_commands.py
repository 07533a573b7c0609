"""Commands and flags of `serve bundle` and `serve trust`."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

bundle_app = typer.Typer(help="Models and wheels for a host without a network, in one file.", no_args_is_help=True)
trust_app = typer.Typer(help="Whose bundles are taken on this host.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file in place of /etc/perimeter/serving.toml.")]
Bundle = Annotated[Path, typer.Argument(help="File of the bundle; `-` for stdin.")]
Unsigned = Annotated[bool, typer.Option("--allow-unsigned", help="Also one that nobody enrolled here has signed.")]


@bundle_app.command("keygen")
def bundle_keygen(key: Annotated[Path, typer.Argument(help="File for the private key; FILE.pub is for hosts.")]) -> int:
    """Make a publisher's pair of keys."""
    from serving.cli.bundle import make_key

    return make_key(key)


@bundle_app.command("create")
def bundle_create(
    models: Annotated[list[str], typer.Argument(help="Models in the store: NAME, or NAME:VARIANT for one variant.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the bundle.")],
    key: Annotated[Path | None, typer.Option("--key", help="File with the publisher's private key.")] = None,
    serial: Annotated[
        int | None, typer.Option("--serial", min=1, help="Its number; the next one of the key if left out.")
    ] = None,
    licence: Annotated[
        list[str] | None, typer.Option("--licence", help="MODEL=FILE: the text for a model that has none of its own.")
    ] = None,
    wheels: Annotated[
        str | None, typer.Option("--wheels", help="Also Python packages: `base`, or the extra whose lock is taken.")
    ] = None,
    platform: Annotated[str, typer.Option("--platform", help="That the wheels are for.")] = "manylinux_2_34_x86_64",
    python: Annotated[str, typer.Option("--python", help="Version that the wheels are for.")] = "3.11",
    lock: Annotated[
        Path | None, typer.Option("--lock", help="The lock of the packages; locks/EXTRA.lock if left out.")
    ] = None,
    wheelhouse: Annotated[
        list[Path] | None,
        typer.Option("--wheelhouse", help="Directory that has wheels, or several; the index is asked for the rest."),
    ] = None,
    index: Annotated[str | None, typer.Option("--index-url", help="Package index; pip's own if left out.")] = None,
    config: Config = None,
) -> int:
    """Write models of the store, their licences and wheels into one file, signed."""
    from serving.cli.bundle import CreateOptions, create_bundle

    return create_bundle(
        CreateOptions(
            models=tuple(models),
            output=output,
            key=key,
            serial=serial,
            licences=tuple(licence or ()),
            extra=wheels,
            platform=platform,
            python=python,
            lock=lock,
            wheelhouses=tuple(wheelhouse or ()),
            index=index,
            config=config,
        )
    )


@bundle_app.command("inspect")
def bundle_inspect(
    bundle: Bundle,
    *,
    full: Annotated[bool, typer.Option("--full", help="Read all of it, and compare every digest.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """What is in a bundle and who signed it; nothing is unpacked. Ends with 19 where nobody enrolled here signed it."""
    from serving.cli.bundle import inspect_bundle

    return inspect_bundle(bundle, config, full=full, as_json=as_json)


@bundle_app.command("install")
def bundle_install(
    bundle: Bundle,
    *,
    into: Annotated[
        Path | None, typer.Option("--into", help="Directory for a fresh environment with the wheels.")
    ] = None,
    models_only: Annotated[bool, typer.Option("--models-only", help="Leave the wheels.")] = False,
    allow_unsigned: Unsigned = False,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="Also one that is not newer than the publisher's last.")
    ] = False,
    accept_change: Annotated[
        bool, typer.Option("--accept-change", help="Also models that differ from what is locked here.")
    ] = False,
    accept_template: Annotated[
        bool, typer.Option("--accept-template", help="Also chat templates that differ from what is locked here.")
    ] = False,
    config: Config = None,
) -> int:
    """Bring a bundle's models and wheels into this host, all or nothing; again after a break, it goes on."""
    from serving.cli.bundle import InstallOptions, install_bundle

    return install_bundle(
        bundle,
        config,
        InstallOptions(
            into=into,
            models_only=models_only,
            allow_unsigned=allow_unsigned,
            allow_downgrade=allow_downgrade,
            accept_change=accept_change,
            accept_template=accept_template,
        ),
    )


@trust_app.command("add")
def trust_add(
    key: Annotated[Path, typer.Argument(help="The publisher's public key, FILE.pub.")],
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="What it is called here; the file's name if unset.")
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="As the publisher gave it; asked for if left out.")
    ] = None,
    config: Config = None,
) -> int:
    """Enrol a publisher, whose bundles are taken from then on. A person types the key's fingerprint."""
    from serving.cli.trust import add_key

    return add_key(key, name, fingerprint, config)


@trust_app.command("list")
def trust_list(config: Config = None, as_json: Json = False) -> int:
    """Who is enrolled."""
    from serving.cli.trust import list_keys

    return list_keys(config, as_json=as_json)


@trust_app.command("remove")
def trust_remove(
    name: Annotated[str, typer.Argument(help="Name or fingerprint of the publisher.")], config: Config = None
) -> int:
    """Take no bundles of this publisher any more."""
    from serving.cli.trust import remove_key

    return remove_key(name, config)
