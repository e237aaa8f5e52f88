"""Tests of `pushd.server`."""
