"""Benchmarks of pushd beside its peers: ``make bench``."""
