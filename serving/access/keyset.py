"""The public keys of an identity provider: from a file or one URL, looked at by a thread of their own.

Whoever calls is answered from the last good set; nothing that arrives makes anybody wait for the provider, and no more
than one look a minute is taken, whatever arrives.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from serving import tripwire
from serving.access.jwts import SET_BYTES, KeyRing, read_keys
from serving.errors import BadFile, BadSettings, FileMissing

_TIMEOUT_S: Final = 10.0
"""For a whole look, from the name to the last byte."""
_CHUNK: Final = 65_536
_FOR_OTHERS: Final = 0o022
"""Mode bits that the file must not have."""
_log: Final = logging.getLogger("serving.access")


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the keys are looked at. Seconds."""

    every_s: float = 300.0
    least_s: float = 60.0
    """Between two looks, whatever arrives."""
    stale_s: float = 86_400.0
    """For so long the last good set is used while no other can be had."""


@dataclass(frozen=True, slots=True)
class Looks:
    """When was looked, in seconds of a clock that never goes back; None: not yet."""

    last: float | None = None
    good: float | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the last look brought nothing."""
        return self.last != self.good


def decide_wait(pace: Pace, looks: Looks, *, is_wanted: bool, now: float) -> float:
    """Seconds until the next look. `is_wanted`: somebody showed a token of a key that is not known."""
    if looks.last is None:
        return 0.0
    after = pace.least_s if is_wanted or looks.has_failed else max(pace.every_s, pace.least_s)
    return max(0.0, looks.last + after - now)


def is_stale(pace: Pace, looks: Looks, now: float) -> bool:
    """Whether the last good set is too old to be relied upon."""
    return looks.good is None or now - looks.good > pace.stale_s


class NoKeys(Exception):
    """A look brought no set; says why."""


class KeySet:
    """The keys as they are known. One thread writes them; whoever reads sees a whole set or none."""

    def __init__(
        self,
        fetch: Callable[[], bytes],
        algorithms: Sequence[str],
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fetch` returns the document; raises NoKeys."""
        self._fetch = fetch
        self._algorithms = tuple(algorithms)
        self._pace = pace
        self._clock = clock
        self._looks = Looks()
        self._document = b""
        self._ring: KeyRing | None = None
        self._problem = ""
        self._is_wanted = False
        self._woken = threading.Event()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    @property
    def ring(self) -> KeyRing | None:
        """The keys; the same object until they change. None: there are none yet, or they are too old."""
        return self._ring

    @property
    def problem(self) -> str:
        """Why the last look brought nothing; empty where it did."""
        return self._problem

    def want(self) -> None:
        """A token names a key that is not known: look sooner. Called by any thread, as often as it likes."""
        if not self._is_wanted:
            self._is_wanted = True
            self._woken.set()

    def look_if_due(self) -> float:
        """Look, if it is time; seconds until it is time again. One thread at a time."""
        now = self._clock()
        if decide_wait(self._pace, self._looks, is_wanted=self._is_wanted, now=now) <= 0:
            self._is_wanted = False
            self._look(now)
        if self._ring is not None and is_stale(self._pace, self._looks, now):
            self._ring, self._document = None, b""
            _log.error("the identity provider's keys are too old: its tokens are refused")
        return decide_wait(self._pace, self._looks, is_wanted=self._is_wanted, now=now)

    def start(self) -> None:
        """Have a thread look from now on."""
        self._thread = threading.Thread(target=self._run, name="identity keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more. A look that is under way is left to its end."""
        self._is_closed = True
        self._woken.set()

    def _run(self) -> None:
        while not self._is_closed:
            wait_s = self.look_if_due()
            # a wish that came meanwhile cuts the wait short, but not below what the pace allows
            self._woken.wait(max(0.05, min(wait_s, self._pace.least_s)))
            self._woken.clear()

    def _look(self, now: float) -> None:
        ring: KeyRing | str | None
        try:
            document = self._fetch()
            is_same = self._ring is not None and document == self._document
            ring = self._ring if is_same else read_keys(document, self._algorithms)
        except NoKeys as error:
            ring = str(error)
        except Exception as error:  # noqa: BLE001 - the thread goes on, with the set that it has
            ring = f"{type(error).__name__}: {error}"
        if isinstance(ring, str) or ring is None:
            self._looks = Looks(last=now, good=self._looks.good)
            if ring != self._problem:
                _log.error("the identity provider's keys could not be had: %s", ring)
            self._problem = ring or "there are none"
            return
        self._looks = Looks(last=now, good=now)
        self._problem = ""
        if ring is not self._ring:
            left_out = "".join(f"; {each}" for each in ring.left_out[:4])
            _log.info("the identity provider's keys were read: %d can be used%s", ring.count, left_out)
            self._document, self._ring = document, ring


def read_file(path: Path) -> bytes:
    """The document in a file. Raises NoKeys."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            document = file.read(SET_BYTES + 1)
    except OSError as error:
        raise NoKeys(f"`{path}` cannot be read: {error.strerror}") from None
    if mode & _FOR_OTHERS:
        raise NoKeys(f"others may change `{path}` (mode {stat.S_IMODE(mode):o}), and so choose who is let in")
    if len(document) > SET_BYTES:
        raise NoKeys(f"`{path}` is longer than {SET_BYTES} bytes")
    return document


def check_file(path: Path, algorithms: Sequence[str]) -> None:
    """See at the start that the file can be used. Raises FileMissing, BadFile."""
    hint = "set access.oidc.jwks_file to a JSON Web Key Set of the identity provider"
    if not path.is_file():
        raise FileMissing(f"the identity provider's keys `{path}` are not there", hint=hint)
    try:
        ring = read_keys(read_file(path), algorithms)
    except NoKeys as error:
        raise BadFile(f"the identity provider's keys cannot be had: {error}", hint=hint) from None
    if isinstance(ring, str):
        raise BadFile(f"the identity provider's keys `{path}` cannot be used: {ring}", hint=hint)


def context_of(ca_file: Path | None) -> ssl.SSLContext:
    """What the provider's server is checked with. Raises BadSettings."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        message = f"the certificates `{ca_file}` cannot be used: {error}"
        raise BadSettings(message, hint="access.oidc.ca_file is to be certificates in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def fetch_url(url: str, context: ssl.SSLContext, timeout_s: float = _TIMEOUT_S) -> bytes:
    """The document at a URL: no redirect, no proxy, no compression; bounded in size and time. Raises NoKeys."""
    parts = urlsplit(url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    deadline = time.monotonic() + timeout_s
    try:
        with tripwire.meant(), _connected(host, port, context if is_tls else None, timeout_s) as connected:
            connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
            connection.default_port = 443 if is_tls else 80
            connection.sock = connected
            connection.request("GET", target, headers={"Accept": "application/json", "Accept-Encoding": "identity"})
            with contextlib.closing(connection.getresponse()) as response:
                status, coding = response.status, response.getheader("content-encoding", "identity")
                document = b""
                while status == 200 and len(document) <= SET_BYTES and (chunk := response.read1(_CHUNK)):
                    document += chunk
    except (OSError, http.client.HTTPException) as error:
        why = f"took longer than {timeout_s:g} s" if time.monotonic() >= deadline else str(error) or "no answer"
        raise NoKeys(f"`{url}` could not be read: {why}") from None
    if time.monotonic() >= deadline:  # then what was read is what there was when it was cut
        raise NoKeys(f"`{url}` could not be read: took longer than {timeout_s:g} s")
    if status != 200:
        raise NoKeys(f"`{url}` answered {status}" + (": redirects are not followed" if 300 <= status < 400 else ""))
    if coding != "identity" or len(document) > SET_BYTES:
        raise NoKeys(f"`{url}` answered compressed, or more than {SET_BYTES} bytes")
    return document


@contextlib.contextmanager
def _connected(host: str, port: int, context: ssl.SSLContext | None, timeout_s: float) -> Iterator[socket.socket]:
    """A connection, over TLS with a context, that is shut down when the time is over, whatever it is doing then."""
    plain = socket.create_connection((host, port), timeout_s)
    handle = plain.dup()  # wrapping it in TLS takes the first one away

    def cut() -> None:
        with contextlib.suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    clock = threading.Timer(timeout_s, cut)
    clock.daemon = True
    clock.start()
    try:
        connected = plain if context is None else context.wrap_socket(plain, server_hostname=host)
        try:
            yield connected
        finally:
            connected.close()
    finally:
        clock.cancel()
        handle.close()
        plain.close()
