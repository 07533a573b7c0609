"""`serve mirror` and `serve models publish`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import serving
from serving.access import KeyReader
from serving.audit import Audit
from serving.audit.log import places_of
from serving.audit.records import SettingsUsed
from serving.cli.address import check_address
from serving.cli.options import settings_for
from serving.cli.runtime import open_store
from serving.errors import UnknownModel
from serving.gateway.exposure import Openness, asks_keys, is_loopback
from serving.gateway.hosts import hosts_of
from serving.gateway.tls import tls_files
from serving.mirror.door import Door
from serving.mirror.hub import LOCK_PATH
from serving.mirror.repositories import Offer
from serving.mirror.server import Listener, MirrorConfig, serve
from serving.mirror.shelf import Shelf
from serving.planner.text import gib
from serving.settings import Settings
from serving.store.verify import DAY_S, opened
from serving.telemetry.logs import facts, setup

log = logging.getLogger("serving.cli")


@dataclass(frozen=True, slots=True)
class MirrorOptions:
    """Flags of `serve mirror`; None where one was not given."""

    host: str | None = None
    port: int | None = None
    allow_insecure_bind: bool | None = None
    open: bool | None = None
    config: Path | None = None
    json: bool = False


def run_mirror(options: MirrorOptions) -> int:
    """Serve until told to stop; returns the exit status. Raises ServingError before anything is served."""
    flags = {
        "mirror.host": options.host,
        "mirror.port": options.port,
        "mirror.allow_insecure_bind": options.allow_insecure_bind,
        "mirror.open": options.open,
        "log.format": "json" if options.json else None,
    }
    settings = settings_for(options.config, flags)
    setup(settings.log.format, settings.log.level)
    mirror = settings.mirror
    check_address(mirror.host, mirror.port)
    shelf = Shelf(open_store(settings, os.environ), settings.store.rehash_days * DAY_S)
    offer = shelf.offer()
    config = MirrorConfig(
        mirror.host,
        mirror.port,
        mirror.allow_insecure_bind,
        mirror.connections,
        mirror.stall_s,
        mirror.drain_s,
        tls_files(mirror.tls),
    )
    with opened_door(settings, os.environ) as door:
        remarks = remarks_of(settings, door)
        listener: Listener = JsonListener(offer, remarks)
        if settings.log.format == "text":
            listener = TerminalListener(offer, remarks, asks_keys=door.asks_keys)
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            status = runner.run(serve(shelf, config, listener, door))
    if settings.log.format == "text":
        sys.stderr.write("stopped\n")
    return status


@contextlib.contextmanager
def opened_door(settings: Settings, environment: Mapping[str, str]) -> Iterator[Door]:
    """The keys and the mirror's own record, as the settings want them, closed at the end. Raises StartError."""
    mirror = settings.mirror
    given = Openness(
        host=mirror.host,
        wish=mirror.open or False,
        is_demo=False,
        is_sealed=settings.sealed == "require",
        knows_clients=mirror.tls.client_ca is not None,
    )
    if not asks_keys(given):
        yield Door(is_ours=hosts_of(mirror.host, ()))
        return
    with contextlib.ExitStack() as stack:
        keys = stack.enter_context(contextlib.closing(KeyReader(settings.access, environment)))
        audit = None
        if settings.audit.enabled is not False:
            # one process writes a log, and the server's is the server's; so are the places that it is sent to
            places = places_of(settings.audit, environment)
            places = replace(places, directory=places.directory.with_name(f"{places.directory.name}-mirror"))
            kept_here = settings.audit.model_copy(update={"anchor_file": None, "syslog": None})
            audit = Audit.of_site(places, kept_here, version=serving.__version__)
            stack.callback(audit.close)
            audit.record(SettingsUsed(sha256=settings.digest, by=f"uid {os.getuid()}"))
        yield Door(keys, audit)


def remarks_of(settings: Settings, door: Door) -> list[str]:
    """What whoever starts it should know of who may come in."""
    mirror = settings.mirror
    found = []
    if not door.asks_keys:
        whoever = "is on this host" if mirror.tls.client_ca is None else "shows a certificate"
        found.append(f"no key is asked for: whoever {whoever} may download what is offered here")
    elif door.lacks_keys:
        made = "`serve keys create --owner NAME --scope mirror` makes one"
        found.append(f"there is no key with the scope `mirror` yet, and nobody is let in without: {made}")
    if door.asks_keys and settings.audit.enabled is False:
        found.append("no record is kept of who has what (audit.enabled)")
    if mirror.tls.certificate is None and not is_loopback(mirror.host):
        found.append(f"listening on {mirror.host} without TLS: keys and files travel readable")
    return found


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

    def __init__(self, offer: Offer, remarks: Sequence[str], *, asks_keys: bool) -> None:
        self._offer = offer
        self._remarks = remarks
        self._asks_keys = asks_keys

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
        lines += [f"note      {remark}" for remark in self._remarks]
        shown = " HF_TOKEN=pk_…" if self._asks_keys else ""
        lines += [f"use       HF_ENDPOINT={here}{shown}", f"lock      {here}{LOCK_PATH}", "stop      Ctrl-C", ""]
        _say(*lines)

    def on_drain(self, downloads: int) -> None:
        """Stopping: what runs is finished."""
        _say(f"stopping  {downloads} downloads are being finished; Ctrl-C again cuts them")


class JsonListener:
    """For machines: the same as log lines."""

    def __init__(self, offer: Offer, remarks: Sequence[str]) -> None:
        self._offer = offer
        self._remarks = remarks

    def on_ready(self, url: str) -> None:
        """Files are handed on, at `url`."""
        for remark in self._remarks:
            log.warning(remark)
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
