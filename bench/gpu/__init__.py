"""Benchmarks and checks on a GPU."""
