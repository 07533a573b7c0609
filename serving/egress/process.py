"""`serve egress`: the process that alone may send anything out, with the credentials and the policy that go with that.

It trusts nobody who asks it, the gateway included: it reads the policy itself, scans what it would send itself, and has
its own audit log on the disk before a byte leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_network

import uvicorn

import serving
from serving.audit import Audit
from serving.audit.keys import make_keys
from serving.audit.records import PolicyUsed, SettingsUsed
from serving.egress.classifier import MODEL, Classifier, classifying
from serving.egress.credentials import Credentials
from serving.egress.judge import Judge, PolicyFile
from serving.egress.outbound import Outbound, Ways
from serving.egress.rooms import Rooms
from serving.egress.server import Egress
from serving.egress.workers import Scanners
from serving.engines.confinement.sealing import hide_memory, leave_no_core
from serving.errors import BadSettings, StartError, UsageError
from serving.listening import DeskProtocol, listen_at
from serving.openai.limits import Limits
from serving.policy.model import Policy
from serving.policy.published import published
from serving.policy.taint_store import TaintStore, begin
from serving.settings import Settings
from serving.store.files import make_private, write_whole
from serving.telemetry.logs import facts

log = logging.getLogger(__name__)
_KEY_BYTES = 32
_PART = 0.7
"""Of the time that the server waits for a first event, what a destination has."""
_ESCAPED = 3
"""Times its length that a text in JSON may have: two bytes of a letter become six."""


async def run(settings: Settings, rooms: Rooms, on_ready: Callable[[Policy], None]) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises StartError."""
    if settings.egress.policy is None:
        raise UsageError("there is no policy", hint="set egress.policy; configs/policy.toml is one to begin with")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    leave_no_core()
    hide_memory()
    make_private(rooms.directory, "egress.directory")
    with _audit(settings, rooms) as audit:
        policy = PolicyFile(settings.egress.policy.expanduser(), lambda it: _used(audit, it))
        listening = listen_at(rooms.socket, "egress.socket", is_for_group=bool(settings.egress.callers))
        store = TaintStore(
            rooms.taint,
            _taint_key(rooms),
            keep_s=policy.read().taint.keep_days * 86_400,
            most=policy.read().taint.most,
            never=policy.read().taint.never,
        )
        if store.problem is not None:
            log.warning("nothing leaves: what was sensitive is not known", extra=facts(reason=store.problem))
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(store.close)
            stack.callback(rooms.socket.unlink, missing_ok=True)
            classifier = await stack.enter_async_context(classifying(settings.egress.classifier))
            scanners = await stack.enter_async_context(_scanning(settings, policy.read(), classifier))
            outbound = Outbound(_ways(settings))
            stack.push_async_callback(outbound.close)
            judge = Judge(
                policy, scanners, store, published(), rooms.switch, rooms.drill, classifier, _answer_s(settings)
            )
            egress = Egress(judge, outbound, Credentials(rooms.credentials), audit, _limits(settings))
            allowed = frozenset({0, os.getuid(), *settings.egress.callers})
            protocol = type("Protocol", (_Protocol,), {"allowed": allowed})
            config = uvicorn.Config(
                egress.application(), http=protocol, ws="none", lifespan="off", log_config=None, access_log=False
            )
            server = _Server(config)

            def stop() -> None:
                server.force_exit = server.should_exit
                server.should_exit = True

            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop)
            on_ready(policy.read())
            await server.serve(sockets=[listening])
    return 0


def begin_taint(rooms: Rooms) -> int:
    """Begin the store of sensitive texts, or begin it again where it is lost; how many fingerprints it has.

    What was sensitive before and is lost may leave from then on. Raises StartError where the process runs.
    """
    make_private(rooms.directory, "egress.directory")
    return begin(rooms.taint, _taint_key(rooms))


@contextlib.contextmanager
def _audit(settings: Settings, rooms: Rooms) -> Iterator[Audit]:
    places = rooms.audit
    if not os.path.lexists(places.signing_key):
        make_keys(places.signing_key, places.fingerprint_key)
    # no record, no egress; and a receiver of the server's records is not one of these
    own = settings.audit.model_copy(update={"on_failure": "refuse", "anchor_file": None})
    audit = Audit.from_settings(places, own, version=serving.__version__)
    try:
        audit.record(SettingsUsed(sha256=settings.digest, by=f"uid {os.getuid()}"))
        yield audit
    finally:
        audit.close()


def _used(audit: Audit, policy: Policy) -> None:
    """A policy is about to be in force: on record first. Raises Unwritable."""
    audit.record(PolicyUsed(sha256=policy.digest, by=f"uid {os.getuid()}"))


@contextlib.asynccontextmanager
async def _scanning(settings: Settings, policy: Policy, classifier: Classifier | None) -> AsyncIterator[Scanners]:
    egress, elsewhere = settings.egress, frozenset[str]() if classifier is None else frozenset({MODEL})
    scanners = Scanners(egress.workers, egress.scan_timeout_s, egress.most_chars, elsewhere)
    try:
        try:
            await scanners.start(policy)
        except (TimeoutError, OSError, EOFError, ValueError):
            raise StartError("the processes that scan requests do not come up", hint="their words are above") from None
        yield scanners
    finally:
        await scanners.close()


def _limits(settings: Settings) -> Limits:
    """What the server takes, this takes too: it is written anew on the way, with escapes."""
    return Limits(body_bytes=_ESCAPED * settings.limits.body_bytes)


def _answer_s(settings: Settings) -> float:
    """Seconds after which the server has told of an answer, but for a stream that takes longer than a whole one may."""
    return settings.limits.first_byte_timeout_s + settings.limits.answer_timeout_s


def _ways(settings: Settings) -> Ways:
    networks = tuple(ip_network(each) for each in settings.egress.private_networks)
    # the server waits for no longer, and then there is no time left to answer from inside
    patience_s = _PART * settings.limits.first_byte_timeout_s
    return Ways(settings.egress.ca, settings.egress.proxy, networks, patience_s)


def _taint_key(rooms: Rooms) -> bytes:
    """The key of the fingerprints, made where there is none. Raises BadSettings."""
    path = rooms.taint_key
    if not os.path.lexists(path):
        write_whole(path, secrets.token_bytes(_KEY_BYTES), 0o600)
    try:
        facts = path.stat(follow_symlinks=False)
        key = path.read_bytes()
    except OSError as error:
        raise BadSettings(f"the key `{path}` cannot be read: {error.strerror}") from None
    if len(key) != _KEY_BYTES or facts.st_mode & 0o077 or not stat.S_ISREG(facts.st_mode):
        raise BadSettings(f"`{path}` is no key for this user alone", hint="remove it: the store is begun anew then")
    return key


class _Protocol(DeskProtocol):
    """Who may ask is in the settings."""

    allowed: frozenset[int] = frozenset()

    def is_served(self, uid: int) -> bool:
        """Whether that user is."""
        return uid in self.allowed


class _Server(uvicorn.Server):
    """Signals are this module's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
