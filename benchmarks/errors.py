"""Failures of the benchmarks, under one base class."""


class BenchmarkError(Exception):
    """Base of everything that this package raises."""


class InvalidRunError(BenchmarkError):
    """A run that cannot be believed: its control failed, or the generator lagged."""


class ExpectationError(BenchmarkError):
    """A deterministic counter is not what was committed."""
