"""`serve models pull|import|verify|remove|du`: the weights on this host."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.cli.bar import Bar
from serving.cli.options import PlanOptions, settings_for, wishes_from
from serving.cli.runtime import catalogue_of, open_store, signing_of
from serving.cli.show import print_json, print_rows
from serving.engines.installed import installed_engines
from serving.errors import BadFile, FileMissing, UnknownModel, Unverified, UsageError
from serving.hardware import detect
from serving.planner import NoFit, plan
from serving.planner.text import gib
from serving.registry import Model
from serving.settings import Settings
from serving.store.bring import Found, Origin, bring_in, look_through, template_text
from serving.store.cas import Store
from serving.store.examine import examine_store
from serving.store.lock import Accepted
from serving.store.manifest import Manifest
from serving.store.pull import HUB, Choice, Remote, Source, parse_source, pull, read_token


@dataclass(frozen=True, slots=True)
class BringOptions:
    """What the command line says of a model that is to be brought in; None where it says nothing."""

    name: str
    variant: str | None = None
    source: str | None = None
    revision: str | None = None
    licence: Path | None = None
    workers: int = 8
    leave_out: bool = False
    accept_template: bool = False
    accept_change: bool = False
    config: Path | None = None
    json: bool = False

    @property
    def accepted(self) -> Accepted:
        """What the operator accepts beyond the lock."""
        return Accepted(self.accept_template, self.accept_change)


def pull_model(options: BringOptions) -> int:
    """Bring a model from the hub, or a mirror, into the store."""
    settings = settings_for(options.config)
    store = open_store(settings, os.environ)
    model, variant, source = _what_to_pull(options, settings)
    if options.revision is not None:
        source = Source(source.repo, source.file, options.revision, source.host)
    endpoint = settings.store.endpoint or os.environ.get("HF_ENDPOINT") or HUB
    remote = Remote(endpoint, read_token(settings.store.token_file), settings.store.ca_file, options.workers)
    origin = Origin(
        options.name,
        variant,
        licence=model.licence if model else None,
        known_template=model.template_sha256 if model else None,
    )
    with Bar(f"pulling {options.name} ({variant})") as bar:

        def on_choice(choice: Choice, commit: str) -> None:
            size = sum(file.size for file in choice.files)
            count = len(choice.files)
            bar.say(f"pulling   {source} at {commit[:12]}: {count} file{'s' if count > 1 else ''}, {gib(size)}")
            for sentence in choice.left_out:
                bar.say(f"left out  {sentence}")

        manifest = pull(
            store,
            source,
            origin,
            remote,
            options.accepted,
            signing=signing_of(settings),
            on_choice=on_choice,
            on_bytes=bar.at,
            on_wait=lambda: bar.say("waiting   another process pulls the same"),
        )
    return _told(store, manifest, as_json=options.json)


def import_model(path: Path, options: BringOptions) -> int:
    """Bring a model from a directory or a single GGUF file into the store."""
    settings = settings_for(options.config)
    store = open_store(settings, os.environ)
    files, passed = _files_at(path.expanduser().absolute(), leave_out=options.leave_out)
    if options.licence is not None:
        files = (*files, _licence(options.licence))
    for sentence in passed:
        sys.stderr.write(f"{sentence}\n")
    known = next((model for model in catalogue_of(settings, os.environ).models if model.name == options.name), None)
    origin = Origin(
        options.name,
        options.variant or _variant_of(path, files),
        source=options.source,
        revision=options.revision,
        licence=known.licence if known else None,
        known_template=known.template_sha256 if known else None,
    )
    with Bar(f"importing {origin.model} ({origin.variant})") as bar:
        on_bytes = bar.counting(sum(file.size for file in files))
        manifest = bring_in(store, files, origin, options.accepted, progress=on_bytes, signing=signing_of(settings))
    return _told(store, manifest, as_json=options.json)


def verify_models(names: Sequence[str], config: Path | None, *, as_json: bool) -> int:
    """Read every file in the store again. Raises Unverified where something is wrong, after saying what."""
    store = open_store(settings_for(config), os.environ)
    for name in names:
        store.of_model(name)
    with Bar("verifying") as bar:
        on_bytes = bar.counting(sum(path.lstat().st_size for path in store.blobs()))
        examined = examine_store(store, names, on_bytes)
    if as_json:
        print_json({"sound": not examined.faults, "store": store.root, "lock": store.lock_file, "examined": examined})
    else:
        bad = {model for fault in examined.faults for model in fault.models}
        rows = [
            ("damaged" if str(each) in bad else "sound", str(each), gib(each.size_bytes)) for each in examined.models
        ]
        print_rows(rows)
        for fault in examined.faults:
            sys.stdout.write(f"- {fault.what}\n")
        sys.stdout.write(f"{examined.blobs} files, {gib(examined.read_bytes)} read\n")
    if examined.faults:
        count = len(examined.faults)
        message = f"the store `{store.root}` has {count} fault{'s' if count > 1 else ''}"
        raise Unverified(message, hint="pull or import again what is damaged; what nothing uses, `serve models clean`")
    return 0


def remove_model(name: str, variant: str | None, config: Path | None, *, forget: bool) -> int:
    """Take a model out of the store."""
    store = open_store(settings_for(config), os.environ)
    there = [manifest for manifest in store.of_model(name) if variant in (None, manifest.variant)]
    if not there:
        names = ", ".join(f"`{manifest.variant}`" for manifest in store.of_model(name))
        raise UnknownModel(f"no variant `{variant}` of `{name}` is in the store", hint=f"there is {names}")
    if variant is None and len(there) > 1:
        names = ", ".join(f"`{manifest.variant}`" for manifest in there)
        raise UsageError(f"`{name}` is in the store in several variants: {names}", hint="name one with `--variant`")
    freed = store.remove(name, there[0].variant, forget=forget)
    kept = "" if forget else "; the lock keeps what it was"
    sys.stderr.write(f"removed   {there[0]}: {gib(freed)} freed{kept}\n")
    return 0


def clean_store(config: Path | None) -> int:
    """Remove what nothing in the store uses, and what was begun and not ended."""
    store = open_store(settings_for(config), os.environ)
    store.prepare()
    sys.stderr.write(f"cleaned   {gib(store.collect(unfinished=True))} freed\n")
    return 0


def show_usage(config: Path | None, *, as_json: bool) -> int:
    """What each model takes on the disk."""
    store = open_store(settings_for(config), os.environ)
    used = store.usage()
    named = {file.sha256 for usage in used for file in usage.manifest.files}
    sizes = {path.name: path.lstat().st_size for path in store.blobs()}
    unused = sum(size for name, size in sizes.items() if name not in named)
    if as_json:
        models = [
            {
                "model": usage.manifest.model,
                "variant": usage.manifest.variant,
                "bytes": usage.manifest.size_bytes,
                "own_bytes": usage.own_bytes,
                "shared_bytes": usage.shared_bytes,
                "publishable": usage.manifest.publishable,
                "source": usage.manifest.source,
                "revision": usage.manifest.revision,
            }
            for usage in used
        ]
        print_json({"store": store.root, "bytes": sum(sizes.values()), "unused_bytes": unused, "models": models})
        return 0
    header = ("MODEL", "VARIANT", "SIZE", "OF IT SHARED", "FROM")
    rows = [
        (each.model, each.variant, gib(each.size_bytes), gib(usage.shared_bytes), each.source or "a disk")
        for usage in used
        for each in (usage.manifest,)
    ]
    print_rows([header, *rows])
    rest = f", {gib(unused)} of it used by no model (`serve models clean`)" if unused else ""
    sys.stdout.write(f"\n{gib(sum(sizes.values()))} in {store.root}{rest}\n")
    return 0


def show_template(name: str, variant: str | None, config: Path | None) -> int:
    """Print the chat template of a model that is in the store, or the file of it that is about to be."""
    settings = settings_for(config)
    store = open_store(settings, os.environ)
    model = catalogue_of(settings, os.environ).look_up(name)
    here = [each for each in model.variants if each.path is not None and variant in (None, each.name)]
    if not here or here[0].path is None:
        raise FileMissing(f"no weights of `{name}` are here", hint=f"`serve models pull {name}` brings them")
    stored = store.of_path(here[0].path)
    if stored is not None:
        text = template_text(store, stored.files)
    else:
        from serving.cli.start import template_at  # noqa: PLC0415 - the gateway comes with it

        text = template_at(here[0].path)
    if not text:
        raise FileMissing(
            f"`{name}` ({here[0].name}) has no chat template", hint="it completes text, and does not chat"
        )
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    return 0


def _what_to_pull(options: BringOptions, settings: Settings) -> tuple[Model | None, str, Source]:
    """The catalogue's model, the variant, and where it comes from: what is named, else what this machine would take."""
    catalogue = catalogue_of(settings, os.environ)
    known = next((model for model in catalogue.models if model.name == options.name), None)
    if options.source is not None:
        source = parse_source(options.source)
        variant = options.variant or _variant_in(source)
        if variant is None:
            hint = "such as `--variant bf16`"
            raise UsageError(f"it is not said which variant of `{options.name}` that is", hint=hint)
        return known, variant, source
    if known is None:
        catalogue.look_up(options.name)  # says what is near
        raise UnknownModel(
            f"`{options.name}` is a path, not a model of the catalogue", hint="`serve models import` takes it"
        )
    variant = options.variant or _fitting(known, settings)
    chosen = next((each for each in known.variants if each.name == variant), None)
    if chosen is None:
        names = ", ".join(f"`{each.name}`" for each in known.variants)
        raise UnknownModel(f"`{known.name}` has no variant `{variant}`", hint=f"it has {names}")
    if chosen.source is None:
        hint = "name a repository with `--source org/repo[/file][@revision]`"
        raise UsageError(f"the catalogue does not say where `{known.name}` ({variant}) comes from", hint=hint)
    return known, str(variant), parse_source(chosen.source)


