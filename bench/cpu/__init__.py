"""Benchmarks on a CPU, beside rivals."""
