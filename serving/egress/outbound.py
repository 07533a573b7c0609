"""The one place from which bytes leave: a client that goes where it was told, over verified TLS, and nowhere else.

A server inside is reached by connections of its own, which are made to addresses inside alone, and may be without TLS.

No redirect is followed, no environment variable is read, no cookie is kept, and a name is resolved once for each
connection: the addresses that were checked are those that are connected to.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from serving.egress.addresses import Network, check_addresses, check_inside
from serving.egress.vendors import VendorRequest
from serving.errors import BadSettings, DestinationUnavailable, ServingError, StaysInside
from serving.policy.model import Destination, Zone

_Check = Callable[[str, Sequence[str]], None]
"""Of a name and its addresses; raises DestinationUnavailable where one of them will not do."""
_ANSWER_BYTES: Final = 16 << 20
_ERROR_BYTES: Final = 1 << 20
_LINE_BYTES: Final = 64 << 10
_NUMERIC: Final = re.compile(r"(?:0[xX][0-9a-fA-F]+|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]+|[0-9]+))*\.?")
"""`127.1`, `0x7f.1`, `2130706433`: what some libraries take for addresses, and others for names."""
UNREACHED: Final = "availability"
"""The rule of what stays inside because there was no connection: not a byte of it was sent."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How this host gets out."""

    ca: Path | None = None
    """Certificates that servers' are verified by; None: the system's."""
    proxy: str | None = None
    """A proxy that makes a tunnel (CONNECT); TLS goes through it, and it is the one that resolves names."""
    private_networks: tuple[Network, ...] = ()
    patience_s: float = math.inf
    """Of who waits for the first event of a stream, whatever the policy says of the destination."""


class Arrived:
    """An answer whose head has come."""

    def __init__(self, response: aiohttp.ClientResponse, name: str) -> None:
        self._response = response
        self._name = name
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def whole(self) -> bytes:
        """All of it. Raises DestinationUnavailable."""
        most = _ANSWER_BYTES if self.status == 200 else _ERROR_BYTES
        parts: list[bytes] = []
        size = 0
        async for part in self.pieces():
            size += len(part)
            if size > most:
                raise DestinationUnavailable(f"the destination `{self._name}` sent too long an answer")
            parts.append(part)
        return b"".join(parts)

    async def pieces(self) -> AsyncIterator[bytes]:
        """It as it comes. Raises DestinationUnavailable where it breaks off or falls silent."""
        with _told(self._name):
            async for part in self._response.content.iter_any():
                yield part


class Outbound:
    """Connections to destinations. Made in the event loop that it is used in."""

    def __init__(self, ways: Ways) -> None:
        """Raises BadSettings where the certificates cannot be read."""
        self._ways = ways
        proxy = None if ways.proxy is None else urlsplit(ways.proxy).hostname
        self._checks: dict[Zone, _Check] = {
            "cloud": partial(check_addresses, allowed=ways.private_networks),
            "perimeter": check_inside,
        }
        self._sessions: dict[Zone, aiohttp.ClientSession] = {
            "cloud": _session(ways.ca, self._checks["cloud"], proxy),
            "perimeter": _session(ways.ca, self._checks["perimeter"]),
        }

    async def close(self) -> None:
        """End all connections."""
        for each in self._sessions.values():
            await each.close()

    @contextlib.asynccontextmanager
    async def send(
        self,
        to: Destination,
        request: VendorRequest,
        credential: Sequence[tuple[str, str]],
        on_sent: Callable[[], None],
        *,
        stream: bool = False,
    ) -> AsyncIterator[Arrived]:
        """Send exactly these bytes; `on_sent` is called before the first of them. Raises DestinationUnavailable."""
        url = self._url(to, request)
        silence_s = min(to.timeout_s, self._ways.patience_s) if stream else to.timeout_s
        timeout = aiohttp.ClientTimeout(total=None, connect=to.connect_timeout_s, sock_read=silence_s)
        headers = dict((*request.headers, *credential))
        with _told(to.name):
            on_sent()
            # the whole of it, besides the silence between two bytes: a head may drip for ever
            async with asyncio.timeout(to.connect_timeout_s + silence_s):
                response = await self._sessions[to.zone].request(
                    request.method,
                    url,
                    data=request.body,
                    headers=headers,
                    allow_redirects=False,
                    proxy=self._ways.proxy if to.zone == "cloud" else None,
                    timeout=timeout,
                )
        try:
            yield Arrived(response, to.name)
        finally:
            response.close()  # what has not been read is not waited for

    def _url(self, to: Destination, request: VendorRequest) -> URL:
        """Where the bytes go. Raises DestinationUnavailable."""
        parts = urlsplit(to.url)
        host = parts.hostname or ""
        if to.zone == "cloud" and parts.scheme != "https":
            raise DestinationUnavailable(f"the destination `{to.name}` has an address without TLS")
        if _NUMERIC.fullmatch(host) and not _is_address(host):
            raise DestinationUnavailable(f"the destination `{to.name}` has an address that is read in several ways")
        if _is_address(host):  # a name is checked by what it resolves to
            self._checks[to.zone](host, [host])
        return URL(f"{parts.scheme}://{parts.netloc}{request.path}", encoded=True)


def _session(ca: Path | None, check: _Check, proxy: str | None = None) -> aiohttp.ClientSession:
    """Connections that are made to addresses that `check` lets through, and to the proxy's."""
    connector = aiohttp.TCPConnector(ssl=_context(ca), resolver=_Checked(check, proxy), use_dns_cache=False, limit=0)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        raise_for_status=False,
        skip_auto_headers=("user-agent",),
        max_line_size=_LINE_BYTES,
        max_field_size=_LINE_BYTES,
    )


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class _Checked(AbstractResolver):
    """Resolves names as the system does, and gives no address that `check` does not let through."""

    def __init__(self, check: _Check, proxy: str | None) -> None:
        self._resolver = ThreadedResolver()
        self._check = check
        self._proxy = proxy

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """The addresses of a name. Raises OSError, DestinationUnavailable."""
        found = await self._resolver.resolve(host, port, family)  # type: ignore[arg-type] # as the base class has it
        if host != self._proxy:  # that one is inside, and the operator's own word
            self._check(host, [each["host"] for each in found])
        return found

    async def close(self) -> None:
        """Nothing is held."""
        await self._resolver.close()


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """What a client's library raises, as what it is to whoever asked. Nothing of the request is in it."""
    try:
        yield
    except ServingError:
        raise
    except TimeoutError:
        raise DestinationUnavailable(f"the destination `{name}` did not answer in time") from None
    except aiohttp.ClientConnectorCertificateError:
        hint = "egress.ca names the certificates that it is verified by"
        raise DestinationUnavailable(f"the certificate of `{name}` is not to be trusted", hint=hint) from None
    except aiohttp.ClientConnectorError as error:
        kind = type(error.os_error).__name__
        raise StaysInside(f"the destination `{name}` cannot be reached: {kind}", rule=UNREACHED) from None
    except (aiohttp.ClientError, OSError) as error:
        kind = type(error.__cause__ or error).__name__
        raise DestinationUnavailable(f"the destination `{name}` cannot be reached: {kind}") from None


def _context(ca: Path | None) -> ssl.SSLContext:
    os.environ.pop("SSLKEYLOGFILE", None)  # it would be written to
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise BadSettings(
            f"the certificates `{ca}` cannot be read: {error}", hint="set egress.ca to a PEM file"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
