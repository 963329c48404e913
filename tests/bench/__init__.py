"""Benchmarks that compare the program with simpler programs: ``python -m tests.bench``."""