def _fitting(model: Model, settings: Settings) -> str:
    """The variant that `serve` would take on this machine. Raises UsageError where none fits."""
    wishes = wishes_from(settings, PlanOptions())
    machine = detect()
    outcome = plan(
        machine, catalogue_of(settings, os.environ).find(model.name), wishes, installed_engines(machine, settings)
    )
    if isinstance(outcome, NoFit):
        message = f"no variant of `{model.name}` fits this machine: {outcome.reason}"
        raise UsageError(message, hint="name the one for the machine that it is for with `--variant`")
    return outcome.variant


def _variant_in(source: Source) -> str | None:
    """The variant that a file's name tells: `model-Q4_K_M.gguf`."""
    if source.file is None:
        return None
    last = source.file.rpartition("/")[2].removesuffix(".gguf").replace(".", "-").rpartition("-")[2]
    return last.lower() if last[:1] in "QqFfBbIiMm" and any(letter.isdigit() for letter in last) else None


def _variant_of(path: Path, files: Sequence[Found]) -> str:
    """What a model's files say of their variant. Raises BadFile."""
    from serving.registry.directory import model_from_directory  # noqa: PLC0415 - used here alone
    from serving.registry.local import model_from_file  # noqa: PLC0415

    gguf = next((file.path for file in files if file.name.endswith(".gguf")), None)
    if gguf is not None:
        return model_from_file(gguf).variants[0].name
    if not path.is_dir():
        raise BadFile(f"`{path}` is neither a GGUF file nor a model's directory")
    return model_from_directory(path).variants[0].name


