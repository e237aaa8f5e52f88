"""Listeners, TLS, client addresses and connection limits."""
