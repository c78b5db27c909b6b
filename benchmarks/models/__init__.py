"""Served models beside the bare runtime session: `python -m benchmarks models`."""
