"""Tests of `pushd.api`."""
