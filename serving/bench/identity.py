"""What server this is, by what it says of itself; nothing where it says nothing."""

from __future__ import annotations

import json
from typing import Any, Final

from serving.bench.answer import whole_answer
from serving.bench.drive import Target
from serving.bench.record import Server
from serving.errors import EngineFailed
from serving.gateway.upstream import EngineBroke, Upstream

_TIMEOUT_S: Final = 30.0


async def only_model(upstream: Upstream, target: Target) -> str:
    """The first model that the server lists. Raises EngineFailed."""
    try:
        status, listed = await _got(upstream, target, "/v1/models")
        if status != 200:
            message = f"`{target.origin}/v1/models` answers with status {status}"
            raise EngineFailed(message, hint="--key-file names a file with the server's key; --url is without the path")
        return str(listed["data"][0]["id"])
    except EngineBroke as error:
        message = f"`{target.origin}` does not answer: {error.message}"
        raise EngineFailed(message, hint="start the server first, or correct --url") from None
    except (LookupError, TypeError):
        message = f"`{target.origin}/v1/models` lists no model"
        raise EngineFailed(message, hint="name it with --model; is it an OpenAI-compatible server?") from None


async def still_answers(upstream: Upstream, target: Target) -> bool:
    """Whether anybody is there."""
    try:
        await _get(upstream, target, "/v1/models")
    except EngineBroke:
        return False
    return True


async def identify(upstream: Upstream, target: Target) -> Server | None:
    """Name and version. Each kind of server is asked in its own way. Raises EngineBroke where nobody is there."""
    info = (await _get(upstream, target, "/openapi.json")).get("info")
    if isinstance(info, dict) and str(info.get("title", "")).startswith("Perimeter"):
        return Server(name="perimeter", version=str(info.get("version")))
    props = await _get(upstream, target, "/props")
    if "build_info" in props:
        slots = props.get("total_slots")
        return Server(name="llama-server", version=str(props["build_info"]), facts={"total_slots": slots})
    version = (await _get(upstream, target, "/version")).get("version")
    if isinstance(version, str):
        models = (await _get(upstream, target, "/v1/models")).get("data")
        owner = models[0].get("owned_by") if isinstance(models, list) and models else None
        return Server(name=owner if isinstance(owner, str) else None, version=version)
    if isinstance(info, dict):
        return Server(name=str(info.get("title")), version=str(info.get("version")))
    return None


async def _get(upstream: Upstream, target: Target, path: str) -> dict[str, Any]:
    """The object at a path; an empty one for anything else. Raises EngineBroke where nobody is there."""
    status, value = await _got(upstream, target, path)
    return value if status == 200 else {}


async def _got(upstream: Upstream, target: Target, path: str) -> tuple[int, dict[str, Any]]:
    """The status, and the object that came with it; an empty one for anything else. Raises EngineBroke."""
    status, raw = await whole_answer(upstream, "GET", path, target.head, b"", min(_TIMEOUT_S, target.timeout_s))
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return status, {}
    return status, value if isinstance(value, dict) else {}
