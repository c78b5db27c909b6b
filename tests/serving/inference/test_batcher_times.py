"""Predicted service times: begun by the warm-up, kept true by what is measured."""

import pytest

from serving.service_times import ServiceTimes


def test_service_times_follow_what_is_measured() -> None:
    times = ServiceTimes({1: 0.1, 8: 0.4})
    assert times.predict(1, 8) == pytest.approx(0.1)
    assert times.predict(3, 8) == pytest.approx(0.4)
    assert times.predict(17, 8) == pytest.approx(0.9)
    for _ in range(100):
        times.learn(8, 0.8)
    assert times.predict(8, 8) == pytest.approx(0.8, rel=1e-3)
    assert ServiceTimes().predict(100, 8) == 0
    assert ServiceTimes({4: 0.4}).predict(8, 8) == pytest.approx(0.8)


def test_rows_that_cost_more_are_predicted_by_their_own_kind() -> None:
    times = ServiceTimes({1: 0.1, 8: 0.4}, unit=16)
    assert times.predict(8, 8, 16) == pytest.approx(0.4)
    assert times.predict(8, 8, 128) == pytest.approx(3.2)  # scaled while it was never seen
    times.learn(8, 2.0, 128)
    assert times.predict(8, 8, 128) == pytest.approx(2.0)
    assert times.predict(8, 8, 16) == pytest.approx(0.4)
    assert times.predict(8, 8, 64) == pytest.approx(1.0)  # nearer to 128 than to 16


def test_only_so_many_costs_are_remembered() -> None:
    times = ServiceTimes({1: 1.0})
    for unit in range(2, 200):
        times.learn(1, float(unit), unit)
    assert times.predict(1, 1, 199) == pytest.approx(199.0)
    assert times.predict(1, 1, 1) == pytest.approx(1.0, rel=0.1)  # from its neighbours
