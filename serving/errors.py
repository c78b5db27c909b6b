"""Every failure that serving names, and the RFC 9457 problem each becomes.

One base, `ServingError`; a subclass fixes status, slug and title, the raiser says the detail:
what was expected, what was found, what to do. `http.py` turns them into problem+json (under
`/v2` into the protocol's `{"error"}`), gRPC methods into status codes.
"""

import math
from typing import Any

PROBLEM_PREFIX = "urn:tessera:problem:"
MAX_RETRY_S = 60
DETAIL_CHARACTERS = 2_000  # a detail quotes what it was given, which may be megabytes
SHOWN_CHARACTERS = 60


def shown(value: Any) -> str:
    """A value from outside for a detail: a short one as it is, of lists and objects the kind."""
    if not isinstance(value, bool | int | float | str | None):  # their depth may be anything
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


class ServingError(Exception):
    """Base of all errors of the package; alone it is an internal error (500)."""

    status: int = 500
    slug: str = "internal"
    title: str = "Internal error"
    grpc: str = "INTERNAL"  # name of a grpc.StatusCode
    retry_after_s: float | None = None

    def __init__(self, detail: str) -> None:
        detail = detail if len(detail) <= DETAIL_CHARACTERS else detail[:DETAIL_CHARACTERS] + "..."
        super().__init__(detail)
        self.detail = detail

    @property
    def retry_after(self) -> str | None:
        """Whole seconds for the header `retry-after` (RFC 9110, 10.2.3), at least 1; or None."""
        seconds = self.retry_after_s
        return None if seconds is None else str(min(MAX_RETRY_S, max(1, math.ceil(seconds))))

    @property
    def type(self) -> str:
        """URI of the problem's type."""
        return PROBLEM_PREFIX + self.slug

    def problem(self) -> dict[str, Any]:
        """The problem details object (RFC 9457, section 3.1)."""
        return {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }


class InvalidRequestError(ServingError):
    """The request's form is wrong: not JSON, a missing or unknown field, a wrong type."""

    status, slug, title = 400, "invalid-request", "Invalid request"
    grpc = "INVALID_ARGUMENT"


class RefusedInputsError(InvalidRequestError):
    """The runtime computed nothing because of the values it was given (an index out of range)."""

    slug, title = "refused-inputs", "The model cannot compute these inputs"


class InvalidIdsError(ServingError):
    """Ad ids that are not integers 1..2^63-1, or too few or too many of them."""

    status, slug, title = 422, "invalid-ad-ids", "Invalid ad ids"
    grpc = "INVALID_ARGUMENT"


class InvalidImageError(ServingError):
    """An upload that is no image, is broken, or is too large once decoded."""

    status, slug, title = 422, "invalid-image", "Invalid image"
    grpc = "INVALID_ARGUMENT"


class InvalidContentError(ServingError):
    """An ad with nothing to encode, or with a title or text that is too long."""

    status, slug, title = 422, "invalid-content", "Invalid ad content"
    grpc = "INVALID_ARGUMENT"


class UnauthenticatedError(ServingError):
    """No bearer key, or one that is not in the key file."""

    status, slug, title = 401, "unauthenticated", "A valid API key is needed"
    grpc = "UNAUTHENTICATED"


class ForbiddenError(ServingError):
    """A key that is valid but lacks the scope."""

    status, slug, title = 403, "forbidden", "The API key lacks the scope"
    grpc = "PERMISSION_DENIED"


class NotFoundError(ServingError):
    """A route, model or version that does not exist."""

    status, slug, title = 404, "not-found", "Not found"
    grpc = "NOT_FOUND"


class BodyTooLargeError(ServingError):
    """A body over the application's limit."""

    status, slug, title = 413, "body-too-large", "Request body too large"
    grpc = "RESOURCE_EXHAUSTED"


class UnsupportedMediaTypeError(ServingError):
    """A content type that the route does not read."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"
    grpc = "INVALID_ARGUMENT"


class ClientGoneError(ServingError):
    """The caller hung up before all of its request was there; nobody hears the answer."""

    status, slug, title = 499, "client-gone", "The client went away"  # the status as nginx has it
    grpc = "CANCELLED"


class OverloadedError(ServingError):
    """The queue is full; the caller should come back in `retry_after_s` seconds."""

    status, slug, title = 429, "overloaded", "Too many requests"
    grpc, retry_after_s = "RESOURCE_EXHAUSTED", 1.0

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class UnavailableError(ServingError):
    """Something that the answer needs (store, model) does not answer now."""

    status, slug, title = 503, "unavailable", "Temporarily unavailable"
    grpc, retry_after_s = "UNAVAILABLE", 1.0


class DeadlineExceededError(ServingError):
    """The deadline passed before there was an answer."""

    status, slug, title = 504, "deadline-exceeded", "Deadline exceeded"
    grpc = "DEADLINE_EXCEEDED"


class TransportError(ServingError):
    """A refusal of the HTTP framework itself (no such route, method not allowed, bad form)."""

    def __init__(self, status: int, title: str, detail: str, allow: str | None = None) -> None:
        super().__init__(detail)
        self.status, self.title = status, title
        self.allow = allow  # methods that the route has (RFC 9110, 15.5.6)
        self.slug = {404: "not-found", 405: "method-not-allowed"}.get(status, "invalid-request")


class ConfigurationError(ServingError):
    """A setting, key file or command-line value that cannot be used; exit code 2 in commands."""

    slug, title = "configuration", "Invalid configuration"
    grpc = "FAILED_PRECONDITION"


class MainJobError(ServingError):
    """`up` could not do all that it was asked for; exit code 1."""

    slug, title = "main-job", "The main job did not finish"
