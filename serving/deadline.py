"""One deadline for the whole of a request, handed down instead of timeouts at each hop.

In: milliseconds from a request body or seconds from Serve's `x-request-timeout-seconds` header.
Out: what is left, in seconds of the monotonic clock.
"""

import math
import time
from dataclasses import dataclass

from serving.errors import DeadlineExceededError, InvalidRequestError

LOOKUP_FLOOR_S = 0.050
LOOKUP_IDS_PER_MS = 500


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant of the monotonic clock (seconds) by which an answer is wanted."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """The deadline `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.at

    def check(self, what: str) -> None:
        """Raise DeadlineExceededError if the time for `what` is over."""
        if self.expired:
            raise DeadlineExceededError(f"the deadline passed before {what}")

    def sooner(self, other: "Deadline | None") -> "Deadline":
        """The earlier of two deadlines."""
        return self if other is None or self.at <= other.at else other


def default_lookup_s(ids: int) -> float:
    """Seconds that a lookup of `ids` rows gets by default: 50 ms, or 1 ms per 500 ids."""
    return max(LOOKUP_FLOOR_S, ids / LOOKUP_IDS_PER_MS / 1000)


def from_header(value: str | None) -> Deadline | None:
    """The deadline that `x-request-timeout-seconds` sets from now; None without the header."""
    seconds = header_seconds(value)
    return None if seconds is None else Deadline.after(seconds)


def header_seconds(value: str | None) -> float | None:
    """Seconds named by `x-request-timeout-seconds`; None without the header.

    Raises InvalidRequestError when it is not a positive number.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidRequestError(
            f"header x-request-timeout-seconds: expected a positive number of seconds, "
            f"found {value!r}"
        )
    return seconds
