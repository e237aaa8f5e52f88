"""Composition root and life cycle of the daemon."""
