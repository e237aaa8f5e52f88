"""Tests of `pushd.bus`."""
