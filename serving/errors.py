"""Every error a person or a client can meet.

ServingError
├── RequestError              a request that cannot be served as it stands (4xx)
│   ├── InvalidRequest          400  invalid_request_error
│   │   ├── ContextLengthExceeded 400  context_length_exceeded
│   │   └── UnsupportedFeature    400  unsupported_feature
│   │       └── UnsupportedByDestination 400  unsupported_by_destination
│   ├── Unauthenticated         401  invalid_api_key
│   ├── PermissionDenied        403  permission_denied
│   ├── StaysInside             403  stays_inside
│   ├── ModelNotFound           404  model_not_found
│   ├── RouteNotFound           404  not_found
│   ├── MethodNotAllowed        405  method_not_allowed
│   ├── RequestTimeout          408  request_timeout
│   ├── RequestTooLarge         413  request_too_large
│   ├── WrongHost               421  wrong_host
│   └── DestinationRefused      400  destination_refused
├── CapacityError             sound, but not now (503 or 429, with Retry-After)
│   ├── RateLimited             429  rate_limit_exceeded
│   │   └── BudgetSpent           429  insufficient_quota
│   ├── Overloaded              503  overloaded
│   ├── EngineUnavailable       503  engine_unavailable
│   ├── ShuttingDown            503  shutting_down
│   ├── Unwritable              503  audit_unwritable
│   └── DestinationUnavailable  503  destination_unavailable
├── StartError                the command cannot do what it was asked (exit status)
│   ├── UsageError              2    usage
│   ├── UnknownModel            3    unknown_model
│   ├── FileMissing             4    file_missing
│   ├── BadFile                 5    bad_file
│   ├── NoFitError              6    no_fit
│   ├── AddressUnavailable      7    address_unavailable
│   ├── BadSettings             8    bad_settings
│   ├── EngineFailed            9    engine_failed
│   ├── UnsafeBind              10   unsafe_bind
│   ├── GpuMissing              11   gpu_missing
│   ├── UnhealthyHost           12   unhealthy_host
│   ├── BoundBroken             13   bound_broken
│   ├── NotSealed               14   not_sealed
│   ├── EgressFound             15   egress_found
│   ├── EgressNotProven         16   egress_not_proven
│   ├── Unverified              17   unverified
│   ├── FetchFailed             18   fetch_failed
│   ├── Untrusted               19   untrusted
│   ├── BadCertificate          20   bad_certificate
│   └── AuditBroken             21   audit_broken
└── InternalError               500  internal_error   exit 70

Each says what failed, the value, why; `hint` is the way out. Class attributes are the stable part:
`code` (machine-readable), `http_status`, `exit_status`. Codes never change meaning once released.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class ServingError(Exception):
    """Base of all errors that are shown to a person or a client.

    `message` is one sentence with the offending value in backticks; `hint` is what to do about it, or None.
    """

    code: ClassVar[str] = "internal_error"
    openai_type: ClassVar[str] = "server_error"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def for_terminal(self) -> str:
        """The error as the CLI prints it on stderr: `error: …`, then `hint: …`; readable without colour."""
        lines = [f"error: {self.message}"]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        # words of engines and files are in it: none may steer the terminal
        return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in "\n".join(lines))

    def for_client(self) -> dict[str, object]:
        """The error as an API body in OpenAI's shape: `{"error": {message, type, param, code}}`."""
        text = f"{self.message}. Hint: {self.hint}" if self.hint else self.message
        return {"error": {"message": text, "type": self.openai_type, "param": self.param, "code": self.code}}

    @property
    def param(self) -> str | None:
        """The request field at fault, as a path such as `messages.0.content`; None where no field is."""
        return None


