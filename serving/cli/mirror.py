"""`serve mirror` and `serve models publish`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from serving.cli.address import check_address
from serving.cli.options import settings_for
from serving.cli.runtime import open_store
from serving.errors import UnknownModel
from serving.gateway.tls import tls_files
from serving.mirror.hub import LOCK_PATH
from serving.mirror.repositories import Offer
from serving.mirror.server import Listener, MirrorConfig, serve
from serving.mirror.shelf import Shelf
from serving.planner.text import gib
from serving.store.verify import DAY_S, opened
from serving.telemetry.logs import facts, setup

log = logging.getLogger("serving.cli")


@dataclass(frozen=True, slots=True)
class MirrorOptions:
    """Flags of `serve mirror`; None where one was not given."""

    host: str | None = None
    port: int | None = None
    allow_insecure_bind: bool | None = None
    config: Path | None = None
    json: bool = False


def run_mirror(options: MirrorOptions) -> int:
    """Serve until told to stop; returns the exit status. Raises ServingError before anything is served."""
    flags = {
        "mirror.host": options.host,
        "mirror.port": options.port,
        "mirror.allow_insecure_bind": options.allow_insecure_bind,
        "log.format": "json" if options.json else None,
    }
    settings = settings_for(options.config, flags)
    setup(settings.log.format, settings.log.level)
    mirror = settings.mirror
    check_address(mirror.host, mirror.port)
    shelf = Shelf(open_store(settings, os.environ), settings.store.rehash_days * DAY_S)
    offer = shelf.offer()
    listener: Listener = JsonListener(offer)
    if settings.log.format == "text":
        listener = TerminalListener(offer)
    config = MirrorConfig(
        mirror.host,
        mirror.port,
        mirror.allow_insecure_bind,
        mirror.connections,
        mirror.stall_s,
        mirror.drain_s,
        tls_files(mirror.tls),
    )
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        status = runner.run(serve(shelf, config, listener))
    if settings.log.format == "text":
        sys.stderr.write("stopped\n")
    return status


def publish(name: str, variant: str | None, config: Path | None, *, withdraw: bool) -> int:
    """Mark one variant of a model in the store, or all, as publishable or not.

    What is to be published is verified first. Raises UnknownModel, Unverified.
    """
    settings = settings_for(config)
    store = open_store(settings, os.environ)
    chosen = [manifest for manifest in store.of_model(name) if variant in (None, manifest.variant)]
    if not chosen:
        there = ", ".join(f"`{manifest.variant}`" for manifest in store.of_model(name))
        raise UnknownModel(f"`{name}` has no variant `{variant}` in the store", hint=f"it has {there}")
    for manifest in chosen:
        if not withdraw:
            with opened(store, manifest, rehash_s=settings.store.rehash_days * DAY_S):
                pass
        marked = store.mark(manifest.model, manifest.variant, publishable=not withdraw)
        if withdraw:
            sys.stdout.write(f"{marked} is no longer handed on\n")
        else:
            licence = marked.licence or "a licence that is not known"
            sys.stdout.write(f"{marked}, {licence}, may be handed on by `serve mirror`\n")
    return 0


class TerminalListener:
    """For people: where it serves, what, what not, and how a client uses it."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer

    def on_ready(self, url: str) -> None:
        """Files are handed on, at `url`."""
        here = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        lines = [f"mirror    {url}"]
        for repository in self._offer.repositories.values():
            snapshots = repository.snapshots.values() if repository.main is None else [repository.main]
            for snapshot in snapshots:
                size = sum({file.sha256: file.size for file in snapshot.files.values()}.values())
                note = f" at {snapshot.commit} only" if repository.main is None else ""
                lines.append(f"offers    {repository.name}, {gib(size)}, {len(snapshot.files)} files{note}")
        lines += [f"keeps     {held.model}: {held.reason}" for held in self._offer.held]
        if not self._offer.models:
            lines.append("offers    nothing yet; `serve models publish NAME` marks a model, also while this runs")
        lines += [f"use       HF_ENDPOINT={here}", f"lock      {here}{LOCK_PATH}", "stop      Ctrl-C", ""]
        _say(*lines)

    def on_drain(self, downloads: int) -> None:
        """Stopping: what runs is finished."""
        _say(f"stopping  {downloads} downloads are being finished; Ctrl-C again cuts them")


class JsonListener:
    """For machines: the same as log lines."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer

    def on_ready(self, url: str) -> None:
        """Files are handed on, at `url`."""
        for held in self._offer.held:
            log.info("held", extra=facts(model=held.model, reason=held.reason))
        for name, repository in self._offer.repositories.items():
            commit = None if repository.main is None else repository.main.commit
            log.info("repository", extra=facts(repository=name, commit=commit))
        log.info("ready", extra=facts(url=url))

    def on_drain(self, downloads: int) -> None:
        """Stopping: what runs is finished."""
        log.info("drain", extra=facts(downloads=downloads))


def _say(*lines: str) -> None:
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
