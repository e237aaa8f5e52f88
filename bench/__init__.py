"""Measurements of pushd, and of others beside it: ``make bench``."""
