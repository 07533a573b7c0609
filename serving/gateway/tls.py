"""The certificate that this server shows, and the clients that it lets in: read from files, and again when they change.

A context is built whole before it is used: where the new files cannot be served with, the old one stays. Connections
keep the context that they began with, so nothing that runs is cut by a change.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import signal
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NoReturn

from serving.errors import BadCertificate, StartError
from serving.telemetry.logs import facts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from serving.settings.model import Tls as TlsSettings

log = logging.getLogger(__name__)

_LOOK_S: Final = 5.0
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has no others."""
_FOR_OTHERS: Final = 0o027
"""Mode bits that a private key's file must not have. A group may read it: that is how some mount their secrets."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificate, key and authorities are."""

    certificate: Path
    """PEM, the server's own first, then those between it and the root."""
    key: Path
    """PEM, not encrypted."""
    client_ca: Path | None = None
    """PEM; with it a client must show a certificate that one of these signed."""
    client_crl: Path | None = None
    """PEM; certificates of clients that are withdrawn. Where it is old, nobody is let in."""
    minimum: Literal["1.2", "1.3"] = "1.2"

    def look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """How the files look now (inode, size, time), through links; another look that differs: one has changed."""
        return tuple(_look(path) for path in (self.certificate, self.key, self.client_ca, self.client_crl) if path)


def tls_files(settings: TlsSettings) -> TlsFiles | None:
    """What the settings name; None without TLS."""
    if settings.certificate is None or settings.key is None:
        return None
    return TlsFiles(settings.certificate, settings.key, settings.client_ca, settings.client_crl, settings.minimum)


@dataclass(frozen=True, slots=True)
class Tls:
    """What a server needs of the files."""

    context: ssl.SSLContext
    expires_at: float
    """Unix time, of the certificate of this server."""
    asks_clients: bool
    """Whether a client has to show a certificate."""


def load_tls(files: TlsFiles, now: float) -> Tls:
    """Read and check the files. Raises BadCertificate."""
    expires_at = _check_certificate(files, now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if files.minimum == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # A session that is taken up again is not asked for its certificate, so one that was withdrawn meanwhile would do.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    try:
        context.load_cert_chain(files.certificate, files.key, _no_password)
    except (ssl.SSLError, OSError) as error:
        raise _unusable(files.certificate, error) from None
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, files.client_ca)
        if files.client_crl is not None:
            _trust(context, files.client_crl)
            if not context.cert_store_stats()["crl"]:
                raise BadCertificate(f"`{files.client_crl}` holds no list of withdrawn certificates", hint=_PEM)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        if not context.cert_store_stats()["x509_ca"]:
            raise BadCertificate(f"`{files.client_ca}` holds no certificate of an authority", hint=_PEM)
    return Tls(context, expires_at, files.client_ca is not None)


async def follow(files: TlsFiles, use: Callable[[Tls | StartError], Awaitable[None]]) -> NoReturn:
    """Hand on what the files hold whenever one changes, and at once on SIGHUP; or why it cannot be served with.

    Files are renewed one after the other: what does not fit together is refused now, and looked at again with the next.
    """
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    before = files.look()
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), _LOOK_S)
        seen = await asyncio.to_thread(files.look)
        if seen == before and not asked.is_set():
            continue
        before = seen
        asked.clear()
        try:
            tls = await asyncio.to_thread(load_tls, files, time.time())
        except StartError as error:
            log.error("the certificate is served on as it was", extra=facts(reason=str(error)))  # noqa: TRY400
            await use(error)
        else:
            await use(tls)
            log.info("the certificate was read anew", extra=facts(expires_at=tls.expires_at))


_PEM: Final = "it is to be in PEM form (`-----BEGIN …`)"


def _check_certificate(files: TlsFiles, now: float) -> float:
    """The end of the certificate's time. What OpenSSL says of a wrong file names no file and no way out. Raises."""
    from cryptography import x509  # noqa: PLC0415 - where it is needed: it takes a tenth of a second
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        own = x509.load_pem_x509_certificates(_read(files.certificate))[0]
    except ValueError:
        raise BadCertificate(f"`{files.certificate}` holds no certificate", hint=_PEM) from None
    _check_mode(files.key)
    try:
        key = serialization.load_pem_private_key(_read(files.key), None)
    except TypeError:
        _no_password(files.key)
    except (ValueError, UnsupportedAlgorithm):
        raise BadCertificate(f"`{files.key}` holds no private key", hint=_PEM) from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != own.public_key().public_bytes(*form):
        raise BadCertificate(
            f"the key `{files.key}` is not the one of the certificate `{files.certificate}`",
            hint="the server's own certificate comes first in its file; renew both together",
        )
    begins, ends = own.not_valid_before_utc, own.not_valid_after_utc
    if not begins.timestamp() <= now < ends.timestamp():
        when = dt.datetime.fromtimestamp(now, dt.UTC)
        raise BadCertificate(
            f"the certificate `{files.certificate}` holds from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC",
            hint=f"renew it; the clock of this host says {when:%Y-%m-%d %H:%M} UTC",
        )
    return ends.timestamp()


def _check_mode(key: Path) -> None:
    try:
        mode = key.stat().st_mode
    except OSError as error:
        raise _unusable(key, error) from None
    if mode & _FOR_OTHERS:
        raise BadCertificate(f"others may read or change the private key `{key}`", hint=f"chmod 600 {key}")


def _trust(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise _unusable(path, error) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> BadCertificate:
    said = error.strerror if not isinstance(error, ssl.SSLError) else (error.reason or "not in PEM form").lower()
    return BadCertificate(f"`{path}` cannot be used: {said}", hint="see docs/tls.md")


def _no_password(path: Path | None = None) -> NoReturn:
    """Instead of OpenSSL's question at the terminal."""
    name = f" `{path}`" if path is not None else ""
    raise BadCertificate(f"the private key{name} is encrypted", hint="keep it unencrypted in a file of mode 600")


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
