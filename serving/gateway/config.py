"""What the gateway needs of the settings, frozen, in its own words."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.egress.rooms import rooms_of
from serving.engines.restart import DEFAULT_POLICY, RestartPolicy
from serving.gateway.tls import TlsFiles, tls_files
from serving.openai import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from pathlib import Path

    from serving.settings import Settings


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """How the gateway behaves. All times in seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    allow_insecure_bind: bool = False
    hosts: tuple[str, ...] = ()
    """Names by which clients call this server; none: `gateway.hosts`."""
    tls: TlsFiles | None = None
    drain_s: float = 30.0
    connections: int = 1024
    """Client connections open at one time."""
    held_bytes: int = 512 << 20
    """Bytes of request bodies held at one time, all requests together."""
    share_prefixes: bool = True
    """Whether requests of one cache domain share computed prefixes; without, each request is a domain of its own."""
    limits: Limits = DEFAULT_LIMITS
    most_in_flight: int = 272
    """Requests admitted per model at one time: those computed and those that wait for it in the engine."""
    body_timeout_s: float = 30.0
    """From the head to the last byte of a request's body."""
    first_byte_timeout_s: float = 120.0
    """Silence of the engine before a streamed answer starts."""
    idle_timeout_s: float = 60.0
    """Silence of the engine inside a streamed answer, from the last byte."""
    answer_timeout_s: float = 3600.0
    """Whole time of an answer that is not streamed: it has no bytes before it is done, so silence says nothing."""
    start_timeout_s: float = 600.0
    hang_timeout_s: float = 60.0
    """An engine that was ready and does not answer for so long, `/ready` included, is killed and started again."""
    restart: RestartPolicy = DEFAULT_POLICY
    egress: Path | None = None
    """Where the process listens that may send requests out; None: nothing leaves."""
    egress_user: int | None = None
    """The user that it runs as; None: this process's."""
    require_gpu: bool = False
    """Not ready while a GPU that was there at the start is lost."""


def gateway_config(settings: Settings, concurrency: int | None = None) -> GatewayConfig:
    """The gateway's view of the settings, before engines that compute `concurrency` requests at a time, the most."""
    server, limits, restart = settings.server, settings.limits, settings.engines.restart
    return GatewayConfig(
        host=server.host,
        port=server.port,
        allow_insecure_bind=server.allow_insecure_bind,
        hosts=tuple(server.hosts),
        tls=tls_files(server.tls),
        drain_s=server.drain_s,
        connections=server.connections,
        held_bytes=limits.held_bytes,
        share_prefixes=server.share_prefixes,
        limits=Limits(
            body_bytes=limits.body_bytes,
            messages=limits.messages,
            tools=limits.tools,
            stop=limits.stop,
            stop_chars=limits.stop_chars,
            logit_bias=limits.logit_bias,
            n=limits.n,
            top_logprobs=limits.top_logprobs,
            unknown_fields=server.unknown_fields,
        ),
        # The engine holds the real queue and knows its length; this bound only keeps the gateway's memory finite.
        most_in_flight=limits.queue + (concurrency or settings.engines.llamacpp.concurrency),
        body_timeout_s=limits.body_timeout_s,
        first_byte_timeout_s=limits.first_byte_timeout_s,
        idle_timeout_s=limits.idle_timeout_s,
        answer_timeout_s=limits.answer_timeout_s,
        start_timeout_s=restart.start_timeout_s,
        hang_timeout_s=restart.hang_timeout_s,
        egress=None if settings.egress.policy is None else rooms_of(settings, os.environ).socket,
        egress_user=settings.egress.user,
        require_gpu=settings.hardware.require_gpu,
        restart=RestartPolicy(
            backoff_s=restart.backoff_s,
            backoff_max_s=restart.backoff_max_s,
            max_crashes=restart.max_crashes,
            window_s=restart.window_s,
        ),
    )
