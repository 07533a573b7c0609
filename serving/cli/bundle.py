"""`serve bundle`."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serving.bundle import (
    Contents,
    Exceptions,
    Head,
    Wishes,
    check_size,
    complete,
    create,
    decide_exceptions,
    install,
    open_head,
    read_through,
    record,
    source_of,
)
from serving.bundle.entries import entries_for
from serving.bundle.gather import Gathered, Target, gather, read_lock
from serving.bundle.host import this_host
from serving.bundle.into import check_into, install_wheels
from serving.bundle.keys import next_serial
from serving.cli.bar import Bar
from serving.cli.options import settings_for
from serving.cli.runtime import catalogue_entries, open_store
from serving.cli.show import known, print_json, print_rows
from serving.cli.trust import trust_of
from serving.errors import FileMissing, Untrusted, UsageError
from serving.keyfiles import load_private, make_pair
from serving.registry.catalogue import PACKAGE
from serving.settings import Settings
from serving.store.cas import Store
from serving.store.lock import Accepted
from serving.store.manifest import Manifest
from serving.store.verify import DAY_S


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What the flags of `serve bundle create` say."""

    models: tuple[str, ...]
    output: Path
    key: Path | None
    serial: int | None
    licences: tuple[str, ...]
    extra: str | None
    platform: str
    python: str
    lock: Path | None
    wheelhouses: tuple[Path, ...]
    index: str | None
    config: Path | None


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """What the flags of `serve bundle install` say."""

    into: Path | None
    models_only: bool
    allow_unsigned: bool
    allow_downgrade: bool
    accept_change: bool
    accept_template: bool


def is_sealed(settings: Settings) -> bool:
    """Whether no exception may be made on this host."""
    return settings.sealed == "require"


def make_key(path: Path) -> int:
    """Make a publisher's pair, and print the fingerprint."""
    publisher = make_pair(path)
    sys.stdout.write(f"{publisher.fingerprint}\n")
    sys.stderr.write(f"`{path}` signs, and stays secret; `{path}.pub` goes to the hosts,\n")
    sys.stderr.write("and the fingerprint to those who enrol it there, by another way\n")
    return 0


def _publisher(path: Path) -> Ed25519PrivateKey:
    try:
        return load_private(path)
    except FileMissing as error:
        raise FileMissing(
            error.message, hint=f"name a publisher's key, or make one: `serve bundle keygen {path}`"
        ) from None


def create_bundle(options: CreateOptions) -> int:
    """Write a bundle."""
    settings = settings_for(options.config)
    store = open_store(settings, os.environ)
    models = _chosen(store, options.models)
    key = None if options.key is None else _publisher(options.key)
    licences = dict(_licence(told, models) for told in options.licences)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perimeter-wheels-")))
        wheels = None if options.extra is None else _wheels(options, options.extra, work)
        entries = entries_for(models, catalogue_entries(settings, os.environ), store)
        serial = options.serial or int(time.time())
        if options.key is not None:
            serial = stack.enter_context(next_serial(options.key, options.serial))
        progress = stack.enter_context(Bar("writing")).counting(sum(model.size_bytes for model in models))
        written = create(
            store,
            Contents(models, entries, licences, wheels),
            options.output,
            key=key,
            serial=serial,
            rehash_s=settings.store.rehash_days * DAY_S,
            progress=progress,
        )
    count = len(written.manifest.members)
    sys.stderr.write(f"wrote `{options.output}`: {written.size_bytes:,} bytes in {count} files, serial {serial}\n")
    if key is None:
        sys.stderr.write("it is not signed: hosts take it only with --allow-unsigned, and sealed ones not at all\n")
    return 0


def inspect_bundle(path: Path, config: Path | None, *, full: bool, as_json: bool) -> int:
    """Tell what a bundle has. Raises Untrusted, after printing, where nobody enrolled signed it."""
    trust = trust_of(config)
    with source_of(path) as source, complete(source):
        head = open_head(source, trust, Exceptions(unsigned=True))
        check_size(path, head)
        if full:
            with Bar("reading") as bar:
                progress = bar.counting(head.size_bytes)
                read_through(source, head, progress)
    if as_json:
        told = {"sha256": head.sha256, "bytes": head.size_bytes, "every_digest_compared": full}
        signer = None if head.publisher is None else head.publisher.name
        print_json({**told, "signed_by": signer, **asdict(head.manifest)})
    else:
        _print(head, full=full)
    if head.publisher is None:
        message = f"{source.name} is signed by nobody who is enrolled here" if head.signature else "it is not signed"
        raise Untrusted(message, hint="`serve trust add` enrols a publisher's key")
    return 0


