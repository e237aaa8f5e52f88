"""Tests of `pushd.sessions`."""
