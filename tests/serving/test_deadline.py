"""Deadlines: what is left, defaults, and the header."""

import pytest

from serving.deadline import Deadline, default_lookup_s, header_seconds
from serving.errors import DeadlineExceededError, InvalidRequestError


def test_what_is_left_shrinks_and_never_goes_below_zero() -> None:
    assert 59 < Deadline.after(60).remaining_s <= 60
    past = Deadline.after(-1)
    assert past.expired
    assert past.remaining_s == 0
    with pytest.raises(DeadlineExceededError, match="the model ran"):
        past.check("the model ran")
    Deadline.after(60).check("anything")


def test_the_sooner_of_two() -> None:
    soon, late = Deadline.after(1), Deadline.after(2)
    assert soon.sooner(late) is soon
    assert late.sooner(soon) is soon
    assert soon.sooner(None) is soon


@pytest.mark.parametrize(("ids", "seconds"), [(1, 0.05), (25_000, 0.05), (100_000, 0.2)])
def test_lookups_have_50_ms_or_1_ms_per_500_ids(ids: int, seconds: float) -> None:
    assert default_lookup_s(ids) == seconds


def test_the_header_is_seconds() -> None:
    assert header_seconds(None) is None
    assert header_seconds("0.25") == 0.25


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "nan", "inf"])
def test_a_header_that_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="x-request-timeout-seconds"):
        header_seconds(value)
