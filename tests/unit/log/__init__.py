"""Tests of `pushd.log`."""
