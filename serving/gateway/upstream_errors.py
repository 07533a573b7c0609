"""An engine's refusal, turned into the error of ours that it stands for.

Engines that implement the annex answer with our own codes; of others only the status is understood.
"""

from __future__ import annotations

import json
import re
from typing import Final

from serving.errors import (
    ContextLengthExceeded,
    DestinationUnavailable,
    EngineUnavailable,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    RequestError,
    RequestTooLarge,
    ServingError,
    ShuttingDown,
    StaysInside,
)

DIED: Final = "the engine died; it is being started again"
_AFTER_DEATH_S: Final = 10
"""When to come back after a front has said that what computes is gone; the supervisor will know better soon."""
_MESSAGE_CHARS: Final = 2000
_PARAM_CHARS: Final = 200


def error_of_engine(status: int, retry_after: bytes, body: bytes) -> ServingError:  # noqa: PLR0911 - a table
    """The error to answer with. An engine's 5xx says nothing to a client beyond that it failed."""
    message, param, code = _read(body)
    wait_s = int(retry_after) if retry_after.isdigit() and len(retry_after) < 5 else 1
    if status in {429, 503, 529}:
        if status == 503 and code == EngineUnavailable.code:
            return EngineUnavailable(message or "the engine is not ready", retry_after_s=wait_s)
        if code == DestinationUnavailable.code:
            return DestinationUnavailable(message or "the destination failed", retry_after_s=wait_s)
        return Overloaded(message or "the engine's queue is full", retry_after_s=wait_s)
    if code == StaysInside.code:
        return StaysInside(message or "the policy does not let the request leave")
    if status in {401, 403}:  # it is this gateway that was not let in, not its client
        return EngineUnavailable("the engine does not let this gateway in", retry_after_s=60)
    if 400 <= status < 500:
        kind = _REQUEST_ERRORS.get(code or "", _BY_STATUS.get(status, InvalidRequest))
        if code is None and param in _TOO_LONG and _CONTEXT.search(message or ""):
            kind = ContextLengthExceeded
        return kind(message or f"the engine refused the request with status {status}", param=param)
    if _DEAD.search(message or ""):
        return EngineUnavailable(DIED, retry_after_s=_AFTER_DEATH_S)
    return InternalError("the engine failed; its log has the request id")


def error_of_event(error: object) -> ServingError:
    """What an error event inside a stream stands for, in our words: an engine's own may say anything."""
    message, param, code = _read_error(error)
    known = _STREAM_ERRORS.get(code or "")
    if known is not None:
        return known(message or "the engine broke off its answer")
    if code in _REQUEST_ERRORS:
        return _REQUEST_ERRORS[code](message or "the engine refused the request", param=param)
    if _DEAD.search(message or ""):
        return EngineUnavailable(DIED, retry_after_s=_AFTER_DEATH_S)
    if param is not None and code is None:
        return InvalidRequest(message or "the engine refused the request", param=param)
    return InternalError("the engine failed on this answer")


def _request_errors(kind: type[RequestError]) -> dict[str, type[RequestError]]:
    found = {kind.code: InvalidRequest if kind is RequestError else kind}
    for child in kind.__subclasses__():
        found |= {code: error for code, error in _request_errors(child).items() if code not in found}
    return found


_REQUEST_ERRORS: Final = _request_errors(RequestError)
_BY_STATUS: Final[dict[int, type[RequestError]]] = {404: ModelNotFound, 413: RequestTooLarge}


_STREAM_ERRORS: Final[dict[str, type[ServingError]]] = {
    kind.code: kind for kind in (EngineUnavailable, InternalError, Overloaded, ShuttingDown)
}
_DEAD: Final = re.compile(r"EngineCore|EngineDead|engine (?:is )?dead", re.IGNORECASE)
"""How vLLM's front says in the middle of an answer that what computes is gone."""
_TOO_LONG: Final = frozenset({"input_tokens", "max_tokens", "max_completion_tokens", "input_text"})
_CONTEXT: Final = re.compile(r"maximum context length|max_model_len|maximum model length")
"""How vLLM says that a request does not fit: the parameter at fault, and one of these in the message."""


def _read(body: bytes) -> tuple[str | None, str | None, str | None]:
    """Message, param and code of an error body, each where it is a text."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None, None, None
    return _read_error(value.get("error") if isinstance(value, dict) else None)


def _read_error(error: object) -> tuple[str | None, str | None, str | None]:
    if not isinstance(error, dict):
        return None, None, None
    message, param, code = error.get("message"), error.get("param"), error.get("code")
    return (
        _clean(message)[:_MESSAGE_CHARS] if isinstance(message, str) else None,
        _clean(param)[:_PARAM_CHARS] if isinstance(param, str) else None,
        code if isinstance(code, str) else None,
    )


def _clean(text: str) -> str:
    """`text` as UTF-8 can carry it: JSON lets an engine write a lone surrogate."""
    return text.encode("utf-8", "replace").decode("utf-8")
