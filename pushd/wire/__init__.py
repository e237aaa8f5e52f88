"""Bytes on the wire: JSON, frames and messages."""
