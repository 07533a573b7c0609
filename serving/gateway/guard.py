"""What keys, ledger and audit are to one request: who asks, what it may use, and the record of both.

Each of them may be switched off; then everybody is the same caller, nothing is counted, or nothing is recorded.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import serving
from serving.access import Access, Tokens, access_directory, also_taken
from serving.audit import Audit
from serving.audit.content import ContentStore, content_directory
from serving.audit.log import places_of
from serving.audit.records import Intent, KeyRevoked, ModelLoaded, Outcome, PricesUsed, SettingsUsed
from serving.errors import DestinationUnavailable, EngineUnavailable, PermissionDenied, ServingError, Unwritable
from serving.gateway.answers import CERTIFICATE
from serving.gateway.exchange import ANYBODY, Principal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from serving.access import Failure, Scope
    from serving.audit.recording import Kept, Recording
    from serving.audit.records import Record
    from serving.engines.spec import EngineSpec
    from serving.gateway.answers import Answer, Headers
    from serving.gateway.engine import Engine
    from serving.gateway.exchange import Exchange
    from serving.gateway.outside import Way
    from serving.gateway.relay import Settled
    from serving.gateway.routes import Call
    from serving.settings import Settings

FREE: Final = frozenset({"/health", "/ready"})
"""What load balancers ask, without a key."""
_SCOPES: Final[Mapping[str, Scope]] = {"/metrics": "metrics"}
_TEMPLATE_TOKENS: Final = 1024
"""What a template may add to a prompt, beyond a token for each byte of the request."""
_UNKNOWN_CONTEXT: Final = 131_072
_ANY_CONTEXT: Final = 1 << 40
"""Of a model outside: what it takes is not known here, and what it charges for has to be."""


_LONGEST_ANSWER: Final = 131_072
"""Tokens that a model outside answers at most where nobody has set a bound: more than any vendor lets one say today."""


class Guard:
    """The one that the pipeline asks."""

    def __init__(
        self,
        access: Access | None = None,
        audit: Audit | None = None,
        directory: Path | None = None,
        content: ContentStore | None = None,
        log: Path | None = None,
    ) -> None:
        """`directory` is where the keys are administered, `log` where the audit log is."""
        self._access = access
        self._audit = audit
        self._directory = directory
        self._content = content
        self._log = log
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
        return Principal(key.owner, key.cache_domain, key, self._access.source(scope["headers"], peer))

    def turn_away(
        self, path: str, headers: Headers, peer: str | None, certificate: Callable[[], bytes | None] | None
    ) -> ServingError | None:
        """Why a request is not let in, where that can be said from its head and its source has failed too often."""
        if self._access is None or path in FREE:
            return None
        return self._access.turn_away(headers, peer, _SCOPES.get(path, "inference"), certificate)

    def admit_to(self, path: str, scope: Mapping[str, Any]) -> Principal:
        """The same for a route that no engine serves."""
        return ANYBODY if path in FREE else self.admit(scope, _SCOPES.get(path, "inference"))

    def is_watched(self, exchange: Exchange) -> bool:
        """Whether somebody of its cache domain may use destinations outside: what is said in it is then remembered."""
        key = exchange.principal.key
        return self._access is not None and key is not None and self._access.is_watched(key)

    def check_room(self, exchange: Exchange) -> None:
        """See that the key has not used up its limits. Raises RateLimited, BudgetSpent."""
        key = exchange.principal.key
        if self._access is not None and key is not None:
            self._access.check_room(key)

    def count_request(self, principal: Principal, model: str) -> None:
        """Count what is no request to an engine towards the key's rate. Raises RateLimited, CapacityError."""
        if self._access is not None and principal.key is not None:
            self._access.count_request(principal.key, model)

    def reserve(
        self, exchange: Exchange, call: Call, engine: Engine, prices: str | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Set aside what the request uses at most; the headers that say what is left.

        `prices`: the entry of the price book for a destination outside, which is to be tried in the engine's place.

        Raises RateLimited, BudgetSpent, PermissionDenied, CapacityError.
        """
        key = exchange.principal.key
        if self._access is None or key is None:
            return []
        self._access.check_model(key, exchange.model)
        backend, context = engine.spec.backend, engine.supervisor.state.facts.get("n_ctx_seq")
        exchange.is_held_back = "tools" in call.body or backend != "llamacpp" or prices is not None
        body = call.body
        if prices is not None and _limit(body) is None:
            body = {**body, "max_tokens": _LONGEST_ANSWER}
        prompt, answer = (
            bounds_of(body, exchange.bytes_in, context if prices is None else _ANY_CONTEXT)
            if call.runs_model
            else (0, 0)
        )
        exchange.hold = self._access.reserve(
            key, model=exchange.model, engine=prices or backend, prompt=prompt, answer=answer
        )
        return [(name.encode(), value.encode()) for name, value in exchange.hold.headers().items()]

    def has_ended(self, principal: Principal) -> bool:
        """Whether the key or the token of whoever asks is worth nothing any more."""
        return self._access is not None and principal.key is not None and not self._access.is_valid(principal.key)

    def fingerprint(self, body: bytes) -> str | None:
        """Of a prompt, as the client sent it."""
        return None if self._audit is None else self._audit.fingerprints.of("prompt", body)

    def record(self, exchange: Exchange, body: bytes) -> Recording | None:
        """What keeps prompt and answer of a key that is made so; `add` takes each piece that is relayed.

        Raises PermissionDenied where there is no place for them.
        """
        key = exchange.principal.key
        if key is None or not key.record_content:
            return None
        if self._content is None or not self._content.takes:
            message = f"the content of the API key `{key.key_id}` is to be recorded, and there is no place to keep it"
            raise PermissionDenied(message, hint="the operator sets audit.content.public_key, or makes another key")
        return self._content.record(key.key_id, exchange.request_id, body)

    def listen(self, exchange: Exchange, answer: Answer) -> None:
        """Have what is sent to the client from now on fingerprinted, and kept where it is to be."""
        if self._audit is not None:
            exchange.answer_mac = self._audit.fingerprints.begin("answer")
            answer.copy_to(exchange.answer_mac.update)
        if exchange.recording is not None:
            answer.copy_to(exchange.recording.add)

    async def _keep_prompt(self, exchange: Exchange) -> Kept | None:
        """Have the prompt on the disk, where it is to be. Raises Unwritable."""
        if exchange.recording is None or self._audit is None:
            return None
        if exchange.prompt_kept is None:
            try:
                exchange.prompt_kept = await exchange.recording.keep_prompt()
            except Unwritable:
                if self._audit.refuses:
                    raise
        return exchange.prompt_kept

    async def intend(self, exchange: Exchange, call: Call, engine: Engine, way: Way | None = None) -> None:
        """Have it on the disk that the request goes to the engine, or out by that way. Raises Unwritable."""
        if self._audit is None:
            return
        principal = exchange.principal
        kept = await self._keep_prompt(exchange)
        exchange.has_intent = True
        number = await self._audit.intent(
            Intent(
                request=exchange.request_id,
                route=exchange.route,
                principal=principal.name,
                key=None if principal.key is None else principal.key.key_id,
                source=principal.source,
                model=exchange.model,
                weights=engine.spec.weights_sha256 if way is None else None,
                engine=engine.spec.backend if way is None else None,
                destination=_destination(engine) if way is None else way.ask.destination,
                reasons=exchange.reasons,
                prompt=exchange.fingerprint,
                output_limit=_limit(call.body),
                stream=call.stream,
                content=None if kept is None else kept.content,
                content_sha256=None if kept is None else kept.sha256,
                content_lost=True if kept is None and exchange.recording is not None else None,
            ),
            exchange.tell_intent,
        )
        if number is not None:
            exchange.intent = number

    def fall_back(self, exchange: Exchange, error: ServingError, *, may_cost: bool = True) -> None:
        """Whoever had it did not answer, and somebody else serves the request: what it held there is given back.

        Where nobody knows what a destination did, and may ask money for, the reservation stands.
        """
        if exchange.hold is not None:
            if may_cost and isinstance(error, DestinationUnavailable | EngineUnavailable):
                exchange.hold.stand()
            else:
                exchange.hold.cancel()
            exchange.hold = None
        if self._audit is not None and exchange.intent is not None:
            self._audit.outcome(
                Outcome(intent=exchange.intent, request=exchange.request_id, outcome="refused", code=error.code)
            )
        exchange.has_intent, exchange.intent, exchange.is_intent_told = False, None, False

    def close(self, exchange: Exchange, settled: Settled | None) -> None:
        """Count what was used and record how it ended. `settled` is the engine's count, or an estimate of it."""
        if exchange.hold is not None:
            if not exchange.is_sent or exchange.is_refused:
                exchange.hold.cancel()
            elif settled is not None and not settled.is_estimated:
                fresh = max(0, settled.prompt - settled.cached)
                exchange.hold.settle(Tokens(fresh=fresh, cached=settled.cached, output=settled.output))
            elif exchange.stream and not exchange.is_held_back:
                exchange.hold.settle_relayed(None, exchange.events)
            else:
                exchange.hold.stand()
        if self._audit is not None and exchange.has_intent:
            outcome = Outcome(
                intent=exchange.intent,
                request=exchange.request_id,
                outcome=exchange.outcome or "failed",
                code=exchange.code or None,
                status=exchange.status or None,
                prompt_tokens=None if settled is None else settled.prompt,
                cached_tokens=None if settled is None else settled.cached,
                output_tokens=None if settled is None else settled.output,
                is_estimated=None if settled is None else settled.is_estimated or None,
                answer=exchange.answer_mac.hexdigest() if exchange.answer_mac and exchange.status else None,
                duration_us=int((time.monotonic() - exchange.started_at) * 1e6),
            )
            if exchange.intent is None and not exchange.is_intent_told:
                # it may be on the disk, or come there: how it ended is recorded once its number is known
                exchange.on_intent = partial(_conclude, self._audit, exchange.recording, outcome)
                return
            _conclude(self._audit, exchange.recording, outcome, exchange.intent)
        elif exchange.recording is not None:
            exchange.recording.drop()

    @contextlib.asynccontextmanager
    async def administered(self, cut: Callable[[str], None]) -> AsyncIterator[None]:
        """Serve the administration of keys meanwhile; `cut` is called, in any thread, with the id of one that ended."""
        async with contextlib.AsyncExitStack() as stack:
            # Both bring FastAPI.
            if self._access is not None and self._directory is not None:
                from serving.access.administration import administered  # noqa: PLC0415

                self._access.on_revoked(cut)
                await stack.enter_async_context(administered(self._access, self._directory))
            if self._content is not None and self._log is not None:
                from serving.audit.counter import attended  # noqa: PLC0415

                await stack.enter_async_context(attended(self._content, self._log))
            yield

    def _on_failed(self, failure: Failure) -> None:
        if self._audit is not None:
            self._audit.authentication_failed("unix" if failure.source is None else str(failure.source))

    def _on_act(self, act: Record) -> None:
        if self._audit is None:
            return
        # a key is taken back whatever becomes of the record, which waits for the disk
        if self._audit.refuses and not isinstance(act, KeyRevoked):
            self._audit.record(act)
        else:
            self._audit.keep(act)

    def on_loaded(self, spec: EngineSpec) -> None:
        """An engine has its weights."""
        if self._audit is not None:
            self._audit.event(ModelLoaded(model=spec.model, weights=spec.weights_sha256, engine=spec.backend))


def _conclude(audit: Audit, recording: Recording | None, outcome: Outcome, number: int | None) -> None:
    """Record how the request of that intent ended, and keep its answer where it is to be."""
    if number != outcome.intent:
        outcome = replace(outcome, intent=number)
    if recording is None:
        audit.outcome(outcome)
        return
    if recording.answer_size:
        recording.keep_answer(number, _with_content(audit, outcome))
    else:
        audit.outcome(outcome)
    recording.drop()


def _with_content(audit: Audit, outcome: Outcome) -> Callable[[Kept | None], None]:
    """What records the outcome once it is known what became of the answer."""

    def then(kept: Kept | None) -> None:
        if kept is None:
            audit.outcome(replace(outcome, content_lost=True))
        else:
            audit.outcome(replace(outcome, content=kept.content, content_sha256=kept.sha256))

    return then


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


def _destination(engine: Engine) -> str:
    return "local" if engine.spec.origin is None else str(engine.spec.origin)


def _limit(body: Mapping[str, object]) -> int | None:
    """Tokens that an answer was asked to have at most."""
    asked = body.get("max_completion_tokens", body.get("max_tokens"))
    return asked if isinstance(asked, int) else None


@contextlib.contextmanager
def open_guard(settings: Settings, environment: Mapping[str, str] = os.environ) -> Iterator[Guard]:
    """Keys, ledger and audit as the settings want them, closed at the end. Raises StartError."""
    with contextlib.ExitStack() as stack:
        access, audit, directory, content, log = None, None, None, None, None
        if settings.keeps_record:
            places = places_of(settings.audit, environment)
            audit = Audit.of_site(places, settings.audit, version=serving.__version__)
            stack.callback(audit.close)
            audit.record(SettingsUsed(sha256=settings.digest, by=f"uid {os.getuid()}"))
            kept_in, log = content_directory(settings.audit.content, environment), places.directory
            if settings.audit.content.public_key is not None or kept_in.exists():
                content = ContentStore.from_settings(kept_in, settings.audit.content, audit)
                stack.callback(content.close)
        if not settings.access.open:
            directory = access_directory(settings.access.directory, environment)
            access = Access.open(settings.access, environment)
            stack.callback(access.close)
            access.also_take(*also_taken(settings.access))
            if audit is not None and settings.access.price_book is not None:
                audit.event(PricesUsed(version=access.prices.version, currency=access.prices.currency))
            access.keeps_content = content is not None and content.takes
            access.check_content()
        yield Guard(access, audit, directory, content, log)
