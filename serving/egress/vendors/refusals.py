"""A vendor's error, turned into the error of ours that it stands for.

No word of the vendor's gets into it but its status and a code out of a fixed list: error texts repeat what was sent,
and ours go to logs and records that hold no prompts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from serving.errors import (
    ContextLengthExceeded,
    DestinationRefused,
    DestinationUnavailable,
    Overloaded,
    RequestTooLarge,
    ServingError,
)

_MOST_WAIT_S: Final = 3600
"""Longest wait that is passed on: what a vendor asks beyond is no better than trying once an hour."""
_NOT_LET_IN_S: Final = 60
"""When to come back where somebody has to mend a credential or a name first."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")

CODES: Final = frozenset({
    # OpenAI and Azure: `error.code`, or `error.type` where there is none.
    "account_deactivated", "array_above_max_length", "array_below_min_length", "billing_hard_limit_reached",
    "billing_not_active", "content_filter", "content_policy_violation", "context_length_exceeded",
    "decimal_above_max_value", "decimal_below_min_value", "DeploymentNotFound", "empty_array", "insufficient_quota",
    "integer_above_max_value", "integer_below_min_value", "invalid_api_key", "invalid_function_parameters",
    "invalid_prompt", "invalid_request_error", "invalid_type", "invalid_value", "missing_required_parameter",
    "model_not_found", "not_found", "OperationNotSupported", "RateLimitReached", "rate_limit_exceeded", "requests",
    "server_error",
    "string_above_max_length", "string_below_min_length", "tokens", "unknown_parameter",
    "unsupported_country_region_territory", "unsupported_parameter", "unsupported_value", "timeout",
    "internal_server_error", "InternalServerError", "NoCapacity", "unknown_model", "internal_error", "overloaded",
    # Anthropic: `error.type`, or `error.details.error_code`.
    "api_error", "authentication_error", "billing_error", "enforced_spend_limit_reached", "not_found_error",
    "overloaded_error", "permission_error", "rate_limit_error", "request_too_large", "timeout_error",
    # Google: `error.status`, the names of google.rpc.Code.
    "ABORTED", "ALREADY_EXISTS", "CANCELLED", "DATA_LOSS", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION", "INTERNAL",
    "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED",
    "UNAVAILABLE", "UNIMPLEMENTED", "UNKNOWN", "API_KEY_INVALID",
})  # fmt: skip
"""The codes that are passed on; a code that is none of these is left out."""

_SPENT: Final = frozenset({
    "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error",
    "enforced_spend_limit_reached",
})  # fmt: skip
_NOT_LET_IN: Final = frozenset({
    "invalid_api_key", "authentication_error", "permission_error", "UNAUTHENTICATED", "PERMISSION_DENIED",
    "API_KEY_INVALID", "account_deactivated", "unsupported_country_region_territory",
})  # fmt: skip
_NOT_THERE: Final = frozenset({"model_not_found", "DeploymentNotFound", "not_found_error", "NOT_FOUND"})
_BUSY: Final = frozenset({
    "rate_limit_exceeded", "rate_limit_error", "overloaded_error", "overloaded", "RESOURCE_EXHAUSTED", "UNAVAILABLE",
    "NoCapacity", "RateLimitReached", "requests", "tokens",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a vendor said, as far as it is of use."""

    code: str = ""
    """Its code, as it came; only one of CODES is passed on."""
    is_too_long: bool = False
    """The prompt does not fit the model's context."""
    field: str | None = None
    """The field of ours that is at fault, where the vendor's and ours have one name."""
    wait_s: int | None = None
    """When to come back, where the vendor said so."""


def error_of(destination: str, status: int, told: Refusal) -> ServingError:  # noqa: PLR0911 - a table
    """The error to answer with, by the vendor's status and code."""
    code = told.code if told.code in CODES else ""
    what = f"({status} `{code}`)" if code else f"({status})"
    where = f"the destination `{destination}`"
    if code in _SPENT or status == 402:
        return DestinationUnavailable(f"{where} has nothing left to spend {what}", retry_after_s=_MOST_WAIT_S)
    if code in _NOT_LET_IN or status in {401, 403}:
        return DestinationUnavailable(
            f"{where} does not let this site in {what}",
            retry_after_s=_NOT_LET_IN_S,
            hint="its credential, or what that may be used for, needs the operator",
        )
    if code in _NOT_THERE or status == 404:
        return DestinationUnavailable(
            f"{where} has no such model or deployment {what}",
            retry_after_s=_NOT_LET_IN_S,
            hint="the name that the settings give it needs the operator",
        )
    if status in {429, 503, 529} or code in _BUSY:
        return Overloaded(f"{where} takes no more requests now {what}", retry_after_s=told.wait_s or 1)
    if status == 413:
        return RequestTooLarge(f"{where} takes no request of this size {what}")
    if told.is_too_long:
        return ContextLengthExceeded(f"the request does not fit the context of {where} {what}", param="messages")
    if 400 <= status < 500 and status not in {408, 409, 425}:
        return DestinationRefused(f"{where} refused the request {what}", param=told.field)
    how = "points elsewhere, which is not followed" if 300 <= status < 400 else "failed"
    return DestinationUnavailable(f"{where} {how} {what}", retry_after_s=told.wait_s or 1)


def error_in_stream(destination: str, told: Refusal) -> ServingError:
    """The error for one that came as an event, after a status of 200."""
    code = told.code if told.code in CODES else ""
    what = f" (`{code}`)" if code else ""
    where = f"the destination `{destination}`"
    if code in _BUSY:
        return Overloaded(f"{where} broke off its answer, being too busy{what}", retry_after_s=told.wait_s or 1)
    return DestinationUnavailable(f"{where} broke off its answer{what}")


def wait_of(headers: Mapping[str, str]) -> int | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after`, whole and at least 1; None without one in seconds."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        value = headers.get(name, "").strip()
        if _SECONDS.fullmatch(value) is not None:
            return whole_seconds(float(value) / scale)
    return None


def whole_seconds(seconds: float) -> int:
    """A wait as it is passed on: whole seconds, at least one and at most an hour."""
    return min(max(math.ceil(seconds), 1), _MOST_WAIT_S)
