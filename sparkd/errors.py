"""Every error sparkd raises on purpose, in one tree with stable codes.

    SparkdError
      ConfigError              a file of the operator is wrong; lists every problem
      RequestError             the client's request cannot be understood or is not allowed
      ModelNotFoundError       no catalogue entry has this name
      ModelUnavailableError    the entry is there, its weights or runtime are not
      AdmissionError           the request is understood and will not be served now
      InstanceError            an instance failed
      HostError                this machine refused something
      ProvisionError           a runtime or weights could not be set up

Knows no HTTP: `sparkd.http.errors` holds the one table from class to status. Constructing an error
never logs. Messages are sentences: what could not be done, to what, why; `hint` says what to do
about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SparkdError(Exception):
    """Base of the tree. `code` is a stable word that clients and scripts may test."""

    code = "internal_error"

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None):
        """`retry_after`: seconds after which the same request may succeed; None if unknown."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after

    def sentence(self) -> str:
        """The message with its hint, as shown to people."""
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in the operator's files: where it is, what is wrong, and what to do."""

    where: str  # "FILE: key.path", or a file alone
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}"
        return f"{text}  (hint: {self.hint})" if self.hint else text


class ConfigError(SparkdError):
    """The configuration cannot be used; `problems` has all of them, in file order."""

    code = "config_invalid"

    def __init__(self, problems: Sequence[Problem]):
        count = f"{len(problems)} problem" + ("" if len(problems) == 1 else "s")
        super().__init__(f"cannot use the configuration: {count}\n" + "\n".join(map(str, problems)))
        self.problems = tuple(problems)


class RequestError(SparkdError):
    """The client's request cannot be understood. `param` names the field at fault."""

    code = "invalid_request"

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None):
        super().__init__(message, hint=hint)
        self.param = param


class InvalidJsonError(RequestError):
    """The body is not UTF-8 JSON, or not an object."""

    code = "invalid_json"


class MissingModelError(RequestError):
    """Neither the body nor the path names a model."""

    code = "missing_model"


class BodyTooLargeError(RequestError):
    """The body is larger than the configured limit."""

    code = "request_too_large"


class HeadersTooLargeError(RequestError):
    """The request line or a header is larger than the configured limit."""

    code = "headers_too_large"


class UnsupportedMediaTypeError(RequestError):
    """The body is not declared as JSON (a cross-site form could otherwise start models)."""

    code = "unsupported_media_type"


class RouteNotFoundError(RequestError):
    """No such path."""

    code = "route_not_found"


class TaskNotSupportedError(RequestError):
    """The model does something else: an embedding model does not chat."""

    code = "task_not_supported"


class MethodNotAllowedError(RequestError):
    """The path exists, the method does not. `allowed` lists those that do."""

    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: Sequence[str], hint: str | None = None):
        super().__init__(message, hint=hint)
        self.allowed = tuple(allowed)


class PermissionDeniedError(RequestError):
    """The caller may not do this."""

    code = "permission_denied"


class ModelNotFoundError(SparkdError):
    """No catalogue entry has this name or alias."""

    code = "model_not_found"


class ModelUnavailableError(SparkdError):
    """The model is in the catalogue, but its weights or its runtime are not on this machine."""

    code = "model_not_available"


class AdmissionError(SparkdError):
    """The request was understood and will not be served now."""

    code = "admission_refused"


class QueueFullError(AdmissionError):
    """As many requests wait for this model as may wait."""

    code = "queue_full"


class QueueTimeoutError(AdmissionError):
    """The request waited as long as it may, and the model is still not ready."""

    code = "queue_timeout"


class NeverFitsError(AdmissionError):
    """The model's budget is larger than what the pool could ever give it."""

    code = "model_does_not_fit"


class BackingOffError(AdmissionError):
    """The model's last starts failed; it is not tried again before `retry_after` has passed."""

    code = "model_start_failed"


class ModelUnloadedError(AdmissionError):
    """An operator unloaded the model while the request waited for it."""

    code = "model_unloaded"


class ModelRemovedError(AdmissionError):
    """The model left the catalogue while the request waited for it."""

    code = "model_not_found"


class ShuttingDownError(AdmissionError):
    """The daemon is stopping."""

    code = "shutting_down"


class InstanceError(SparkdError):
    """One instance failed."""

    code = "instance_failed"


class StartFailedError(InstanceError):
    """The engine ended before it was ready. `log_tail` has its last lines, oldest first."""

    code = "model_start_failed"

    def __init__(
        self,
        message: str,
        *,
        cause: str,
        log_tail: Sequence[str] = (),
        hint: str | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.cause = cause
        self.log_tail = tuple(log_tail)


class StartTimeoutError(StartFailedError):
    """The engine was not ready within the model's `start_timeout`."""

    code = "model_health_timeout"


class UpstreamLostError(InstanceError):
    """The engine went away while it was answering."""

    code = "upstream_unavailable"


class HostError(SparkdError):
    """This machine refused something sparkd needs."""

    code = "host_error"


class ProvisionError(SparkdError):
    """Something could not be set up on this machine: a runtime, weights, a directory."""

    code = "provision_failed"