def install_bundle(path: Path, config: Path | None, options: InstallOptions) -> int:
    """Bring a bundle in."""
    settings = settings_for(config)
    exceptions = Exceptions(unsigned=options.allow_unsigned, downgrade=options.allow_downgrade)
    exceptions = decide_exceptions(exceptions, sealed=is_sealed(settings))
    store = open_store(settings, os.environ)
    accepted = Accepted(template=options.accept_template, change=options.accept_change)
    if options.into is not None:
        check_into(options.into)
    with source_of(path) as source, complete(source):
        head = open_head(source, trust_of(config), exceptions)
        check_size(path, head)
        if options.into is not None and head.manifest.wheels is None:
            raise UsageError(f"{source.name} has no wheels for `{options.into}`", hint="leave --into out")
        with Bar("installing") as bar:
            progress = bar.counting(sum(member.size for member in head.manifest.members))
            wishes = Wishes(exceptions, accepted, options.models_only)
            installed = install(source, head, store, this_host(), wishes, progress, _say_wait)
    if options.into is not None:
        install_wheels(installed.place / "wheels", options.into)
    record(store, head, may_go_back=exceptions.downgrade)
    for model in head.manifest.models:
        sys.stderr.write(f"{model} is here: `serve --model {model.model} --variant {model.variant}`\n")
    if installed.wheels:
        sys.stderr.write(f"wheels and their `requirements.txt` are in `{installed.place / 'wheels'}`\n")
    if options.into is not None:
        sys.stderr.write(f"`{options.into / 'bin' / 'serve'}` is installed from them\n")
    sys.stderr.write(f"licences and the bill of materials are in `{installed.place}`\n")
    return 0


def _chosen(store: Store, names: tuple[str, ...]) -> tuple[Manifest, ...]:
    """The models of the store that the arguments name. Raises UnknownModel."""
    found: dict[tuple[str, str], Manifest] = {}
    for name in names:
        model, _, variant = name.rpartition(":")
        one = store.find(model, variant) if model else None
        for each in (one,) if one is not None else store.of_model(name):
            found[each.model, each.variant] = each
    return tuple(found.values())


def _licence(told: str, models: tuple[Manifest, ...]) -> tuple[str, Path]:
    model, _, file = told.partition("=")
    if not file or model not in {each.model for each in models}:
        raise UsageError(f"`--licence {told}` names no model of the bundle", hint="--licence MODEL=FILE")
    return model, Path(file)


def _wheels(options: CreateOptions, extra: str, work: Path) -> tuple[str, str, str, tuple[Gathered, ...]]:
    target = Target(extra, options.platform, options.python)
    path = options.lock or PACKAGE.parent / "locks" / f"{extra}.lock"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        message = f"the lock of `{extra}`, `{path}`, cannot be read"
        raise FileMissing(message, hint="name another with --lock; docs/bundles.md says how one is made") from None
    gathered = gather(read_lock(text, target, f"`{path}`"), target, options.wheelhouses, options.index, work)
    for each in gathered:
        if not each.is_locked:
            sys.stderr.write(f"`{each.wheel.file}` was built here: your signature answers for it\n")
    return extra, options.platform, options.python, gathered


def _print(head: Head, *, full: bool) -> None:
    manifest = head.manifest
    signer = f"`{head.publisher.name}`, {head.publisher.fingerprint}" if head.publisher else "NOBODY WHO IS ENROLLED"
    print_rows(
        [
            ("signed by", signer),
            ("says it is of", known(manifest.publisher)),
            ("serial", str(manifest.serial)),
            ("created", manifest.created),
            ("bytes", f"{head.size_bytes:,}"),
            ("manifest", head.sha256),
            ("contents", "every digest compared" if full else "not read: --full compares every digest"),
        ]
    )
    sys.stdout.write("\n")
    rows = [("MODEL", "VARIANT", "FORMAT", "FILES", "BYTES", "LICENCE")]
    for model in manifest.models:
        licence = model.licence or manifest.entries[model.model].get("licence")
        rows.append(
            (model.model, model.variant, model.format, str(len(model.files)), f"{model.size_bytes:,}", known(licence))
        )
    print_rows(rows)
    if manifest.wheels is not None:
        wheels = manifest.wheels
        sys.stdout.write(f"\nwheels of `{wheels.extra}` for {wheels.platform}, Python {wheels.python}\n")
        levels = [(each.file, "any" if each.level is None else f"x86-64-v{each.level}") for each in wheels.files]
        print_rows([("WHEEL", "PROCESSOR"), *levels])
    sys.stdout.write("\n")
    print_rows([("BYTES", "SHA-256", "MEMBER"), *((f"{m.size:,}", m.sha256, m.name) for m in manifest.members)])


def _say_wait() -> None:
    sys.stderr.write("another installation is running; waiting for it\n")