def _files_at(path: Path, *, leave_out: bool) -> tuple[tuple[Found, ...], tuple[str, ...]]:
    if path.is_symlink():
        raise BadFile(f"`{path}` is a symbolic link, and an import follows none", hint=f"name `{path.resolve()}`")
    if path.is_dir():
        return look_through(path, leave_out=leave_out)
    if not path.exists():
        raise FileMissing(f"`{path}` does not exist", hint="name a GGUF file, or the directory of a model")
    if path.suffix != ".gguf" or not path.is_file():
        raise BadFile(f"`{path}` is no GGUF file", hint="name a GGUF file, or the directory of a model")
    status = path.lstat()
    return (Found(path.name, path, status.st_size, status.st_mtime_ns),), ()


def _licence(path: Path) -> Found:
    try:
        status = path.lstat()
    except OSError as error:
        raise FileMissing(f"the licence `{path}` cannot be read: {error.strerror}") from None
    return Found("LICENSE", path.absolute(), status.st_size, status.st_mtime_ns)


def _told(store: Store, manifest: Manifest, *, as_json: bool) -> int:
    if as_json:
        print_json({"manifest": manifest, "digest": manifest.digest, "path": store.tree(manifest)})
    else:
        sys.stderr.write(f"locked    {manifest}: {manifest.digest} in {store.lock_file}\n")
        sys.stderr.write(f"ready     serve --model {manifest.model} --variant {manifest.variant}\n")
    return 0
