"""The audit log as the rest of the house has it: `Audit.open`, `intent`, `outcome`, `event`, `close`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from serving.audit import wire
from serving.audit.book import Clock, Limits
from serving.audit.canonical import NotCanonical
from serving.audit.courier import Courier, FileReceiver, Receiver
from serving.audit.failures import FailureTally
from serving.audit.keys import Fingerprints, load_fingerprints, make_keys
from serving.audit.process import Setup
from serving.audit.records import Intent, Outcome, Record, Started, Stopped, body_of, formless, values_of
from serving.audit.remote import Patience, RemoteWriter
from serving.audit.segments import Retention
from serving.audit.sent import Late
from serving.audit.syslog import Address, SyslogReceiver, parse_address
from serving.audit.writer import Failure
from serving.errors import Unwritable

if TYPE_CHECKING:
    from serving.settings.model import Audit as Settings


def _ignore(_: int | None) -> None:
    """For those who do not ask what became of a record."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the log and its keys are."""

    directory: Path
    signing_key: Path
    fingerprint_key: Path


class Audit:
    """One host's audit log, open. `intent` is for the event loop, everything else for any thread."""

    def __init__(
        self,
        setup: Setup,
        clock: Clock,
        fingerprints: Fingerprints,
        *,
        on_failure: Literal["refuse", "serve"],
        couriers: Sequence[Courier],
        patience: Patience | None = None,
    ) -> None:
        self.fingerprints = fingerprints
        self._clock = clock
        self._on_failure = on_failure
        self._tally = FailureTally()
        self._couriers = tuple(couriers)
        self._writer = RemoteWriter(setup, clock, self._on_tick, patience)
        for courier in self._couriers:
            courier.start(lambda: self._writer.durable)

    @classmethod
    def open(
        cls,
        places: Places,
        *,
        version: str,
        limits: Limits | None = None,
        retention: Retention | None = None,
        on_failure: Literal["refuse", "serve"] = "refuse",
        receivers: Sequence[Receiver] = (),
        patience: Patience | None = None,
    ) -> Audit:
        """Open the log, or begin one; its start is on the disk when this returns.

        Raises BadSettings where it cannot be kept or another process has it, Unverified where it is broken,
        FileMissing, BadFile or Untrusted where its keys are not what they should be, Unwritable.
        """
        fingerprints = load_fingerprints(places.fingerprint_key)
        setup = Setup(places.directory, places.signing_key, limits or Limits(), retention or Retention())
        couriers = [Courier(places.directory, receiver) for receiver in receivers]
        audit = cls(setup, Clock(), fingerprints, on_failure=on_failure, couriers=couriers, patience=patience)
        try:
            host = socket.gethostname()
            audit.record(Started(version=version, host=host, pid=os.getpid(), fingerprint_key=fingerprints.id))
        except Unwritable:
            audit.close()
            raise
        return audit

    @classmethod
    def from_settings(cls, places: Places, settings: Settings, *, version: str) -> Audit:
        """The same, as a site's settings want it. Raises BadSettings too where a receiver's are wrong."""
        limits = Limits(
            checkpoint_records=settings.checkpoint_records,
            checkpoint_s=settings.checkpoint_s,
            segment_bytes=settings.segment_bytes,
            segment_s=settings.segment_hours * 3600,
        )
        retention = Retention(
            keep_s=settings.keep_days * 86_400 or None,
            keep_bytes=settings.keep_bytes or None,
            undelivered_bytes=settings.undelivered_bytes,
        )
        return cls.open(
            places,
            version=version,
            limits=limits,
            retention=retention,
            on_failure=settings.on_failure,
            receivers=receivers_of(settings),
            patience=Patience(settings.wait_s),
        )

    @classmethod
    def of_site(cls, places: Places, settings: Settings, *, version: str) -> Audit:
        """The same, with keys that are made where neither is there."""
        if not os.path.lexists(places.signing_key) and not os.path.lexists(places.fingerprint_key):
            make_keys(places.signing_key, places.fingerprint_key)
        return cls.from_settings(places, settings, version=version)

    @property
    def failure(self) -> Failure | None:
        """Why nothing can be written at present; None where all is well."""
        return self._writer.failure

    @property
    def writer_pid(self) -> int:
        """The process that writes, which has the signing key."""
        return self._writer.process_id

    @property
    def refuses(self) -> bool:
        """Whether requests are refused while nothing can be written."""
        return self._on_failure == "refuse"

    @property
    def couriers(self) -> tuple[Courier, ...]:
        """Those that carry records to where this host cannot change them; each says how far it is."""
        return self._couriers

    async def intent(self, record: Intent, late: Late = _ignore) -> int | None:
        """Have the intent on the disk; returns its number, which the outcome is to name.

        Where it cannot be written, or not in time: raises Unwritable, or returns None with `on_failure` serve. It may
        be written later then, as it may if who waits is cancelled: in all of these cases `late` is called once, with
        its number or, where it has not been written and will not be, with None. That is in the same event loop, or in
        another thread once that loop has ended.
        """
        keep = self._on_failure == "serve"
        try:
            told = self._writer.durably(wire.frame((wire.INTENT, time.time_ns(), values_of(record))), late, keep=keep)
            return await told
        except Unwritable:
            if keep:
                return None
            raise
        except asyncio.CancelledError:
            if told.done() and not told.cancelled() and told.exception() is None:
                late(told.result())
            raise

    def outcome(self, record: Outcome) -> None:
        """Close an intent. Nobody waits for the disk."""
        self._writer.post(wire.frame((wire.OUTCOME, time.time_ns(), values_of(record))))

    def event(self, record: Record) -> None:
        """Record what happened. Nobody waits for the disk. Raises NotCanonical."""
        self._writer.post(self._frame(wire.POSTED, record))

    def record(self, record: Record) -> int:
        """Record what is about to be done, and wait until that is on the disk; its number.

        Raises Unwritable, NotCanonical. It blocks: from an event loop it belongs on a thread.
        """
        return self._writer.append(self._frame(wire.WAITED, record))

    def keep(self, record: Record) -> None:
        """Record what is done whatever becomes of the record: wait for the disk, but not where it waits itself.

        Raises NotCanonical. It blocks too.
        """
        with contextlib.suppress(Unwritable):
            self._writer.append(self._frame(wire.POSTED, record), _ignore)

    def _frame(self, kind: int, record: Record) -> bytes:
        at_ns = time.time_ns()
        try:
            return wire.frame((kind, at_ns, body_of(record)))
        except NotCanonical:
            gap = formless(type(record), self._clock.text(at_ns))
            self._writer.post(wire.frame((wire.POSTED, at_ns, body_of(gap))))
            raise

    def authentication_failed(self, source: str) -> None:
        """Count a failed attempt; it is recorded with all others of its source and minute."""
        self._tally.add(source, self._clock()[:16])

    def close(self, reason: str | None = None) -> Failure | None:
        """End in order: what was counted, the stop, a checkpoint. Returns why it could not be written, or None."""
        for count in self._tally.take():
            self.event(count)
        self._writer.drain()  # what becomes of a request is recorded once its intent is
        self.event(Stopped(reason=reason))
        self._writer.close()
        for courier in self._couriers:
            courier.close()
        return self._writer.failure

    def _on_tick(self) -> None:
        for count in self._tally.take(self._clock()[:16]):
            self.event(count)
        self._writer.delivered(min((courier.delivered.segment - 1 for courier in self._couriers), default=None))


def receivers_of(settings: Settings) -> tuple[Receiver, ...]:
    """Where the settings have records go. Raises BadSettings."""
    receivers: list[Receiver] = []
    if settings.anchor_file is not None:
        receivers.append(FileReceiver(settings.anchor_file))
    if settings.syslog is not None:
        host, port = parse_address(settings.syslog)
        address = Address(host, port, settings.syslog_ca, settings.syslog_certificate, settings.syslog_key)
        receivers.append(SyslogReceiver(address))
    return tuple(receivers)


def places_of(settings: Settings, environment: Mapping[str, str]) -> Places:
    """Where the log and its keys are, absolute paths; nothing is made here."""
    home = Path(environment.get("HOME") or Path.home())
    state = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state") / "perimeter" / "audit"
    keys = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "perimeter" / "audit"
    return Places(
        directory=(settings.directory or state).expanduser().absolute(),
        signing_key=(settings.signing_key or keys / "signing.key").expanduser().absolute(),
        fingerprint_key=(settings.fingerprint_key or keys / "fingerprint.key").expanduser().absolute(),
    )
