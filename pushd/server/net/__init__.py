"""Listeners, TLS, addresses and what limits connections."""
