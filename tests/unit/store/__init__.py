"""Tests of `pushd.store`."""
