"""What the gateway needs to know to start an engine and to speak to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from serving.engines.confinement.walls import Confinement
from serving.openai.limits import LLAMACPP, Serves
from serving.pooling import Task

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where an engine finds programs, whatever the operator's environment says."""
SILENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "DO_NOT_TRACK": "1",
}
"""Nothing is fetched and nothing reported, by whichever library asks before it does."""
USER = "perimeter"
"""What an engine's libraries take as the user's name. PyTorch asks for it when it is imported, and without one in the
environment the C library asks its name services, by a socket that also looks up hosts."""
Backend = Literal["llamacpp", "vllm", "transformers", "remote"]


@dataclass(frozen=True, slots=True)
class Texts:
    """What the gateway has to know of a model that embeds or ranks, where its engine does not check it as ours does."""

    context: int
    """Tokens that one text may have, or a query and a document together."""
    width: int
    """Numbers in an embedding."""
    vocabulary: int | None
    """Tokens that there are; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Which parts of the annex (docs/engine-protocol.md) a backend implements; the gateway fills in the rest."""

    readiness: bool = True
    """`GET /ready` reports load progress; else `GET /health` answering 200 means ready."""
    cache_domain: Literal["header", "body", "none"] = "header"
    """How it learns the domain whose prefixes a request may share: `x-cache-domain`, `cache_salt`, or not at all."""
    priority: bool = False
    """It sorts who waits by `priority` in the body, the lowest first; what else shares places out is `x-account`."""
    tokenize: bool = True
    tasks: frozenset[Task] = frozenset({"generate"})
    """What its model is for; a route for anything else is refused."""
    texts: Texts | None = None
    """Set where requests for embeddings and scores are checked, and answers put into our shape, by the gateway."""
    keep_alive_comments: bool = True
    """Sends SSE comments while a prompt is computed."""
    serves: Serves = LLAMACPP
    """The optional parts of OpenAI's schema that it serves; what is sent to it is checked against them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A server elsewhere."""

    host: str
    port: int
    is_tls: bool = False
    prefix: str = ""
    """Path in front of every route, without a slash at its end."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{self.prefix}"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine: a child process (`argv`, `env`, `socket`) or a server elsewhere (`origin`, `key`)."""

    model: str
    """The name that requests select it by."""
    backend: Backend
    argv: tuple[str, ...] = ()
    """Command line of the child; empty for a remote engine."""
    env: tuple[tuple[str, str], ...] = ()
    """The child's whole environment, built from empty."""
    socket: Path | None = None
    origin: Origin | None = None
    key: str | None = field(default=None, repr=False)
    """What a server elsewhere is shown to be let in."""
    concurrency: int = 16
    """Requests that it computes at the same time."""
    capabilities: Capabilities = Capabilities()
    adapters: tuple[str, ...] = ()
    """Names beside `model` that requests may select: what the engine serves over the same weights."""
    dummy: bool = False
    """Its weights are synthetic: /v1/models says that answers are noise."""
    reads: tuple[Path, ...] = ()
    """Files and directories that it reads, weights before all; behind walls it sees nothing else (docs/sealed.md)."""
    writes: tuple[Path, ...] = ()
    """Directories that it writes to, beside that of its socket; made where they are not there."""
    weights: tuple[tuple[int, Path], ...] = ()
    """Open descriptors of verified files, and the path at which it is to find each: that file or none."""
    weights_sha256: str | None = None
    """Stands for all of those files; None where they were not verified."""
    has_gpu: bool = False
    """Whether it needs the device files of GPUs."""
    has_ip: bool = False
    """Whether it talks to itself over IP, on a loopback of its own."""
    confinement: Confinement | None = field(default=None, repr=False)
    """The walls that it is started behind; None: none."""
