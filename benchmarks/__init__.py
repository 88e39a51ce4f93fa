"""Measures the engine beside its limits, in the same run: `python -m benchmarks`."""
