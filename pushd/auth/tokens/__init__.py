"""Tokens (JWT)."""
