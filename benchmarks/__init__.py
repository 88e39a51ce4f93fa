"""Benchmarks of the engine beside its limits, measured in the same run: `python -m benchmarks`."""
