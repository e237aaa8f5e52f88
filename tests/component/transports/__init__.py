"""Tests of `pushd.transports`."""