class RequestError(ServingError):
    """The request cannot be served as it stands; sending it again unchanged will not help."""

    code = "invalid_request_error"
    openai_type = "invalid_request_error"
    http_status = 400
    exit_status = 2

    def __init__(self, message: str, *, param: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self._param = param

    @property
    def param(self) -> str | None:
        return self._param


class InvalidRequest(RequestError):
    """A body or field that is malformed, unknown, of the wrong type or out of bounds."""


class ContextLengthExceeded(InvalidRequest):
    """Prompt plus requested output does not fit the context that is served. Never truncated silently."""

    code = "context_length_exceeded"


class UnsupportedFeature(InvalidRequest):
    """A field that OpenAI's schema knows and this engine does not serve; refused by name, never ignored."""

    code = "unsupported_feature"


class UnsupportedByDestination(UnsupportedFeature):
    """A field or value that the destination's own API cannot carry; refused by name before anything is sent."""

    code = "unsupported_by_destination"


class DestinationRefused(RequestError):
    """The destination took the request for wrong. Its own words are not passed on: they may repeat the prompt."""

    code = "destination_refused"


class Unauthenticated(RequestError):
    """No key, or none that is valid here now. The answer has a `www-authenticate` header (RFC 9110, 11.6.1)."""

    code = "invalid_api_key"
    http_status = 401


class PermissionDenied(RequestError):
    """The key is valid, and is not for this route, model or network."""

    code = "permission_denied"
    openai_type = "permission_error"
    http_status = 403


class StaysInside(RequestError):
    """The policy does not let the request leave this host. `rule` is the code of the rule that decided."""

    code = "stays_inside"
    openai_type = "permission_error"
    http_status = 403

    def __init__(self, message: str, *, rule: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.rule = rule


class ModelNotFound(RequestError):
    """The `model` of a request names nothing that is served here."""

    code = "model_not_found"
    http_status = 404


class RouteNotFound(RequestError):
    """No such path."""

    code = "not_found"
    http_status = 404


class MethodNotAllowed(RequestError):
    """The path exists, with another method."""

    code = "method_not_allowed"
    http_status = 405


class WrongHost(RequestError):
    """The `Host` of a request is no name of this server: a page of another origin may have been led here."""

    code = "wrong_host"
    http_status = 421


class RequestTimeout(RequestError):
    """The client took too long to send its body."""

    code = "request_timeout"
    http_status = 408


class RequestTooLarge(RequestError):
    """The body is larger than `limits.body_bytes`."""

    code = "request_too_large"
    http_status = 413


class CapacityError(ServingError):
    """The request is sound, and cannot be served now. `retry_after_s` becomes the Retry-After header."""

    code = "overloaded"
    openai_type = "server_error"
    http_status = 503
    exit_status = 75

    def __init__(self, message: str, *, retry_after_s: int = 1, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class RateLimited(CapacityError):
    """A limit of the key, or of its source, is reached. `headers` are sent with the answer, names in lower case."""

    code = "rate_limit_exceeded"
    openai_type = "rate_limit_error"
    http_status = 429

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: int = 1,
        hint: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s, hint=hint)
        self.headers = headers


class BudgetSpent(RateLimited):
    """The money that the key may spend is spent."""

    code = "insufficient_quota"
    openai_type = "insufficient_quota"


class Overloaded(CapacityError):
    """The queue is full."""


class EngineUnavailable(CapacityError):
    """The engine is loading, restarting, or has been given up on; also the error event of a stream it broke."""

    code = "engine_unavailable"


class ShuttingDown(CapacityError):
    """The server is draining: it finishes what runs and takes nothing new."""

    code = "shutting_down"


class Unwritable(CapacityError):
    """The audit record of the request cannot be written, and so the request is not served."""

    code = "audit_unwritable"


class DestinationUnavailable(CapacityError):
    """A destination elsewhere failed, does not let this site in, or sent what is no answer; also in a stream."""

    code = "destination_unavailable"


class StartError(ServingError):
    """A command cannot do what it was asked."""

    code = "start_error"
    exit_status = 1


class UsageError(StartError):
    """A flag or argument that makes no sense."""

    code = "usage"
    exit_status = 2


class UnknownModel(StartError):
    """The name is not in the registry and is not a path."""

    code = "unknown_model"
    exit_status = 3


class FileMissing(StartError):
    """A file that was named, or that a plan needs, is not there."""

    code = "file_missing"
    exit_status = 4


class BadFile(StartError):
    """A file is there and is not what it should be: truncated, of another format, hostile."""

    code = "bad_file"
    exit_status = 5


class NoFitError(StartError):
    """The model does not fit this machine under the wishes given, or a wheel does not fit its processor."""

    code = "no_fit"
    exit_status = 6


class AddressUnavailable(StartError):
    """The port is taken, or the address is not one of this host."""

    code = "address_unavailable"
    exit_status = 7


class BadSettings(StartError):
    """A settings file or environment variable is wrong."""

    code = "bad_settings"
    exit_status = 8


class EngineFailed(StartError):
    """The engine did not come up, or kept crashing; carries its last words."""

    code = "engine_failed"
    exit_status = 9


class UnsafeBind(StartError):
    """Binding beyond loopback without TLS, or serving just anybody, was refused."""

    code = "unsafe_bind"
    exit_status = 10


class GpuMissing(StartError):
    """`hardware.require_gpu` is set, and a GPU that should be there cannot be used."""

    code = "gpu_missing"
    exit_status = 11


class UnhealthyHost(StartError):
    """`serve doctor` found something on this host that keeps models from being served well, or at all."""

    code = "unhealthy_host"
    exit_status = 12


class BoundBroken(StartError):
    """A result breaks a bound of `serve bench compare --fail-if`, or nobody can tell that it does not."""

    code = "bound_broken"
    exit_status = 13


class Unverified(StartError):
    """A weight file, template, lock or bundle is not what it was when it was accepted, or nobody has accepted it."""

    code = "unverified"
    exit_status = 17


class FetchFailed(StartError):
    """A hub or mirror cannot be reached, refused, or broke off; what came stays, and the next try goes on there."""

    code = "fetch_failed"
    exit_status = 18


class NotSealed(StartError):
    """`sealed = "require"`, and this host cannot put every wall around an engine that there is to be."""

    code = "not_sealed"
    exit_status = 14


class EgressFound(StartError):
    """`serve doctor --egress` saw something of the stack try to reach out."""

    code = "egress_found"
    exit_status = 15


class EgressNotProven(StartError):
    """`serve doctor --egress` saw no attempt, and not everything: it cannot say that there was none."""

    code = "egress_not_proven"
    exit_status = 16


class Untrusted(StartError):
    """A bundle or key is not of anyone who was enrolled, or is older than what is installed."""

    code = "untrusted"
    exit_status = 19


class BadCertificate(StartError):
    """A certificate, key or authority for TLS that cannot be served with."""

    code = "bad_certificate"
    exit_status = 20


class AuditBroken(StartError):
    """An audit log is not what was written: something in it was changed, removed or cut off."""

    code = "audit_broken"
    exit_status = 21


class InternalError(ServingError):
    """Our own bug. The message says nothing of the request's content; the request id finds the log line."""
