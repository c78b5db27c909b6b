"""Predicted service times: begun by the warm-up, kept true by what is measured."""

import pytest

from serving.batcher import ServiceTimes


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
