"""What keys, ledger and audit are to one request: who asks, what it may use, and the record of both.

Each of them may be switched off; then everybody is the same caller, nothing is counted, or nothing is recorded.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Final

import serving
from serving.access import Access, Tokens, access_directory, also_taken
from serving.audit import Audit
from serving.audit.keys import make_keys
from serving.audit.log import places_of
from serving.audit.records import Intent, KeyCreated, KeyRevoked, KeyRotated, Outcome
from serving.gateway.answers import CERTIFICATE
from serving.gateway.exchange import ANYBODY, Principal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from serving.access import Failure, Scope
    from serving.gateway.engine import Engine
    from serving.gateway.exchange import Exchange
    from serving.gateway.relay import Settled
    from serving.gateway.routes import Call
    from serving.settings import Settings

FREE: Final = frozenset({"/health", "/ready"})
"""What load balancers ask, without a key."""
_SCOPES: Final[Mapping[str, Scope]] = {"/metrics": "metrics"}
_TEMPLATE_TOKENS: Final = 1024
"""What a template may add to a prompt, beyond a token for each byte of the request."""
_UNKNOWN_CONTEXT: Final = 131_072
_ADMINISTRATION: Final = "administration"
"""Whoever may connect to its socket: the server's own user, or root."""


class Guard:
    """The one that the pipeline asks."""

    def __init__(self, access: Access | None = None, audit: Audit | None = None, directory: Path | None = None) -> None:
        self._access = access
        self._audit = audit
        self._directory = directory
        if access is not None and audit is not None:
            access.on_failed(self._on_failed)
            access.on_act(self._on_act)

    @property
    def asks_keys(self) -> bool:
        """Whether a caller has to show a key."""
        return self._access is not None

    @property
    def lacks_keys(self) -> bool:
        """Keys are asked for, and there is none."""
        return self._access is not None and not self._access.all_keys()

    def admit(self, scope: Mapping[str, Any], needs: Scope) -> Principal:
        """Who asks, before anything of a body is read. Raises Unauthenticated, PermissionDenied, RateLimited."""
        client = scope.get("client")
        peer = client[0] if client else None
        if self._access is None:
            return ANYBODY if peer is None else Principal(source=peer)
        certificate = scope.get("extensions", {}).get(CERTIFICATE)
        key = self._access.authenticate(scope["headers"], peer, needs, certificate=certificate)
        return Principal(key.owner, key.cache_domain, key, peer)

    def admit_to(self, path: str, scope: Mapping[str, Any]) -> Principal:
        """The same for a route that no engine serves."""
        return ANYBODY if path in FREE else self.admit(scope, _SCOPES.get(path, "inference"))

    def reserve(self, exchange: Exchange, call: Call, engine: Engine) -> list[tuple[bytes, bytes]]:
        """Set aside what the request uses at most; the headers that say what is left.

        Raises RateLimited, BudgetSpent, PermissionDenied, CapacityError.
        """
        key = exchange.principal.key
        if self._access is None or key is None:
            return []
        self._access.check_model(key, exchange.model)
        prompt, answer = bounds_of(call.body, exchange.bytes_in, engine.supervisor.state.facts.get("n_ctx_seq"))
        exchange.hold = self._access.reserve(
            key, model=exchange.model, engine=engine.spec.backend, prompt=prompt, answer=answer
        )
        return [(name.encode(), value.encode()) for name, value in exchange.hold.headers().items()]

    def has_ended(self, principal: Principal) -> bool:
        """Whether the key or the token of whoever asks is worth nothing any more."""
        return self._access is not None and principal.key is not None and not self._access.is_valid(principal.key)

    def fingerprint(self, body: bytes) -> str | None:
        """Of a prompt, as the client sent it."""
        return None if self._audit is None else self._audit.fingerprints.of("prompt", body)

    async def intend(self, exchange: Exchange, call: Call, engine: Engine) -> None:
        """Have it on the disk that the request goes to the engine. Raises Unwritable."""
        if self._audit is None:
            return
        principal = exchange.principal
        exchange.has_intent = True
        exchange.intent = await self._audit.intent(
            Intent(
                request=exchange.request_id,
                route=exchange.route,
                principal=principal.name,
                key=None if principal.key is None else principal.key.key_id,
                source=principal.source,
                model=exchange.model,
                engine=engine.spec.backend,
                destination="local" if engine.spec.origin is None else str(engine.spec.origin),
                prompt=exchange.fingerprint,
                output_limit=_limit(call.body),
                stream=call.stream,
            )
        )

    def close(self, exchange: Exchange, settled: Settled | None) -> None:
        """Count what was used and record how it ended. `settled` is the engine's count, or an estimate of it."""
        if exchange.hold is not None:
            if not exchange.is_sent or exchange.is_refused:
                exchange.hold.cancel()
            elif settled is not None and not settled.is_estimated:
                fresh = max(0, settled.prompt - settled.cached)
                exchange.hold.settle(Tokens(fresh=fresh, cached=settled.cached, output=settled.output))
            elif exchange.stream:
                exchange.hold.settle_relayed(None, exchange.events)
            else:
                exchange.hold.stand()
        if self._audit is not None and exchange.has_intent:
            self._audit.outcome(
                Outcome(
                    intent=exchange.intent,
                    request=exchange.request_id,
                    outcome=exchange.outcome or "failed",
                    code=exchange.code or None,
                    status=exchange.status or None,
                    prompt_tokens=None if settled is None else settled.prompt,
                    cached_tokens=None if settled is None else settled.cached,
                    output_tokens=None if settled is None else settled.output,
                    is_estimated=None if settled is None else settled.is_estimated or None,
                    duration_us=int((time.monotonic() - exchange.started_at) * 1e6),
                )
            )

    @contextlib.asynccontextmanager
    async def administered(self, cut: Callable[[str], None]) -> AsyncIterator[None]:
        """Serve the administration of keys meanwhile; `cut` is called, in any thread, with the id of one that ended."""
        if self._access is None or self._directory is None:
            yield
            return
        from serving.access.administration import administered  # noqa: PLC0415 - brings FastAPI

        self._access.on_revoked(cut)
        async with administered(self._access, self._directory):
            yield

    def _on_failed(self, failure: Failure) -> None:
        if self._audit is not None:
            self._audit.authentication_failed("unix" if failure.source is None else str(failure.source))

    def _on_act(self, act: str, key_id: str) -> None:
        if self._access is None or self._audit is None:
            return
        key = self._access.find(key_id)
        if act == "revoke":
            self._audit.event(KeyRevoked(key=key_id, by=_ADMINISTRATION))
        elif act == "rotate":
            self._audit.event(KeyRotated(key=key_id, successor=key.rotated_to, by=_ADMINISTRATION))
        else:
            self._audit.event(KeyCreated(key=key_id, owner=key.owner, by=_ADMINISTRATION))


