"""Tests of `pushd.daemon`."""