def bounds_of(body: Mapping[str, object], body_bytes: int, context: object) -> tuple[int, int]:
    """Tokens that a request's prompts have at most, and its answers.

    A token is at least one byte of what was sent, but for what a template adds; and no prompt is longer than the
    context. Each document of a ranking is read together with the query.
    """
    longest = context if isinstance(context, int) and context > 0 else _UNKNOWN_CONTEXT
    documents = body.get("documents")
    given = body.get("prompt", body.get("input"))
    if isinstance(documents, list):
        count, each = len(documents), body_bytes + _TEMPLATE_TOKENS
        return min(count * each, count * longest), 0
    count = len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
    prompt = min(body_bytes + count * _TEMPLATE_TOKENS, count * longest)
    if "input" in body or ("messages" not in body and "prompt" not in body):
        return prompt, 0
    asked, choices = _limit(body), body.get("n")
    each = longest if asked is None else min(longest, asked)
    return prompt, count * (choices if isinstance(choices, int) else 1) * each


def _limit(body: Mapping[str, object]) -> int | None:
    """Tokens that an answer was asked to have at most."""
    asked = body.get("max_completion_tokens", body.get("max_tokens"))
    return asked if isinstance(asked, int) else None


@contextlib.contextmanager
def open_guard(settings: Settings, environment: Mapping[str, str] = os.environ) -> Iterator[Guard]:
    """Keys, ledger and audit as the settings want them, closed at the end. Raises StartError."""
    with contextlib.ExitStack() as stack:
        access, audit, directory = None, None, None
        if settings.audit.enabled if settings.audit.enabled is not None else not settings.access.open:
            places = places_of(settings.audit, environment)
            if not os.path.lexists(places.signing_key) and not os.path.lexists(places.fingerprint_key):
                make_keys(places.signing_key, places.fingerprint_key)
            audit = Audit.from_settings(places, settings.audit, version=serving.__version__)
            stack.callback(audit.close)
        if not settings.access.open:
            directory = access_directory(settings.access.directory, environment)
            access = Access.open(settings.access, environment)
            stack.callback(access.close)
            access.also_take(*also_taken(settings.access))
        yield Guard(access, audit, directory)
